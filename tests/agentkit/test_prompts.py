"""Prompts are files: strict, overridable, and changed only on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkit import prompts
from agentkit.errors import InvalidValue, UnknownName
from agentkit.memory import Recalled, Record
from agentkit.policy.choose import Choose
from agentkit.types import Action, Step, Task, View

STEP = Step("A hall.", Action("go north"), 0.0, "A kitchen.")
LESSON = Recalled(Record(kind="lesson", text="What led nowhere: look."), 1.0, 1.0)
VIEW = View(
    Task("house"),
    goal="Find the {{ coin }} & <lamp>.",
    observation="A kitchen.\nA lamp stands here.",
    admissible=("take lamp", "go south"),
    history=(STEP,),
    lessons=(LESSON,),
)
CHOOSE = """\
Goal: Find the {{ coin }} & <lamp>.
> go north
A kitchen.
A lamp stands here.
You can: take lamp, go south.
What led nowhere: look.
What do you do next?"""


def test_the_shipped_choose_prompt() -> None:
    assert prompts.render("choose", {"view": VIEW, "history": VIEW.history}) == CHOOSE
    without = CHOOSE.replace("> go north\n", "").replace("What led nowhere: look.\n", "")
    assert (
        prompts.render("choose", {"view": View(VIEW.task, VIEW.goal, VIEW.observation, VIEW.admissible), "history": ()})
        == without
    )


def test_what_a_world_says_is_never_a_template() -> None:
    hostile = View(Task("x"), "{{ 7 * 7 }}", "{% raw %}{{ cycler.__init__.__globals__ }}", ("{# gone #}",))
    text = prompts.render("choose", {"view": hostile, "history": ()})
    assert "{{ 7 * 7 }}" in text
    assert "{% raw %}{{ cycler.__init__.__globals__ }}" in text
    assert "{# gone #}" in text


def test_a_variable_that_is_missing_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidValue, match=r"prompt 'choose': 'history' is undefined\. It was given: view"):
        prompts.render("choose", {"view": VIEW})


def test_a_users_file_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "choose.jinja").write_text("Mine: {{ view.goal }} {{ view.no_such_field }}\n")
    with pytest.raises(InvalidValue, match="no_such_field"):
        prompts.render("choose", {"view": VIEW}, folder=tmp_path)
    (tmp_path / "choose.jinja").write_text("Mine: {{ view.observation }}  \n\n")
    assert prompts.render("choose", {"view": VIEW}, folder=tmp_path) == f"Mine: {VIEW.observation}"
    assert prompts.render("choose", {"view": VIEW, "history": VIEW.history}) == CHOOSE
    (tmp_path / "my_own.jinja").write_text("{% include 'choose.jinja' %}!")
    assert prompts.render("my_own", {"view": VIEW}, folder=str(tmp_path)).startswith("Mine: A kitchen.")
    (tmp_path / "bad.jinja").write_text("{% for x in %}")
    with pytest.raises(InvalidValue, match=r"prompt 'bad' \(.*bad\.jinja\)"):
        prompts.render("bad", {}, folder=tmp_path)


def test_an_unknown_prompt_answers_with_near_ones(tmp_path: Path) -> None:
    for folder in (None, tmp_path, tmp_path / "not there"):
        with pytest.raises(UnknownName, match="Did you mean 'choose'"):
            prompts.render("chose", {}, folder=folder)
        with pytest.raises(UnknownName):
            prompts.digest("chose", folder=folder)
    assert "choose" in prompts.names()


def test_a_digest_is_of_the_files_bytes_and_in_the_runs_configuration(tmp_path: Path) -> None:
    shipped = prompts.digest("choose")
    assert len(shipped) == 12
    assert f"prompt=choose@{shipped}" in repr(Choose())
    (tmp_path / "choose.jinja").write_text("Mine: {{ view.goal }}")
    first = prompts.digest("choose", folder=tmp_path)
    assert first != shipped
    assert f"prompt=choose@{first}" in repr(Choose(prompt_folder=str(tmp_path)))
    (tmp_path / "choose.jinja").write_text("Mine: {{ view.goal }}.")
    assert prompts.digest("choose", folder=tmp_path) not in (first, shipped)


def test_every_shipped_prompt_can_be_read_by_the_template_engine() -> None:
    assert prompts.names()
    for name in prompts.names():
        with pytest.raises(InvalidValue, match="undefined"):  # it asks for something, and nothing is given
            prompts.render(name, {})
