"""Options: every type a recipe can write, strictly; and options → YAML → options for any options."""

from __future__ import annotations

import math
import string
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recore.component import Part
from recore.plugins import Plugins
from recore.recipe.options import in_words, options_of
from recore.recipe.resolved import unstructured, with_frames
from recore.recipe.structure import FAILED, Structurer
from recore.recipe.text import read_text, to_yaml
from recore.recipe.tree import Node, node_of

WORDS = st.text(string.ascii_letters + string.digits + " .-_:#'\"[]{}~&*!", max_size=8)
INTS = st.integers(-(10**12), 10**12)
FLOATS = st.floats(allow_nan=False)
POSITIVE = st.integers(1, 10**6)
PATHS = st.lists(st.text(string.ascii_letters, min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda pieces: "/" + "/".join(pieces)
)
BOUNDS = st.fixed_dictionaries({}, optional={"low": INTS, "high": POSITIVE})
TOYS = st.fixed_dictionaries(
    {},
    optional={
        "rows": POSITIVE,
        "share": FLOATS | INTS,
        "name": WORDS,
        "shuffle": st.booleans(),
        "ids": st.sampled_from(["int", "str", "int64"]),
        "source": st.none() | PATHS,
        "files": st.lists(PATHS, max_size=2),
        "rename": st.dictionaries(WORDS, WORDS, max_size=2),
        "sizes": st.dictionaries(INTS, FLOATS | INTS, max_size=2),
        "pair": st.tuples(INTS, FLOATS).map(list),
        "many": st.lists(INTS, max_size=3),
        "tags": st.lists(WORDS, max_size=3, unique=True),
        "last": st.just("all") | INTS,
        "either": st.none() | st.booleans() | INTS | FLOATS | WORDS,
        "bounds": BOUNDS,
        "all_bounds": st.lists(BOUNDS, max_size=2),
    },
)


def structured(tiny: Plugins, kind: str, tree: Any) -> tuple[Any, Structurer]:
    """A part of a tree, through YAML text."""
    node, problems = read_text(to_yaml(tree), "x.yaml", Path("/place"))
    assert problems == []
    assert node is not None
    structurer = Structurer(tiny)
    return structurer.part(kind, node, "data"), structurer


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=TOYS)
def test_options_survive_yaml(tiny: Plugins, options: dict[str, Any]) -> None:
    part, structurer = structured(tiny, "dataset", {"use": "toy", **options})
    assert structurer.problems == []
    tree = unstructured(part, "data", structurer.written)
    assert tree["use"] == "tiny-parts:toy"
    again, more = structured(tiny, "dataset", tree)
    assert more.problems == []
    assert again.options == part.options
    assert unstructured(again, "data", more.written) == tree
    for key, value in options.items():
        if key not in ("sizes", "bounds", "all_bounds", "tags"):
            assert tree[key] == value


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["rows", "share", "name", "shuffle", "ids", "many", "rename", "last", "bounds"]),
    data=st.data(),
)
def test_nothing_is_converted(tiny: Plugins, key: str, data: st.DataObject) -> None:
    value = data.draw(
        st.none() | st.booleans() | POSITIVE | st.floats(1.0, 9.0) | WORDS | st.lists(INTS, max_size=2)
    )
    part, structurer = structured(tiny, "dataset", {"use": "toy", key: value})
    takes: dict[str, Any] = {
        "rows": type(value) is int,
        "share": type(value) in (int, float),
        "name": type(value) is str,
        "shuffle": type(value) is bool,
        "ids": value in ("int", "str", "int64"),
        "many": type(value) is list,
        "rename": False,
        "last": type(value) is int or value == "all",
        "bounds": False,
    }
    assert (part is not FAILED) == takes[key]
    assert bool(structurer.problems) != takes[key]
    if part is not FAILED:
        kept = getattr(part.options, key)
        assert kept == (tuple(value) if isinstance(value, list) else value)
        assert type(kept) is (float if key == "share" else type(kept))


def test_an_int_is_also_a_float_and_stays_exact(tiny: Plugins) -> None:
    part, _ = structured(tiny, "dataset", {"use": "toy", "share": 3})
    assert part.options.share == 3.0
    assert type(part.options.share) is float
    part, structurer = structured(tiny, "dataset", {"use": "toy", "share": 10**399})
    assert part is FAILED
    assert structurer.problems[0].message.startswith("expected float, got 1000")


def test_a_union_keeps_the_type_that_was_written(tiny: Plugins) -> None:
    for value in (True, 1, 1.0, "1", None, math.inf):
        part, _ = structured(tiny, "dataset", {"use": "toy", "either": value})
        assert part.options.either == value
        assert type(part.options.either) is type(value)


def test_paths_are_relative_to_the_file_that_writes_them(
    tiny: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORE_DATA", "/data")
    tree = {"use": "toy", "source": "$RECORE_DATA/ml-1m/ml-1m.txt", "files": ["a.csv", "../b.csv", "/c.csv"]}
    part, structurer = structured(tiny, "dataset", tree)
    assert part.options.source == Path("/data/ml-1m/ml-1m.txt")
    assert part.options.files == [Path("/place/a.csv"), Path("/place/../b.csv"), Path("/c.csv")]
    written = unstructured(part, "data", structurer.written)
    assert written["source"] == "$RECORE_DATA/ml-1m/ml-1m.txt"
    assert written["files"] == ["/place/a.csv", "/place/../b.csv", "/c.csv"]


@pytest.mark.parametrize("frame", [pl.DataFrame({"user": [1]}), pd.DataFrame({"user": [1]})])
def test_a_data_frame_comes_from_python(tiny: Plugins, frame: Any) -> None:
    structurer = Structurer(tiny)
    part = structurer.part("dataset", node_of({"use": "toy", "frame": frame}, "overlay", Path(), []), "data")
    assert part.options.frame is frame
    tree = unstructured(part, "data", structurer.written)
    with pytest.raises(
        TypeError, match=r"^frame: a DataFrame cannot be written as YAML; write it to a Parquet file"
    ):
        to_yaml(tree)
    saved = with_frames({"data": tree}, lambda path, found: f"{path}.parquet" if found is frame else None)
    assert saved["data"]["frame"] == "data.frame.parquet"
    part, _ = structured(tiny, "dataset", saved["data"])
    assert part.options.frame == Path("/place/data.frame.parquet")


def test_a_data_frame_elsewhere_is_refused(tiny: Plugins) -> None:
    structurer = Structurer(tiny)
    frame = pl.DataFrame()
    structurer.part("dataset", node_of({"use": "toy", "rows": frame}, "overlay", Path(), []), "data")
    assert [str(problem) for problem in structurer.problems] == [
        "overlay: data.rows: expected int, got a data frame"
    ]


def test_parts_are_found_at_any_depth(tiny: Plugins) -> None:
    tree = {
        "use": "stack",
        "inner": [{"use": "mix", "heads": 1}, {"use": "stack", "inner": [{"use": "tiny-parts:mix"}]}],
        "named": {"last": {"use": "mix", "heads": 4}},
    }
    part, structurer = structured(tiny, "encoder", tree)
    assert structurer.problems == []
    assert isinstance(part, Part)
    assert [(one.path, one.name) for one in part.parts()] == [
        ("data.inner.0", "tiny-parts:mix"),
        ("data.inner.1", "tiny-parts:stack"),
        ("data.inner.1.inner.0", "tiny-parts:mix"),
        ("data.named.last", "tiny-parts:mix"),
    ]
    assert part.options.inner[1].where == "x.yaml:5"


def test_problems_at_any_depth_have_their_line(tiny: Plugins) -> None:
    text = """\
use: stack
inner:
  - use: mix
    heads: 0
  - use: stack
    inner:
      - {use: mux}
      - {heads: 1}
"""
    node, _ = read_text(text, "x.yaml")
    assert node is not None
    structurer = Structurer(tiny)
    assert structurer.part("encoder", node, "model.encoder") is FAILED
    assert [str(problem) for problem in structurer.problems if "known" not in problem.hint] == [
        "x.yaml:4: model.encoder.inner.0.heads: expected more than 0, got 0",
        "x.yaml:7: model.encoder.inner.1.inner.0.use: unknown encoder 'mux' (did you mean 'mix'?)",
    ]
    assert structurer.problems[2].where == "x.yaml:8"
    assert structurer.problems[2].message == "missing key `use:`, which says which encoder"


def test_every_type_in_words(tiny: Plugins) -> None:
    options = options_of(tiny.find("dataset", "toy").component.options)
    assert {option.key: in_words(option.type) for option in options} == {
        "rows": "int",
        "share": "float",
        "name": "str",
        "shuffle": "bool",
        "ids": "'int', 'str' or 'int64'",
        "source": "path or ~",
        "files": "list of path",
        "frame": "data frame or ~",
        "rename": "mapping of str",
        "sizes": "mapping of float",
        "pair": "[int, float]",
        "many": "list of int",
        "tags": "list of str",
        "last": "int or 'all'",
        "either": "bool, int, float, str or ~",
        "bounds": "mapping (Bounds)",
        "all_bounds": "list of mapping (Bounds)",
    }


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.dictionaries(
        st.sampled_from(["use", "rows", "bounds", "pair", "many", "sizes", "either", "source", "files", "x"]),
        st.recursive(
            st.none() | st.booleans() | INTS | FLOATS | WORDS,
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
            max_leaves=5,
        ),
    )
)
def test_any_tree_is_structured_or_refused_in_words(tiny: Plugins, tree: Any) -> None:
    structurer = Structurer(tiny)
    part = structurer.part("dataset", node_of({"use": "toy", **tree}, "x", Path(), []), "data")
    assert (part is FAILED) == bool(structurer.problems)
    assert all(str(problem).startswith("x: data") for problem in structurer.problems)


def test_a_node_is_a_value_with_a_place() -> None:
    assert Node(3).mapping is None
    assert Node([Node(3)]).entries is not None
    assert Node({"use": Node(3)}).use is None
