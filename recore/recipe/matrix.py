"""A matrix: axis → label → overlay. Its cells are the product of the axes, in the order written.

A cell is called `axis=label,axis=label`, or `base` where there is no matrix; run folders and tables use that
name, so axes and labels are words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from attrs import frozen

from recore.errors import Problem
from recore.recipe.overlay import FIXED, overlay
from recore.recipe.tree import Node, got, joined

BASE = "base"
WORD = re.compile(r"\w[\w.+-]*")
NOT_IN_CELLS = (*FIXED, "seeds", "matrix")


@frozen(eq=False)
class Cell:
    """One combination of labels, as one tree laid over the base."""

    name: str
    root: Node


def cells(root: Node, problems: list[Problem]) -> list[Cell]:
    """The cells of a recipe. Problems of the matrix itself are appended; then only `base` is given, so that
    the rest of the recipe is checked all the same."""
    matrix = (root.mapping or {}).get("matrix")
    base = root.without("matrix")
    if matrix is None or matrix.value is None:
        return [Cell(BASE, base)]
    found: list[Problem] = _problems(matrix)
    if found:
        problems += found
        return [Cell(BASE, base)]
    axes = [[(axis, *pair) for pair in labels.value.items()] for axis, labels in matrix.value.items()]
    made = []
    for combination in itertools.product(*axes):
        tree = base
        for _, _, top in combination:
            tree = overlay(tree, top)
        made.append(Cell(",".join(f"{axis}={label}" for axis, label, _ in combination), tree))
    return made


def _problems(matrix: Node) -> list[Problem]:
    if not matrix.mapping:
        return [
            Problem(
                f"expected axes, as axis → label → overlay, got {got(matrix.value)}", matrix.where, "matrix"
            )
        ]
    problems = []
    for axis, labels in matrix.mapping.items():
        path = joined("matrix", axis)
        if not WORD.fullmatch(axis):
            problems.append(
                Problem(f"expected a word as the name of an axis, got {axis!r}", labels.where, path)
            )
        if not labels.mapping:
            message = f"expected labels, each with an overlay, got {got(labels.value)}"
            problems.append(Problem(message, labels.where, path))
            continue
        for label, top in labels.mapping.items():
            problems += _label_problems(label, top, joined(path, label))
    return problems or _clashes(matrix)


def _label_problems(label: str, top: Node, path: str) -> list[Problem]:
    problems = []
    if not WORD.fullmatch(label):
        problems.append(Problem(f"expected a word as a label, got {label!r}", top.where, path))
    if top.mapping is None:
        hint = "`{}` is the recipe as it is" if top.value is None else ""
        return [
            *problems,
            Problem(f"expected an overlay, a mapping, got {got(top.value)}", top.where, path, hint),
        ]
    for key in NOT_IN_CELLS:
        if key in top.mapping:
            where = top.mapping[key].where
            problems.append(
                Problem("not allowed in a cell, only in the recipe itself", where, joined(path, key))
            )
    return problems


def _clashes(matrix: Node) -> list[Problem]:
    """Two axes that set the same thing: the second would silently win."""
    problems = []
    axes = list(matrix.value.items())
    for (first, labels), (second, others) in itertools.combinations(axes, 2):
        for top, other in itertools.product(labels.value.values(), others.value.values()):
            path = overwritten(top, other)
            if path:
                message = f"axes {first!r} and {second!r} both set {path}"
                problems.append(Problem(message, others.where, joined("matrix", second)))
                break
    return problems


def overwritten(first: Node, second: Node) -> str:
    """The path of something that `first` sets and that `second`, laid over it, replaces; or empty. Options of
    a component that `first` names are no such thing: `second` refines them."""
    for path, node in written(first):
        for over, _ in written(second):
            above = path[: len(over)] == over
            beneath = over[: len(path)] == path and node.mapping is None
            if above or beneath:
                return ".".join(path if beneath and len(path) > len(over) else over)
    return ""


def written(node: Node, path: Sequence[str] = ()) -> list[tuple[tuple[str, ...], Node]]:
    """What an overlay sets outright: scalars, lists, and mappings that name a component."""
    if node.mapping is None or "use" in node.mapping:
        return [(tuple(path), node)]
    return [inner for key, value in node.mapping.items() for inner in written(value, (*path, key))]


def collapsed(matrix: Node | None, top: Node) -> list[tuple[str, str]]:
    """The axes that `top`, laid over every cell, would make meaningless, each with the path that it sets."""
    found = []
    for axis, labels in ((matrix.mapping or {}) if matrix is not None else {}).items():
        set_by_axis = [path for label in (labels.mapping or {}).values() for path, _ in written(label)]
        over = [path for path, _ in written(top) if any(one[: len(path)] == path for one in set_by_axis)]
        if over:
            found.append((axis, ".".join(over[0])))
    return found
