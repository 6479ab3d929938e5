"""The qualified names of the parts that are written, from `parts.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from recore.recipe import read_text

FILE: Final = Path(__file__).with_name("parts.yaml")


def _read() -> dict[str, str]:
    node, problems = read_text(FILE.read_text(encoding="utf-8"), FILE.name)
    if problems or node is None or node.mapping is None:
        raise RuntimeError(f"{FILE}: {problems}")
    return {key: str(entry.value) for key, entry in node.mapping.items()}


PARTS: Final = _read()
