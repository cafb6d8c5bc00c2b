"""MiniWoB++ (Shi et al., 2017; Liu et al., 2018): small web tasks in a real browser, told in words.

Needs the extra ``miniwob`` and the browser Chromium. See docs/worlds/miniwob.md.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.extras import require
from agentkit.envs.miniwob_browser import BrowserError, find_browser
from agentkit.envs.miniwob_gold import SOLVERS
from agentkit.envs.miniwob_page import FORMS, ActionRefused, MiniWobPage, State
from agentkit.envs.spaces import MAX_ACTION, check_action, clean, text_space
from agentkit.envs.tasks import choose, read_options
from agentkit.errors import InvalidValue

_GOLD_STEPS = 300
_FULL = 1 - 1e-6


class MiniWobEnv(gymnasium.Env[str, str]):
    """A MiniWoB task on its page.

    Args:
        task: one of the package's pages, ``click-button``, ``login-user``, ``email-inbox``, …

    An observation lists the page's visible elements, each with a number, in the order of the page. The goal is the
    task's text and the forms that actions have. Each action takes a second of the page's time, which stands still
    otherwise: there is no limit of seconds. Success is the task's full reward of 1; ``score`` is that reward, where it
    is more than 0. Options of ``reset``: ``task`` and ``gold``, the actions of a script that reads the page, for the
    tasks in `agentkit.envs.miniwob_gold.SOLVERS` (`InvalidValue` for others); it is an empty list where the script
    does not solve the episode.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, task: str = "click-button") -> None:
        package = require("miniwob", "miniwob", "miniwob")
        find_browser()
        self._fields = require("miniwob.fields", "miniwob", "miniwob").FIELD_EXTRACTORS
        self._folder = Path(package.__file__).parent / "html" / "miniwob"
        self._tasks = sorted(path.stem for path in self._folder.glob("*.html"))
        self.observation_space, self.action_space = text_space(), text_space(MAX_ACTION)
        self._defaults = {"task": choose("task", task, self._tasks)}
        self._page: MiniWobPage | None = None
        self._texts: list[str] = []
        self._asked = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, self._defaults)
        task = choose("task", chosen["task"], self._tasks)
        if chosen["gold"] and task not in SOLVERS:
            raise InvalidValue(f"there is no gold for {task!r}. There is for: {', '.join(sorted(SOLVERS))}.")
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        gold = self._gold(task, seed) if chosen["gold"] else None
        state = self._begin(task, seed)
        self._asked = state.utterance
        self._texts = self._texts_to_type(task, state)
        goal = clean(f"{state.utterance}\nActions: {'; '.join(FORMS)}.")
        info: dict[str, Any] = {"goal": goal, "admissible_actions": self._admissible(state)}
        if gold is not None:
            info["gold"] = gold
        return self._describe(state), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        assert self._page is not None, "call reset first"
        feedback = ""
        if not self._page.state.done:
            try:
                self._page.act(action)
            except ActionRefused as refusal:
                feedback = clean(str(refusal), 2000)
        state = self._page.state
        reward = state.reward if state.done else 0.0
        info: dict[str, Any] = {
            "success": state.done and reward >= _FULL,
            "score": min(1.0, max(0.0, reward)),
            "admissible_actions": self._admissible(state),
        }
        if feedback:
            info["feedback"] = feedback
        text = "\n".join(filter(None, [feedback, self._describe(state)]))
        return clean(text), reward, state.done, False, info

    def close(self) -> None:
        if self._page is not None:
            self._page.close()
            self._page = None

    def _begin(self, task: str, seed: int) -> State:
        if self._page is not None:
            with contextlib.suppress(BrowserError):  # what is wrong with this browser does not matter: take another
                return self._page.begin(task, seed)
            self.close()
        self._page = MiniWobPage(self._folder)
        return self._page.begin(task, seed)

    def _describe(self, state: State) -> str:
        if state.done:
            reason = f" ({state.reason})" if state.reason else ""
            if state.reward >= _FULL:
                return clean(f"The task is done{reason}.")
            return clean(f"The episode is over, with a reward of {state.reward:.2f}{reason}.")
        asked = [state.utterance] if state.utterance != self._asked else []
        return clean("\n".join([*asked, *map(str, state.lines)]) or "The page is empty.")

    def _texts_to_type(self, task: str, state: State) -> list[str]:
        """The parts of the goal that the page or the package takes as what may have to be typed."""
        try:
            found = state.fields or [str(value) for _, value in self._fields[task](state.utterance)]
        except (KeyError, ValueError):  # the package knows none for this task, or does not understand this sentence
            return []
        return list(dict.fromkeys(filter(None, found)))

    def _admissible(self, state: State) -> list[str]:
        if state.done:
            return []
        actions = [f"click {line.ref}" for line in state.lines if line.ref and not line.disabled]
        for line in state.lines:
            if line.editable:
                actions += [f'type {line.ref} "{text}"' for text in self._texts]
            actions += [f'select {line.ref} "{option}"' for option in dict.fromkeys(line.options)]
            actions += [f"scroll {line.ref} {way}" for way in ("down", "up") if line.scrolls]
        return [clean(action) for action in [*actions, "wait"] if len(action) <= MAX_ACTION]

    def _gold(self, task: str, seed: int) -> list[str]:
        """What the task's script does in this very episode, if it solves it."""
        state = self._begin(task, seed)
        assert self._page is not None
        page, actions = self._page, list[str]()
        try:
            for action in SOLVERS[task](state.utterance, lambda: page.state.lines):
                actions.append(action)
                if page.act(action).done or len(actions) >= _GOLD_STEPS:
                    break
        except (ActionRefused, LookupError):  # the script does not find its way here
            return []
        return actions if page.state.done and page.state.reward >= _FULL else []
