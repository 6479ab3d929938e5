"""Overlays: an experiment is the detail that it changes.

Mappings merge key by key, but one whose `use:` differs replaces the base's; lists and scalars replace; `~`
removes. `--set a.b.c=value` is an overlay that may also reach into a list.
"""

from __future__ import annotations

from pathlib import Path

from recore.errors import Problem
from recore.recipe.text import read_text
from recore.recipe.tree import DEEPEST, Node, joined

ASSEMBLED = "recore:sequential"  # what `model:` means when it names no component
FIXED = ("recore", "extends", "requires")  # keys that only a file can write


def overlay(base: Node | None, top: Node, path: str = "") -> Node:
    """`top` laid over `base`. Neither is changed."""
    if base is None or base.mapping is None or top.mapping is None:
        return top
    if not same_component(_named(base, path), top.use):
        return top
    merged = dict(base.mapping)
    for key, value in top.mapping.items():
        merged[key] = overlay(merged.get(key), value, joined(path, key))
    if base.use is not None and top.use is not None and ":" in base.use:
        merged["use"] = base.mapping["use"]  # the fuller name of the two
    return Node(merged, top.where, top.folder)


def _named(node: Node, path: str) -> str | None:
    return ASSEMBLED if path == "model" and node.use is None else node.use


def same_component(base: str | None, top: str | None) -> bool:
    """Whether an overlay's `use:` leaves the base's component as it is. A bare name is that of the qualified
    one: in a recipe that composes only one distribution can be meant by it."""
    if top is None or top == base:
        return True
    if base is None or (":" in base) == (":" in top):
        return False
    return base.rpartition(":")[2] == top.rpartition(":")[2]


def set_value(root: Node, text: str) -> tuple[Node, list[str], list[Problem]]:
    """Lay `a.b.c=value` over a tree: the new tree, the path that was set, and problems. The value is YAML."""
    where = f"--set {text}" if len(text) <= 200 else f"--set {text[:197]}..."
    path, equals, written = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return root, [], [Problem("expected PATH=VALUE, as in model.history.last=50", where)]
    if len(keys) > DEEPEST:
        return root, [], [Problem(f"nested deeper than {DEEPEST}", where)]
    if keys[0] in FIXED:
        return root, [], [Problem("can be written in a file only", where, keys[0])]
    if not written.strip():
        return root, [], [Problem("expected a value (`~` removes what is there)", where, path)]
    value, problems = read_text(written, "--set", Path.cwd())
    if problems or value is None:
        return root, [], [Problem(problem.message, where, path, problem.hint) for problem in problems]
    problems = []
    made = _reach(root, keys, _placed(value, where), "", where, problems)
    return made, keys, problems


def _placed(node: Node, where: str) -> Node:
    value = node.value
    if node.mapping is not None:
        value = {key: _placed(entry, where) for key, entry in node.mapping.items()}
    elif node.entries is not None:
        value = [_placed(entry, where) for entry in node.entries]
    return Node(value, where, node.folder)


def _reach(
    node: Node | None, keys: list[str], value: Node, path: str, where: str, problems: list[Problem]
) -> Node:
    if not keys:
        return overlay(node, value, path)
    key, rest = keys[0], keys[1:]
    here = joined(path, key)
    if node is None or node.value is None:
        node = Node({}, where, value.folder)
    if node.entries is not None:
        count = len(node.entries)
        if not key.isdecimal() or int(key) >= count:
            known = f"0 to {count - 1}" if count > 1 else "0" if count else "none"
            problems.append(Problem(f"expected the number of an entry of the list ({known})", where, here))
            return node
        entries = list(node.entries)
        entries[int(key)] = _reach(entries[int(key)], rest, value, here, where, problems)
        return Node(entries, node.where, node.folder)
    if node.mapping is None:
        problems.append(Problem(f"{path!r} is no mapping, so it has no {key!r}", where, here))
        return node
    if key == "use" and not rest:
        return overlay(node, Node({"use": value}, where, value.folder), path)
    changed = _reach(node.mapping.get(key), rest, value, here, where, problems)
    return Node({**node.mapping, key: changed}, node.where, node.folder)
