"""What a notebook user may give by mistake: each mistake is an `AgentkitError` that says what was meant to be given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentkit
from agentkit.errors import ContractError, InvalidValue, UnknownName
from agentkit.memory import Memory, Record
from agentkit.runlog import RunLogError
from agentkit.types import Options
from tests.agentkit.corridor import prefers

LLM = agentkit.ScriptedLLM(scorer=prefers)
CORRIDOR = "tests/Corridor-v0"


def agent(**parts: Any) -> agentkit.Agent:
    return agentkit.reflexion(parts.pop("llm", LLM), parts.pop("memory", None), **parts)


def play(**options: Any) -> Any:
    return agentkit.run(agent(), options.pop("tasks", CORRIDOR), max_steps=1, **options)


def memory() -> Any:
    kept = Memory()
    kept.add(Record("lesson", "Turn left."))
    return kept


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: agent(llm="local/smollm2-135m"), r"llm is 'local/smollm2-135m'; .* agentkit.get_llm\("),
    (lambda: agent(memory="memory.db"), r"memory is 'memory.db'; .* agentkit.Memory\("),
    (lambda: agent(policy="react"), r"policy is 'react'; it must be a policy"),
    (lambda: agent(critic=lambda episode: 1), "critic is <function .*; it must be a critic, with judge"),
    (lambda: agent(reflector="verbal"), "reflector is 'verbal'; it must be a reflector"),
    (lambda: play(budget=100), r"the budget is 100; give agentkit.Ledger\("),
    (lambda: agentkit.Task(None), "env_id is None"),  # type: ignore[arg-type]
    (lambda: agentkit.Task(CORRIDOR, seed="one"), "seed is 'one'"),  # type: ignore[arg-type]
    (lambda: agentkit.Task(CORRIDOR, seed=-1), "seed is -1; it must be a whole number of at least 0"),
    (lambda: agentkit.Task(CORRIDOR, seed=1.5), "seed is 1.5"),  # type: ignore[arg-type]
    (lambda: agentkit.get_llm(None), "the model is None"),  # type: ignore[arg-type]
    (lambda: agentkit.get_llm("openai"), "'openai' names no model; write 'openai/<model>'"),
    (lambda: agentkit.get_llm("litellm/"), "'litellm/' names no model"),
    (lambda: agentkit.compare({"a": agent()}, [agentkit.Task(CORRIDOR)]), "the arm 'a' is <Agent .*; it must be what"),  # type: ignore[dict-item]
    (lambda: agentkit.Message("user", None), "content is None"),  # type: ignore[arg-type]
    (lambda: agentkit.Request("Where to?"), r"messages are 'Where to\?'; give"),  # type: ignore[arg-type]
    (lambda: agentkit.Request(["Where to?"]), "give .agentkit.Message"),  # type: ignore[arg-type]
    (lambda: agentkit.Request((), choices="left"), "choices are 'left'; give a list"),  # type: ignore[arg-type]
    (lambda: agentkit.Request((), n=0), "n=0 samples; it must be at least 1"),
    (lambda: Memory(None), "a memory is at None"),  # type: ignore[arg-type]
    (lambda: Memory(embedder=3), "the embedder is 3; it needs"),  # type: ignore[arg-type]
    (lambda: Memory(embedder="hashin"), "unknown embedder 'hashin'"),
    (lambda: memory().add("Turn left."), "keeps records of texts, and not 'Turn left.'"),
    (lambda: memory().add(Record("lesson", None)), "keeps records of texts, and not Record"),  # type: ignore[arg-type]
    (lambda: memory().add(Record(3, "text")), "kind is 3"),  # type: ignore[arg-type]
    (lambda: memory().add(Record("step", "text", data={"env": object()})), "data must be JSON values"),
    (lambda: memory().recall(None), "the query is None; it must be a text"),
    (lambda: memory().recall("left", k="3"), "k is '3'"),
    (lambda: memory().recall("left", where={"kind": "step"}), r"where is {'kind': 'step'}; give agentkit.Where\("),
    (lambda: memory().records({"kind": "step"}), "give agentkit.Where"),
    (lambda: memory().count("step"), "give agentkit.Where"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_told_with_what_to_give(number: int) -> None:
    make, why = MISTAKES[number]
    with pytest.raises((InvalidValue, UnknownName), match=why):
        make()


def test_a_recall_that_returns_nothing_is_told() -> None:
    forgetful = agent(memory=Memory())
    forgetful.recall = lambda view, memory: None  # type: ignore[assignment]
    with pytest.raises(ContractError, match="recall returned a NoneType; it must return the view"):
        agentkit.run(forgetful, CORRIDOR, max_steps=1)


def test_a_log_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunLogError, match=r"run\.db cannot be made"):
        play(log=tmp_path / "file" / "run.db")


@pytest.mark.parametrize(("option", "value"), [("device", "cudaa"), ("dtype", "float99"), ("dtype", "nn")])
def test_a_device_or_dtype_that_there_is_not_is_refused_before_the_model_is_loaded(option: str, value: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(InvalidValue, match=f"{option} is '{value}'"):
        agentkit.get_llm("local/no-such-folder/model.gguf", **{option: value})


def test_a_request_of_lists_is_one_of_tuples() -> None:
    message, schema = agentkit.Message("user", "Where to?"), {"type": "string"}
    given = agentkit.Request([message], stop="\n", choices=["left"])  # type: ignore[arg-type]
    assert given == agentkit.Request((message,), stop=("\n",), choices=("left",))
    assert hash(agentkit.Request([message], schema=schema)) == hash(  # type: ignore[arg-type]
        agentkit.Request((message,), schema=Options(schema))
    )


def test_a_query_that_cannot_be_answered_is_told(tmp_path: Path) -> None:
    with agentkit.RunLog(tmp_path / "run.db") as log:
        with pytest.raises(RunLogError, match="could not answer 'selec 1': near"):
            log.query("selec 1")
        with pytest.raises(RunLogError, match="bind parameter 'run'"):
            log.query("select * from runs where name = :run")


def test_a_recording_is_not_written_into_something_else(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.db") as kept:
        kept.add(Record("lesson", "Turn left."))
    before = (tmp_path / "m.db").read_bytes()
    with pytest.raises(InvalidValue, match=r"is a database of something else \(tables: log, meta\)"):
        agentkit.Recorded(LLM, tmp_path / "m.db")
    assert (tmp_path / "m.db").read_bytes() == before
    with pytest.raises(InvalidValue, match="is a folder"):
        agentkit.Recorded(LLM, tmp_path)
    with pytest.raises(InvalidValue, match="cannot be made"):
        agentkit.Recorded(LLM, tmp_path / "m.db" / "r.db")


def test_numpy_s_whole_numbers_are_seeds() -> None:
    task = agentkit.Task(CORRIDOR, seed=np.int64(3))  # type: ignore[arg-type]
    assert task == agentkit.Task(CORRIDOR, seed=3)
    assert type(task.seed) is int


def test_an_embedder_can_be_given_by_its_name(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.db", embedder="hashing/64") as kept:
        assert kept.embedder.dim == 64


def test_what_a_notebook_shows_is_short(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.db") as kept:
        learner = agent(memory=kept)
        assert repr(learner) == f"<Agent 'reflexion': model scripted, memory Memory({str(tmp_path / 'm.db')!r})>"
        assert repr(kept.at(0)) == f"Memory({str(tmp_path / 'm.db')!r}).at(0)"
        played = agentkit.run(learner, CORRIDOR, max_steps=1)
    assert repr(played) == f"<reflexion: 1 episodes; success by trial: 0%; {played.usage.tokens} tokens>"
    ablation = agentkit.ablate(agent(), CORRIDOR, arms=["knn"], seeds=2, trials=2, max_steps=1)
    assert repr(ablation) == "<Ablation, against none: <Comparison of none, knn: 1 tasks, 2 lifetimes>>"
    assert ablation._repr_markdown_().startswith("| arm | first trial |")
