"""Episodes of an environment as digests, which can be compared between instances and between processes.

``python -m agentkit.testing.envtrace`` is the other process: it makes the environment that standard input describes as
JSON, plays the episodes and prints their traces.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import random
import sys
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, SupportsFloat

import gymnasium


class Playable(Protocol):
    """What of an environment is needed to play it."""

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]: ...

    def step(self, action: str) -> tuple[Any, Any, bool, bool, dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Trace:
    """An episode: its first observation, a digest after each step, and one of the whole."""

    opening: str
    digests: list[str]
    texts: list[str]

    @property
    def digest(self) -> str:
        return self.digests[-1]


def play(env: Playable, seed: int, steps: int, options: Mapping[str, Any]) -> Generator[None, None, Trace]:
    """Play an episode with a seeded choice among the admissible actions, or of words seen; returns its `Trace`."""
    chooser = random.Random(f"check_env {seed}")
    observation, info = env.reset(seed=seed, options=dict(options))
    opening, digest = observation, hashlib.sha256()
    digests, texts = [], []
    seen: tuple[object, ...] = (observation, info.get("goal"), admissible(info))
    for step in range(steps + 1):
        digest.update(json.dumps(seen, default=repr).encode())
        digests.append(digest.hexdigest())
        texts.append(str(seen[0]))
        if step == steps or (len(seen) > 3 and (seen[3] or seen[4])):
            break
        yield
        listed = admissible(info) or [w for w in str(observation).split() if w.isalpha()] or ["look"]
        action = chooser.choice(listed)
        observation, reward, terminated, truncated, info = env.step(action)
        extra = (info.get("success"), info.get("score"), info.get("feedback"), action)
        paid = float(reward) if isinstance(reward, SupportsFloat) else 0.0  # as `Watched` has it, which told it
        seen = (observation, paid, admissible(info), bool(terminated), bool(truncated), *extra)
    return Trace(opening, digests, texts)


def finish(player: Generator[None, None, Trace]) -> Trace:
    """Play to the end."""
    while True:
        try:
            next(player)
        except StopIteration as end:
            trace: Trace = end.value
            return trace


def admissible(info: Mapping[str, Any]) -> list[str]:
    listed = info.get("admissible_actions")
    return [a for a in listed if isinstance(a, str)] if isinstance(listed, list) else []


def difference(expected: Trace, found: Trace) -> str:
    for step, (a, b) in enumerate(zip(expected.digests, found.digests, strict=False)):
        if a != b:
            moment = "at reset" if step == 0 else f"at step {step}"
            texts = expected.texts[step], found.texts[step]
            if texts[0] == texts[1]:
                return f"another episode {moment}: the reward, the end or the info differ"
            return f"another episode {moment}: {short(texts[0])} and {short(texts[1])}"
    return f"another episode: it ends after {len(expected.digests) - 1} and {len(found.digests) - 1} steps"


def short(value: object, length: int = 120) -> str:
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= length else text[:length] + "…"


def main() -> None:
    """The other process: make the environment that standard input describes and print its traces."""
    request = json.load(sys.stdin)
    module, _, name = request["entry"].partition(":")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    env = target(**request["kwargs"])
    if request["max_steps"]:
        env = gymnasium.wrappers.TimeLimit(env, request["max_steps"])
    traces = {seed: asdict(finish(play(env, seed, request["steps"], request["options"]))) for seed in request["seeds"]}
    print("\n" + json.dumps(traces))
    with contextlib.suppress(Exception, SystemExit):  # what close raises is told by the process that asks
        env.close()


if __name__ == "__main__":
    main()
