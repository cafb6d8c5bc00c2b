"""Every shipped prompt, rendered: a changed prompt changes results, so it must change here too.

To accept changes: ``AGENTKIT_SNAPSHOTS=write pytest tests/agentkit/test_prompt_snapshots.py``, and read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agentkit import prompts
from agentkit.memory import Recalled, Record
from agentkit.reflection.insights import Insight
from agentkit.types import Action, Step, StepJudgement, Task, View

SNAPSHOTS = Path(__file__).parent / "snapshots"
STEP = Step("A cell.", Action("look", thought="where am I"), 0.0, "A locked door.")
VIEW = View(
    Task("cell"),
    "get out",
    "A locked door.",
    admissible=("open door", "look"),
    history=(STEP,),
    memories=(Recalled(Record("episode", "Last time I waited."), 1.0, 1.0),),
    lessons=(Recalled(Record("lesson", "Doors open inwards."), 1.0, 1.0),),
    skills=(Recalled(Record("skill", "def knock():"), 1.0, 1.0),),
    step=1,
)
TURNS = "Thought 1: where am I\nAction 1: look\nObservation 1: A locked door."
ACTING: dict[str, Any] = {
    "view": VIEW, "history": VIEW.history, "instructions": "Speak plainly.", "examples": "Task: x\nAction 1: y",
    "lessons": "- Doors open inwards.", "memories": "- Last time I waited.", "skills": "- def knock():",
    "opening": "A cell.", "transcript": TURNS, "number": 2,
}  # fmt: skip
JUDGED: dict[str, Any] = {"goal": "get out", "opening": "A cell.", "attempt": TURNS}
LEARNED: dict[str, Any] = {**JUDGED, "critique": "Not out yet.", "earlier": ["I sang."], "success": False}
CURRICULUM: dict[str, Any] = {"state": "Health: 9", "done": "dig", "failed": "fly"}
VARIABLES: dict[str, dict[str, Any]] = {
    "_context": ACTING,
    "call": {**ACTING, "tools": [{"name": "move", "description": "Goes.", "parameters": "{}"}]},
    "causal": LEARNED,
    "causal_meta": {"about": "task", "memories": [{"goal": "get out", "success": True, "text": "x SHOULD BE NECESSARY TO y."}]},
    "checklist": {"goal": "get out", "most": 6},
    "choose": ACTING,
    "choose_listed": ACTING,
    "choose_shown": ACTING,
    "controller": ACTING,
    "contrast": {"goal": "get out", "won": "Action 1: open door", "lost": "Action 1: wait"},
    "curriculum_goal": CURRICULUM,
    "curriculum_pae": {"context": "A meadow.", "count": 3, "earlier": ["dig"]},
    "curriculum_relabel": JUDGED,
    "curriculum_reward": JUDGED,
    "curriculum_voyager": {**CURRICULUM, "directive": "Discover things."},
    "describe_skill": {"goal": "get out", "code": "def knock():\n    pass"},
    "direct": ACTING,
    "executor": {**ACTING, "next_goal": "open the door"},
    "hindsight": JUDGED,
    "insights": {"goal": "get out", "won": ["Action 1: open door"], "lost": "Action 1: wait", "insights": [Insight("Open doors.")], "full": False, "limit": 20},
    "judge_checklist": {**JUDGED, "points": ["The door is open"]},
    "judge_rubric": {**JUDGED, "rubric": "Is it out?"},
    "judge_steps": JUDGED,
    "program": ACTING,
    "react": ACTING,
    "reask": {"expected": "Answer with one action."},
    "reflect": {**LEARNED, "mistakes": [StepJudgement(0, 0.0, "looking is idle")]},
    "self_feedback": {**ACTING, "answer": "look"},
    "self_refine": {**ACTING, "said": [{"answer": "look", "feedback": "Do something."}]},
    "tool_doc": {"tool": "open", "doc": "Opens.", "uses": [{"call": "open door", "result": "It opens."}]},
    "write_tests": {"goal": "get out", "most": 6},
}  # fmt: skip


@pytest.mark.parametrize("name", prompts.names())
def test_a_prompt_is_what_it_was(name: str) -> None:
    assert name in VARIABLES, f"give {name}.jinja its variables in this file"
    text = prompts.render(name, VARIABLES[name]) + "\n"
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("AGENTKIT_SNAPSHOTS") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), "write it: AGENTKIT_SNAPSHOTS=write"
    assert text == path.read_text(encoding="utf-8")
