"""MiniWoB in a real browser: actions, clock, walls, and the scripts' gold solutions."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentkit.envs import make
from agentkit.envs.miniwob import MiniWobEnv
from agentkit.envs.miniwob_browser import Browser, BrowserError
from agentkit.envs.miniwob_gold import SOLVERS
from agentkit.errors import AgentkitError, InvalidValue, MissingExtra, UnknownName
from tests.envs.endings import end_holder
from tests.envs.needs import need

need("miniwob", whole_module=True)


@pytest.fixture(scope="module")
def env() -> Iterator[MiniWobEnv]:
    env = MiniWobEnv()
    yield env
    env.close()


def begin(env: MiniWobEnv, task: str, seed: int = 0, **options: Any) -> tuple[str, dict[str, Any]]:
    return env.reset(seed=seed, options={"task": task, **options})


def javascript(env: MiniWobEnv, expression: str) -> Any:
    assert env._page is not None
    return env._page._browser.evaluate(expression)


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(SOLVERS))
def test_gold_solves_its_task(env: MiniWobEnv, task: str) -> None:
    seed = 100 + sorted(SOLVERS).index(task)
    _, info = begin(env, task, seed, gold=True)
    gold = info["gold"]
    assert gold
    for i, action in enumerate(gold, 1):
        _, reward, terminated, truncated, info = env.step(action)
        assert (terminated, truncated) == (i == len(gold), False)
        assert info["success"] is terminated
        assert "feedback" not in info
    assert (reward, info["score"], info["admissible_actions"]) == (1.0, 1.0, [])
    assert env.step("wait")[2:4] == (True, False)  # after the end, the end


def test_a_page_is_told_in_words(env: MiniWobEnv) -> None:
    text, info = begin(env, "choose-list", 3)
    assert info["goal"].startswith(
        "Select Heard Island and McDonald Islands from the list and click Submit.\nActions: "
    )
    lines = text.splitlines()
    assert lines[0].startswith('[1] <select id=options> selected: "Heard Island and McDonald Islands" options: "Heard')
    assert lines[1] == "[2] <button class=secondary-action> Submit"
    assert 'select 1 "Ecuador"' in info["admissible_actions"]
    text = env.step('select 1 "Ecuador"')[0]
    assert 'selected: "Ecuador"' in text.splitlines()[0]
    _, reward, terminated, _, info = env.step("click 2")
    assert (reward, terminated, info["success"], info["score"]) == (-1.0, True, False, 0.0)


def test_typing_replaces_and_the_goals_words_are_offered(env: MiniWobEnv) -> None:
    _, info = begin(env, "login-user")
    typed = [action for action in info["admissible_actions"] if action.startswith("type ")]
    assert len(typed) == 4  # two fields, two texts
    for action in ('type 3 "ab"', "type 3 quick é 🚪", "type 3 'x\ny'", 'type 3 "say "hi""', 'type 3 ""'):
        env.step(action)
        assert "feedback" not in info
        assert env._page is not None
        line = env._page.state.line(3)
        assert line is not None
        expected = {"type 3 'x\ny'": "xy", 'type 3 ""': ""}.get(action, action[7:].removeprefix('"').removesuffix('"'))
        assert line.value == (action[7:] if action.startswith("type 3 quick") else expected)[-len(str(line.value)) :]


def test_part_of_the_reward_is_no_success(env: MiniWobEnv) -> None:
    for seed in range(40):
        text, info = begin(env, "click-checkboxes", seed)
        wanted = info["goal"].partition(" and click")[0].removeprefix("Select ").split(", ")
        if len(wanted) == 1 and wanted != ["nothing"] and text.count("checkbox") >= 4:
            break
    _, reward, terminated, _, info = env.step(info["admissible_actions"][-2])  # Submit, with one box wrong
    assert terminated
    assert 0 < float(reward) < 1
    assert (info["success"], info["score"]) == (False, reward)


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("dance", '"dance" is no action. Actions: click REF; type REF'),
        ("click 99", r"There is no element \[99\]"),
        ("click 0", r"There is no element \[0\]"),
        ("type 6 hello", "<button> is no field to type into"),
        ("select 3 x", "no list to select from"),
        ("scroll 3 down", "does not scroll"),
        ("press Control", "There is no key"),
        ("click -1", "is no action"),
    ],
)
def test_what_cannot_be_done_is_told(env: MiniWobEnv, action: str, answer: str) -> None:
    before, _ = begin(env, "login-user")
    text, reward, terminated, _, info = env.step(action)
    assert (reward, terminated, info["success"]) == (0.0, False, False)
    with pytest.raises(AssertionError, match=answer):
        raise AssertionError(info["feedback"])
    assert text == f"{info['feedback']}\n{before}"


def test_what_is_covered_cannot_be_clicked(env: MiniWobEnv) -> None:
    begin(env, "click-test")
    javascript(
        env,
        "document.body.append(Object.assign(document.createElement('div'), {id: 'lid', style: 'position: fixed; inset: 0'}))",
    )
    assert "<div id=lid> covers it" in env.step("click 1")[4]["feedback"]


def test_time_is_the_environments(env: MiniWobEnv) -> None:
    begin(env, "click-test")
    start = javascript(env, "[Date.now(), performance.now()]")
    javascript(env, "void (window.ticks = 0, setInterval(() => window.ticks++, 100))")
    assert javascript(env, "window.ticks") == 0
    env.step("wait")
    assert javascript(env, "[Date.now(), performance.now(), window.ticks]") == [start[0] + 1000, start[1] + 1000, 10]
    for _ in range(30):  # the page's own limit would be ten seconds
        terminated = env.step("wait")[2]
    assert not terminated


def test_a_seed_is_an_episode_in_any_order_of_tasks_and_browsers(env: MiniWobEnv) -> None:
    tasks = ["click-dialog", "choose-date", "click-pie", "email-inbox", "order-food", "click-button"]
    first = {task: begin(env, task, 7) for task in tasks}
    other = MiniWobEnv()
    try:
        assert {task: begin(other, task, 7) for task in reversed(tasks)} == first
        assert begin(other, "click-button", 8) != first["click-button"]
    finally:
        other.close()


class _Server(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012  a list of the test's own

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


def test_a_page_reaches_no_server_and_runs_no_script_that_was_typed(env: MiniWobEnv) -> None:
    begin(env, "enter-text")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        ways = (
            f"fetch('{url}/fetch').then(() => 'reached', () => 'refused')",
            f"new Promise(r => Object.assign(new Image(), {{src: '{url}/img', onload: () => r('reached'), onerror: () => r('refused')}}))",
            f"new Promise(r => {{ try {{ const s = new WebSocket('{url.replace('http', 'ws')}/ws'); s.onopen = () => r('reached');"
            " s.onerror = () => r('refused') } catch { r('refused') } })",
        )
        try:
            assert [javascript(env, way) for way in ways] == ["refused"] * 3
        finally:
            server.shutdown()
    assert _Server.asked == []
    for html in ('<img src="data:," onerror="window.hit = 1">', "<script>window.hit = 1</script>"):
        javascript(env, f"void document.getElementById('area').insertAdjacentHTML('beforeend', {html!r})")
        env.step("wait")
        assert javascript(env, "window.hit === undefined")


def test_a_browser_that_died_is_replaced_at_the_next_reset(env: MiniWobEnv) -> None:
    before = begin(env, "click-test-2", 4)
    assert env._page is not None
    env._page._browser._process.kill()
    with pytest.raises(BrowserError, match="the browser ended"):
        env.step("wait")
    assert begin(env, "click-test-2", 4) == before


def test_wrong_options_are_told(env: MiniWobEnv) -> None:
    with pytest.raises(UnknownName, match="click-button"):
        begin(env, "click-buton")
    with pytest.raises(UnknownName, match="login-user"):
        make("agentkit/MiniWoB-v0", task="login-usr")
    with pytest.raises(UnknownName, match="gold"):
        begin(env, "click-button", golden=True)
    with pytest.raises(InvalidValue, match="there is no gold for 'draw-line'"):
        begin(env, "draw-line", gold=True)
    with pytest.raises(UnknownName, match="agentkit/MiniWoB-v0"):
        make("agentkit/MiniWob-v0")


def test_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        with pytest.raises(AgentkitError, match="apt-get install chromium") as caught:
            MiniWobEnv()
        assert isinstance(caught.value, FileNotFoundError)
    with monkeypatch.context() as patch:
        patch.setenv("AGENTKIT_CHROMIUM", "/no/such/browser")
        with pytest.raises(AgentkitError, match="AGENTKIT_CHROMIUM='/no/such/browser' is no program"):
            MiniWobEnv()
    with monkeypatch.context() as patch:
        patch.setenv("AGENTKIT_CHROMIUM", "false")
        with pytest.raises(BrowserError, match="the browser ended with code 1"):
            Browser()
    monkeypatch.setitem(sys.modules, "miniwob", None)
    with pytest.raises(MissingExtra, match=r"pip install 'agentkit\[miniwob\]'"):
        MiniWobEnv()


@pytest.mark.parametrize("ending", ["close", "exit", "kill"])
def test_the_browser_does_not_outlive_its_environment(ending: str) -> None:
    code = "from agentkit.envs.miniwob import MiniWobEnv\nenv = MiniWobEnv()\nenv.reset(seed=0)"
    end_holder(code, "env._page._browser.pid", ending, lambda session: bool(_of_session(session)))


def _of_session(session: int) -> list[str]:
    """The commands of the living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found
