"""The published logs of worlds: WebShop's and ALFWorld's transcripts, statuses and flags, played again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agentkit.test_conformance import conformance, reports

__all__ = ["conformance"]

BASE = "Webshop \nInstruction:  \nsoap \n[Search]  \n\nAction: search[soap]\nObservation: \n[Back to Search] \n\nAction: click[Buy Now]\n"
FOUND = "\n[Back to Search] \nPage 1 (Total results: 50) \n[B01] \nA lamp \n> with a bright bulb \n$10.99 "
ITEM = "\n[Back to Search] \n[< Prev] \nA lamp \nPrice: $10.99 \n[Buy Now] "
LOST = ("I clicked what was not there.", "I bought the wrong one.\nTrial and error is no plan.")


def page(number: int) -> str:
    return f"\nWebShop \nInstruction:  \nfind me lamp {number}, and price lower than 20.00 dollars \n[Search] "


def bought(score: str) -> list[tuple[str, str]]:
    return [
        ("search[lamp]", FOUND),
        ("think[B01 looks good.]", "OK."),
        ("click[B01]", ITEM),
        ("click[Buy Now]", f"Your score (min 0.0, max 1.0): {score}"),
    ]


def attempt(number: int, turns: Sequence[tuple[str, str]], status: str, memory: Sequence[str] = ()) -> str:
    told = "".join(f"\nTrial {i}:\n{text}" for i, text in enumerate(memory))
    told = f"\nYour memory for the task below:{told}" if memory else ""
    done = "\n".join(f"> {action}\n{seen}" for action, seen in [("reset", page(number)), *turns])
    return block(f"Environment #{number}:\n{BASE}{told}\nHere is the task:\n{page(number)}\n{done}\n\nSTATUS: {status}")


def block(text: str) -> str:
    return f"\n#####\n\n{text}\n\n#####\n"


def counted(solved: int, of: int) -> str:
    return f"\n-----\nSUCCESS: {solved}\nADDITIONAL SUCCESS: 1\nFAIL: {of - solved}\nTOTAL: {of}\nACCURACY: 0.5\n-----"


BROKE = block("Environment #3:\nAssertion Error\n\nSTATUS: FAIL")
WANDERED = [("search[lamp]", FOUND), ("", "Invalid action!"), ("buy it", "Invalid action!")] + [
    ("click[B09]", "Invalid action!")
] * 11
TRIALS = (
    attempt(0, bought("1.0"), "OK") + attempt(1, bought("0.5"), "FAIL") + attempt(2, WANDERED, "FAIL") + BROKE
    + counted(1, 4),
    block("Environment #0: Success") + attempt(1, bought("1.0"), "OK", ["Look at the price."])
    + attempt(2, bought("0.3"), "FAIL", LOST[:1]) + BROKE + counted(2, 4),
    block("Environment #0: Success") + block("Environment #1: Success") + attempt(2, bought("1.0"), "OK", LOST)
    + BROKE + counted(3, 4),
)  # fmt: skip


def flags(*solved: bool) -> str:
    return json.dumps([{"name": f"env_{i}", "memory": [], "is_success": s} for i, s in enumerate(solved)])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "reflexion_run_logs"
    folder.mkdir()
    for number, text in enumerate(TRIALS):
        (folder / f"trial_{number}.log").write_text(text)
        (folder / f"env_results_trial_{number}.json").write_text(flags(True, number > 0, number > 1, False))
    return folder


def test_a_shop_is_played_step_by_step_and_judged_by_its_score(conformance: ModuleType, shop: Path) -> None:
    found = reports(conformance, shop)
    played, curve = found["trial"], found["env_results_trial"]
    assert (played.kind, played.tasks) == ("transcripts", 4)  # type: ignore[attr-defined]
    assert played.logged == played.reproduced == [1, 2, 3]  # type: ignore[attr-defined]
    assert played.disagreements == []  # type: ignore[attr-defined]
    assert curve.logged == curve.reproduced == [1, 2, 3]  # type: ignore[attr-defined]
    assert not curve.disagreements  # type: ignore[attr-defined]
    assert "of 4 reflections that the log shows to the actor, 4 were shown by memory" in played.notes  # type: ignore[attr-defined]
    assert "trial 0: 1 without a transcript: counted as the log counts them" in played.notes  # type: ignore[attr-defined]


def test_a_status_that_the_score_contradicts_is_named_with_its_task(conformance: ModuleType, shop: Path) -> None:
    (shop / "trial_1.log").write_text(TRIALS[1].replace("max 1.0): 1.0", "max 1.0): 0.9"))
    (shop / "env_results_trial_2.json").write_text(flags(True, False, True, False))
    found = reports(conformance, shop)
    assert found["trial"].reproduced == [1, 1, 3]  # type: ignore[attr-defined]
    (differs,) = found["trial"].disagreements  # type: ignore[attr-defined]
    line = 1 + (shop / "trial_1.log").read_text().split("Environment #1")[0].count("\n")
    why = "logged as correct; 'click[Buy Now]' answered by 'Your score"
    assert differs.startswith(f"trial 1, 'env_1' (trial_1.log, line {line}): {why}")
    told = found["env_results_trial"].disagreements  # type: ignore[attr-defined]
    assert "env_1, trial 2: the flag says False, trial says True" in told
    assert "solved in trial 1 and not in 2: env_1" in told


def test_transcripts_keep_pages_whole_and_reflections_apart(shop: Path) -> None:
    from agentkit.bench.published import read
    from agentkit.bench.published_questions import QuestionLog

    (log,) = (found for found in read(shop) if isinstance(found, QuestionLog))
    first, _, third = log.trials
    bought_at_last = third.attempts[2]
    assert bought_at_last.reflections == LOST
    assert bought_at_last.context == page(2).strip()
    assert [turn.action for turn in bought_at_last.turns] == [action for action, _ in bought("1.0")]
    assert bought_at_last.turns[0].observation == FOUND.strip()
    assert [turn.action for turn in first.attempts[2].turns[:3]] == ["search[lamp]", "", "buy it"]


def test_a_household_counts_as_its_status_says(conformance: ModuleType, tmp_path: Path) -> None:
    task = "Here is the task:\nA room with a drawer 1.\nYour task is to: find the pen."
    won = f"Environment #0:\nExamples.\n> go to desk 1\n{task}\n> open drawer 1\nYou see a pen.\n> take pen\nYou take it.\n\nSTATUS: OK"
    lost = f"Environment #1:\nExamples.\n{task}\n> go to drawer 1\n> is a thing\n\nSTATUS: FAIL"
    (tmp_path / "trial_0.log").write_text(block(won) + block(lost) + counted(1, 2))
    (tmp_path / "trial_2.log").write_text(block("Environment #0: Success") + block(lost))
    (report,) = conformance.conform(tmp_path)
    assert (report.kind, report.tasks, report.logged, report.reproduced) == ("transcripts", 2, [1, 1], [1, 1])
    assert not report.disagreements
    assert "the trials are [0, 2]: some are missing" in report.notes
    assert "trial 2 has no count at its end: its statuses are counted" in report.notes
    assert any("each attempt's logged status is taken" in note for note in report.notes)


def test_flags_make_the_curve_and_contradictions_are_named(conformance: ModuleType, tmp_path: Path) -> None:
    shop = tmp_path / "webshop"
    shop.mkdir()
    (shop / "env_results_trial_0.json").write_text(flags(True, False, False))
    (shop / "env_results_trial_1.json").write_text(flags(True, True, False))
    (shop / "trial_1.log").write_text(
        "\n#####\n\nEnvironment #0: Success\n\n#####\n\n#####\n\nEnvironment #1:\n> think[x]\nOK.\n\nSTATUS: FAIL\n\n#####\n"
        "\n-----\nSUCCESS: 2\nADDITIONAL SUCCESS: 1\nFAIL: 1\nTOTAL: 3\nACCURACY: 0.67\n-----"
    )
    found = reports(conformance, tmp_path)
    curve = found["webshop/env_results_trial"]
    assert curve.logged == curve.reproduced == [1, 2]  # type: ignore[attr-defined]
    (differs,) = curve.disagreements  # type: ignore[attr-defined]
    assert "env_1, trial 1" in differs
    text = found["webshop/trial"]
    assert (text.logged, text.reproduced) == ([2], [1])  # type: ignore[attr-defined]

    (shop / "env_results_trial_2.json").write_text(flags(False, True, False))
    curve = reports(conformance, tmp_path)["webshop/env_results_trial"]
    assert curve.logged == [1, 2, 1]  # type: ignore[attr-defined]
    assert curve.reproduced == [1, 2, 2]  # type: ignore[attr-defined]
    assert any("solved in trial 1 and not in 2: env_0" in text for text in curve.disagreements)  # type: ignore[attr-defined]


def test_a_world_log_of_several_trials(conformance: ModuleType, tmp_path: Path) -> None:
    def trial(number: int, *solved: bool) -> str:
        lines = [f"Environment #{i} Trial #{number}: {'SUCCESS' if s else 'FAIL'}" for i, s in enumerate(solved)]
        return f"\n***** Start Trial #{number} *****\n" + "\n".join(lines) + f"\n-----\nSUCCESS: {sum(solved)}\n-----\n"

    (tmp_path / "world.log").write_text(trial(3, True, False) + trial(4, True, True))
    (report,) = conformance.conform(tmp_path)
    assert (report.kind, report.logged, report.reproduced) == ("statuses", [1, 2], [1, 2])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, len(TRIALS[1])), drop=st.integers(0, 40))
def test_a_damaged_trial_is_read_as_far_as_it_goes(
    conformance: ModuleType, tmp_path: Path, cut: int, drop: int
) -> None:
    lines = TRIALS[1][:cut].splitlines()
    del lines[drop : drop + 1]
    (tmp_path / "trial_1.log").write_text("\n".join(lines))
    (report,) = conformance.conform(tmp_path)
    assert report.kind in ("transcripts", "statuses", "not read")
