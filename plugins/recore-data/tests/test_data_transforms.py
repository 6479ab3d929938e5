"""Transforms against slow oracles."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_data.options import CollapseRepeats, KCore, RatingAtLeast, Since
from recore_data.transforms import collapse_repeats, k_core, rating_at_least, since

from recore import Context, DataError, Facts
from recore.contracts import Transform
from recore.data import Interactions

EXAMPLES = settings(deadline=None, max_examples=60)
HERE = Context()
Rows = list[dict[str, Any]]


@st.composite
def logs(draw: st.DrawFn) -> Interactions:
    """A log dense enough that cores are neither all nor nothing."""
    users, items = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    event = st.tuples(
        st.integers(1, users), st.sampled_from("abcde"[:items]), st.integers(0, 3), st.integers(1, 5)
    )
    events = draw(st.lists(event, min_size=1, max_size=30))
    return Interactions.from_frame(
        pl.DataFrame(events, schema=["user", "item", "time", "rating"], orient="row"),
        ties=draw(st.sampled_from(["file", "hash"])),
        users=pl.DataFrame({"user": [1, 2], "age": [3, 4]}),
    )


def check(transform: Any, log: Interactions, expected: Rows, reasons: dict[str, int]) -> None:
    """The rows kept are the expected ones, in order, with their ids; tables and policy stay; all is counted."""
    assert isinstance(transform, Transform)
    if not expected:
        with pytest.raises(DataError, match=f"leaves none of {len(log)} events"):
            transform.apply(log)
        return
    kept, dropped = transform.apply(log)
    assert kept.events.to_dicts() == expected
    assert dict(dropped.counts) == {"events": len(log) - len(expected), **reasons}
    assert kept.ties == log.ties
    assert kept.users is log.users
    assert kept.counts == log.counts


def lost(rows: Rows, left: Rows, key: str) -> int:
    return len({row[key] for row in rows} - {row[key] for row in left})


@EXAMPLES
@given(logs(), st.integers(0, 4), st.integers(0, 4))
def test_k_core_is_the_largest_log_that_keeps_the_thresholds(
    log: Interactions, users: int, items: int
) -> None:
    rows: Rows = log.events.to_dicts()
    left = rows
    while True:  # the oracle drops one row at a time: the fixed point does not depend on the order
        of_user, of_item = Counter(row["user"] for row in left), Counter(row["item"] for row in left)
        bad = [row for row in left if of_user[row["user"]] < users or of_item[row["item"]] < items]
        if not bad:
            break
        left = [row for row in left if row is not bad[-1]]
    reasons = {
        f"users under {users} events": lost(rows, left, "user"),
        f"items under {items} events": lost(rows, left, "item"),
    }
    check(k_core(KCore(users=users, items=items), HERE), log, left, reasons)


def test_k_core_goes_on_until_nothing_is_left_to_drop() -> None:
    """A chain in which every drop makes the next: one round is not enough."""
    chain = [(user, item) for user in range(20) for item in (user, user + 1)]
    square = [(100 + user, 100 + item) for user in range(2) for item in range(2)]
    events = pl.DataFrame([*chain, *square], schema=["user", "item"], orient="row")
    kept, dropped = k_core(KCore(2, 2), HERE).apply(Interactions.from_frame(events))
    assert kept.events.select("user", "item").rows() == square
    assert dropped.counts == {"events": 40, "users under 2 events": 20, "items under 2 events": 21}


@EXAMPLES
@given(logs(), st.sampled_from([1, 2, 2.5, 5]))
def test_rating_at_least(log: Interactions, least: float) -> None:
    rows: Rows = log.events.to_dicts()
    left = [row for row in rows if row["rating"] >= least]
    reasons = {f"{key}s with no event left": lost(rows, left, key) for key in ("user", "item")}
    check(rating_at_least(RatingAtLeast(least), HERE), log, left, reasons)


@EXAMPLES
@given(logs(), st.integers(0, 4))
def test_since(log: Interactions, first: int) -> None:
    rows: Rows = log.events.to_dicts()
    left = [row for row in rows if row["time"] >= first]
    reasons = {f"{key}s with no event left": lost(rows, left, key) for key in ("user", "item")}
    check(since(Since(time=first), HERE), log, left, reasons)
    date = f"1970-01-01T00:00:0{first}"
    check(since(Since(date=date), HERE), log, left, reasons)
    check(since(Since(date=f"1970-01-01T01:00:0{first}+01:00"), HERE), log, left, reasons)


@EXAMPLES
@given(logs())
def test_collapse_repeats(log: Interactions) -> None:
    left: Rows = []
    before: Any = None
    for row in log.events.to_dicts():
        if (row["user"], row["item"]) != before:
            left.append(row)
        before = (row["user"], row["item"])
    check(collapse_repeats(CollapseRepeats(), HERE), log, left, {})


def test_a_repeat_after_another_item_stays() -> None:
    log = Interactions.from_frame(
        pl.DataFrame({"user": [1] * 5 + [2], "item": ["a", "a", "b", "a", "a", "a"]})
    )
    kept, dropped = collapse_repeats(CollapseRepeats(), HERE).apply(log)
    assert kept.events["event"].to_list() == [0, 2, 3, 5]
    assert dropped.counts == {"events": 2}


def test_what_is_missing_is_said_when_composed_and_when_applied() -> None:
    log = Interactions.from_frame(pl.DataFrame({"user": [1], "item": [1]}))
    known = Facts(columns=frozenset({"user", "item"}))
    cases: list[tuple[str, RatingAtLeast | Since, Transform]] = [
        ("rating", RatingAtLeast(3), rating_at_least(RatingAtLeast(3), HERE)),
        ("time", Since(time=3), since(Since(time=3), HERE)),
    ]
    for column, options, transform in cases:
        name = {"rating": "rating-at-least", "time": "since"}[column]
        assert options.problems(Facts()) == []
        assert options.problems(Facts(columns=frozenset({column}))) == []
        assert options.problems(known) == [
            f"transform {name!r} needs the column {column!r}; the data has item, user"
        ]
        with pytest.raises(
            DataError, match=f"needs the column {column!r}, but the log has event, user, item"
        ):
            transform.apply(log)


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="users"):
        KCore(users=-1)
    with pytest.raises(ValueError, match="expected `time` or `date`, got neither"):
        Since()
    with pytest.raises(ValueError, match="expected `time` or `date`, got both"):
        Since(time=1, date="1970-01-01")
    with pytest.raises(ValueError, match="expected a date as in 2009-01-31, got 'soon'"):
        Since(date="soon")
