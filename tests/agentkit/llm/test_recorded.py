"""Record and replay, in real SQLite files, with parallel threads and processes."""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentkit.agents.reflexion import reflexion
from agentkit.errors import BudgetExceeded, InvalidValue
from agentkit.llm import Call, Ledger, Recorded, ScoringLLM, ScriptedLLM, instrument, metered
from agentkit.llm.errors import ReplayMiss
from agentkit.memory import Memory
from agentkit.runlog import RunLog
from agentkit.runner import run
from agentkit.types import Message, Options, Request, Task, dump


def request(text: str = "hello", **options: Any) -> Request:
    return Request((Message("system", "be kind"), Message("user", text)), **options)


def noisy() -> ScriptedLLM:
    """Answers that differ at every call."""
    count = itertools.count()
    return ScriptedLLM(lambda r: f"answer {next(count)} to {r.messages[-1].content}", scorer=lambda r: [-0.1, -1 / 3])


def bytes_of(llm: Recorded, requests: list[Request]) -> str:
    return "\n".join(dump(c) for completions in llm.generate(requests) for c in completions)


def test_a_replay_is_the_recording_byte_for_byte(tmp_path: Path) -> None:
    asked = [request(f"question {i}", n=1 + i % 3, seed=i) for i in range(20)]
    with_scores = request(choices=("a", "b"))
    recording = Recorded(noisy(), tmp_path / "r.db", mode="record")
    first = bytes_of(recording, asked)
    scores = recording.score([with_scores])
    assert bytes_of(recording, asked[::-1]) == "\n".join(bytes_of(recording, [r]) for r in asked[::-1])
    recording.close()

    shutil.copy(tmp_path / "r.db", tmp_path / "shared.db")
    for llm in ("scripted", noisy()):
        replay = Recorded(llm, tmp_path / "shared.db", mode="replay")
        assert isinstance(replay, ScoringLLM)
        assert bytes_of(replay, asked) == first
        assert replay.score([with_scores]) == scores
        if isinstance(llm, ScriptedLLM):
            assert llm.requests == []


def test_auto_asks_only_what_is_new_and_record_asks_anew(tmp_path: Path) -> None:
    model = noisy()
    auto = Recorded(model, tmp_path / "r.db")
    (before,) = auto.generate([request()])
    auto.generate([request(), request("other"), request()])
    assert len(model.requests) == 2
    again = Recorded(noisy(), tmp_path / "r.db", mode="auto").generate([request()])
    assert again == [before]
    renewing = Recorded(ScriptedLLM(lambda r: "new"), tmp_path / "r.db", mode="record")
    assert renewing.generate([request()])[0][0].text == "new"
    assert Recorded("scripted", tmp_path / "r.db", "replay").generate([request()])[0][0].text == "new"


def test_a_miss_is_loud_and_names_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    long = "The agent stands in a kitchen with a very long description of every single thing in it. " * 3
    Recorded(noisy(), path).generate([request("x", temperature=0.5), request(long), request("z", max_tokens=9)])
    replay = Recorded("scripted", path, mode="replay")
    with pytest.raises(ReplayMiss, match=r"differs in temperature \(stored 0.5, asked 0.7\)\."):
        replay.generate([request("x", temperature=0.7)])
    with pytest.raises(ReplayMiss, match=r"messages\[1\]\.content \(from character 22: stored 'kitchen"):
        replay.generate([request(long.replace("kitchen", "garden", 1))])
    with pytest.raises(ReplayMiss, match=r"schema\.type \(stored None, asked 'object'\)"):
        replay.generate([request("z", max_tokens=9, schema=Options({"type": "object"}))])
    with pytest.raises(ReplayMiss, match="no score requests at all"):
        replay.score([request(choices=("a", "b"))])
    with pytest.raises(ReplayMiss, match="no recording of 'local/other', but of scripted"):
        Recorded("local/other", path, mode="replay")
    with pytest.raises(ReplayMiss, match="no recording at"):
        Recorded("scripted", tmp_path / "none.db", mode="replay")
    with pytest.raises(InvalidValue, match="only a name"):
        Recorded("scripted", path)


def test_a_model_of_other_weights_is_a_miss(tmp_path: Path) -> None:
    Recorded(ScriptedLLM(["a"], name="m@1"), tmp_path / "r.db").generate([request()])
    with pytest.raises(ReplayMiss, match=r"model \(stored 'm@1', asked 'm@2'\)"):
        Recorded(ScriptedLLM([], name="m@2"), tmp_path / "r.db", mode="replay").generate([request()])


def test_a_file_that_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_bytes(b"not a database, but long enough to be looked at" * 20)
    with pytest.raises(InvalidValue, match="not a recording"):
        Recorded(noisy(), tmp_path / "r.db")


def test_the_same_request_of_many_threads_has_one_answer(tmp_path: Path) -> None:
    for mode in ("auto", "record"):
        llm = Recorded(noisy(), tmp_path / f"{mode}.db", mode=mode)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: (i % 5, llm.generate([request(str(i % 5))])[0][0]), range(100)))  # noqa: B023
        assert len({dump(completion) for _, completion in answers}) == 5


def test_processes_write_to_one_file_at_once(tmp_path: Path) -> None:
    program = """
import sys
from agentkit.llm import Recorded, ScriptedLLM
from agentkit.types import Message, Request
llm = Recorded(ScriptedLLM(lambda r: sys.argv[2]), sys.argv[1])
for i in range(40):
    print(llm.generate([Request((Message("user", str(i)),))])[0][0].text)
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "r.db"), str(k)], stdout=subprocess.PIPE, text=True
        )
        for k in range(3)
    ]
    outputs = {run.communicate(timeout=120)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 40


def test_a_replayed_call_is_reported_as_such(tmp_path: Path) -> None:
    llm = instrument(Recorded(noisy(), tmp_path / "r.db"))
    calls: list[Call] = []
    with metered(sink=calls):
        llm.generate([request()])
        llm.generate([request()])
    assert [call.cache for call in calls] == ["", "replay"]
    assert calls[0].completions == calls[1].completions


def test_a_replay_by_name_reserves_what_the_recording_did(tmp_path: Path) -> None:
    """A budget ends both at the same call; bytes in place of tokens would end the replay earlier."""
    scripted = ScriptedLLM(lambda r: "five words are in here", scorer=lambda r: [-0.1, -0.2])
    ends: list[tuple[int, int]] = []
    asked = [request(f"question number {i} " + "of a long kind " * 2, max_tokens=6) for i in range(20)]
    for llm in (
        Recorded(scripted, tmp_path / "r.db", mode="record"),
        Recorded("scripted", tmp_path / "r.db", mode="replay"),
    ):
        ledger, calls = Ledger(tokens=100), list[Call]()
        with metered(ledger=ledger, sink=calls), pytest.raises(BudgetExceeded):
            deque(map(instrument(llm).generate, ([one] for one in asked)))
        ends.append((len([call for call in calls if not call.error]), ledger.spent.tokens))
        llm.close()
    assert ends[0] == ends[1]
    assert ends[0][0] == 5


def test_a_replay_by_name_knows_prices_and_misses_loudly(tmp_path: Path) -> None:
    class Priced(ScriptedLLM):
        reads_prompt_per_sample = True

        def prices(self) -> tuple[float, float]:
            return 0.5, 0.25

    Recorded(Priced(["one"], name="priced"), tmp_path / "r.db", mode="record").generate([request(max_tokens=4)])
    replay = Recorded("priced", tmp_path / "r.db", mode="replay")
    assert replay.prices() == (0.5, 0.25)
    assert replay.reads_prompt_per_sample is True
    with metered(ledger=Ledger(usd=2.4)), pytest.raises(BudgetExceeded, match=r"may cost \$2\.5000"):
        instrument(replay).generate([request(max_tokens=4)])
    with metered(ledger=Ledger(usd=1000)), pytest.raises(ReplayMiss):
        instrument(replay).generate([request("unheard of", max_tokens=4)])


def test_a_recording_of_the_first_version_is_replayed_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    first = Recorded(noisy(), path, mode="record").generate([request()])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("drop table facts; drop table prompts; update recording set version=1")
    replay = Recorded("scripted", path, mode="replay")
    with metered(ledger=Ledger(tokens=10_000)):
        assert instrument(replay).generate([request()]) == first
    Recorded(noisy(), path, mode="auto").generate([request("other")])
    assert Recorded("scripted", path, mode="replay").count_tokens(request("other").messages) == 3
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("insert into recording values (3)")
    with pytest.raises(InvalidValue, match="version 3"):
        Recorded("scripted", path, mode="replay")


def test_two_runs_recorded_and_replayed_are_equal_byte_for_byte(tmp_path: Path) -> None:
    """Whole runs with memory: each episode, each call in the log, and each answer."""

    def play(llm: Any, name: str) -> tuple[str, list[dict[str, Any]]]:
        with RunLog(tmp_path / name) as log:
            tasks = [Task("agentkit/FrozenLake-v0", seed=i) for i in range(3)]
            agent = reflexion(llm, Memory(clock=lambda: 0.0))
            played = run(agent, tasks, trials=3, workers=4, max_steps=6, log=log)
            calls = log.query("select * from calls order by episode, request_hash, id")
        for call in calls:
            del call["id"], call["cache"]
        return "\n".join(dump(episode) for episode in played.episodes), calls

    def score(asked: Request) -> list[float]:
        return [-len(choice) - random.Random(asked.messages[-1].content).random() for choice in asked.choices or ()]

    recording = Recorded(ScriptedLLM(scorer=score), tmp_path / "r.db", mode="record")
    recorded = play(recording, "recorded.db")
    recording.close()
    shutil.copy(tmp_path / "r.db", tmp_path / "shared.db")
    replayed = play(Recorded("scripted", tmp_path / "shared.db", mode="replay"), "replayed.db")
    assert replayed == recorded
    assert len(recorded[1]) > 20
