"""Household games in ALFWorld's format, made from what the package ``alfworld`` ships: ALFRED's PDDL domain, text
grammar, goal library and the object lists of 120 floor plans.

The package's own games must be downloaded. These are of our own making: the six task types and ALFRED's division of
scenes are the same, where things lie is not, and scores on them are not comparable with published ones.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentkit.envs.extras import cache_folder, require

TASKS = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
SPLITS = ("train", "unseen")
_LAMPS = ("DeskLamp", "FloorLamp")
# What a task's object must allow, the appliance that does it, and the verb.
_TREATMENTS = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin", "clean"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave", "heat"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge", "cool"),
}
_PROPERTIES = {"Cleanable": "cleanable", "Heatable": "heatable", "Coolable": "coolable", "Sliceable": "sliceable"}
_MOST_OF_A_KIND = 4  # receptacles of one type; more make games slow


@dataclass(frozen=True, slots=True)
class HouseGame:
    """A game: ``data`` is what `textworld.envs.PddlEnv` loads, ``gold`` a plan in the objects' ids."""

    task: str
    scene: int
    goal: str
    data: Mapping[str, Any]
    gold: tuple[tuple[str, ...], ...]


def alfworld() -> Any:
    """The package's modules that are needed. Its import makes a folder, which is put into the cache folder."""
    os.environ.setdefault("ALFWORLD_DATA", str(cache_folder("alfworld")))
    require("alfworld", "alfworld", "alfworld")
    return require("alfworld.gen.constants", "alfworld", "alfworld")


def scenes(split: str) -> list[int]:
    """The numbers of ALFRED's scenes for training, and of those that agents have not seen."""
    constants = alfworld()
    return list(constants.TRAIN_SCENE_NUMBERS if split == "train" else constants.TEST_SCENE_NUMBERS)


def make_game(task: str, scene: int, variation: int) -> HouseGame | None:
    """A game of this task type in this scene, the same for the same arguments; None where the scene has no object or
    appliance for it."""
    house = _House(alfworld(), scene, random.Random(f"{task} {scene} {variation}"))
    return house.game(task)


@dataclass
class _House:
    """A scene being furnished. ``receptacles`` and ``objects`` map ids to types."""

    constants: Any
    scene: int
    rng: random.Random
    receptacles: dict[str, str] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        folder = Path(require("alfworld.gen", "alfworld", "alfworld").__file__).parent / "layouts"
        self.types: list[str] = json.loads((folder / f"FloorPlan{self.scene}-objects.json").read_text())
        poses: dict[str, Any] = json.loads((folder / f"FloorPlan{self.scene}-openable.json").read_text())
        holders = self.constants.VAL_RECEPTACLE_OBJECTS
        counts: dict[str, int] = {}
        for pose in sorted(poses):
            kind = pose.partition("|")[0]
            kind += "Basin" if kind in ("Sink", "Bathtub") else ""
            counts[kind] = counts.get(kind, 0) + 1
            if kind in holders and counts[kind] <= _MOST_OF_A_KIND:
                self.receptacles[self._id(kind)] = kind
        movable = self.constants.MOVABLE_RECEPTACLES_SET
        for kind in self.types:  # those that stand in one place only have no pose
            fixed = kind in self.constants.RECEPTACLES and kind not in movable and kind in holders
            if fixed and kind not in self.receptacles.values():
                self.receptacles[self._id(kind)] = kind
        self.things = [t for t in self.types if t not in self.constants.RECEPTACLES_SB or t in movable]
        self.lamps = [t for t in _LAMPS if t in self.types and t in self._able("Toggleable")]

    def game(self, task: str) -> HouseGame | None:
        kinds = set(self.receptacles.values())
        self.things = [t for t in self.things if self._holders(t)]
        treatment = _TREATMENTS.get(task)
        targets = sorted(t for t in self.things if t not in self.lamps)
        if treatment is not None:
            ability, appliance, _ = treatment
            targets = [t for t in targets if t in self._able(ability) and appliance in kinds]
        if not targets or (task == "look_at_obj_in_light" and not self.lamps):
            return None
        chosen = self._choose(task, targets)
        if chosen is None:
            return None
        target, destination, starts = chosen
        for _ in range(2 if task == "pick_two_obj_and_place" else 1):
            self._put(target, starts)
        for thing in self.things:
            if thing != target and thing not in self.lamps:
                for _ in range(self.rng.randint(1, 2)):
                    self._put(thing, self._holders(thing))
        for lamp in self.lamps:
            stands = [r for r in sorted(kinds) if r not in self.constants.OPENABLE_CLASS_SET]
            self._put(lamp, self._holders(lamp) or stands or sorted(kinds))
        return self._written(task, target, destination)

    def _choose(self, task: str, targets: list[str]) -> tuple[str, str, list[str]] | None:
        """An object type, the receptacle type it is to go to, and those where it may lie at the start."""
        appliance = _TREATMENTS[task][1] if task in _TREATMENTS else ""
        for target in self.rng.sample(targets, len(targets)):
            holders = self._holders(target)
            for destination in self.rng.sample(holders, len(holders)):
                # What lies where it is to go would be done at the start.
                starts = holders if task == "look_at_obj_in_light" else [r for r in holders if r != destination]
                if starts and destination != appliance:
                    return target, destination, starts
        return None

    def _written(self, task: str, target: str, destination: str) -> HouseGame:
        library = require("alfworld.gen.goal_library", "alfworld", "alfworld").gdict[task]
        info = require("alfworld.info", "alfworld", "alfworld")
        names = {"obj": target, "recep": destination, "toggle": (self.lamps or [""])[0]}
        template = self.rng.choice(library["templates"])
        goal = template.format(**{k: v.lower() for k, v in names.items()})
        problem = self._problem() + library["pddl"].replace("#", "-").format(**names)
        grammar = Path(info.ALFRED_TWL2_PATH).read_text().replace("UNKNOWN GOAL", goal)
        data = {
            "pddl_domain": Path(info.ALFRED_PDDL_PATH).read_text(),
            "grammar": grammar,
            "pddl_problem": problem,
            "task_type": task,
            "scene": self.scene,
        }
        return HouseGame(task, self.scene, goal, data, tuple(self._plan(task, target, destination)))

    def _problem(self) -> str:
        """The objects and the initial state, in PDDL, up to where the goal follows."""
        places = {r: f"loc_{i}" for i, r in enumerate(sorted(self.receptacles), 1)}
        facts = ["(= (total-cost) 0)", "(atLocation agent1 loc_0)"]
        for receptacle, place in places.items():
            kind = self.receptacles[receptacle]
            facts += [f"(receptacleAtLocation {receptacle} {place})", f"(receptacleType {receptacle} {kind}Type)"]
            if kind in self.constants.OPENABLE_CLASS_SET:
                facts.append(f"(openable {receptacle})")
        for thing, kind in self.objects.items():
            place = places[self.places[thing]]
            facts += [f"(objectType {thing} {kind}Type)", f"(inReceptacle {thing} {self.places[thing]})"]
            facts += [f"(objectAtLocation {thing} {place})"]
            facts.append(f"({'toggleable' if kind in self._able('Toggleable') else 'pickupable'} {thing})")
            facts += [f"({fact} {thing})" for ability, fact in _PROPERTIES.items() if kind in self._able(ability)]
        kinds, types = sorted(set(self.receptacles.values())), sorted(set(self.objects.values()))
        holders = self.constants.VAL_RECEPTACLE_OBJECTS
        facts += [f"(canContain {r}Type {o}Type)" for r in kinds for o in types if o in holders[r]]
        declared = ["agent1 - agent", *(f"{p} - location" for p in ["loc_0", *places.values()])]
        declared += [f"{r} - receptacle" for r in self.receptacles] + [f"{o} - object" for o in self.objects]
        declared += [f"{k}Type - rtype" for k in kinds] + [f"{t}Type - otype" for t in types]
        lines = "\n    ".join
        return (
            f"(define (problem house_{self.scene})\n  (:domain alfred)\n  (:objects\n    {lines(declared)}\n  )\n"
            f"  (:init\n    {lines(facts)}\n  )"
        )

    def _plan(self, task: str, target: str, destination: str) -> list[tuple[str, ...]]:
        """A plan that succeeds: fetch each target, treat it, bring it."""
        plan: list[tuple[str, ...]] = []
        opened: set[str] = set()
        here = ""

        def go(receptacle: str, enter: bool = True) -> str:
            nonlocal here
            if receptacle != here:
                plan.append(("go to {}", receptacle))
            here = receptacle
            openable = self.receptacles[receptacle] in self.constants.OPENABLE_CLASS_SET
            if enter and openable and receptacle not in opened:
                plan.append(("open {}", receptacle))
                opened.add(receptacle)
            return receptacle

        for thing in [o for o, kind in self.objects.items() if kind == target]:
            plan.append(("take {} from {}", thing, go(self.places[thing])))
            if task in _TREATMENTS:
                _, appliance, verb = _TREATMENTS[task]
                plan.append((verb + " {} with {}", thing, go(self._first(appliance), enter=False)))
            if task == "look_at_obj_in_light":
                lamp = next(o for o, kind in self.objects.items() if kind == self.lamps[0])
                go(self.places[lamp])
                plan.append(("use {}", lamp))
            else:
                plan.append(("move {} to {}", thing, go(self._first(destination))))
        return plan

    def _first(self, kind: str) -> str:
        return min(r for r, k in self.receptacles.items() if k == kind)

    def _holders(self, thing: str) -> list[str]:
        """The types of receptacles here that hold this type of object."""
        holders = self.constants.VAL_RECEPTACLE_OBJECTS
        return sorted({k for k in self.receptacles.values() if thing in holders.get(k, ())})

    def _put(self, kind: str, holders: list[str]) -> None:
        thing = self._id(kind)
        self.places[thing] = self.rng.choice(sorted(r for r, k in self.receptacles.items() if k in holders))
        self.objects[thing] = kind

    def _able(self, ability: str) -> Any:
        return self.constants.VAL_ACTION_OBJECTS[ability]

    def _id(self, kind: str) -> str:
        """An id as ALFRED writes them, type and position: ``Apple|-01.25|…`` in PDDL's letters."""
        base = kind.removesuffix("Basin")
        signs = (self.rng.choice(("_plus_", "_minus_")) for _ in range(3))
        numbers = [f"{s}{self.rng.randint(0, 9):02d}_dot_{self.rng.randint(0, 99):02d}" for s in signs]
        return base + "".join(f"_bar_{n}" for n in numbers) + (f"_bar_{kind}" if base != kind else "")
