"""The conformance command: on small logs written here, and on the published ones where they are."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT.parent / "shared" / "fixtures" / "reflexion_logs"

TRIALS = """
########################################
BEGIN TRIAL 1
Trial summary: Correct: 1, Incorrect: 1, Halted: 1
#######################################
------------- BEGIN CORRECT AGENTS -------------

Question: Who wrote Emma?
Thought 1: I search Emma.
Action 1: Search[Emma (novel)]
Observation 1: Emma is a novel written by Jane Austen.
Thought: this line is part of what was observed.
Thought 2: It is Jane Austen.
Action 2: Finish[Jane Austen]
Observation 2: Answer is CORRECT
Correct answer: Jane "Austen"

------------- BEGIN INCORRECT AGENTS -----------

Question: What is the capital of Australia?
Thought 1: It must be Sydney.
Action 1: Finish[Sydney]
Observation 1: Answer is INCORRECT
Correct answer: Canberra

------------- BEGIN HALTED AGENTS --------------

Question: How high is K2?
Thought 1: I search K2.
Action 1: Search[K2]
Observation 1: Could not find [K2].
Thought 2: Again.
Action 2: Search[K2]
Observation 2: Could not find [K2].
Correct answer: 8,611 m

########################################
BEGIN TRIAL 2
Trial summary: Correct: 2, Incorrect: 0, Halted: 1
#######################################
------------- BEGIN CORRECT AGENTS -------------

Question: Who wrote Emma?
Correct answer: Jane "Austen"

Question: What is the capital of Australia?You have attempted to answer following question before and failed. The following reflection(s) give a plan.
Reflections:
- I took the largest city. I should think of the capital.
Thought 1: Not Sydney but Canberra.
Action 1: Finish[canberra]
Observation 1: Answer is CORRECT
Correct answer: Canberra

------------- BEGIN INCORRECT AGENTS -----------

------------- BEGIN HALTED AGENTS --------------

Question: How high is K2?You have attempted to answer following question before and failed. The following reflection(s) give a plan.
Reflections:
- I should search mountains.
Thought 1: I search K2.
Action 1: Search[K2]
Observation 1: K2 is a mountain.
Correct answer: 8,611 m
"""


@pytest.fixture(scope="module")
def conformance() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "conformance_reflexion", ROOT / "examples" / "conformance_reflexion.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def reports(module: ModuleType, folder: Path, **options: int) -> dict[str, object]:
    return {report.file: report for report in module.conform(folder, **options)}


def test_a_log_of_questions_is_played_again_with_its_reflections(conformance: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "anything.txt").write_text(TRIALS)
    (report,) = conformance.conform(tmp_path)
    assert (report.kind, report.tasks, report.logged, report.reproduced) == ("questions", 3, [1, 2], [1, 2])
    assert report.agrees
    assert (
        "trial 2: 1 solved earlier and without a transcript here: the attempt that solved them is played again"
        in report.notes
    )
    assert "of 2 reflections that the log shows to the actor, 2 were shown by memory" in report.notes
    for workers in (1, 3):
        assert conformance.conform(tmp_path, workers=workers)[0].reproduced == [1, 2]


def test_a_stray_byte_and_other_line_ends_do_not_make_a_log_unreadable(conformance: ModuleType, tmp_path: Path) -> None:
    data = TRIALS.replace("K2 is a mountain", "K2 \xe9 a mountain").replace("\n", "\r\n").encode("latin-1")
    (tmp_path / "log.txt").write_bytes(data)
    (report,) = conformance.conform(tmp_path)
    assert (report.reproduced, report.disagreements) == ([1, 2], [])


def test_a_wrong_label_is_named_with_its_task(conformance: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(TRIALS.replace("Finish[canberra]", "Finish[Perth]"))
    (report,) = conformance.conform(tmp_path)
    assert report.reproduced == [1, 1]
    assert not report.agrees
    assert any("capital of Australia" in text and "'Finish[Perth]'" in text for text in report.disagreements)


def test_the_reader_keeps_observations_whole_and_questions_clean(tmp_path: Path) -> None:
    from agentkit.bench.published import read
    from agentkit.bench.published_questions import QuestionLog

    (tmp_path / "log.txt").write_text(TRIALS)
    (log,) = read(tmp_path)
    assert isinstance(log, QuestionLog)
    emma = log.trials[0].attempts[0]
    assert emma.turns[0].observation.endswith("Thought: this line is part of what was observed.")
    assert log.questions == ["Who wrote Emma?", "What is the capital of Australia?", "How high is K2?"]
    assert log.trials[1].attempts[1].reflections == ("I took the largest city. I should think of the capital.",)


def test_a_chain_of_thought_log_with_context_and_the_last_attempt_shown(
    conformance: ModuleType, tmp_path: Path
) -> None:
    text = """
########################################
BEGIN TRIAL 1
Trial summary: Correct: 0, Incorrect: 1
#######################################
------------- BEGIN CORRECT AGENTS -------------

------------- BEGIN INCORRECT AGENTS -----------

Solve a question answering task by having a Thought, then Finish with your answer.
Relevant Context: Canberra is the capital.
Question: What is the capital?
Thought: Sydney.
Action: Finish[Sydney]
Observation: Answer is INCORRECT
Correct answer: Canberra

########################################
BEGIN TRIAL 2
Trial summary: Correct: 1, Incorrect: 0
#######################################
------------- BEGIN CORRECT AGENTS -------------

Solve a question answering task by having a Thought, then Finish with your answer.
You have attempted to answer the following question before and failed. Below is the last trial you attempted to answer the question.
Question: What is the capital?
Thought: Sydney.
Action: Finish[Sydney]
Observation: Answer is INCORRECT
(END PREVIOUS TRIAL)

Relevant Context: Canberra is the capital.
Question: What is the capital?
Thought: Canberra.
Action: Finish[Canberra]
Observation: Answer is CORRECT
Correct answer: Canberra

"""
    (tmp_path / "cot.txt").write_text(text)
    (report,) = conformance.conform(tmp_path)
    assert (report.tasks, report.reproduced, report.disagreements) == (1, [0, 1], [])


def row(name: str, body: str, test: str, solved: bool, **more: object) -> str:
    entry = name.rpartition("_")[2]
    prompt = f'def {entry}(x):\n    """Does it."""\n'
    return json.dumps(
        {
            "name": name,
            "prompt": prompt,
            "entry_point": entry,
            "test": test,
            "solution": body,
            "is_solved": solved,
            **more,
        }
    )


def test_programs_are_judged_and_shared_globals_explained(conformance: ModuleType, tmp_path: Path) -> None:
    rows = [
        row("a_sum", "def sum(x):\n    return -1", "def check(f):\n    assert f(1) == -1\n", True),
        row("b_total", "def total(x):\n    return sum(x)", "def check(f):\n    assert f([1, 2]) == 3\n", False),
        row("c_double", "    return 2 * x", "def check(f):\n    assert f(2) == 4\n", True),
        row("d_wrong", "    return x", "def check(f):\n    assert f(2) == 4\n", True),
        row("e_rust", "fn rust() {}", "", True, language="rs"),
    ]
    (tmp_path / "some.jsonl").write_text("\n".join(rows) + "\nnot json\n")
    (report,) = conformance.conform(tmp_path)
    assert (report.logged, report.reproduced) == ([3], [3])
    shared, unexplained = report.disagreements
    assert shared.startswith("b_total: passes here, logged as solved=False.")
    assert "`sum` of a_sum" in shared
    assert unexplained.startswith("d_wrong: fails here, logged as solved=True.")
    assert "1 programs are written in rs, which is not run here; 1 of them are logged as solved" in report.notes
    assert any("line 6 is no JSON" in note for note in report.notes)


def test_a_last_attempt_glued_to_the_question_is_cut_out(tmp_path: Path) -> None:
    from agentkit.bench.published import read
    from agentkit.bench.published_questions import QuestionLog

    last = (
        "You have attempted to answer the following question before and failed. Below is the last trial you attempted to "
        "answer the question.\nQuestion: How high is K2?\nThought 1: x\nAction 1: Finish[1]\n"
        "Observation 1: Answer is INCORRECT\n(END PREVIOUS TRIAL)\n"
    )
    text = TRIALS.replace(
        "Question: How high is K2?You have attempted to answer following question before and failed.",
        f"Question: How high is K2?{last}",
    )
    (tmp_path / "log.txt").write_text(text)
    (log,) = read(tmp_path)
    assert isinstance(log, QuestionLog)
    attempt = log.trials[1].attempts[-1]
    assert (attempt.question, len(attempt.turns)) == ("How high is K2?", 1)
    assert attempt.turns[0].action == "Search[K2]"
    assert attempt.reflections == ("I should search mountains.",)


def test_an_action_too_long_to_be_read_is_played_again_as_it_was(conformance: ModuleType, tmp_path: Path) -> None:
    garbled = "Thought 1: " + "It must be. " * 200 + "\nAction 1:"
    text = TRIALS.replace("Thought 1: It must be Sydney.\nAction 1: Finish[Sydney]", garbled)
    (tmp_path / "log.txt").write_text(text)
    (report,) = conformance.conform(tmp_path)
    assert (report.reproduced, report.disagreements) == ([1, 2], [])


def test_an_answer_in_the_middle_of_an_attempt_is_told_with_its_line(conformance: ModuleType, tmp_path: Path) -> None:
    text = TRIALS.replace("Action 1: Search[Emma (novel)]", "Action 1: Finish[Bronte]")
    (tmp_path / "log.txt").write_text(text)
    (report,) = conformance.conform(tmp_path)
    assert report.reproduced == [0, 1]
    line = 1 + text.split("Question: Who wrote")[0].count("\n")
    first, *_ = report.disagreements
    assert first.startswith(f"trial 1, 'Who wrote Emma?' (line {line}): logged as correct; 'Finish[Bronte]' against")


def test_an_attempt_without_a_question_is_told_with_its_line(conformance: ModuleType, tmp_path: Path) -> None:
    text = TRIALS.replace("Question: How high is K2?", "Question: ", 1)
    (tmp_path / "log.txt").write_text(text)
    (report,) = conformance.conform(tmp_path)
    assert (report.tasks, report.reproduced) == (3, [1, 2])
    line = 1 + text.split("Question: \n")[0].count("\n")
    assert f"trial 1, line {line}: an attempt with the key '8,611 m' has no question" in report.notes


def test_a_world_that_is_asked_for_something_else_says_what_it_holds() -> None:
    from agentkit.bench.published_questions import Attempt, Turn
    from agentkit.bench.replayed import Book, LoggedWorld, Planned
    from agentkit.errors import InvalidValue

    turns = (Turn("I search K2.", "Search[K2]", "Nothing."), Turn("Again.", "Search[K2]", "Nothing."))
    book = Book([{"K2?": Planned(Attempt("K2?", "8,611 m", "halted", turns), "logged", "halted")}])
    with LoggedWorld(book) as world:
        world.reset(options={"question": "K2?"})
        assert world.step("Search[K2]")[0] == "Nothing."
        with pytest.raises(InvalidValue, match=r"turn 2: the agent did 'Search\[K3\]', and .* answers 'Search\[K2\]'"):
            world.step("Search[K3]")
        with pytest.raises(InvalidValue, match="turn 3: the log holds no further turn"):
            world.step("Search[K3]")
        with pytest.raises(InvalidValue, match="no further attempt at 'K2\\?'"):
            world.reset(options={"question": "K2?"})


def test_links_and_special_files_are_named(conformance: ModuleType, tmp_path: Path) -> None:
    logs, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    logs.mkdir()
    elsewhere.mkdir()
    (elsewhere / "log.txt").write_text(TRIALS)
    (logs / "linked.txt").symlink_to(elsewhere / "log.txt")
    (logs / "dangling.txt").symlink_to(tmp_path / "nowhere")
    (logs / "folder").symlink_to(elsewhere)
    os.mkfifo(logs / "pipe")
    found = {report.file: report for report in conformance.conform(logs)}
    assert found["linked.txt"].reproduced == [1, 2]
    assert found["dangling.txt"].notes == [
        f"it is a symbolic link to {tmp_path / 'nowhere'}, which is nothing that is there"
    ]
    assert found["folder"].notes == [
        f"it is a symbolic link to {elsewhere}, which is a folder: give that one by itself"
    ]
    assert found["pipe"].notes == ["it is no plain file"]
    assert len(found) == 4


def test_what_is_not_a_log_is_named(conformance: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "notes.md").write_text("Hello.")
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "3.joblib").write_bytes(b"\x80\x04\x95\xff.")
    (tmp_path / "metadata").write_text('{"name": "a", "status": "Accepted", "reward": true}\n{"name": "b"}\n')
    (tmp_path / "appendix.txt").write_text("Question: Who?\nThought: x\nAction: Finish[y]\nCorrect answer: z\n")
    found = {r.file: r for r in conformance.conform(tmp_path)}
    assert all(r.kind == "not read" and r.reproduced is None for r in found.values())
    why = {name: "".join(r.notes) for name, r in found.items()}
    assert set(why) == {
        "image.png", "notes.md", "other.json", "empty.txt", "3.joblib", "metadata", "appendix.txt"
    }  # fmt: skip
    assert "never loaded" in why["3.joblib"]
    assert "'reward', 'status'" in why["metadata"]
    assert "neither trials nor headings" in why["appendix.txt"]
    assert why["empty.txt"] == "it is empty"


def test_the_command_prints_text_and_json(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(TRIALS)
    command = [sys.executable, str(ROOT / "examples" / "conformance_reflexion.py"), "--logs", str(tmp_path)]
    said = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "logged:     1 2" in said.stdout
    assert "reproduced: 1 2" in said.stdout
    asked = subprocess.run(
        [*command, "--json"], cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True
    )
    assert json.loads(asked.stdout)["agrees"] is True
    lost = subprocess.run(
        [*command[:-1], str(tmp_path / "no")],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert lost.returncode == 2


def test_headings_without_trials_are_one_trial_and_attempts_without_keys_count_as_the_log_says(
    conformance: ModuleType, tmp_path: Path
) -> None:
    body = TRIALS[TRIALS.index("-------------") : TRIALS.index("BEGIN TRIAL 2")].rstrip("\n#")
    (tmp_path / "keys.txt").write_text(body)
    unkeyed = "\n".join(line for line in body.splitlines() if not line.startswith("Correct answer:"))
    (tmp_path / "bare.txt").write_text(unkeyed.replace("is INCORRECT", "is CORRECT"))
    bare, keyed = conformance.conform(tmp_path)
    assert (keyed.logged, keyed.reproduced, keyed.disagreements) == ([1], [1], [])
    assert "it names no trial: all of it is taken for trial 1, without counts" in keyed.notes
    assert (bare.logged, bare.reproduced) == ([1], [2])
    (differs,) = bare.disagreements
    assert "'Finish[Sydney]' answered by 'Answer is CORRECT'" in differs
    assert "trial 1: attempts without keys count as the log's own answers to them say (3 times)" in bare.notes


def test_counts_are_held_against_the_transcripts_beside_them(conformance: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "3_questions_2_trials.txt").write_text(TRIALS)
    first, second = {"trial": 1, "correct": 1, "incorrect": 1, "halted": 1}, {"trial": 2, "correct": 2, "incorrect": 1}
    (tmp_path / "3_questions_results.json").write_text(json.dumps([{**first, "correct": 0}, first, first, second]))
    questions, counts = conformance.conform(tmp_path)
    assert (counts.kind, counts.tasks, counts.logged, counts.reproduced) == ("counts", 3, [1, 2], None)
    assert f"{questions.file} says the same" in counts.notes
    assert any(note.startswith("trial 1 was first counted as {'correct': 0") for note in counts.notes)


def test_programs_that_cannot_be_judged_and_tests_that_the_model_wrote(conformance: ModuleType, tmp_path: Path) -> None:
    head = "def check(f):\n    assert f(2) == 4\n"
    wrote = {"canonical_solution": "    return 2 * x\n"}
    rows = [
        row("a_hard", "    return x", "", True),
        json.loads(row("b_right", "", head, True, **wrote))
        | {"solution": ["assert right(2) == 4", "assert right(0) == 0"]},
        json.loads(row("c_wrong", "", head, True, **wrote)) | {"solution": ["assert wrong(2) == 5"]},
        {"name": "d_lost", "prompt": "def lost(x):", "entry_point": "lost", "test": head},
    ]
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    (report,) = conformance.conform(tmp_path)
    assert (report.logged, report.reproduced) == ([2], [1])
    (differs,) = report.disagreements
    assert differs.startswith("c_wrong: fails here, logged as solved=True.")
    assert "1 programs are without tests to run; 1 of them are logged as solved" in report.notes
    assert "d_lost has no solution, is_solved" in report.notes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, len(TRIALS)), drop=st.integers(0, 60), swap=st.integers(0, 60))
def test_a_damaged_log_is_read_as_far_as_it_goes(
    conformance: ModuleType, tmp_path: Path, cut: int, drop: int, swap: int
) -> None:
    lines = TRIALS[: max(cut, 1)].splitlines()
    del lines[drop : drop + 1]
    if swap + 1 < len(lines):
        lines[swap], lines[swap + 1] = lines[swap + 1], lines[swap]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    (report,) = conformance.conform(tmp_path)
    assert report.kind in ("questions", "not read")


@pytest.mark.slow
@pytest.mark.fixtures
@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published logs are not here")
@pytest.mark.timeout(600)
def test_the_published_figures(conformance: ModuleType) -> None:
    found = reports(conformance, PUBLISHED)
    expected = {
        "hotpotqa/react_reflexion_7_trials.txt": ([32, 42, 48, 50, 51, 53, 53],) * 2,
        "hotpotqa/react_base_5_trials.txt": ([34] * 5,) * 2,
        "humaneval/reflexion_gpt4.jsonl": ([150], [150]),
        "humaneval/simple_gpt4.jsonl": ([134], [134]),
        "mbpp/simple_gpt4.jsonl": ([318], [324]),
        "alfworld/base_trial": ([84, 94, 97, 98, 100, 101, 101],) * 2,
        "alfworld/reflexion_trial": ([84, 103, 111, 113, 117, 118, 123, 126, 128, 129, 130, 130, 131, 133, 134],) * 2,
    }
    assert {name: (r.logged, r.reproduced) for name, r in found.items()} == expected  # type: ignore[attr-defined]
    differing = {name: r.disagreements for name, r in found.items() if r.disagreements}  # type: ignore[attr-defined]
    assert list(differing) == ["mbpp/simple_gpt4.jsonl"]
    assert len(differing["mbpp/simple_gpt4.jsonl"]) == 6
    assert all("`sum` of mbpp_126_sum" in text for text in differing["mbpp/simple_gpt4.jsonl"])
