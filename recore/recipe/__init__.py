"""Recipes: YAML with line numbers → strict typed recipe → composed parts.

text       YAML text ⇄ trees, by the core schema of YAML 1.2
tree       values with the place where each was written
files      recipe files, shipped recipes, `extends`, `requires`
overlay    one tree laid over another; `--set`
matrix     the cells of a recipe
options    options classes as data; types in words
structure  a tree becomes typed options, or problems
compose    parts, their facts, and what stands against the whole
resolved   typed options back to a plain tree
build      a part becomes an object
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recore.component import Facts
from recore.errors import Problem, RecipeError
from recore.plugins import Plugins, discover
from recore.recipe.build import Builder, import_factories, make_builder
from recore.recipe.compose import LossEntry, Recipe, compose, in_order, unless_told
from recore.recipe.files import (
    Source,
    label_of,
    load_source,
    locate,
    requirement_problems,
    requirements,
    shipped,
    version_problems,
)
from recore.recipe.matrix import BASE, cells, collapsed
from recore.recipe.overlay import FIXED, overlay, set_value
from recore.recipe.resolved import with_frames
from recore.recipe.text import read_file, read_text, to_yaml
from recore.recipe.tree import Node, node_of

__all__ = [
    "Builder",
    "Facts",
    "LossEntry",
    "Recipe",
    "from_tree",
    "import_factories",
    "load_cells",
    "locate",
    "make_builder",
    "read_text",
    "shipped",
    "to_yaml",
    "with_frames",
]


def load_cells(
    path: Path | str,
    sets: Sequence[str] = (),
    overlay: Mapping[str, Any] | None = None,
    loose: Sequence[Path | str] = (),
    plugins: Plugins | None = None,
) -> list[Recipe]:
    """Load and compose every cell of a recipe, `[base]` where it has no matrix.

    Args:
        path: a file, or the name of a shipped recipe.
        sets: `a.b.c=value` texts, laid over every cell.
        overlay: a tree from Python, laid over every cell before the sets; values may be paths and
            data frames.
        loose: single Python files that are plugins (as `discover` takes them).
        plugins: what is installed, if that is known already.

    Raises RecipeError with all problems of all cells, PluginError for a loose file that is refused.
    """
    if plugins is None:
        plugins = discover(loose=loose)
    return compose_cells(load_source(path), plugins, sets, overlay)


def compose_cells(
    source: Source, plugins: Plugins, sets: Sequence[str] = (), top: Mapping[str, Any] | None = None
) -> list[Recipe]:
    """Compose every cell of a recipe that was read. Raises RecipeError with all problems of all cells."""
    problems: list[Problem] = [*source.problems, *requirement_problems(source.requires)]
    root = source.root
    early = [text for text in sets if text.split("=")[0].split(".")[0].strip() == "matrix"]
    late = [text for text in sets if text not in early]
    over = _overlay_node(top, problems)
    if over is not None and "matrix" in (over.mapping or {}):
        root = overlay(root, Node({"matrix": over.value["matrix"]}, over.where))
        over = over.without("matrix")
    for text in early:
        root, _, found = set_value(root, text)
        problems += found
    matrix = (root.mapping or {}).get("matrix")
    recipes: list[Recipe] = []
    composed: list[Problem] = []
    for number, cell in enumerate(cells(root, problems)):
        tree = cell.root if over is None else overlay(cell.root, over)
        if over is not None and number == 0:
            problems += _collapsing(matrix, over, "overlay")
        for text in late:
            tree, keys, found = set_value(tree, text)
            problems += found
            if keys and number == 0:
                problems += _collapsing(matrix, _as_overlay(text, keys), f"--set {text}")
        if source.requires:
            tree = Node({**tree.value, "requires": Node(list(source.requires))}, tree.where, tree.folder)
        try:
            recipes.append(compose(tree, source.name, source.file, cell.name, plugins))
        except RecipeError as error:
            composed += error.problems
    problems += unless_told(composed, problems)
    if problems:
        raise RecipeError(in_order(problems))
    return recipes


def _overlay_node(top: Mapping[str, Any] | None, problems: list[Problem]) -> Node | None:
    if top is None:
        return None
    node = node_of(dict(top), "overlay", Path.cwd(), problems)
    for key in FIXED:
        if key in node.value:
            problems.append(Problem("can be written in a file only", "overlay", key))
            node = node.without(key)
    return node


def _as_overlay(text: str, keys: Sequence[str]) -> Node:
    value, _ = read_text(text.partition("=")[2], "--set")
    node = value or Node(None)
    for key in reversed(keys):
        node = Node({key: node})
    return node


def _collapsing(matrix: Node | None, top: Node, where: str) -> list[Problem]:
    return [
        Problem(
            f"the axis {axis!r} of the matrix sets it too, so its cells would all be alike",
            where,
            path,
            "`--set matrix=~` drops the matrix",
        )
        for axis, path in collapsed(matrix, top)
    ]


def from_tree(
    tree: Mapping[str, Any] | Path,
    name: str = "recipe",
    file: Path | None = None,
    cell: str = BASE,
    loose: Sequence[Path | str] = (),
    plugins: Plugins | None = None,
    sets: Sequence[str] = (),
) -> Recipe:
    """Compose a recipe from a plain tree, or from the YAML file that holds one: the resolved recipe of a run,
    or one written in Python. `sets`: `a.b.c=value` texts, laid over it.

    `file` is where a tree was read from: errors name it, and relative paths are relative to its folder.
    Raises RecipeError with all problems, PluginError for a loose file that is refused.
    """
    problems: list[Problem] = []
    file = tree if isinstance(tree, Path) else file
    label = label_of(file) if file is not None else "tree"
    root: Node | None
    if isinstance(tree, Path):
        root, problems = read_file(tree, label)
    else:
        root = node_of(dict(tree), label, file.resolve().parent if file is not None else Path.cwd(), problems)
    if root is None or root.mapping is None:
        raise RecipeError(problems or [Problem("expected a mapping, a resolved recipe", label)])
    problems += version_problems(root, label)
    for key in ("extends", "matrix"):
        if key in root.mapping:
            problems.append(Problem("not allowed in a resolved recipe", root.mapping[key].where, key))
    problems += requirement_problems(requirements(root, problems))
    for text in sets:
        root, _, found = set_value(root, text)
        problems += found
    plugins = discover(loose=loose) if plugins is None else plugins
    return compose(root, name, file, cell, plugins, problems)
