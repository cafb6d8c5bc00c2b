"""The table of the environments that ship, and `make`.

Other packages add theirs in one of two ways: they register with Gymnasium as usual, or have an entry point in the group
``agentkit.envs``, whose name is the environment's id::

    [project.entry-points."agentkit.envs"]
    "mine/Maze-v0" = "my_package.maze:MazeEnv"
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from agentkit.envs.tasks import check_names, checked
from agentkit.errors import UnknownName

if TYPE_CHECKING:
    import gymnasium

ENTRY_POINTS = "agentkit.envs"
_FORM = 'gymnasium.register("mine/Maze-v0", "my_package.maze:MazeEnv") does it: see docs/environments.md.'


@dataclass(frozen=True, slots=True)
class World:
    """One row of the table. ``max_steps`` is the default step limit; ``gymnasium.make`` takes another."""

    id: str
    entry_point: str
    max_steps: int | None
    kwargs: dict[str, Any] = field(default_factory=dict)


WORLDS: tuple[World, ...] = (
    World("agentkit/ALFWorld-v0", "agentkit.envs.alfworld:ALFWorldEnv", 50),
    World("agentkit/AgentDojo-v0", "agentkit.envs.agentdojo:AgentDojoEnv", None),
    World("agentkit/BFCL-v0", "agentkit.envs.bfcl:BFCLEnv", None),
    World("agentkit/BabyAI-v0", "agentkit.envs.minigrid:MiniGridEnv", None),
    World("agentkit/BabyAIProgram-v0", "agentkit.envs.programs_text:babyai_program", None),
    World("agentkit/Blackjack-v0", "agentkit.envs.toytext:blackjack", 20),
    World("agentkit/CliffWalking-v0", "agentkit.envs.toytext:cliff_walking", 100),
    World("agentkit/CodeTasks-v0", "agentkit.envs.code:code_tasks_env", None),
    World("agentkit/Crafter-v0", "agentkit.envs.crafter:CrafterEnv", 1000),
    World("agentkit/CrafterProgram-v0", "agentkit.envs.programs_crafter:crafter_program", None),
    World("agentkit/FrozenLake-v0", "agentkit.envs.toytext:frozen_lake", 100),
    World("agentkit/HumanEval-v0", "agentkit.envs.code:human_eval_env", None),
    World("agentkit/MiniGrid-v0", "agentkit.envs.minigrid:MiniGridEnv", None, {"level": "MiniGrid-DoorKey-5x5-v0"}),
    World("agentkit/MiniWoB-v0", "agentkit.envs.miniwob:MiniWobEnv", 100),
    World("agentkit/ReasoningGym-v0", "agentkit.envs.reasoning_gym:ReasoningGymEnv", None),
    World("agentkit/ScienceWorld-v0", "agentkit.envs.scienceworld:ScienceWorldEnv", 100),
    World("agentkit/Search-v0", "agentkit.envs.search:search_env", 30),
    World("agentkit/Taxi-v0", "agentkit.envs.toytext:taxi", 200),
    World("agentkit/TextCraft-v0", "agentkit.envs.textcraft:TextCraftEnv", 60),
    World("agentkit/TextCraftProgram-v0", "agentkit.envs.programs_text:textcraft_program", None),
    World("agentkit/TextWorld-v0", "agentkit.envs.textworld:TextWorldEnv", 100),
    World("agentkit/TextWorldExpress-v0", "agentkit.envs.textworld_express:TextWorldExpressEnv", 100),
)


def register_all() -> None:
    """Register all environments with Gymnasium. Doing it again changes nothing.

    An entry point of another package that cannot be used is a warning: it must not keep the others from being made.
    """
    import gymnasium
    from gymnasium.envs.registration import register, registry

    for world in WORLDS:
        if world.id not in registry:
            register(
                id=world.id,
                entry_point=world.entry_point,
                max_episode_steps=world.max_steps,
                disable_env_checker=True,  # it would look at every character of every observation
                kwargs=dict(world.kwargs),
            )
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in registry:
            try:
                register(id=entry.name, entry_point=entry.value, disable_env_checker=True)
            except gymnasium.error.Error as error:
                _warn(entry, f"is no id: {error}")
        elif registry[entry.name].entry_point != entry.value:
            _warn(entry, f"is not used: the id is that of {registry[entry.name].entry_point} already")


def _warn(entry: EntryPoint, problem: str) -> None:
    package = entry.dist.name if entry.dist is not None else "a package"
    warnings.warn(f"the entry point {entry.name!r} of {package} in {ENTRY_POINTS} {problem}", stacklevel=3)


def env_ids() -> list[str]:
    """The ids of the text environments: those that ship and those of installed entry points."""
    return sorted({*(w.id for w in WORLDS), *(e.name for e in entry_points(group=ENTRY_POINTS))})


def make(id: str, **kwargs: Any) -> gymnasium.Env[str, str]:
    """The environment called ``id``, as ``gymnasium.make`` makes it.

    ``kwargs`` go to the environment, and ``max_episode_steps`` to the step limit around it. Raises `UnknownName` with
    the nearest ids or arguments, and `agentkit.errors.MissingExtra` with the pip command where a package is not
    installed.
    """
    import gymnasium

    own = {name for name in kwargs if name not in ("max_episode_steps", "disable_env_checker")}
    check_names(id, creator(id), own)
    if (limit := kwargs.get("max_episode_steps")) not in (None, -1):  # -1: no limit
        checked("max_episode_steps", limit, int, low=1)
    env: gymnasium.Env[str, str] = gymnasium.make(id, **kwargs)
    return env


def creator(id: str) -> Callable[..., Any]:
    """The class or function that makes the environment ``id``. Raises `UnknownName` for an id that is not registered,
    and for an entry point whose module or attribute is not there."""
    import gymnasium

    register_all()
    module, _, name = checked("id", id, str).rpartition(":")
    if module:  # as in Gymnasium: importing it registers the environment
        _imported(module, id)
    if name not in gymnasium.registry:
        near = {i for i in gymnasium.registry if i.startswith(name.split("/")[0] + "/")} if "/" in name else set()
        raise UnknownName.among("environment", id, {*env_ids(), *near}, _hint(id))
    point = gymnasium.registry[name].entry_point
    if callable(point):
        return point
    module, _, attribute = str(point or "").partition(":")
    if not module or not attribute:
        raise UnknownName(f"{id} is registered as {point!r}: it must be 'module:Class'")
    found: Any = _imported(module, f"{id} is registered as {point!r}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [n for n, value in vars(found).items() if callable(value) and not n.startswith("_")]
            error = UnknownName.among("name", attribute, known)
            raise UnknownName(f"{id} is registered as {point!r}, and {module} has no such name: {error}")
        found = getattr(found, part)
    made: Callable[..., Any] = found
    return made


def _imported(module: str, whose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise UnknownName(
            f"{whose}: there is no module {error.name!r}. Install its package, start Python where it lies, or correct "
            "the name."
        ) from None


def _hint(id: str) -> str:
    if f"agentkit/{id}" in env_ids():
        return f"The id in full is 'agentkit/{id}'."
    return f"An environment of your own must be registered first. {_FORM}"
