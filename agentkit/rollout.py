"""The one episode loop. Training, benchmarks, the command line and notebooks all run this."""

from __future__ import annotations

import traceback
from typing import Protocol

import gymnasium
import numpy as np

from agentkit.boundary import WorldError, answered, began, world
from agentkit.errors import BudgetExceeded, ContractError, ModelError
from agentkit.llm.meter import Call, metered
from agentkit.types import Action, Episode, Step, StopReason, Task, Usage, View


class Actor(Protocol):
    """All that the loop asks of an agent."""

    def act(self, view: View) -> Action:
        """The action to take in the situation of ``view``."""
        ...


def rollout(
    actor: Actor,
    env: gymnasium.Env[str, str],
    task: Task,
    *,
    trial: int = 0,
    seed: int = 0,
    max_steps: int = 50,
    max_invalid: int = 3,
    id: str = "",
    calls: list[Call] | None = None,
) -> Episode:
    """Play one episode of ``task`` and return it, however it ends.

    The world is seeded by ``task.seed``, the agent's choices by ``seed``. ``max_invalid`` invalid actions in a row
    end the episode. Model calls are appended to ``calls``. What the environment or the model raises ends the episode as
    ``env_error``, ``model_error`` or ``budget``; a mistake in the agent's own code is raised.
    """
    calls = [] if calls is None else calls
    seeds = np.random.SeedSequence(seed).generate_state(max_steps, np.uint32)
    steps: list[Step] = []
    goal, success, reason, error = task.goal, False, StopReason.STEP_LIMIT, ""
    try:
        # 1. The world begins.
        with world():
            seen = began(env.reset(seed=task.seed, options=dict(task.options) or None))
        goal = goal or seen.goal
        while len(steps) < max_steps:
            # 2. What the agent sees.
            view = View(
                task=task,
                goal=goal,
                observation=seen.observation,
                admissible=seen.admissible,
                history=tuple(steps),
                trial=trial,
                step=len(steps),
                steps_left=max_steps - len(steps),
                seed=int(seeds[len(steps)]),
            )
            # 3. The agent acts.
            first_call = len(calls)
            with metered(sink=calls.append, purpose="act"):
                action = actor.act(view)
            if not isinstance(action, Action):
                raise ContractError(f"act returned a {type(action).__name__}; it must return an agentkit.Action.")
            # 4. The world answers.
            with world():
                seen = answered(env.step(action.text))
            # 5. The step is kept.
            steps.append(
                Step(
                    observation=view.observation,
                    action=action,
                    reward=seen.reward,
                    next_observation=seen.observation,
                    admissible=view.admissible,
                    feedback=seen.feedback,
                    score=seen.score,
                    usage=sum((c.usage for c in calls[first_call:]), Usage()),
                )
            )
            # 6. Success is what the environment says, and nothing else.
            success = seen.success
            if success or seen.terminated or seen.truncated:
                ended = StopReason.FAILURE if seen.terminated else StopReason.STEP_LIMIT
                reason = StopReason.SUCCESS if success else ended
                break
            if len(steps) >= max_invalid and not any(step.action.valid for step in steps[-max_invalid:]):
                reason = StopReason.INVALID
                break
    except BudgetExceeded as spent:
        reason, error = StopReason.BUDGET, str(spent)
    except ModelError:
        reason, error = StopReason.MODEL_ERROR, traceback.format_exc()
    except WorldError as broken:
        reason, error = StopReason.ENV_ERROR, str(broken)
    return Episode(
        id=id,
        task=task,
        trial=trial,
        seed=seed,
        goal=goal,
        steps=tuple(steps),
        stop_reason=reason,
        success=success,
        return_=sum((step.reward for step in steps), 0.0),
        usage=sum((c.usage for c in calls), Usage()),
        error=error,
    )
