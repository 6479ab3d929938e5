"""Trees: what a recipe says, every value with the place where it was written.

A `Node` holds a scalar, a list of nodes or a mapping from text to nodes. Paths into a tree are written with
dots, list entries by number: `evaluators.0.k`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from recore.errors import Problem

DEEPEST = 64


@frozen(eq=False)
class Node:
    """A value. `where` is `file:line` (of its key, in a mapping); `folder` is that of the file that writes
    it, to which paths are relative."""

    value: Any
    where: str = ""
    folder: Path | None = None

    @property
    def mapping(self) -> dict[str, Node] | None:
        """The entries, where this is a mapping."""
        return self.value if isinstance(self.value, dict) else None

    @property
    def entries(self) -> list[Node] | None:
        """The entries, where this is a list."""
        return self.value if isinstance(self.value, list) else None

    @property
    def use(self) -> str | None:
        """The component that it names, where it does."""
        named = self.value.get("use") if isinstance(self.value, dict) else None
        return named.value if named is not None and isinstance(named.value, str) else None

    def without(self, *keys: str) -> Node:
        """This mapping without some keys."""
        kept = {key: value for key, value in self.value.items() if key not in keys}
        return Node(kept, self.where, self.folder)


def joined(path: str, key: str | int) -> str:
    """A path one step deeper."""
    return f"{path}.{key}" if path else str(key)


def a(kind: str) -> str:
    """A name with its article."""
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def is_frame(value: object) -> bool:
    """Whether this is a polars or pandas data frame; imports neither."""
    kind = type(value)
    return kind.__module__.split(".")[0] in ("polars", "pandas") and kind.__name__ in (
        "DataFrame",
        "LazyFrame",
    )


def node_of(value: object, where: str, folder: Path, problems: list[Problem], path: str = "") -> Node:
    """A tree from plain Python values: mappings, lists, tuples, scalars, paths and data frames. Anything else
    is a problem, appended to `problems`."""
    made: Any = None
    if path.count(".") >= DEEPEST:
        problems.append(Problem(f"nested deeper than {DEEPEST}", where, path))
    elif isinstance(value, Mapping):
        made = {
            str(key): node_of(entry, where, folder, problems, joined(path, str(key)))
            for key, entry in value.items()
        }
    elif isinstance(value, list | tuple):
        made = [
            node_of(entry, where, folder, problems, joined(path, number))
            for number, entry in enumerate(value)
        ]
    elif (
        value is None or type(value) in (bool, int, float, str) or isinstance(value, Path) or is_frame(value)
    ):
        made = value
    else:
        message = f"expected a plain value, a path or a data frame, got {type(value).__name__}"
        problems.append(Problem(message, where, path))
    return Node(made, where, folder)


def plain(node: Node) -> Any:
    """The tree as plain Python values."""
    if node.mapping is not None:
        return {key: plain(entry) for key, entry in node.mapping.items()}
    if node.entries is not None:
        return [plain(entry) for entry in node.entries]
    return node.value


def got(value: object) -> str:
    """A value as an error message shows it, as the recipe writes it."""
    if value is None:
        return "nothing (~)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if is_frame(value):
        return "a data frame"
    text = repr(value) if isinstance(value, str | int | float) else repr(str(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
