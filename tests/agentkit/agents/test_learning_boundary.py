"""One boundary of learning: whichever part's model fails, that part alone learns nothing; a replay that misses ends
the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from agentkit.agent import Agent
from agentkit.agents.learning import Consolidating
from agentkit.agents.voyager import voyager
from agentkit.critic.base import EnvironmentCritic
from agentkit.envs import text_space
from agentkit.envs.sandbox import Sandbox
from agentkit.llm import LLM, Recorded, ScriptedLLM
from agentkit.llm.errors import RateLimited, ReplayMiss
from agentkit.memory import Memory, Record, Where
from agentkit.memory import View as MemoryView
from agentkit.reflection.consolidate import Changes
from agentkit.runlog import RunLog
from agentkit.runner import run
from agentkit.types import Action, Episode, Judgement, Lesson, Message, Request, Task, View

PARTS = ("judge", "reflect", "consolidate", "describe")
PROGRAM = "def opened():\n    '''Opens.'''\n    return True\nopened()\n"


class Open(gymnasium.Env[str, str]):
    """Any action succeeds."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = text_space(), text_space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return "An open door.", {"goal": "Go out."}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "You are out.", 1.0, True, False, {"success": True}


if "tests/Open-v0" not in gymnasium.registry:
    gymnasium.register("tests/Open-v0", f"{__name__}:Open", disable_env_checker=True)


def ask(llm: LLM | None, what: str) -> str:
    assert llm is not None
    return llm.generate([Request((Message("user", what),), max_tokens=64)])[0][0].text


class Part:
    """Policy, critic, reflector and consolidator in one, each asking the model by the name of what it does."""

    def act(self, view: View, llm: LLM | None) -> Action:
        return Action(ask(llm, f"act {view.task.name}"))

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        ask(llm, f"judge {episode.task.name}")
        return EnvironmentCritic().judge(episode, llm)

    def reflect(
        self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: LLM | None
    ) -> Sequence[Lesson]:
        return [Lesson(ask(llm, f"reflect {episode.task.name}"), task=episode.task.name)]

    def consolidate(
        self,
        episodes: Sequence[Episode],
        judgements: Mapping[str, Judgement],
        memory: Memory | MemoryView,
        llm: LLM | None,
    ) -> Changes:
        return Changes(added=(Record("insight", ask(llm, "consolidate")),))


def tasks() -> list[Task]:
    return [Task("tests/Open-v0", name="first"), Task("tests/Open-v0", name="second")]


def agent(part: str, llm: LLM, memory: Memory, sandbox: Sandbox) -> Agent:
    if part == "describe":
        return voyager(llm, memory, sandbox, policy=Part(), name="learner")
    return Consolidating(
        llm, Part(), memory=memory, critic=Part(), reflector=Part(), consolidators=[Part()], name="learner"
    )


def answer(request: Request) -> str:
    text = request.messages[-1].content
    return PROGRAM.replace("opened", text.split()[1]) if text.startswith("act") else f"heard: {text[:40]}"


def hit(part: str, request: Request) -> bool:
    """Whether this is the request of ``part`` that fails: that of the first task."""
    text = request.messages[-1].content
    if part == "describe":
        return "does and when to use it" in text and "def first" in text
    return text in (part, f"{part} first")


@pytest.mark.parametrize("part", PARTS)
def test_where_a_part_s_model_fails_that_part_alone_learns_nothing(
    part: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(request: Request) -> str:
        if hit(part, request):
            raise RateLimited("enough")
        return answer(request)

    memory = Memory()
    with Sandbox() as sandbox, RunLog(tmp_path / "run.db") as log, caplog.at_level(logging.WARNING):
        played = run(agent(part, ScriptedLLM(fails), memory, sandbox), tasks(), max_steps=1, log=log)
        judged = [row["episode"] for row in log.query("select episode from judgements order by episode")]
        (failed,) = log.query("select purpose, error from calls where error <> ''")
    assert played.success_by_trial == [1]
    assert failed["error"] == "RateLimited: enough"
    assert [n for n in played.notes if "1 model calls of learning failed" in n]
    (said,) = [record.getMessage() for record in caplog.records if "enough" in record.getMessage()]
    kept = {r.kind: r.task for r in memory.records(Where(kinds=("lesson", "insight", "skill")))}
    names = [f"learner/0/{i}" for i in range(2)]
    if part in ("judge", "reflect"):
        assert judged == names[1:]
        assert kept == {"lesson": "second", "insight": ""}
        assert said == "Nothing was learned of learner/0/0: RateLimited: enough"
    elif part == "consolidate":
        assert judged == names
        assert [r.task for r in memory.records()] == ["first", "second"]
        assert said == "Nothing was learned of the round, by Part: RateLimited: enough"
    else:
        assert judged == names
        assert [r.data["name"] for r in memory.records()] == ["second"]
        assert said == "Nothing was learned of learner/0/0, as the skill first: RateLimited: enough"


@pytest.mark.parametrize("part", ["act", *PARTS])
def test_a_recording_that_lacks_a_request_ends_the_run(part: str, tmp_path: Path) -> None:
    class Lossy(ScriptedLLM):
        """Fails for the request that the recording is to lack: what fails is not recorded."""

        def generate(self, requests: Sequence[Request]) -> Any:
            if any(hit(part, request) for request in requests):
                raise RateLimited("enough")
            return super().generate(requests)

    with Sandbox() as sandbox:
        recording = Recorded(Lossy(answer), tmp_path / "r.db", mode="record")
        run(agent(part, recording, Memory(), sandbox), tasks(), max_steps=1)
        recording.close()
        memory = Memory()
        replay = Recorded("scripted", tmp_path / "r.db", mode="replay")
        with pytest.raises(ReplayMiss, match="no answer to this request"):
            run(agent(part, replay, memory, sandbox), tasks(), max_steps=1)
        replay.close()
    assert memory.records() == []
