"""Playing compiled TextWorld games: the interpreter, and the facts that admissible commands follow from.

The package's own wrappers compute the admissible commands anew at each step, which costs more than the step. Here each
game has one graph of its logical states, shared by all environments of the process and grown as play reaches them: a
state that was seen before, in whatever episode, costs a dictionary lookup.
"""

from __future__ import annotations

import functools
import re
import threading
import warnings
from dataclasses import dataclass
from typing import Any

from agentkit.envs.extras import require

_MAX_STATES = 20_000
_EVENT = re.compile(r"\[([^\]]+)\]\n?")
_SCORE = re.compile(r"<score>\s*(-?\d+).*?</score>", re.DOTALL)
_TAGS = re.compile(r"<(score|moves)>.*?</\1>", re.DOTALL)
_BLANK_LINES = re.compile(r"\n\s*\n\s*")
# One lock for what the packages share between games (their parsers) and for the graphs' growth. Steps into known states
# take it for a lookup only.
_lock = threading.RLock()


class State:
    """What is true in a game at one moment, with the commands that make sense then, sorted."""

    __slots__ = ("actions", "commands", "facts", "next")

    def __init__(self, facts: Any, actions: list[Any], commands: tuple[str, ...]) -> None:
        self.facts, self.actions, self.commands = facts, actions, commands
        self.next: dict[str, State] = {}


class Logic:
    """A game's description and the graph of its logical states."""

    def __init__(self, description: str) -> None:
        """``description``: the .json file that lies beside the compiled game."""
        textworld = require("textworld", "textworld", "textworld")
        inform7 = require("textworld.generator.inform7", "textworld", "textworld")
        self._game = textworld.Game.load(description)
        self._inform7 = inform7.Inform7Game(self._game)
        self.objective: str = self._game.objective
        self.max_score: int = self._game.max_score
        self.verbs = frozenset(self._game.verbs)
        self._states: dict[frozenset[Any], State] = {}
        self.start = self._state(self._game.world.state)

    def after(self, state: State, event: str) -> State:
        """The state that the Inform event ``event`` leads to; ``state`` itself when it changes nothing."""
        found = state.next.get(event)
        if found is None:
            with _lock:
                action = self._inform7.detect_action(event, state.actions)
                if action is None:
                    found = state
                else:
                    facts = state.facts.copy()
                    facts.apply(action)
                    found = self._state(facts)
                state.next[event] = found
        return found

    def gold(self) -> list[str]:
        """Commands that win the game from its start."""
        progression = require("textworld.generator.game", "textworld", "textworld").GameProgression
        with _lock:
            policy = progression(self._game, track_quests=True).winning_policy
            return list(self._inform7.gen_commands_from_actions(policy or []))

    def _state(self, facts: Any) -> State:
        key = frozenset(facts.facts)
        if key not in self._states:
            if len(self._states) >= _MAX_STATES:
                self._states.clear()  # states that are in use live on; they are only no longer shared
            knowledge = self._game.kb
            actions = list(facts.all_applicable_actions(knowledge.rules.values(), knowledge.types.constants_mapping))
            commands = tuple(sorted(set(self._inform7.gen_commands_from_actions(actions))))
            self._states[key] = State(facts, actions, commands)
        return self._states[key]


@functools.lru_cache(maxsize=512)
def _logic(description: str) -> Logic:
    return Logic(description)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the game answered to one command. ``refused`` says why nothing came of it, or is empty."""

    text: str
    refused: str
    score: int
    won: bool
    lost: bool
    state: State


class Player:
    """One game in its interpreter. Each player has an interpreter of its own, so players may live in threads."""

    def __init__(self, path: str) -> None:
        """``path``: a compiled game (.z8) with its description (.json) beside it."""
        jericho = require("jericho", "textworld", "textworld")
        with _lock:
            warnings.simplefilter("ignore", jericho.UnsupportedGameWarning)  # it knows published games only
            self.logic = _logic(path.removesuffix(".z8") + ".json")
            self._machine: Any = jericho.FrotzEnv(path, seed=1)
        opening, _ = self._machine.reset()
        self._machine.step("tw-trace-actions")
        first = self._machine.step("tw-extra-infos score")[0]
        self._start = (self._machine.get_state(), self._turn(opening, self.logic.start, _score(first, 0)))
        self.turn = self._start[1]

    def reset(self) -> Turn:
        """Back to the start of the game."""
        self.restore(self._start)
        return self.turn

    def snapshot(self) -> tuple[Any, Turn]:
        """Where the game is now, for `restore`."""
        return self._machine.get_state(), self.turn

    def restore(self, snapshot: tuple[Any, Turn]) -> None:
        """Back to where the game was at `snapshot`."""
        state, self.turn = snapshot
        self._machine.set_state(state)

    def step(self, command: str) -> Turn:
        """Send one command: one line of ASCII, of fewer than 190 characters."""
        self.turn = self._turn(self._machine.step(command)[0], self.turn.state, self.turn.score)
        return self.turn

    def close(self) -> None:
        """Unload the interpreter."""
        self._machine = None

    def _turn(self, raw: str, state: State, score: int) -> Turn:
        score = _score(raw, score)
        raw = _TAGS.sub("", raw)
        events = _EVENT.findall(raw)
        before = state
        for event in events:
            name, succeeded, _ = event.partition(" - succeeded")
            if succeeded and "(" not in name:  # what stands in brackets is a rule within a rule
                state = self.logic.after(state, name)
        text = _tidy(_EVENT.sub("", raw))
        refused = text if state is before and not any(" - succeeded" in event for event in events) else ""
        return Turn(text, refused, score, "*** The End ***" in raw, "*** You lost! ***" in raw, state)


def _score(raw: str, default: int) -> int:
    found = _SCORE.search(raw)
    return int(found[1]) if found else default


def _tidy(raw: str) -> str:
    """The game's words: without title page, prompt, status line and the interpreter's question after the end."""
    raw = raw.rpartition("$$$$$$$ \n")[2].partition("\nWould you like to RESTART")[0]
    text, prompt, status = raw.rpartition("\n>")
    if not prompt:
        text, prompt, status = raw.rpartition(">")
    text = text if prompt and (not status.strip() or "-=" in status) else raw
    return _BLANK_LINES.sub("\n\n", text).strip()
