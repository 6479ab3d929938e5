"""Overlays: the laws they keep, the one that they cannot keep, and the examples that say what is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recore.recipe.matrix import cells
from recore.recipe.overlay import overlay, set_value
from recore.recipe.text import read_text, to_yaml
from recore.recipe.tree import Node, node_of, plain

KEYS = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(st.none(), st.integers(0, 3), st.lists(st.integers(0, 3), max_size=2))
PLAIN = st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
MAPPINGS = st.dictionaries(KEYS, PLAIN, max_size=3)
NAMES = st.sampled_from(["p:x", "p:y", "q:x"])


def parts(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mappings that name a component, and may hold others."""
    options = st.dictionaries(KEYS, inner, max_size=3)
    return st.builds(lambda use, rest: {"use": use, **rest}, NAMES, options)


NAMED = st.dictionaries(KEYS, st.recursive(LEAVES, parts, max_leaves=8), max_size=3)


def node(tree: Any) -> Node:
    """A tree of plain values."""
    return node_of(tree, "x", Path(), [])


def laid(*trees: Any) -> Any:
    """Trees laid over each other, the first at the bottom."""
    made = node(trees[0])
    for tree in trees[1:]:
        made = overlay(made, node(tree))
    return plain(made)


@settings(deadline=None, max_examples=60)
@given(MAPPINGS | NAMED)
def test_an_empty_overlay_changes_nothing(tree: Any) -> None:
    assert laid(tree, {}) == tree
    assert laid({}, tree) == tree


@settings(deadline=None, max_examples=60)
@given(MAPPINGS | NAMED)
def test_a_tree_over_itself_is_itself(tree: Any) -> None:
    assert laid(tree, tree) == tree


@settings(deadline=None, max_examples=100)
@given(MAPPINGS, MAPPINGS, MAPPINGS)
def test_overlays_without_components_are_associative_where_mappings_stay_mappings(
    a: Any, b: Any, c: Any
) -> None:
    # A scalar between two mappings wipes the lower one only when it is laid first: such a middle is excluded.
    if not _mappings_meet(a, b, c):
        return
    assert laid(laid(a, b), c) == laid(a, laid(b, c))


def _mappings_meet(*trees: Any) -> bool:
    """Whether no value is a mapping in one tree and something else in another."""
    for key in {key for tree in trees for key in tree}:
        values = [tree[key] for tree in trees if key in tree]
        if any(isinstance(value, dict) for value in values) and not (
            all(isinstance(value, dict) for value in values) and _mappings_meet(*values)
        ):
            return False
    return True


def test_associativity_ends_where_a_value_changes_its_nature() -> None:
    a, b, c = {"k": {"x": 1}}, {"k": None}, {"k": {"y": 2}}
    assert laid(laid(a, b), c) == {"k": {"y": 2}}
    assert laid(a, laid(b, c)) == {"k": {"x": 1, "y": 2}}


@settings(deadline=None, max_examples=100)
@given(NAMED, NAMED)
def test_what_the_top_says_holds(base: Any, top: Any) -> None:
    merged = laid(base, top)
    _holds(merged, top)


def _holds(merged: Any, top: Any) -> None:
    for key, value in top.items():
        if isinstance(value, dict):
            _holds(merged[key], value)
        else:
            assert merged[key] == value


@settings(deadline=None, max_examples=100)
@given(NAMED, NAMED)
def test_another_component_keeps_nothing_of_the_base(base: Any, top: Any) -> None:
    merged = laid(base, top)
    for key in base.keys() & top.keys():
        below, over = base[key], top[key]
        if isinstance(below, dict) and isinstance(over, dict) and below["use"] != over["use"]:
            assert merged[key] == over


@settings(deadline=None, max_examples=60)
@given(NAMED, NAMED)
def test_neither_tree_is_changed(base: Any, top: Any) -> None:
    below, over = node(base), node(top)
    overlay(below, over)
    assert plain(below) == base
    assert plain(over) == top


@settings(deadline=None, max_examples=60)
@given(NAMED, st.lists(KEYS, min_size=1, max_size=3), st.integers(4, 9))
def test_set_is_an_overlay(base: Any, keys: list[str], value: int) -> None:
    made, path, problems = set_value(node(base), f"{'.'.join(keys)}={value}")
    if problems:  # the way leads through a scalar, or a list
        assert any(not isinstance(entry, dict) for entry in _on_the_way(base, keys))
        return
    assert path == keys
    top: Any = value
    for key in reversed(keys):
        top = {key: top}
    if all(isinstance(entry, dict) for entry in _on_the_way(base, keys)):
        assert plain(made) == laid(base, top)
    for key in keys:
        made = made.value[key]
    assert made.value == value


def _on_the_way(tree: Any, keys: list[str]) -> list[Any]:
    met = []
    for key in keys[:-1]:
        if not isinstance(tree, dict) or key not in tree:
            break
        tree = tree[key]
        met.append(tree)
    return met


@pytest.mark.parametrize(
    ("base", "top", "merged"),
    [
        # mappings merge, the same component keeps its options
        ({"m": {"use": "p:x", "a": 1, "b": 2}}, {"m": {"b": 3}}, {"m": {"use": "p:x", "a": 1, "b": 3}}),
        ({"m": {"use": "p:x", "a": 1}}, {"m": {"use": "p:x", "b": 3}}, {"m": {"use": "p:x", "a": 1, "b": 3}}),
        # another component replaces
        ({"m": {"use": "p:x", "a": 1}}, {"m": {"use": "p:y"}}, {"m": {"use": "p:y"}}),
        ({"m": {"use": "p:x", "a": 1}}, {"m": {"use": "q:x"}}, {"m": {"use": "q:x"}}),
        # a bare name is the same component; the fuller name stays
        ({"m": {"use": "p:x", "a": 1}}, {"m": {"use": "x", "b": 2}}, {"m": {"use": "p:x", "a": 1, "b": 2}}),
        ({"m": {"use": "x", "a": 1}}, {"m": {"use": "p:x", "b": 2}}, {"m": {"use": "p:x", "a": 1, "b": 2}}),
        # lists replace, also one part by a list and back
        ({"m": [1, 2]}, {"m": [3]}, {"m": [3]}),
        ({"m": {"use": "p:x"}}, {"m": [{"use": "p:x"}]}, {"m": [{"use": "p:x"}]}),
        # ~ removes
        ({"m": {"use": "p:x"}}, {"m": None}, {"m": None}),
        ({"m": None}, {"m": {"use": "p:x"}}, {"m": {"use": "p:x"}}),
        # `model:` without `use:` is the assembled one
        ({"model": {"a": 1}}, {"model": {"use": "p:count"}}, {"model": {"use": "p:count"}}),
        (
            {"model": {"a": 1}},
            {"model": {"use": "recore:sequential", "b": 2}},
            {"model": {"a": 1, "b": 2, "use": "recore:sequential"}},
        ),
    ],
)
def test_overlays_by_example(base: Any, top: Any, merged: Any) -> None:
    assert laid(base, top) == merged


@pytest.mark.parametrize(
    ("text", "merged"),
    [
        ("m.a=3e-4", {"m": {"use": "p:x", "a": 3e-4}, "n": [{"k": 1}, {"k": 2}]}),
        ("m.a=~", {"m": {"use": "p:x", "a": None}, "n": [{"k": 1}, {"k": 2}]}),
        ("m.b=x=y", {"m": {"use": "p:x", "a": 1, "b": "x=y"}, "n": [{"k": 1}, {"k": 2}]}),
        ("m.use=p:y", {"m": {"use": "p:y"}, "n": [{"k": 1}, {"k": 2}]}),
        ("m.use=x", {"m": {"use": "p:x", "a": 1}, "n": [{"k": 1}, {"k": 2}]}),
        ("m={use: p:y, c: [1, 2]}", {"m": {"use": "p:y", "c": [1, 2]}, "n": [{"k": 1}, {"k": 2}]}),
        ("n.1.k=5", {"m": {"use": "p:x", "a": 1}, "n": [{"k": 1}, {"k": 5}]}),
        ("n.0=7", {"m": {"use": "p:x", "a": 1}, "n": [7, {"k": 2}]}),
        ("n=[1]", {"m": {"use": "p:x", "a": 1}, "n": [1]}),
        ("o.p=1", {"m": {"use": "p:x", "a": 1}, "n": [{"k": 1}, {"k": 2}], "o": {"p": 1}}),
    ],
)
def test_set_by_example(text: str, merged: Any) -> None:
    base = {"m": {"use": "p:x", "a": 1}, "n": [{"k": 1}, {"k": 2}]}
    made, _, problems = set_value(node(base), text)
    assert problems == []
    assert plain(made) == merged


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.sets(st.sampled_from(["x", "y", "3e-4"]), min_size=1).map(sorted),
        min_size=1,
    )
)
def test_cells_are_the_product_of_the_axes(axes: dict[str, list[str]]) -> None:
    tree = {
        "matrix": {axis: {label: {axis: label} for label in labels} for axis, labels in axes.items()},
        "k": 1,
    }
    problems: list[Any] = []
    read, _ = read_text(to_yaml(tree), "x.yaml")
    assert read is not None
    found = cells(read, problems)
    assert problems == []
    count = 1
    for labels in axes.values():
        count *= len(labels)
    assert len(found) == len({cell.name for cell in found}) == count
    for cell in found:
        chosen = dict(pair.split("=") for pair in cell.name.split(","))
        assert list(chosen) == list(axes)
        assert {key: str(value) for key, value in plain(cell.root).items()} == {**chosen, "k": "1"}
