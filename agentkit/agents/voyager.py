"""Voyager (Wang et al. 2023, "Voyager: An Open-Ended Embodied Agent with Large Language Models").

Section 2, part by part::

    automatic curriculum (2.1)       `agentkit.curriculum.proposed.VoyagerCurriculum`, run by `agentkit.explore.explore`
    skill library (2.2)              recall by description; programs that succeeded are added, described and versioned
    iterative prompting (2.3)        policy: a program a step, with feedback and errors of those before in the prompt
    self-verification (2.3)          critic: the environment's word where it has one, or a judge after each program

For worlds whose action is a program: program worlds on Crafter or TextCraft, and code worlds.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agentkit.agent import Agent, Learned, describe, learning
from agentkit.agents.memories import RecallSkills
from agentkit.critic.base import Critic, EnvironmentCritic
from agentkit.dialogue import Prompted, derive
from agentkit.errors import InvalidValue, UnknownName
from agentkit.llm.base import LLM
from agentkit.llm.meter import metered
from agentkit.memory import Memory
from agentkit.memory.skill import Executor
from agentkit.memory.skills import SkillLibrary
from agentkit.policy.base import Policy
from agentkit.policy.program import Program, new_functions
from agentkit.syntax import parse_module
from agentkit.types import Action, Episode, StopReason, View

logger = logging.getLogger(__name__)


def voyager(
    llm: LLM,
    memory: Memory | None = None,
    executor: Executor | None = None,
    *,
    instructions: str = "",
    k: int = 5,
    policy: Policy | None = None,
    critic: Critic | None = None,
    name: str = "voyager",
) -> Voyager:
    """A Voyager agent. ``instructions`` name the primitives of the world; ``executor`` (a `Sandbox`) verifies skills.

    With a ``critic`` that judges by itself, each program is verified, and the critique is in the prompt of the next.
    ``k`` skills are shown (five in the paper). Without ``memory`` it writes every program from nothing: the paper's
    ablation without the skill library.
    """
    return Voyager(
        llm,
        policy or Program(instructions=instructions),
        memory=memory,
        executor=executor,
        recall=RecallSkills(k),
        critic=critic,
        name=name,
    )


class Voyager(Agent):
    """An agent that keeps the function of each program that succeeded."""

    def __init__(self, *args: Any, executor: Executor | None = None, **kwargs: Any) -> None:  # Any: Agent's own
        super().__init__(*args, **kwargs)
        self.executor = executor
        self.describer = Prompted(prompt="describe_skill", max_tokens=120, reasks=0)

    def act(self, view: View) -> Action:
        """The next program, from what came of the last: its errors, and what the critic says of it (section 2.3)."""
        if view.history and not isinstance(self.critic, EnvironmentCritic):  # the world's word is in its feedback
            with metered(purpose="judge"):
                critique = self.critic.judge(so_far(view), self.llm).critique
            *before, last = view.history
            feedback = "\n".join(part for part in (last.feedback, critique) if part)
            view = replace(view, history=(*before, replace(last, feedback=feedback)))
        return super().act(view)

    def learn(self, episodes: Sequence[Episode]) -> Learned:
        """Judge, and add the programs of the attempts that succeeded to the library."""
        learned = super().learn(episodes)
        if self.memory is None:
            return learned
        if self.executor is None:
            raise InvalidValue("Voyager verifies skills by running them: pass executor=Sandbox().")
        library = SkillLibrary(self.memory, self.executor)
        names = {skill.name for skill in library.skills()}
        added: set[str] = set()
        failed = dict(learned.failed)
        for episode in episodes:
            judgement = learned.judgements.get(episode.id)  # none where the critic's model failed
            if judgement is None or not judgement.success or not episode.steps:
                continue
            name, code = skill_of(episode.steps[-1].action.text, names)
            if not name or name in added:
                continue
            with learning(f"{episode.id}, as the skill {name}", failed):
                with metered(purpose="reflect"):
                    described = self._describe(episode, code)
                try:
                    library.add(name, code, described, evidence=episode.id, task=episode.task.name, episode=episode.id)
                    added.add(name)
                except (InvalidValue, UnknownName) as error:
                    logger.warning("The program of %s is not kept as a skill: %s", episode.id, error)
        return Learned(learned.judgements, learned.records + len(added), failed)

    def _describe(self, episode: Episode, code: str) -> str:
        """What the model says that the program does (section 2.2: the key by which a skill is found)."""
        text = self.describer.write({"goal": episode.goal, "code": code})
        answer = self.describer.ask(
            self.llm, text, lambda t: " ".join(t.split())[:500] or None, "", seed=derive(episode.seed, 1)
        )
        return answer.value or episode.goal

    def describe(self) -> dict[str, Any]:
        """The configuration, for the run log."""
        return {**super().describe(), "describer": describe(self.describer), "skills": True}


def so_far(view: View) -> Episode:
    """The episode as it stands, for a critic: neither solved nor over."""
    return Episode(
        id="",
        task=view.task,
        trial=view.trial,
        seed=view.seed,
        goal=view.goal,
        steps=view.history,
        stop_reason=StopReason.STEP_LIMIT,
        success=False,
        return_=sum(step.reward for step in view.history),
    )


def skill_of(program: str, known: set[str]) -> tuple[str, str]:
    """The skill in a program that succeeded: the name of its last new function, and the code of all its new functions
    with its imports. Empty where the program defines none."""
    try:
        functions = new_functions(program, sorted(known))
        tree = parse_module(program)
    except (SyntaxError, ValueError):
        return "", ""
    if not functions:
        return "", ""
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return list(functions)[-1], "\n\n".join([*imports, *functions.values()])
