"""The process of a `agentkit.envs.worker.WorkerEnv`. Its argument is JSON: ``{"env": …, "kwargs": …}``."""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from typing import Any

from agentkit.envs.registration import make
from agentkit.errors import InvalidValue, MissingExtra, UnknownName

_SECONDS_TO_END = 5.0


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the world prints goes to standard error
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    env: Any = None
    while (request := requests.get()) is not None:
        try:
            if env is None:
                env = _make(json.loads(sys.argv[1]))
            answer = {"value": _do(env, *request)}
        except (InvalidValue, MissingExtra, UnknownName) as error:  # the caller's to mend: it crosses as what it is
            answer = {"refused": [type(error).__name__, str(error)]}
        except Exception:  # told to the caller, as an error of this call
            answer = {"error": traceback.format_exc(limit=-8)}
        answers.write(json.dumps(answer, default=str) + "\n")
    if env is not None:
        env.close()


def _make(made: dict[str, Any]) -> Any:
    module, colon, name = made["env"].partition(":")
    if not colon:
        return make(made["env"], **made["kwargs"])
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return target(**made["kwargs"])


def _do(env: Any, what: str, *arguments: Any) -> Any:
    if what == "step":
        return env.step(arguments[0])
    if what == "reset":
        return env.reset(seed=arguments[0], options=arguments[1])
    spaces = (env.observation_space, env.action_space)
    return [(space.min_length, space.max_length, space.characters) for space in spaces]


def _read(requests: queue.SimpleQueue[Any]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    requests.put(None)
    # The caller is gone. Where the world hangs, it goes with all that it started.
    time.sleep(_SECONDS_TO_END)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
