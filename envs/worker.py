"""Environments in processes of their own: alone (`WorkerEnv`) or many at once (`WorkerVectorEnv`).

For worlds that are not safe in threads, that leak, hang or crash: whatever happens in the process, the caller gets an
answer or an error, and the next ``reset`` starts a new process. What travels is JSON, a line each way a call.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agentkit.envs.spaces import check_action
from agentkit.envs.tasks import as_dict, checked
from agentkit.errors import AgentkitError, InvalidValue, MissingExtra, UnknownName

START_SECONDS = 120.0
_SECONDS_TO_END = 5.0
_REFUSALS: dict[str, type[AgentkitError]] = {"MissingExtra": MissingExtra, "UnknownName": UnknownName}


class WorkerError(AgentkitError, RuntimeError):
    """The environment raised in its process; the process goes on. The message ends with its traceback."""


class WorkerCrashed(WorkerError):
    """The environment's process ended or did not answer in time. The next ``reset`` starts another."""


class WorkerEnv(gymnasium.Env[str, str]):
    """An environment that lives in a process of its own.

    Args:
        env: an id that `agentkit.envs.make` knows, or ``"module:attr"`` of a class or function that makes one.
        kwargs: its arguments, as JSON values.
        timeout_s: how many seconds a call may take before the process, and all that it started, is killed. Starting
            may take `START_SECONDS`.

    The process ends with `close`, with this object, and when this process ends in whatever way.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, env: str, kwargs: Mapping[str, Any] | None = None, *, timeout_s: float = 300.0) -> None:
        self._made = {"env": checked("env", env, str), "kwargs": _as_json("kwargs", as_dict("kwargs", kwargs))}
        self._timeout_s = checked("timeout_s", timeout_s, float, low=0.01)
        self._process: _Process | None = None
        self._ready()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        options = _as_json("options", as_dict("options", options))
        if seed is None and self._process is None:
            seed = int(self.np_random.integers(2**31))  # a new process does not know the old one's generator
        observation, info = self._ready().call(("reset", seed, options))
        return observation, info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        self.send_step(action)
        return self.receive_step()

    def send_step(self, action: str) -> None:
        """The first half of `step`, for stepping many at once."""
        check_action(action)
        if self._process is None:
            raise WorkerCrashed("the environment's process has ended: call reset")
        self._process.send(("step", action))

    def receive_step(self) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """The second half of `step`."""
        if self._process is None:
            raise WorkerCrashed("the environment's process has ended: call reset")
        observation, reward, terminated, truncated, info = self._answered(self._process)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None

    @property
    def pid(self) -> int | None:
        """The process's number, or None where none is running."""
        return None if self._process is None else self._process.pid

    def _ready(self) -> _Caller:
        if self._process is None:
            self._process = _Process(self._made, START_SECONDS)
            spaces = _Caller(self).call(("spaces",))
            self._process.timeout_s = self._timeout_s
            self.observation_space, self.action_space = (
                gymnasium.spaces.Text(high, min_length=low, charset=frozenset(charset)) for low, high, charset in spaces
            )
        return _Caller(self)

    def _answered(self, process: _Process) -> Any:
        try:
            answer = process.receive()
        except WorkerCrashed:
            self._process = None
            raise
        if "refused" in answer:
            kind, message = answer["refused"]
            raise _REFUSALS.get(kind, InvalidValue)(message)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["value"]


class _Caller:
    """One call and its answer."""

    def __init__(self, env: WorkerEnv) -> None:
        self._env = env

    def call(self, request: tuple[Any, ...]) -> Any:
        process = self._env._process
        assert process is not None
        process.send(request)
        return self._env._answered(process)


class _Process:
    """The other process, and the pipes to it."""

    def __init__(self, made: Mapping[str, Any], timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self._popen = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "agentkit.envs.worker_main", json.dumps(made)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
            start_new_session=True,  # so that it can be killed with all that it started
        )
        self.pid = self._popen.pid
        self._buffer = b""
        self._kill = weakref.finalize(self, _kill, self._popen)

    def send(self, request: tuple[Any, ...]) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `receive` says that the process has ended
            self._popen.stdin.write(json.dumps(request).encode() + b"\n")
            self._popen.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        deadline = time.monotonic() + self.timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._popen.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._kill()
                    raise WorkerCrashed(f"the environment did not answer within {self.timeout_s:g} s and was killed")
                data = os.read(self._popen.stdout.fileno(), 1 << 20)
                if not data:
                    self._kill()
                    self._errors.seek(0)
                    said = self._errors.read()[-2000:].decode(errors="replace").strip()
                    code = self._popen.returncode
                    raise WorkerCrashed(f"the environment's process ended with code {code}. {said}".strip())
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Let it close its environment; kill it where it does not."""
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):
            self._popen.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_SECONDS_TO_END)
        self._kill()


def _as_json(name: str, value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        values = "texts, numbers, True, False, None, and lists and dicts of them"
        raise InvalidValue(f"{name} goes to another process as JSON: {values}, nothing else ({error})") from None
    return value


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


class WorkerVectorEnv(gymnasium.vector.VectorEnv[tuple[str, ...], Sequence[str], NDArray[Any]]):
    """Many environments at once through Gymnasium's vector API, each in a process of its own.

    An environment that raises, hangs or crashes ends its episode alone: truncated, with what happened in
    ``infos["env_error"]``, and a new process where the old one is gone. Episodes restart with the step after their
    last, as `gymnasium.vector.AutoresetMode.NEXT_STEP` says. Observations are tuples of texts.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012  Gymnasium declares it so

    def __init__(
        self, env: str, num_envs: int, kwargs: Mapping[str, Any] | None = None, *, timeout_s: float = 300.0
    ) -> None:
        self.num_envs = checked("num_envs", num_envs, int, low=1)
        self.envs: list[WorkerEnv] = []
        try:
            for _ in range(num_envs):
                self.envs.append(WorkerEnv(env, kwargs, timeout_s=timeout_s))
        except Exception:
            self.close_extras()
            raise
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._over = [False] * num_envs
        self._options: dict[str, Any] | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """An integer seed gives environment i the seed ``seed + i``."""
        if seed is None or isinstance(seed, int):
            seeds: list[int | None] = [None if seed is None else seed + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise InvalidValue(f"{len(seeds)} seeds for {self.num_envs} environments")
        self._options = options
        infos: dict[str, Any] = {}
        observations = []
        for i, env in enumerate(self.envs):
            observation, info = env.reset(seed=seeds[i], options=options)
            observations.append(observation)
            infos = self._add_info(infos, info, i)
        self._over = [False] * self.num_envs
        return tuple(observations), infos

    def step(
        self, actions: Sequence[str]
    ) -> tuple[tuple[str, ...], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Actions of environments whose episode ended with the last step are not used: those are reset."""
        if len(actions) != self.num_envs:
            raise InvalidValue(f"{len(actions)} actions for {self.num_envs} environments")
        for action in actions:  # before any is sent: an answer would be waited for that nobody reads
            check_action(action)
        for env, action, over in zip(self.envs, actions, self._over, strict=True):
            if not over and env.pid is not None:
                env.send_step(action)
        answers = [self._answer(i) for i in range(self.num_envs)]
        infos: dict[str, Any] = {}
        for i, answer in enumerate(answers):
            infos = self._add_info(infos, answer[4], i)
        self._over = [terminated or truncated for _, _, terminated, truncated, _ in answers]
        return (
            tuple(a[0] for a in answers),
            np.array([a[1] for a in answers], dtype=np.float64),
            np.array([a[2] for a in answers], dtype=np.bool_),
            np.array([a[3] for a in answers], dtype=np.bool_),
            infos,
        )

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()

    def _answer(self, i: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        try:
            if self._over[i]:
                observation, info = self.envs[i].reset(options=self._options)
                return observation, 0.0, False, False, info
            observation, reward, terminated, truncated, info = self.envs[i].receive_step()
            return observation, float(reward), terminated, truncated, info
        except AgentkitError as error:  # one environment's trouble is an episode's, not the whole vector's
            return "", 0.0, False, True, {"success": False, "env_error": str(error)}
