"""Typed options back to a plain tree: the resolved recipe that a run keeps.

Every option is written, defaults too, and every `use:` is qualified, so that the tree means the same when a
later version of a plugin has other defaults. Paths are absolute; those under $RECORE_DATA stay as written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from recore.component import Part
from recore.recipe.tree import is_frame, joined


def unstructured(value: Any, path: str, written: Mapping[str, str]) -> Any:
    """A value of an option as the recipe would write it. `written`: paths kept as they were, by place."""
    if isinstance(value, Part):
        return {"use": value.name, **unstructured(value.options, path, written)}
    if isinstance(value, Path):
        return written.get(path, str(value))
    if isinstance(value, Mapping):
        return {
            str(key): unstructured(entry, joined(path, str(key)), written) for key, entry in value.items()
        }
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, list | tuple):
        return [unstructured(entry, joined(path, number), written) for number, entry in enumerate(value)]
    if attrs.has(type(value)):
        return {
            attribute.alias: unstructured(
                getattr(value, attribute.name), joined(path, attribute.alias), written
            )
            for attribute in attrs.fields(type(value))
            if attribute.init
        }
    return value


def with_frames(tree: Any, replace: Callable[[str, Any], Any], path: str = "") -> Any:
    """A tree in which every data frame is what `replace(path, frame)` gives: to write it to a file, say."""
    if is_frame(tree):
        return replace(path, tree)
    if isinstance(tree, dict):
        return {key: with_frames(value, replace, joined(path, key)) for key, value in tree.items()}
    if isinstance(tree, list):
        return [with_frames(value, replace, joined(path, number)) for number, value in enumerate(tree)]
    return tree
