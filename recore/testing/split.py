"""Checks of splits: `docs/reference/contracts/split.md` in executable form."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from attrs import evolve
from hypothesis import strategies as st

from recore.component import Part
from recore.contracts.data import Holdout, SplitParts
from recore.data import Interactions
from recore.testing.cases import Case
from recore.testing.checks import Evidence, for_all, require, states
from recore.testing.strategies import interactions


@st.composite
def _logs(draw: st.DrawFn) -> Interactions:
    """Users of one, two and three events among others; equal times; one item again and again."""
    return draw(interactions(users=8, items=4, longest=7))


def _parts(part: Part[Any], case: Case, log: Interactions) -> SplitParts:
    parts: SplitParts = case.build(part, interactions=None, tokenizer=None, seen=None).parts(log)
    return parts


def _owner(log: Interactions) -> Any:
    """The number of the user of each row, and of a row past the end."""
    return np.repeat(np.arange(len(log.offsets()) - 1), np.diff(log.offsets()))


@states("split", 1, "No event at or after a target's place is in its history, and none of another user.")
def check_no_future(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        parts, offsets, owner = _parts(part, case, log), log.offsets(), _owner(log)
        for name, held in (("validation", parts.validation), ("test", parts.test)):
            for target, start, stop in zip(held.target, held.start, held.stop, strict=True):
                require(start <= stop, f"a {name} history runs from row {start} to {stop}")
                require(
                    stop <= target,
                    f"the history of {name} target at row {target} goes on to row {stop - 1}",
                )
                require(
                    start >= offsets[owner[target]],
                    f"the history of {name} target at row {target} begins at row {start}, but its user at "
                    f"{offsets[owner[target]]}",
                )

    for_all(case, _logs(), holds)
    return Evidence("users of 1 to 7 events, equal times, repeated items")


@states("split", 2, "Training events, validation targets and test targets are disjoint, each row once.")
def check_disjoint(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        parts = _parts(part, case, log)
        rows = np.concatenate([parts.train, parts.validation.target, parts.test.target])
        require(bool(((rows >= 0) & (rows < len(log))).all()), f"rows {rows} of a log of {len(log)}")
        values, count = np.unique(rows, return_counts=True)
        require(
            bool((count == 1).all()),
            f"the rows {values[count > 1].tolist()} stand in more than one part",
        )

    for_all(case, _logs(), holds)
    return Evidence()


@states(
    "split",
    3,
    "Together the parts are whole: an event that is in none of them is counted under its reason.",
)
def check_whole(part: Part[Any], case: Case) -> Evidence:
    most = [0]

    def holds(log: Interactions) -> None:
        parts = _parts(part, case, log)
        held = len(parts.train) + len(parts.validation) + len(parts.test)
        most[0] = max(most[0], len(log) - held)
        counted = sum(parts.counts.values())
        require(
            held + counted >= len(log),
            f"{len(log)} events became {held}, and {counted} are counted ({dict(parts.counts)})",
        )

    for_all(case, _logs(), holds)
    return Evidence(f"at most {most[0]} events of a log were left out")


@states("split", 4, "Training rows ascend.")
def check_ascending(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        train = _parts(part, case, log).train
        require(bool((np.diff(train) > 0).all()), f"training rows are {train.tolist()}")

    for_all(case, _logs(), holds)
    return Evidence()


@states("split", 5, "Of a user who has a target, no event at or after the target's place is trained on.")
def check_train_before_target(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        parts, owner = _parts(part, case, log), _owner(log)
        last = np.full(len(log.offsets()) - 1, -1)
        np.maximum.at(last, owner[parts.train], parts.train)
        for name, held in (("validation", parts.validation), ("test", parts.test)):
            late = held.target[last[owner[held.target]] >= held.target]
            require(
                len(late) == 0,
                f"the user of the {name} target at row {late[:1]} is trained on up to row "
                f"{last[owner[late[:1]]]}",
            )

    for_all(case, _logs(), holds)
    return Evidence()


@states("split", 6, "No validation history holds a test target.")
def check_validation_without_test(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        parts = _parts(part, case, log)
        for start, stop in zip(parts.validation.start, parts.validation.stop, strict=True):
            inside = parts.test.target[(parts.test.target >= start) & (parts.test.target < stop)]
            require(
                len(inside) == 0,
                f"the validation history of rows {start} to {stop - 1} holds the test target {inside[:1]}",
            )

    for_all(case, _logs(), holds)
    return Evidence()


@states(
    "split",
    8,
    "What validates is known when it is tested: a validation target before a test target of the same user is in the "
    "history of that one.",
)
def check_test_sees_validation(part: Part[Any], case: Case) -> Evidence:
    seen = [0]

    def holds(log: Interactions) -> None:
        parts, owner = _parts(part, case, log), _owner(log)
        validated = np.sort(parts.validation.target)
        for target, start, stop in zip(parts.test.target, parts.test.start, parts.test.stop, strict=True):
            own = validated[(owner[validated] == owner[target]) & (validated < target)]
            out = own[(own < start) | (own >= stop)]
            seen[0] += len(own)
            require(
                len(out) == 0,
                f"the history of the test target at row {target} is rows {start} to {stop - 1}: the validation target "
                f"of its user at row {out[:1]} is left out of it",
            )

    for_all(case, _logs(), holds)
    return Evidence(f"{seen[0]} validation targets stand before a test target of their user")


@states("split", 7, "The parts follow from the log alone: the same again, also with the items relabelled.")
def check_deterministic(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        parts = _parts(part, case, log)
        events = log.events.with_columns(pl.format("z{}", pl.col("item").hash(seed=1)).alias("item"))
        for name, other in (("again", log), ("relabelled", evolve(log, events=events))):
            same = _parts(part, case, other)
            require(
                np.array_equal(parts.train, same.train)
                and _equal(parts.validation, same.validation)
                and _equal(parts.test, same.test),
                f"the same log split {name} gave other rows: test targets {parts.test.target.tolist()} and "
                f"{same.test.target.tolist()}, training {parts.train.tolist()} and {same.train.tolist()}",
            )

    for_all(case, _logs(), holds)
    return Evidence()


def _equal(one: Holdout, other: Holdout) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("target", "start", "stop")
    )
