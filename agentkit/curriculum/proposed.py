"""Curricula in which the model proposes goals in words: Voyager's, LMA3's, and proposer and evaluator (PAE)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentkit import parsing
from agentkit.critic.judge import RubricJudge
from agentkit.curriculum.base import Goals, Progress, listed
from agentkit.dialogue import Prompted, derive, transcript
from agentkit.llm.base import LLM
from agentkit.types import Episode, Judgement, Task


@dataclass(frozen=True, repr=False)
class VoyagerCurriculum(Prompted):
    """Proposes the next task from the state of the world and what was done and failed (Wang et al. 2023, "Voyager",
    section 2.1 and appendix A.3).

    What the prompt says of the state grows with the number of tasks done, as in the paper's warm-up: ``warm_up`` gives,
    for each line of the state by how it begins, the number of tasks from which on it is shown. The first task is
    ``first`` when it is given. At most ``limit`` tasks are proposed.
    """

    prompt: str = "curriculum_voyager"
    goals: Goals = field(default_factory=lambda: Goals(""))
    first: str = ""
    directive: str = "Discover as many different things as possible."
    warm_up: tuple[tuple[str, int], ...] = ()
    limit: int = 50

    def propose(self, progress: Progress, llm: LLM | None) -> Task | None:
        """The model's proposal; None after ``limit``, or where it proposes nothing that can be read."""
        if len(progress.attempted) >= self.limit:
            return None
        if not progress.attempted and self.first:
            return self.goals.task(self.first)
        said = {
            "directive": self.directive,
            "state": self.state(progress),
            "done": listed(progress.done),
            "failed": listed(progress.failed),
        }
        seed = derive(progress.seed, "propose", len(progress.attempted))
        answer = self.ask(llm, self.write(said), parsing.goal, "End with one line 'Task: …'.", seed=seed)
        return None if answer.value is None else self.goals.task(answer.value)

    def state(self, progress: Progress) -> str:
        """The lines of the state that are shown after so many tasks."""
        done = len(progress.done)
        shown = []
        for line in progress.state.splitlines():
            after = next((n for start, n in self.warm_up if line.strip().lower().startswith(start.lower())), 0)
            if done >= after:
                shown.append(line)
        return "\n".join(shown)


@dataclass(frozen=True, repr=False)
class LMA3(Prompted):
    """Goals and subgoals that the model makes up, and a relabelling of what was reached (Colas et al. 2023, "Augmenting
    Autotelic Agents with Large Language Models", sections 2.2 to 2.4).

    ``propose`` asks for a goal and its subgoals, built of what was achieved so far; `relabel` names all goals that an
    episode reached, whatever it was told to do; `reached` says whether it reached a given one. Goals wanted rarely are
    not favoured here, as the paper's sampling by learning progress is left to `BySuccess`.
    """

    prompt: str = "curriculum_goal"
    relabel_prompt: str = "curriculum_relabel"
    reward_prompt: str = "curriculum_reward"
    goals: Goals = field(default_factory=lambda: Goals(""))
    limit: int = 50

    def propose(self, progress: Progress, llm: LLM | None) -> Task | None:
        """The next goal, with its subgoals in its words: ``goal (first: a; then: b)``."""
        if len(progress.attempted) >= self.limit:
            return None
        said = {"state": progress.state, "done": listed(progress.done), "failed": listed(progress.failed)}
        seed = derive(progress.seed, "propose", len(progress.attempted))
        answer = self.ask(llm, self.write(said), _with_subgoals, "Write 'Goal: …' and 'Subgoals: a; b'.", seed=seed)
        if answer.value is None:
            return None
        wanted, subgoals = answer.value
        return self.goals.task(f"{wanted} (by: {'; '.join(subgoals)})" if subgoals else wanted)

    def relabel(self, episode: Episode, llm: LLM | None) -> list[str]:
        """The goals that the episode reached, in the model's words; none where it says none."""
        said = {"goal": episode.goal, "attempt": transcript(episode.steps, observation_chars=500)}
        text = self.write(said, self.relabel_prompt)
        answer = self.ask(llm, text, lambda t: parsing.items(t) or None, "", seed=derive(episode.seed, "relabel"))
        named = [item.rstrip(".") for item in answer.value or []]
        return [item for item in named if item.casefold() not in ("none", "nothing")]

    def reached(self, episode: Episode, wanted: str, llm: LLM | None) -> bool:
        """Whether the model finds that the episode reached ``wanted``."""
        said = {"goal": wanted, "attempt": transcript(episode.steps, observation_chars=500)}
        text = self.write(said, self.reward_prompt)
        answer = self.ask(llm, text, parsing.yes, "Answer yes or no.", seed=derive(episode.seed, "reached", wanted))
        return bool(answer.value)


def _with_subgoals(answer: str) -> tuple[str, tuple[str, ...]] | None:
    wanted = parsing.goal(re.sub(r"(?im)^\W*sub-?goals?\W*:.*(?:\n[-*\d].*)*", "", answer))
    if wanted is None:
        return None
    said = re.search(r"^\W*sub-?goals?\W*:(.*(?:\n[-*\d].*)*)", answer, re.IGNORECASE | re.MULTILINE)
    parts = re.split(r";|\n", said[1]) if said else []
    cleaned = (re.sub(r"^[\s\-*\d.)]+", "", part).strip().rstrip(".") for part in parts)
    return wanted, tuple(part for part in cleaned if part)


@dataclass(frozen=True, repr=False)
class ProposerEvaluator(Prompted):
    """Proposer, agent, evaluator (Zhou et al. 2024, "Proposer-Agent-Evaluator (PAE)", section 4): the proposer makes up
    tasks for a world from what it is (``context``: a description, demonstrations), a batch at a time; the evaluator
    judges the outcome alone, and is the agent's critic.

    ``context`` is all that a proposal is made from: unlike a curriculum, PAE's proposer is not told how the agent does.
    Tasks that were proposed before are not proposed again.
    """

    prompt: str = "curriculum_pae"
    goals: Goals = field(default_factory=lambda: Goals(""))
    context: str = ""
    batch: int = 5
    limit: int = 50
    max_tokens: int = 512
    evaluator: RubricJudge = field(default_factory=lambda: RubricJudge(rubric=OUTCOME))

    def propose(self, progress: Progress, llm: LLM | None) -> Task | None:
        """The next task of the batches."""
        count = len(progress.attempted)
        if count >= self.limit:
            return None
        proposed = self.proposals(count // self.batch, progress, llm)
        tried = {a.episode.task.name for a in progress.attempted}
        fresh = [p for p in proposed if p not in tried]
        return self.goals.task(fresh[0]) if fresh else None

    def proposals(self, number: int, progress: Progress, llm: LLM | None) -> list[str]:
        """The tasks of batch ``number``: the same each time it is asked for with the same model and seed."""
        before = [a.episode.task.name for a in progress.attempted][: number * self.batch]
        said = {"context": self.context, "count": self.batch, "earlier": before}
        seed = derive(progress.seed, "propose", number)
        answer = self.ask(llm, self.write(said), lambda t: parsing.items(t) or None, "Write a list.", seed=seed)
        return [item.rstrip(".") for item in answer.value or []][: self.batch]

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The evaluator's judgement of the outcome."""
        return self.evaluator.judge(episode, llm)


OUTCOME = "Look at the final state alone: is what the task asks for the case there? How it came about does not count."


def subgoals_of(goal_text: str) -> Sequence[str]:
    """The subgoals in the words of a goal that `LMA3` proposed."""
    match = re.search(r"\(by: (.*)\)$", goal_text)
    return [part.strip() for part in match[1].split(";")] if match else []
