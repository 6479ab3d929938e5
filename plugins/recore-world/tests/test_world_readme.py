"""The README's Python runs and prints what the README says; its recipe fragments are options that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import yaml
from recore_world import World, WorldOptions

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(yaml|python|text)\n(.*?)```", README, re.DOTALL)


def test_the_script_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (script,) = [text for kind, text in BLOCKS if kind == "python"]
    (printed,) = [text for kind, text in BLOCKS if kind == "text"]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == printed
    assert (tmp_path / "log.parquet").is_file()


def test_the_fragments_are_options_that_exist() -> None:
    fragments = [yaml.safe_load(text)["data"] for kind, text in BLOCKS if kind == "yaml"]
    assert len(fragments) == 2
    for fragment in fragments:
        assert fragment.pop("use") == "recore-world:world"
        assert attrs.evolve(WorldOptions(), **fragment)


@pytest.mark.parametrize("pattern", [r"users,\s+800 items and ([\d,]+) events"])
def test_the_size_of_the_default_world_is_as_told(pattern: str) -> None:
    (told,) = re.findall(pattern, README)
    assert len(World()) == int(told.replace(",", ""))
