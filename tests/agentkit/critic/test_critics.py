"""The critics, each with a model that is scripted, and the calibration against numbers counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentkit.bench.calibration import calibrate, calibration, of_run
from agentkit.critic.base import EnvironmentCritic
from agentkit.critic.ensemble import Ensemble, SelfConsistent, WithSteps
from agentkit.critic.judge import ChecklistJudge, RubricJudge, StepJudge, first_mistake, mistake, verdict
from agentkit.critic.unit_tests import UnitTests, assertions
from agentkit.envs.sandbox import Sandbox
from agentkit.errors import ContractError, InvalidValue
from agentkit.llm import ScriptedLLM
from agentkit.llm.base import LLM
from agentkit.types import Action, Episode, Judgement, Step, StopReason, Task

STEPS = (
    Step("A cell.", Action("look"), 0.0, "A locked door.", score=0.25),
    Step("A locked door.", Action("wait"), 0.0, "Nothing happens.", score=0.25),
)
LOST = Episode("e/0", Task("cell"), 0, 7, "get out", STEPS, StopReason.FAILURE, False, 0.0)
WON = replace(LOST, id="e/1", stop_reason=StopReason.SUCCESS, success=True, return_=98765.0)


@pytest.mark.parametrize(
    ("answer", "score", "why"),
    [
        ("It waited.\nScore: 0.25", 0.25, "It waited."),
        ('{"score": 0.5, "reason": "half"}', 0.5, "half"),
        ("Score: 8/10", 0.8, ""),
        ("Yes, it got out.", 1.0, "Yes, it got out."),
        ("It failed.", 0.0, "It failed."),
        ("80%", 0.8, ""),
    ],
)
def test_what_a_judge_says_is_read(answer: str, score: float, why: str) -> None:
    judgement = RubricJudge().judge(LOST, ScriptedLLM([answer]))
    assert judgement.score == pytest.approx(score)
    assert judgement.success == (score >= 0.5)
    assert judgement.critique == why


def test_the_judge_sees_the_rubric_and_the_attempt_and_never_the_truth() -> None:
    llm = ScriptedLLM(["Score: 1", "Score: 1"])
    RubricJudge(rubric="Did it sing?").judge(WON, llm)
    RubricJudge(rubric="Did it sing?").judge(
        replace(WON, success=False, return_=0.0, stop_reason=StopReason.FAILURE), llm
    )
    told, blind = [r.messages[0].content for r in llm.requests]
    assert told == blind
    assert "98765" not in told
    assert "Did it sing?" in told
    assert "Action 2: wait" in told


def test_an_answer_without_a_score_is_asked_again_and_then_is_no_success() -> None:
    llm = ScriptedLLM(["hm", "hm"])
    judgement = RubricJudge().judge(WON, llm)
    assert (judgement.success, judgement.score) == (False, 0.0)
    assert len(llm.requests) == 2
    assert verdict("nothing of the kind") is None


def test_a_checklist_is_written_once_for_a_goal_and_each_point_counts() -> None:
    llm = ScriptedLLM(["1. The door is open\n2. It is outside", "1. yes\n2. no", "1: Yes\n2: Yes"])
    critic = ChecklistJudge()
    first = critic.judge(LOST, llm)
    assert (first.success, first.score, first.critique) == (False, 0.5, "Not met: It is outside")
    assert critic.judge(WON, llm).success
    assert len(llm.requests) == 3
    assert "1. The door is open" in llm.requests[1].messages[0].content


def test_points_without_an_answer_are_not_met() -> None:
    critic = ChecklistJudge(checklists={"get out": ("a", "b")})
    assert critic.judge(LOST, ScriptedLLM(["2. yes"])).score == 0.5
    assert not ChecklistJudge(reasks=0).judge(LOST, ScriptedLLM(["  "])).success


def test_the_first_mistake_divides_the_steps() -> None:
    judgement = StepJudge().judge(LOST, ScriptedLLM(["2: waiting helps nobody"]))
    assert [s.score for s in judgement.steps] == [1.0, 0.0]
    assert judgement.steps[1].critique == "waiting helps nobody"
    assert first_mistake(judgement) == 1
    assert (judgement.success, judgement.score) == (False, 0.5)
    none = StepJudge().judge(LOST, ScriptedLLM(["0"]))
    assert none.success
    assert first_mistake(none) is None
    assert mistake("7", 2) is None
    assert mistake("no mistakes", 2) == (0, "No mistake.")


def test_unit_tests_given_and_written_by_the_model() -> None:
    right = replace(LOST, steps=(replace(STEPS[0], action=Action("def double(x):\n    return 2 * x")),))
    wrong = replace(LOST, steps=(replace(STEPS[0], action=Action("def double(x):\n    return x")),))
    with Sandbox() as sandbox:
        given = UnitTests(tester=sandbox, tests=lambda episode: ["assert double(0) == 0", "assert double(2) == 4"])
        assert given.judge(right, None) == Judgement(True, 1.0, "All 2 tests passed.")
        half = given.judge(wrong, None)
        assert (half.success, half.score) == (False, 0.5)
        assert "assert double(2) == 4" in half.critique
        llm = ScriptedLLM(["```python\nassert double(3) == 6\nprint('x')\n```"])
        assert UnitTests(tester=sandbox).judge(right, llm).success
        assert "get out" in llm.requests[0].messages[0].content
        assert "return 2" not in llm.requests[0].messages[0].content
        assert not UnitTests(tester=sandbox, reasks=0).judge(right, ScriptedLLM(["none"])).success
    with pytest.raises(ContractError, match="Sandbox"):
        UnitTests().judge(right, None)


def test_assertions_are_read_line_by_line_when_the_whole_is_no_program() -> None:
    assert assertions("Here:\nassert f(1) == 2\nassert f(\nassert f(2) == 3") == [
        "assert f(1) == 2",
        "assert f(2) == 3",
    ]
    assert assertions("assert f(1) == 1\nassert f(1) == 1") == ["assert f(1) == 1"]
    assert assertions("f(1)") is None


class Says:
    """A critic with an answer for each time it is asked."""

    def __init__(self, *judgements: Judgement) -> None:
        self.judgements = judgements
        self.seeds: list[int] = []

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        self.seeds.append(episode.seed)
        return self.judgements[(len(self.seeds) - 1) % len(self.judgements)]


YES, NO = Judgement(True, 0.9, "fine"), Judgement(False, 0.2, "bad")


@pytest.mark.parametrize(
    ("rule", "critics", "success"),
    [
        ("majority", (YES, YES, NO), True),
        ("majority", (YES, NO), False),
        ("all", (YES, YES, NO), False),
        ("any", (NO, NO, YES), True),
        ("mean", (YES, NO), True),
        ("mean", (YES, NO, NO), False),
    ],
)
def test_an_ensemble_decides_by_its_rule(rule: str, critics: tuple[Judgement, ...], success: bool) -> None:
    joint = Ensemble(tuple(Says(j) for j in critics), rule).judge(LOST, None)  # type: ignore[arg-type]
    assert joint.success is success
    assert joint.score == pytest.approx(sum(j.score for j in critics) / len(critics))
    with pytest.raises(InvalidValue):
        Ensemble(())


def test_self_consistent_judges_by_majority_soft_and_adaptive() -> None:
    critic = Says(YES, NO, NO)
    voted = SelfConsistent(critic, 3).judge(LOST, None)
    assert (voted.success, voted.critique) == (False, "bad")
    assert voted.score == pytest.approx(1.3 / 3)
    assert len(set(critic.seeds)) == 3
    kind = Says(Judgement(False, 0.45, ""), Judgement(True, 1.0, ""))
    assert SelfConsistent(kind, 2, "soft").judge(LOST, None).success
    sure = Says(YES)
    SelfConsistent(sure, 20, "adaptive").judge(LOST, None)
    assert len(sure.seeds) == 4


def test_with_steps_takes_the_verdict_of_one_and_the_place_of_the_other() -> None:
    steps = StepJudge()
    critic = WithSteps(EnvironmentCritic(), steps)
    lost = critic.judge(LOST, ScriptedLLM(["2. it waited"]))
    assert (lost.success, lost.score, first_mistake(lost)) == (False, 0.25, 1)
    assert critic.judge(WON, ScriptedLLM([])).success


def episodes_of(*rounds: list[bool]) -> list[Episode]:
    return [
        replace(WON if won else LOST, id=f"e/{trial}/{i}", trial=trial, task=Task("cell", name=f"t{i}"))
        for trial, row in enumerate(rounds)
        for i, won in enumerate(row)
    ]


def test_calibration_counts_by_hand() -> None:
    episodes = episodes_of([True, False, False, False], [True, False, False, False])
    said = [YES, NO, NO, NO, NO, YES, YES, NO]
    c = calibration("judge", episodes, said)
    assert (c.overall.false_accepts, c.overall.false_rejects) == (2, 1)
    assert c.overall.false_accept_rate == pytest.approx(2 / 6)
    assert c.overall.false_reject_rate == pytest.approx(1 / 2)
    # (0.1² + 3·0.2² + 0.8² + 2·0.9² + 0.2²) / 8
    assert c.overall.brier == pytest.approx((0.01 + 0.12 + 0.64 + 1.62 + 0.04) / 8)
    assert [r.bias for r in c.rounds] == [0.0, 0.25]
    assert c.drift == pytest.approx(0.25)
    assert c.false_accept_drift == pytest.approx(2 / 3)
    low, high = c.reliability
    assert low == pytest.approx((0.2, 0.2, 5))
    assert high == pytest.approx((0.9, 1 / 3, 3))


def test_undefined_is_none_and_never_zero() -> None:
    c = calibration("judge", episodes_of([True]), [YES])
    assert c.overall.false_accept_rate is None
    assert c.drift is None
    assert calibration("judge", [], []).overall.brier is None


def test_a_broken_critic_is_found_out_and_the_environments_own_is_not() -> None:
    episodes = episodes_of([True, False], [False, True])
    kind = Says(Judgement(True, 1.0, ""))
    report = calibrate({"environment": EnvironmentCritic(), "kind": kind}, episodes)
    truth, pleased = report.critics
    assert (truth.overall.false_accepts, truth.overall.false_rejects) == (0, 0)
    assert (pleased.overall.false_accept_rate, pleased.overall.brier) == (1.0, 0.5)
    assert "| kind | 4 | 2 (100%) | 0 (0%) | 0.500 | +0.50 +0.50 | +0.000 |" in str(report)
    broken = replace(episodes[0], stop_reason=StopReason.MODEL_ERROR, success=False)
    assert calibrate({"kind": kind}, [broken]).critics[0].overall.episodes == 0


def test_a_runs_own_critic_is_calibrated_from_its_log() -> None:
    from agentkit.agent import Agent
    from agentkit.policy.simple import Random
    from agentkit.runlog import RunLog
    from agentkit.runner import run

    with RunLog() as log:
        agent = Agent(None, Random(), critic=Says(Judgement(True, 1.0, "always")))
        played = run(agent, "agentkit/FrozenLake-v0", trials=3, max_steps=10, log=log)
        c = of_run(played, log)
    assert c.overall.episodes == 3
    assert c.overall.accepted == 3
    assert c.overall.false_accepts == sum(not e.success for e in played.episodes)
