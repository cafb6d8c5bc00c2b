"""Scripts that solve MiniWoB tasks from what an agent sees: the task's text and the listed elements, nothing else.

A script is a generator: it looks at the page, yields an action, looks again. One that does not find what it looks for
raises `LookupError`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from agentkit.envs import miniwob_gold_sites
from agentkit.envs.miniwob_look import (
    Look,
    Solver,
    boxes,
    click,
    every,
    fields,
    fill,
    first,
    number,
    one,
    quoted,
    solves,
    submit,
)

SOLVERS: dict[str, Solver] = dict(miniwob_gold_sites.SOLVERS)


# -- buttons, links, tabs, menus -------------------------------------------------------------------------------------


@solves(SOLVERS, "click-test")
def _click_test(_: str, look: Look) -> Iterator[str]:
    yield click(one(look, tag="button"))


@solves(SOLVERS, "click-test-2", "click-test-transfer", "click-button-sequence", "button-delay")
def _named_buttons(goal: str, look: Look) -> Iterator[str]:
    for wait, name in re.findall(r"wait (\d+)|button ([A-Z]+)", goal):
        if name:
            yield click(one(look, name, tag="button"))
        else:
            yield from ["wait"] * (int(wait) - 1)  # the click before took the first of these seconds


@solves(SOLVERS, "click-button", "unicode-test")
def _click_button(goal: str, look: Look) -> Iterator[str]:
    yield click(one(look, quoted(goal)[0], tag="button"))


@solves(SOLVERS, "click-link")
def _click_link(goal: str, look: Look) -> Iterator[str]:
    yield click(one(look, quoted(goal)[0], cls="alink"))


@solves(SOLVERS, "click-tab")
def _click_tab(goal: str, look: Look) -> Iterator[str]:
    yield click(one(look, f"Tab #{number(goal)}", tag="a"))


@solves(SOLVERS, "click-tab-2", "click-tab-2-easy", "click-tab-2-medium", "click-tab-2-hard")
def _link_on_a_tab(goal: str, look: Look) -> Iterator[str]:
    for tab in every(look, tag="a", cls="ui-tabs-anchor"):
        yield click(tab)
        if links := every(look, quoted(goal)[0], cls="alink"):
            yield click(links[0])


@solves(SOLVERS, "click-collapsible", "click-collapsible-nodelay")
def _expand(_: str, look: Look) -> Iterator[str]:
    yield click(one(look, tag="h3"))
    yield submit(look)


@solves(SOLVERS, "click-collapsible-2", "click-collapsible-2-nodelay")
def _link_in_a_section(goal: str, look: Look) -> Iterator[str]:
    for section in every(look, tag="h3"):
        yield click(section)
        if links := every(look, quoted(goal)[0], cls="alink"):
            yield click(links[0])


@solves(SOLVERS, "click-dialog", "click-dialog-2")
def _close_a_dialog(goal: str, look: Look) -> Iterator[str]:
    name = quoted(goal)[0]
    if name == "x":
        yield click(one(look, cls="ui-dialog-titlebar-close"))
    yield click(one(look, name, tag="button"))


@solves(SOLVERS, "click-menu")
def _click_menu(goal: str, look: Look) -> Iterator[str]:
    *groups, item = goal.removeprefix("Select ").split(">")
    for name in groups:
        lines = list(look())
        at = lines.index(first(line for line in lines if line.text == name))
        yield f"hover {first(line for line in reversed(lines[: at + 1]) if line.ref).ref}"
    yield click(one(look, item))


@solves(SOLVERS, "click-widget")
def _click_widget(goal: str, look: Look) -> Iterator[str]:
    kind = quoted(goal)[0]
    for line in look():
        if kind == (line.type or line.tag):
            yield click(line)


@solves(SOLVERS, "click-color")
def _click_color(goal: str, look: Look) -> Iterator[str]:
    color = goal.partition(" colored")[0].rpartition(" ")[2]
    yield click(first(line for line in look() if line.fill == color))


@solves(SOLVERS, "click-shades")
def _click_shades(goal: str, look: Look) -> Iterator[str]:
    wanted = ("red", "green", "blue").index(goal.partition("shades of ")[2].split()[0])
    for line in every(look, tag="span"):
        channels = [int(v) for v in re.findall(r"\d+", line.fill)[:3]]
        if channels and channels[wanted] == max(channels):
            yield click(line)
    yield submit(look)


@solves(SOLVERS, "identify-shape")
def _identify_shape(_: str, look: Look) -> Iterator[str]:
    shape = look()[1]
    names = {"circle": "Circle", "rect": "Rectangle", "polygon": "Triangle"}
    yield click(one(look, names.get(shape.tag, "Number" if shape.text.isdigit() else "Letter"), tag="button"))


@solves(SOLVERS, "ascending-numbers")
def _ascending_numbers(_: str, look: Look) -> Iterator[str]:
    yield click(one(look, "1", tag="text"))
    while covered := every(look, tag="rect"):  # they cover the numbers that are left, in their order
        yield click(covered[0])


@solves(SOLVERS, "buy-ticket")
def _buy_ticket(goal: str, look: Look) -> Iterator[str]:
    minutes = []
    for line in every(look, cls="time-duration"):
        hours, _, rest = line.text.partition("h")
        minutes.append(60 * int(hours) + int(rest.strip(" m") or 0))
    buttons = every(look, cls="buy-ticket")
    costs = [int(button.text.rpartition("$")[2]) for button in buttons]
    values = costs if "cost" in goal else minutes
    best = max(values) if re.search("most|longest", goal) else min(values)
    yield click(buttons[values.index(best)])


# -- boxes and lists -------------------------------------------------------------------------------------------------


@solves(SOLVERS, "click-checkboxes", "click-checkboxes-large", "click-checkboxes-transfer", "click-option")
def _choose_boxes(goal: str, look: Look) -> Iterator[str]:
    names = goal.removeprefix("Select ").removesuffix(" and click Submit.").split(", ")
    found = boxes(look)
    for name in names if names != ["nothing"] else []:
        yield click(found[name])
    yield submit(look)


@solves(SOLVERS, "choose-list", "click-scroll-list")
def _choose_from_a_list(goal: str, look: Look) -> Iterator[str]:
    names = re.sub(r"^Select | from the (scroll )?list and click Submit\.$", "", goal)
    field = one(look, tag="select")
    for name in [names] if names in field.options else names.split(", "):
        yield f'select {field.ref} "{name}"'
    yield submit(look)


@solves(SOLVERS, "odd-or-even")
def _odd_or_even(_: str, look: Look) -> Iterator[str]:
    numbers = [int(line.text) for line in every(look, cls="display-number")]
    for i, value in enumerate(numbers):
        yield click(one(look, cls="odd" if value % 2 else "even", tag="button", nth=i))
    yield submit(look)


# -- texts -----------------------------------------------------------------------------------------------------------


@solves(SOLVERS, "enter-text", "enter-text-dynamic", "enter-password", "login-user")
def _enter_what_is_quoted(goal: str, look: Look) -> Iterator[str]:
    texts = quoted(goal)
    for i, field in enumerate(fields(look)):
        yield fill(field, texts[min(i, len(texts) - 1)])
    yield submit(look)


@solves(SOLVERS, "enter-text-2")
def _enter_in_capitals(goal: str, look: Look) -> Iterator[str]:
    text = quoted(goal)[0]
    yield fill(fields(look)[0], text.upper() if "upper" in goal else text.lower())
    yield submit(look)


@solves(SOLVERS, "enter-date")
def _enter_date(goal: str, look: Look) -> Iterator[str]:
    found = re.search(r"\d+/\d+/\d+", goal)
    yield fill(fields(look)[0], found[0] if found else "")
    yield submit(look)


@solves(SOLVERS, "enter-time")
def _enter_time(goal: str, look: Look) -> Iterator[str]:
    found = re.search(r"(\d+):(\d+) ([AP]M)", goal)
    if found is None:
        raise LookupError(goal)
    yield fill(fields(look)[0], f"{int(found[1]):02}:{found[2]}{found[3]}")
    yield submit(look)


@solves(SOLVERS, "focus-text", "focus-text-2")
def _focus_text(goal: str, look: Look) -> Iterator[str]:
    yield click(fields(look)[number(goal) - 1 if "2" in goal or "1" in goal or "3" in goal else 0])


@solves(SOLVERS, "find-word")
def _find_word(goal: str, look: Look) -> Iterator[str]:
    words = re.findall(r"\w+", one(look, tag="p").text)
    yield fill(fields(look)[0], words[number(goal) - 1])
    yield submit(look)


@solves(SOLVERS, "copy-paste", "copy-paste-2")
def _copy_paste(goal: str, look: Look) -> Iterator[str]:
    areas = every(look, tag="textarea")
    yield fill(one(look, tag="input"), str(areas[number(goal) - 1 if len(areas) > 1 else 0].value))
    yield submit(look)


@solves(SOLVERS, "scroll-text")
def _last_word(_: str, look: Look) -> Iterator[str]:
    words = re.findall(r"\w+", str(one(look, tag="textarea").value))
    yield fill(one(look, tag="input"), words[-1])
    yield submit(look)


@solves(SOLVERS, "text-transform")
def _captcha(_: str, look: Look) -> Iterator[str]:
    yield fill(fields(look)[0], "".join(line.text for line in every(look, tag="span")))
    yield submit(look)


@solves(SOLVERS, "read-table", "read-table-2")
def _read_table(goal: str, look: Look) -> Iterator[str]:
    cells = [line.text for line in every(look, tag="td")]
    table = dict(zip(cells[::2], cells[1::2], strict=True))
    labels = [line.text.rstrip(":") for line in every(look, tag="label")]
    asked = labels or [goal.removeprefix("Enter the value of ").partition(" into the")[0]]
    for field, name in zip(fields(look), asked, strict=True):
        yield fill(field, table[name])
    yield submit(look)


@solves(SOLVERS, "simple-arithmetic", "simple-algebra")
def _calculate(_: str, look: Look) -> Iterator[str]:
    found = re.match(r"(\w+) ([-+x]) (\w+) =\s*(-?\d*)", one(look, id="math-problem").text)
    if found is None:
        raise LookupError("no problem")
    left, sign, right, result = found.groups()
    if left == "x":  # x + b = c, x - b = c
        answer = int(result) - int(right) if sign == "+" else int(result) + int(right)
    elif right == "x":  # a + x = c, a - x = c
        answer = int(result) - int(left) if sign == "+" else int(left) - int(result)
    else:
        a, b = int(left), int(right)
        answer = {"+": a + b, "-": a - b, "x": a * b}[sign]
    yield fill(fields(look)[0], str(answer))
    yield submit(look)


@solves(SOLVERS, "guess-number")
def _guess_number(_: str, look: Look) -> Iterator[str]:
    low, high = 0, 9
    while low <= high:
        guess = (low + high) // 2
        yield fill(fields(look)[0], str(guess))
        yield submit(look)
        said = " ".join(line.text for line in look())
        low, high = (guess + 1, high) if "higher than" in said else (low, guess - 1)


@solves(SOLVERS, "use-autocomplete", "use-autocomplete-nodelay")
def _autocomplete(goal: str, look: Look) -> Iterator[str]:
    start, end = (*quoted(goal), "")[:2]
    yield fill(fields(look)[0], start)
    items = every(look, cls="ui-menu-item-wrapper")
    yield click(first(item for item in items if item.text.startswith(start) and item.text.endswith(end)))
    yield click(one(look, "Submit", tag="button"))


@solves(SOLVERS, "multi-layouts", "multi-orderings")
def _search_for_a_movie(goal: str, look: Look) -> Iterator[str]:
    found = re.match(r"Search for (.+) movies directed by (.+) from year (\d+)", goal)
    if found is None:
        raise LookupError(goal)
    words = {"genre": found[1], "director": found[2], "year": found[3], "date": found[3]}
    lines, label = list(look()), ""
    for line, after in itertools.pairwise(lines):
        if line.editable:
            hint = (after.text if "ui-label" in after.classes else label or line.placeholder).lower()
            texts = [text for word, text in words.items() if word in hint]
            yield fill(line, texts[0])
        elif line.text:
            label = line.text
    yield click(first(line for line in reversed(look()) if line.ref and line.text in ("Submit", "Search", "Go!")))


@solves(SOLVERS, "terminal")
def _delete_a_file(goal: str, look: Look) -> Iterator[str]:
    ending = re.search(r"extension (\S+)", goal)
    yield fill(one(look, id="terminal-target"), "ls")
    yield "press Enter"
    names = every(look, cls="output")[-1].text.split()
    fitting = [name for name in names if (name.endswith(ending[1]) if ending else "." not in name)]
    yield fill(one(look, id="terminal-target"), f"rm {fitting[0]}")
    yield "press Enter"
