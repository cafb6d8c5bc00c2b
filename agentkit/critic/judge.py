"""The model as judge: by a rubric, by a checklist made for the task, and step by step."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agentkit import parsing
from agentkit.dialogue import Prompted, derive, shorten, transcript
from agentkit.llm.base import LLM
from agentkit.types import Episode, Judgement, StepJudgement


def shown(episode: Episode, observation_chars: int | None) -> dict[str, object]:
    """What a judge sees of an episode: never the environment's success, reward or score."""
    return {
        "goal": episode.goal,
        "opening": shorten(episode.steps[0].observation, observation_chars) if episode.steps else "",
        "attempt": transcript(episode.steps, observation_chars=observation_chars),
    }


@dataclass(frozen=True, repr=False)
class RubricJudge(Prompted):
    """Asks the model for a score in [0, 1] and why; at ``threshold`` or above, the attempt counts as a success.

    ``rubric`` says what to look at, and ``prompt`` shows it. An answer without a score is a judgement of failure, and
    says so.
    """

    prompt: str = "judge_rubric"
    rubric: str = "Was the goal of the task reached at the end? Nothing else counts."
    threshold: float = 0.5
    temperature: float = 0.0
    observation_chars: int | None = 1000

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The model's judgement."""
        said = {**shown(episode, self.observation_chars), "rubric": self.rubric}
        answer = self.ask(llm, self.write(said), verdict, _SCORE, seed=derive(episode.seed, "judge"))
        if answer.value is None:
            return Judgement(False, 0.0, "The judge's answer held no score.")
        score, why = answer.value
        return Judgement(score >= self.threshold, score, why)


_SCORE = "End with one line 'Score: x', where x is a number from 0 to 1."


def verdict(answer: str) -> tuple[float, str] | None:
    """The score and the reason in a judge's answer: JSON, a score in words, or yes and no."""
    given = parsing.json_object(answer)
    if given is not None:
        for key in ("score", "rating", "grade", "success"):
            value = given.get(key)
            if isinstance(value, (bool, int, float)) and 0 <= value <= 1:
                return float(value), str(given.get("reason") or given.get("critique") or given.get("reasoning") or "")
    lines = [line for line in parsing.plain(answer).splitlines() if line.strip()]
    for line in reversed(lines):
        score = parsing.number(line)
        if score is not None and re.search(r"score|rating|grade|^\W*[\d.]+\W*$", line, re.IGNORECASE):
            return score, " ".join(" ".join(lines[: lines.index(line)]).split())
    said = parsing.yes(answer)
    return None if said is None else (float(said), " ".join(" ".join(lines).split()))


@dataclass(frozen=True, repr=False)
class ChecklistJudge(Prompted):
    """Has the model write a checklist for the task, and then answer each point with yes or no.

    The score is the share of points met; the attempt succeeds when it is at least ``threshold``. A checklist is written
    once for each goal (as in Cook et al. 2024, "TICKing All the Boxes", section 3) and kept as long as the critic
    lives; ``checklists`` gives some beforehand. Points without an answer count as not met.
    """

    prompt: str = "judge_checklist"
    write_prompt: str = "checklist"
    threshold: float = 1.0
    most: int = 6
    temperature: float = 0.0
    observation_chars: int | None = 1000
    checklists: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The judgement; its critique names the points that are not met."""
        points = self.points(episode, llm)
        if not points:
            return Judgement(False, 0.0, "The judge wrote no checklist.")
        said = {**shown(episode, self.observation_chars), "points": points}
        expected = "Answer each point on a line of its own: its number, then yes or no."
        answer = self.ask(llm, self.write(said), answers, expected, seed=derive(episode.seed, "judge"))
        met = answer.value or {}
        missing = [point for i, point in enumerate(points, start=1) if not met.get(i, False)]
        score = 1 - len(missing) / len(points)
        critique = f"Not met: {'; '.join(missing)}" if missing else "Every point is met."
        return Judgement(score >= self.threshold, score, critique)

    def points(self, episode: Episode, llm: LLM | None) -> tuple[str, ...]:
        """The checklist of the episode's goal, written when it is first asked for."""
        if episode.goal not in self.checklists:
            text = self.write({"goal": episode.goal, "most": self.most}, self.write_prompt)
            seed = derive(episode.task.seed, "checklist")
            answer = self.ask(llm, text, lambda t: parsing.items(t) or None, "Write the points as a list.", seed=seed)
            self.checklists[episode.goal] = tuple(answer.value or ())[: self.most]
        return self.checklists[episode.goal]


def answers(answer: str) -> dict[int, bool] | None:
    """The answers to numbered points: number -> whether it is met. None where there is none."""
    found = {}
    for line in parsing.plain(answer).splitlines():
        numbered = re.match(r"\W*(?:point\s*)?(\d+)\W+(.*)", line.strip(), re.IGNORECASE)
        said = parsing.yes(numbered[2]) if numbered else None
        if numbered and said is not None:
            found[int(numbered[1])] = said
    return found or None


@dataclass(frozen=True, repr=False)
class StepJudge(Prompted):
    """Asks for the first step that was a mistake. Steps before it are good (score 1), it and those after it are not.

    An attempt without a mistake counts as a success; `agentkit.critic.ensemble.WithSteps` has another critic say
    whether it is one, and this one where it went wrong. `first_mistake` reads the judgement;
    `agentkit.agents.memories.RememberWays` keeps the steps before it, so that the next trial goes back to there.
    """

    prompt: str = "judge_steps"
    temperature: float = 0.0
    observation_chars: int | None = 500

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The judgement, with one `StepJudgement` a step."""
        count = len(episode.steps)
        if not count:
            return Judgement(False, 0.0, "No step was taken.")
        expected = f"Begin with the number of the first wrong action, from 1 to {count}, or with 0 if none is wrong."
        said = shown(episode, self.observation_chars)
        answer = self.ask(
            llm, self.write(said), lambda text: mistake(text, count), expected, seed=derive(episode.seed, "judge")
        )
        if answer.value is None:
            return Judgement(False, 0.0, "The judge named no step.")
        first, why = answer.value
        good = count if first == 0 else first - 1
        steps = tuple(StepJudgement(i, 1.0 if i < good else 0.0, why if i == good else "") for i in range(count))
        return Judgement(first == 0, good / count, why, steps)


def mistake(answer: str, count: int) -> tuple[int, str] | None:
    """The number of the first wrong step (0: none) and what was said of it."""
    text = parsing.plain(answer)
    found = re.search(r"\d+", text)
    if found is None:
        return (0, "No mistake.") if re.search(r"\b(?:none|no mistakes?)\b", text, re.IGNORECASE) else None
    if not 0 <= int(found[0]) <= count:
        return None
    return int(found[0]), " ".join(text[found.end() :].strip(" .:-)\n").split())


def first_mistake(judgement: Judgement) -> int | None:
    """The place (from 0) of the first step that was judged a mistake; None where no step was."""
    return next((s.step for s in judgement.steps if s.score < 0.5), None)
