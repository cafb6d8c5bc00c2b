"""Crafter (Hafner 2021, arXiv:2109.06780) with primitives for programs. Extra ``crafter``."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from agentkit.envs.extras import require
from agentkit.envs.programs import Over, ProgramEnv, Status, program_env
from agentkit.envs.tasks import choose, read_options

_DIRECTIONS = {(-1, 0): "left", (1, 0): "right", (0, -1): "up", (0, 1): "down"}
_COMPASS = {(-1, 0): "west", (1, 0): "east", (0, -1): "north", (0, 1): "south"}
_WALKABLE = ("grass", "sand", "path")
_CREATURES = ("cow", "zombie", "skeleton", "plant")
_TAKES = {  # what to stand before to get an item
    "wood": "tree",
    "stone": "stone",
    "coal": "coal",
    "iron": "iron",
    "diamond": "diamond",
    "drink": "water",
    "sapling": "grass",
}
_KEPT = 16
_made: dict[int, tuple[Any, Any]] = {}
_lock = threading.Lock()
_VIEW = (4, 3)  # how far the player sees, east and west, north and south
_PLAN = """
def gather(item, count):
    while inventory().get(item, 0) < count:
        if not collect(item):
            raise RuntimeError("no " + item + " can be reached")

def at(thing):
    if not move_to(thing):
        raise RuntimeError("no " + thing + " can be reached")
"""
_STONE = "gather('wood', 5)\nplace('table')\nmake('wood_pickaxe')\ngather('stone', 1)\n"
_GOLD = {
    "collect_wood": "gather('wood', 1)",
    "collect_drink": "collect('drink')",
    "collect_sapling": "gather('sapling', 1)",
    "place_plant": "gather('sapling', 1)\nplace('plant')",
    "eat_cow": "attack('cow')",
    "place_table": "gather('wood', 2)\nplace('table')",
    "make_wood_pickaxe": "gather('wood', 4)\nplace('table')\nmake('wood_pickaxe')",
    "make_wood_sword": "gather('wood', 4)\nplace('table')\nmake('wood_sword')",
    "collect_stone": "gather('wood', 4)\nplace('table')\nmake('wood_pickaxe')\ngather('stone', 1)",
    "place_stone": "gather('wood', 4)\nplace('table')\nmake('wood_pickaxe')\ngather('stone', 1)\nplace('stone')",
    "make_stone_pickaxe": f"{_STONE}at('table')\nmake('stone_pickaxe')",
    "make_stone_sword": f"{_STONE}at('table')\nmake('stone_sword')",
}


class _Ordered(dict[Any, None]):
    """A set that is iterated in the order of insertion. Crafter keeps its creatures in sets of objects whose hash is
    their address, so that the same seed gives another episode in another process."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]


class CrafterWorld:
    """One achievement to unlock: ``options["achievement"]`` names it, else the seed chooses among those a program is
    known for. A program sees the map as far as the player has seen it."""

    def __init__(self) -> None:
        crafter = require("crafter", "crafter", "crafter")
        engine = require("crafter.engine", "crafter", "crafter")

        class World(engine.World):  # type: ignore[misc, name-defined]  # crafter has no types
            def reset(self, seed: int | None = None) -> None:
                super().reset(seed)
                self._chunks: dict[Any, _Ordered] = defaultdict(_Ordered)

        self.achievements: list[str] = require("crafter.constants", "crafter", "crafter").achievements
        self._env: Any = crafter.Env(seed=0, length=None)
        self._env._world.__class__ = World
        # Nothing is drawn: the world is read as text.
        for name in ("_obs", "_sem_view"):
            setattr(self._env, name, lambda: None)
        self._achievement = ""
        self._take_step: Callable[[], None] = lambda: None
        self._seen: set[tuple[int, int]] = set()

    # --- the protocol -----------------------------------------------------------------------------------------------

    def begin(self, random: np.random.Generator, options: Mapping[str, Any], take_step: Callable[[], None]) -> str:
        chosen = read_options(options, {"achievement": None, "skills": {}})["achievement"]
        seed = int(random.integers(2**31 - 1))
        drawn = sorted(_GOLD)[int(random.integers(len(_GOLD)))]
        self._achievement = drawn if chosen is None else choose("achievement", chosen, self.achievements)
        self._generate(seed)
        self._take_step = take_step
        self._seen = set()
        self._look()
        return f"In the world of Crafter, unlock the achievement {self._achievement.replace('_', ' ')}."

    @property
    def primitives(self) -> Mapping[str, Callable[..., object]]:
        functions = (
            self.observe,
            self.inventory,
            self.nearby,
            self.move_to,
            self.explore,
            self.collect,
            self.place,
            self.make,
            self.attack,
            self.sleep,
        )
        return {f.__name__: f for f in functions}

    def describe(self) -> str:
        return self.observe()

    def status(self) -> Status:
        done = bool(self._player.achievements[self._achievement])
        return Status(done, float(done), self._player.health <= 0)

    def gold(self) -> str:
        plan = _GOLD.get(self._achievement)
        return f"{_PLAN}\n{plan}\n" if plan else ""

    def close(self) -> None:
        """There is nothing to close."""

    # --- the primitives ---------------------------------------------------------------------------------------------

    def observe(self) -> str:
        """What you see, carry and face, in words."""
        things = sorted(self._visible(), key=lambda t: (abs(t[1]) + abs(t[2]), t))
        nearest: dict[str, str] = {}
        for name, dx, dy in things:
            east = [f"{abs(dx)} {'east' if dx > 0 else 'west'}"] if dx else []
            south = [f"{abs(dy)} {'south' if dy > 0 else 'north'}"] if dy else []
            nearest.setdefault(name, f"{name} {' '.join(east + south)}")
        facing = self._facing
        ahead = self._at(self._beside(facing))
        carried = ", ".join(f"{k} {v}" for k, v in self.inventory().items())
        asleep = " You are asleep." if self._player.sleeping else ""
        sees = ", ".join(nearest.values())
        return f"You face {_COMPASS[facing]}, {ahead}. You see: {sees}. You have: {carried}.{asleep}"

    def inventory(self) -> dict[str, int]:
        """What you carry, and your health, food, drink and energy, each at most 9."""
        return {k: int(v) for k, v in self._player.inventory.items() if v}

    def nearby(self) -> list[tuple[str, int, int]]:
        """All things in view as (name, steps east, steps south)."""
        return sorted(self._visible(), key=lambda t: (abs(t[1]) + abs(t[2]), t))

    def move_to(self, thing: str) -> bool:
        """Walk until you face the nearest thing of this name that you have seen, exploring if you have seen none.
        False when none can be reached."""
        self._known(thing)
        for _ in range(200):
            path = self._path(lambda cell: self._at(cell) == thing)
            if path is None:
                if not self.explore(10):
                    return False
            elif len(path) > 1:
                self._follow(path[:-1] if thing not in _CREATURES else path[:1])
            else:
                self._face(path[0])
                return True
        return False

    def explore(self, steps: int = 20) -> bool:
        """Walk toward the nearest place you have not seen. False when there is none to be reached."""
        left = max(0, min(int(steps), 200))
        moved = False
        while left > 0:
            path = self._path(lambda cell: cell not in self._seen, walk_into=True)
            if path is None:
                return moved
            left -= self._follow(path[:left])
            moved = True
        return moved

    def collect(self, item: str) -> bool:
        """Get one wood, stone, coal, iron, diamond, drink or sapling. False when it did not work: the source cannot be
        reached, or you lack the pickaxe."""
        if item not in _TAKES:
            raise ValueError(f"no item {item!r} can be collected; there are {', '.join(_TAKES)}")
        before = self._player.inventory[item], self._player.achievements[f"collect_{item}"]
        for _ in range(60 if item == "sapling" else 5):
            if not self.move_to(_TAKES[item]):
                return False
            self._act("do")
            if (self._player.inventory[item], self._player.achievements[f"collect_{item}"]) > before:
                return True
        return False

    def place(self, thing: str) -> bool:
        """Place a stone, table, furnace or plant before you. A table takes 2 wood, a furnace 4 stone and a table
        nearby, a plant a sapling and grass. False when it did not work."""
        if thing not in ("stone", "table", "furnace", "plant"):
            raise ValueError(f"no {thing!r} can be placed; there are stone, table, furnace, plant")
        free = ("grass",) if thing == "plant" else _WALKABLE
        before = self._player.achievements[f"place_{thing}"]
        for _ in range(6):
            if self._at(self._beside(self._facing)) in free:
                self._act(f"place_{thing}")
                return bool(self._player.achievements[f"place_{thing}"] > before)
            # To turn is to walk, where the way is open: best to where the next cell will be free as well.
            open_ways = [d for d in _DIRECTIONS if self._at(self._beside(d)) in _WALKABLE]
            if not open_ways:
                return False
            self._walk(max(open_ways, key=lambda d: self._at(self._beside(d, 2)) in free))
        return False

    def make(self, tool: str) -> bool:
        """Make a wood_, stone_ or iron_ pickaxe or sword at a nearby table. Wood tools take 1 wood, stone tools 1 wood
        and 1 stone, iron tools 1 wood, 1 coal, 1 iron and a furnace nearby too. False when it did not work."""
        if f"make_{tool}" not in self._env.action_names:
            raise ValueError(f"no {tool!r} can be made; there are wood_pickaxe, wood_sword, stone_pickaxe, …")
        before = self._player.inventory[tool]
        self._act(f"make_{tool}")
        return bool(self._player.inventory[tool] > before)

    def attack(self, creature: str) -> bool:
        """Hit the nearest cow, zombie, skeleton or plant until it is gone or eaten. False when it cannot be reached."""
        if creature not in _CREATURES:
            raise ValueError(f"no {creature!r} can be attacked; there are {', '.join(_CREATURES)}")
        names = {"cow": "eat_cow", "plant": "eat_plant"}
        achievement = names.get(creature, f"defeat_{creature}")
        before = self._player.achievements[achievement]
        for _ in range(60):
            if not self.move_to(creature):
                return False
            self._act("do")
            if self._player.achievements[achievement] > before:
                return True
        return False

    def sleep(self) -> bool:
        """Sleep until you wake. False when you are not tired."""
        if self._player.inventory["energy"] >= 9:
            return False
        self._act("sleep")
        while self._player.sleeping:
            self._act("noop")
        return True

    # --- the world behind them --------------------------------------------------------------------------------------

    def _generate(self, seed: int) -> None:
        """Reset to the map of ``seed``. To make one takes seconds, so the last ones made are kept."""
        env = self._env
        with _lock:
            made = _made.get(seed)
        if made is None:
            env._seed, env._episode = seed, 0
            env.reset()
            made = copy.deepcopy((env._world, env._player))
            with _lock:
                _made[seed] = made
                while len(_made) > _KEPT:
                    del _made[next(iter(_made))]
        env._world, env._player = copy.deepcopy(made)
        env._step, env._episode, env._unlocked, env._last_health = 0, 1, set(), env._player.health

    @property
    def _player(self) -> Any:
        return self._env._player

    def _known(self, thing: str) -> None:
        known = {*self._env._world._mat_ids, *_CREATURES} - {None}
        if thing not in known:
            raise ValueError(f"there is no {thing!r} in this world; there are {', '.join(sorted(known))}")

    def _act(self, action: str) -> None:
        if self._player.health <= 0:
            raise Over("you have died")
        self._take_step()
        self._env.step(self._env.action_names.index(action))
        self._look()
        if self._player.health <= 0:
            raise Over("you have died")

    @property
    def _facing(self) -> tuple[int, int]:
        x, y = self._player.facing
        return int(x), int(y)

    def _beside(self, direction: tuple[int, int], distance: int = 1) -> tuple[int, int]:
        x, y = self._player.pos
        return int(x) + distance * direction[0], int(y) + distance * direction[1]

    def _at(self, cell: tuple[int, int]) -> str:
        if not self._inside(cell):
            return "the edge of the world"
        world = self._env._world
        if creature := world._obj_map[cell]:
            return type(world._objects[creature]).__name__.lower()
        return str(world._mat_names[world._mat_map[cell]])

    def _inside(self, cell: tuple[int, int]) -> bool:
        width, height = self._env._world.area
        return bool(0 <= cell[0] < width and 0 <= cell[1] < height)

    def _around(self) -> Iterator[tuple[int, int]]:
        x, y = (int(v) for v in self._player.pos)
        for dx in range(-_VIEW[0], _VIEW[0] + 1):
            for dy in range(-_VIEW[1], _VIEW[1] + 1):
                if self._inside((x + dx, y + dy)):
                    yield x + dx, y + dy

    def _look(self) -> None:
        self._seen.update(self._around())

    def _visible(self) -> Iterator[tuple[str, int, int]]:
        x, y = (int(v) for v in self._player.pos)
        for cell in self._around():
            if cell != (x, y):
                yield self._at(cell), cell[0] - x, cell[1] - y

    def _path(self, found: Callable[[tuple[int, int]], bool], walk_into: bool = False) -> list[tuple[int, int]] | None:
        """The directions to take to stand before (with ``walk_into``: on) the nearest cell that is ``found``, over seen
        and walkable ground; the last is the one to face."""
        x, y = (int(v) for v in self._player.pos)
        came: dict[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]] = {}
        queue = deque([(x, y)])
        while queue:
            cell = queue.popleft()
            for direction in _DIRECTIONS:
                to = (cell[0] + direction[0], cell[1] + direction[1])
                if to in came or to == (x, y) or not self._inside(to):
                    continue
                if to not in self._seen and not walk_into:
                    continue
                walkable = to not in self._seen or self._at(to) in _WALKABLE
                if found(to) and (walkable or not walk_into):
                    steps = [direction]
                    while cell != (x, y):
                        cell, step = came[cell]
                        steps.append(step)
                    return steps[::-1]
                if walkable and to in self._seen:
                    came[to] = (cell, direction)
                    queue.append(to)
        return None

    def _follow(self, path: list[tuple[int, int]]) -> int:
        """Walk a path as far as it is open; the steps taken, at least one (what is in the way may move off)."""
        for taken, direction in enumerate(path):
            if taken and self._at(self._beside(direction)) not in _WALKABLE:
                return taken
            self._walk(direction)
        return len(path)

    def _walk(self, direction: tuple[int, int]) -> None:
        self._act(f"move_{_DIRECTIONS[direction]}")

    def _face(self, direction: tuple[int, int]) -> None:
        """Turn without walking on: a thing in the way stops a move, and open ground is stepped on to turn."""
        if self._facing != direction:
            self._walk(direction)


def crafter_program(**kwargs: Any) -> ProgramEnv:
    """Crafter for programs. ``kwargs`` are those of `ProgramEnv`."""
    return program_env("agentkit/CrafterProgram-v0", CrafterWorld(), kwargs)
