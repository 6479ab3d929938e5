"""From the data's own ids to tensors: unknown items, retired items, cut histories, and what is seen."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recore.contracts import Changes, Queries, Query
from recore.errors import DataError
from recore.histories import cut_queries, queries_of, seen_items, tokenise
from recore.plugins import discover
from recore.ragged import View
from recore.recipe import make_builder
from recore.testing import part_of

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def tokenizer(**options: object):  # type: ignore[no-untyped-def]
    """The tokenizer of items, fitted on the items a, b, c, d."""
    from recore.data import Interactions

    plugins = discover()
    found = next(one for one in plugins.of("tokenizer") if one.component.name == "items")
    part = part_of("tokenizer", found.component, found.provider, found.component.options(**options))
    log = Interactions.from_frame(pl.DataFrame({"user": [1] * 4, "item": list("abcd")}))
    from recore.component import Context

    return Context(builder=make_builder(plugins), interactions=log).build(part)


def test_unknown_items_keep_their_place_or_are_dropped() -> None:
    events = pl.DataFrame({"item": ["a", "?", "b", "?", "c"]})
    offsets = np.array([0, 3, 4, 5])
    keep = tokenise(events, offsets, tokenizer(unknown="keep"))
    drop = tokenise(events, offsets, tokenizer(unknown="drop"))
    assert keep.lengths.tolist() == [3, 1, 1]
    assert keep["item"].tolist() == [0, -1, 1, -1, 2]
    assert drop.lengths.tolist() == [2, 0, 1]
    assert drop["item"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("unknown", ["keep", "drop"])
def test_retired_items_stay_readable_and_are_no_target(unknown: str) -> None:
    made = tokenizer(unknown=unknown)
    before = tokenise(pl.DataFrame({"item": ["a", "b", "c"]}), np.array([0, 3]), made)
    made.resize(Changes(removed=["b"]))
    after = tokenise(pl.DataFrame({"item": ["a", "b", "c"]}), np.array([0, 3]), made)
    assert torch.equal(after["token"], before["token"])
    assert after["item"].tolist() == [0, -1, 2]


def test_a_column_that_is_missing_or_no_number_is_refused_by_name() -> None:
    events = pl.DataFrame({"item": ["a"], "creator": ["ann"]})
    with pytest.raises(DataError, match="'time', which these events do not have"):
        tokenise(events, np.array([0, 1]), tokenizer(), ["time"])
    with pytest.raises(DataError, match="'creator' as numbers, but it holds String"):
        tokenise(events, np.array([0, 1]), tokenizer(), ["creator"])


@settings(deadline=None, max_examples=100)
@given(lengths, st.integers(1, 7), st.data())
def test_cutting_keeps_the_last_events(sizes: list[int], count: int, data: st.DataObject) -> None:
    items = data.draw(st.lists(st.integers(0, 9), min_size=sum(sizes), max_size=sum(sizes)))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    queries = Queries(pl.DataFrame({"item": pl.Series(items, dtype=pl.Int64)}), offsets)
    cut = cut_queries(queries, count)
    for number in range(len(sizes)):
        whole = items[offsets[number] : offsets[number + 1]]
        rows = cut.events["item"][int(cut.offsets[number]) : int(cut.offsets[number + 1])].to_list()
        assert rows == whole[-count:]


@settings(deadline=None, max_examples=100)
@given(lengths, st.data())
def test_seen_items_are_each_historys_distinct_known_items(sizes: list[int], data: st.DataObject) -> None:
    items = data.draw(st.lists(st.integers(-1, 4), min_size=sum(sizes), max_size=sum(sizes)))
    offsets = torch.tensor([0, *np.cumsum(sizes).tolist()])
    item = torch.tensor(items, dtype=torch.int64)
    seen = seen_items(View({"token": item, "item": item}, offsets))
    for number in range(len(sizes)):
        whole = items[int(offsets[number]) : int(offsets[number + 1])]
        assert seen[number].tolist() == sorted(set(whole) - {-1})


def test_queries_one_by_one() -> None:
    made = queries_of(
        [Query(["a", "b"], user="u", times=[1, 2], time=3), Query(["c"], user="v", times=[5], time=6)]
    )
    assert made.offsets.tolist() == [0, 2, 3]
    assert made.events.to_dict(as_series=False) == {"item": ["a", "b", "c"], "time": [1.0, 2.0, 5.0]}
    assert made.users is not None
    assert made.users.to_list() == ["u", "v"]
    with pytest.raises(DataError, match="2 items in its histories but 1 times"):
        queries_of([Query(["a", "b"], times=[1])])
