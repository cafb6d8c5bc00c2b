"""Scripts for MiniWoB's sliders, spinners, longer forms, calendars and sites: see `agentkit.envs.miniwob_gold`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agentkit.envs.miniwob_look import (
    Look,
    Solver,
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

SOLVERS: dict[str, Solver] = {}

_DATE = re.compile(r"(\d+)/(\d+)/(\d+)")
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


# -- sliders, spinners, forms, calendars -----------------------------------------------------------------------------


def _slide(look: Look, target: int) -> Iterator[str]:
    handle = one(look, cls="ui-slider-handle")
    yield click(handle)
    while (value := int(one(look, id="val").text)) != target:
        yield f"press {'ArrowRight' if value < target else 'ArrowLeft'}"


@solves(SOLVERS, "use-slider")
def _use_slider(goal: str, look: Look) -> Iterator[str]:
    yield from _slide(look, number(goal))
    yield submit(look)


@solves(SOLVERS, "use-spinner")
def _use_spinner(goal: str, look: Look) -> Iterator[str]:
    target = number(goal)
    while (value := int(one(look, id="spinner").value or 0)) != target:
        yield click(one(look, cls="ui-spinner-up" if value < target else "ui-spinner-down"))
    yield submit(look)


@solves(SOLVERS, "form-sequence")
def _slider_and_checkbox(goal: str, look: Look) -> Iterator[str]:
    yield from _slide(look, number(goal))
    yield click([line for line in look() if line.checked is not None][number(goal, r"(\d+)\w\w checkbox") - 1])
    yield submit(look)


@solves(SOLVERS, "form-sequence-2")
def _radio_and_text(goal: str, look: Look) -> Iterator[str]:
    yield click([line for line in look() if line.checked is not None][number(goal, r"(\d+)\w\w radio") - 1])
    yield fill(fields(look)[number(goal, r"(\d+)\w\w textbox") - 1], quoted(goal)[0])
    yield submit(look)


@solves(SOLVERS, "choose-date", "choose-date-easy", "choose-date-medium", "choose-date-nodelay")
def _choose_date(goal: str, look: Look) -> Iterator[str]:
    found = _DATE.search(goal)
    if found is None:
        raise LookupError(goal)
    month, day, year = map(int, found.groups())
    yield click(one(look, id="datepicker"))
    while True:
        shown = (
            _MONTHS.index(one(look, cls="ui-datepicker-month").text),
            int(one(look, cls="ui-datepicker-year").text),
        )
        if shown == (month - 1, year):
            break
        later = (shown[1], shown[0]) < (year, month - 1)
        yield click(one(look, cls="ui-datepicker-next" if later else "ui-datepicker-prev"))
    yield click(one(look, str(day), tag="a"))
    yield submit(look)


# -- sites -----------------------------------------------------------------------------------------------------------


@solves(
    SOLVERS, "email-inbox", "email-inbox-delete", "email-inbox-important", "email-inbox-reply", "email-inbox-forward"
)
@solves(SOLVERS, "email-inbox-noscroll", "email-inbox-star-reply")
def _email(goal: str, look: Look) -> Iterator[str]:
    found = re.search(r"email by ([\w-]+)", goal)
    sender = one(look, found[1] if found else "", cls="email-sender")
    icon = next((name for name in ("star", "trash") if f"{name} icon" in goal), "")
    if icon:
        lines = list(look())
        yield click(first(line for line in lines[lines.index(sender) :] if icon in line.classes.split()))
    yield click(sender)
    reply = "reply" in goal
    yield click(one(look, cls="email-reply" if reply else "email-forward"))
    to = re.search(r"to ([\w-]+)\.?$", goal)
    yield fill(fields(look)[0], quoted(goal)[0] if reply else to[1] if to else "")
    yield click(one(look, id="send-reply" if reply else "send-forward"))


@solves(SOLVERS, "search-engine")
def _search_engine(goal: str, look: Look) -> Iterator[str]:
    yield fill(fields(look)[0], quoted(goal)[0])
    yield click(one(look, id="search"))
    wanted = number(goal, r"the (\d+)\w\w search result") - 1
    results = every(look, cls="search-title")
    yield from (click(one(look, str(page + 1), cls="page-link")) for page in [wanted // len(results)] if page)
    yield click(one(look, cls="search-title", nth=wanted % len(results)))


@solves(SOLVERS, "phone-book")
def _phone_book(goal: str, look: Look) -> Iterator[str]:
    found = re.search(r"Find ([\w-]+) .* their (\w+)", goal)
    if found is None:
        raise LookupError(goal)
    while not every(look, found[1], cls="name"):
        yield click(one(look, ">", cls="page-link"))
    yield click(one(look, cls={"phone": "phone", "email": "email"}.get(found[2], "address"), tag="a"))


@solves(SOLVERS, "social-media", "social-media-all", "social-media-some")
def _social_media(goal: str, look: Look) -> Iterator[str]:
    found = re.search(r"@([\w-]+)", goal)
    user, button = f"@{found[1]}" if found else "", quoted(goal)[0]
    most = number(goal, r"(\d+) posts?") if "on all" not in goal and "For the user" not in goal else 100
    posts = [i for i, line in enumerate(every(look, cls="username")) if line.text == user]
    for post in posts[:most]:
        if button in ("Reply", "Retweet", "Like", "Share"):
            yield click(one(look, cls=button.lower(), nth=post))
            continue
        yield click(one(look, cls="more", nth=post))
        name = f"{button} {user}" if button in ("Mute", "Block") else button
        yield click(one(look, name, tag="li"))
    yield click(one(look, "Submit", tag="button"))


@solves(SOLVERS, "navigate-tree")
def _navigate_tree(goal: str, look: Look) -> Iterator[str]:
    name = quoted(goal)[0]
    opened = set[int]()
    while not every(look, name, tag="span"):
        folder = first(line for line in every(look, tag="span", cls="folder") if line.ref not in opened)
        opened.add(folder.ref)
        yield click(folder)
    yield click(one(look, name, tag="span"))
