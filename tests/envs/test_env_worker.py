"""Environments in processes of their own: they answer, they crash alone, and they do not stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentkit.envs import make
from agentkit.envs.worker import WorkerCrashed, WorkerEnv, WorkerError, WorkerVectorEnv
from agentkit.errors import InvalidValue, UnknownName
from agentkit.testing import check_env
from tests.envs import broken_worlds


class Fragile(broken_worlds.Good):
    """Does to its process what the action says."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        match action:
            case "raise":
                raise RuntimeError("on purpose")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(1000)
            case "child":
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
                return str(child.pid), 0.0, False, False, self.info(success=False)
        return super().step(action)


FRAGILE = f"{__name__}:Fragile"


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_it_plays_the_same_episode_and_keeps_the_contract() -> None:
    here, there = make("agentkit/Taxi-v0"), WorkerEnv("agentkit/Taxi-v0")
    assert here.reset(seed=5) == there.reset(seed=5)
    for action in ["go north", "fly 打 \ud800", "go east"]:
        assert here.step(action) == there.step(action)
    there.close()
    assert check_env(lambda: WorkerEnv("agentkit/Taxi-v0"), steps=8).ok


def test_an_error_is_told_with_its_traceback_and_the_process_goes_on() -> None:
    env = WorkerEnv(FRAGILE)
    env.reset(seed=0)
    pid = env.pid
    with pytest.raises(WorkerError, match="on purpose") as caught:
        env.step("raise")
    assert not isinstance(caught.value, WorkerCrashed)
    assert "test_env_worker.py" in str(caught.value)
    env.reset(seed=0)
    assert env.pid == pid
    env.close()


@pytest.mark.parametrize(("action", "said"), [("kill", "code -9"), ("hang", "did not answer within 5 s")])
def test_a_crash_and_a_hang_end_the_episode_and_reset_starts_again(action: str, said: str) -> None:
    env = WorkerEnv(FRAGILE, timeout_s=5)
    first = env.reset(seed=0)
    pid = env.pid
    assert pid is not None
    child = int(env.step("child")[0])
    with pytest.raises(WorkerCrashed, match=said):
        env.step(action)
    assert gone(pid)
    assert gone(child)
    with pytest.raises(WorkerCrashed, match="call reset"):
        env.step("1")
    assert env.reset(seed=0) == first
    env.close()


@pytest.mark.parametrize("ending", ["close", "forgotten", "killed", "killed while the world hangs"])
def test_the_process_does_not_outlive_its_caller(ending: str) -> None:
    if ending in ("close", "forgotten"):
        env = WorkerEnv("agentkit/Blackjack-v0")
        pid = env.pid
        assert pid is not None
        if ending == "close":
            env.close()
            env.close()
        del env
        assert gone(pid)
        return
    code = (
        "import sys; from agentkit.envs.worker import WorkerEnv\n"
        f"env = WorkerEnv({FRAGILE!r}); env.reset(seed=0); print(env.pid, flush=True)\n"
        f"if {ending!r} == 'killed': sys.stdin.read()\n"
        "print(env.send_step('hang'), flush=True); sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as caller:
        assert caller.stdout is not None
        pid = int(caller.stdout.readline())
        if ending != "killed":
            caller.stdout.readline()
        caller.kill()
    assert gone(pid)


def test_a_vector_of_processes_goes_on_when_one_crashes() -> None:
    vector = WorkerVectorEnv(FRAGILE, 3)
    try:
        observations, infos = vector.reset(seed=0)
        assert observations == ("I think of a number.",) * 3
        assert list(infos["goal"]) == ["Guess the number between 1 and 9."] * 3
        _, rewards, terminated, truncated, infos = vector.step(["kill", "raise", "nothing"])
        assert truncated.tolist() == [True, True, False]
        assert terminated.tolist() == [False] * 3
        assert rewards.tolist() == [0.0] * 3
        assert "code -9" in infos["env_error"][0]
        assert "on purpose" in infos["env_error"][1]
        assert infos["_env_error"].tolist() == [True, True, False]
        observations, _, terminated, truncated, infos = vector.step(["9", "9", "nothing"])
        assert observations[:2] == ("I think of a number.",) * 2  # they begin anew with the step after their last
        assert not truncated.any()
        for guess in "123456789":
            _, rewards, terminated, *_ = vector.step([guess] * 3)
            if terminated.all():
                break
        assert vector.num_envs == 3
    finally:
        vector.close()
    assert all(env.pid is None for env in vector.envs)


def test_a_vector_plays_what_single_environments_play() -> None:
    vector = WorkerVectorEnv("agentkit/FrozenLake-v0", 2, {"is_slippery": True})
    singles = [make("agentkit/FrozenLake-v0", is_slippery=True) for _ in range(2)]
    assert vector.reset(seed=4)[0] == tuple(env.reset(seed=4 + i)[0] for i, env in enumerate(singles))
    for _ in range(5):
        texts, _, terminated, _, infos = vector.step(["go right", "go up"])
        alone = [env.step(a) for env, a in zip(singles, ["go right", "go up"], strict=True)]
        assert texts == tuple(a[0] for a in alone)
        assert infos["success"].tolist() == [a[4]["success"] for a in alone]
        assert terminated.tolist() == [a[2] for a in alone]
        if terminated.any():
            break
    assert texts in vector.observation_space
    vector.close()


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(InvalidValue):
        WorkerEnv("agentkit/Taxi-v0", timeout_s=0)
    with pytest.raises(InvalidValue):
        WorkerVectorEnv("agentkit/Taxi-v0", 0)
    with pytest.raises(UnknownName, match="Did you mean 'agentkit/Taxi-v0'"):
        WorkerEnv("agentkit/Taxy-v0")
