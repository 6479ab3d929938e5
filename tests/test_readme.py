"""The README does what it says: its recipes compose, its plugin keeps its claims, its Python runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recore.plugins import discover
from recore.recipe import load_cells
from recore.testing import failures, part_of, run_checks

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(yaml|python)\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's files: what a block's first comment names is its file."""
    for _, text in BLOCKS:
        if named := re.match(r"# (\S+\.(?:yaml|py))", text):
            (tmp_path / named[1]).write_text(text, encoding="utf-8")
            (tmp_path / named[1]).chmod(0o644)
    return tmp_path


def test_there_are_two_recipes_a_plugin_and_a_script(folder: Path) -> None:
    assert [kind for kind, _ in BLOCKS] == ["yaml", "python", "yaml", "python"]
    assert sorted(path.name for path in folder.iterdir()) == ["mine.yaml", "recent.py", "recent.yaml"]


def test_the_plugin_keeps_its_claims(folder: Path) -> None:
    found = discover(loose=[folder / "recent.py"]).find("position", "recent")
    plugins = discover(loose=[folder / "recent.py"])
    from recore.recipe import make_builder

    part = part_of("position", found.component, found.provider)
    results = run_checks(part, builder=make_builder(plugins))
    assert len(results) == 12
    assert not failures(results), "\n".join(result.measured for result in failures(results))
    # It claims all that a position can claim but the time of the target.
    assert sum(result.status == "pass" for result in results) >= 10


def test_the_recipes_compose(folder: Path) -> None:
    (recipe,) = load_cells(folder / "recent.yaml", loose=[folder / "recent.py"])
    assert recipe.model.options.position.options.slope == 0.2
    (mine,) = load_cells(folder / "mine.yaml")
    assert mine.data.options.user == "user_id"


def test_the_script_runs(folder: Path) -> None:
    script = next(text for kind, text in BLOCKS if kind == "python" and "import recore\n" in text)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "query" in done.stdout


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []
