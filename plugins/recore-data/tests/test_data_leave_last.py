"""The split `leave-last` against a slow oracle."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_data.leave_last import build
from recore_data.options import LeaveLast

from recore import Context
from recore.contracts import Holdout, Split
from recore.data import Interactions

EXAMPLES = settings(deadline=None, max_examples=80)


@st.composite
def logs(draw: st.DrawFn) -> Interactions:
    event = st.tuples(st.integers(1, 4), st.sampled_from("abcd"), st.integers(0, 3))
    events = draw(st.lists(event, min_size=1, max_size=20))
    frame = pl.DataFrame(events, schema=["user", "item", "time"], orient="row")
    return Interactions.from_frame(frame if draw(st.booleans()) else frame.drop("time"))


@EXAMPLES
@given(logs())
def test_parts_and_counts(log: Interactions) -> None:
    split = build(LeaveLast(), Context())
    assert isinstance(split, Split)
    parts = split.parts(log)
    rows: list[dict[str, Any]] = log.events.to_dicts()
    offsets = log.offsets().tolist()
    train: list[int] = []
    held: dict[str, list[tuple[int, int, int]]] = {"validation": [], "test": []}
    for start, stop in pairwise(offsets):
        if stop - start < 3:
            train += range(start, stop)
            continue
        train += range(start, stop - 2)
        held["validation"].append((stop - 2, start, stop - 2))
        held["test"].append((stop - 1, start, stop - 1))
    assert parts.train.tolist() == train
    trained = {rows[row]["item"] for row in train}
    counts = {
        "users with fewer than 3 events, all of which train": sum(
            stop - start < 3 for start, stop in pairwise(offsets)
        )
    }
    for name, part in (("validation", parts.validation), ("test", parts.test)):
        got = zip(part.target.tolist(), part.start.tolist(), part.stop.tolist(), strict=True)
        assert list(got) == held[name]
        assert part.target.dtype == part.start.dtype == part.stop.dtype == np.int64
        histories = [(rows[target], rows[start:stop]) for target, start, stop in held[name]]
        counts[f"{name} targets not in training (cold)"] = sum(
            target["item"] not in trained for target, _ in histories
        )
        counts[f"{name} targets already in their history"] = sum(
            target["item"] in [row["item"] for row in history] for target, history in histories
        )
        if "time" in log.events.columns:
            counts[f"{name} targets at the time of an event of their history"] = sum(
                target["time"] in [row["time"] for row in history] for target, history in histories
            )
    assert dict(parts.counts) == counts


@EXAMPLES
@given(logs(), st.integers(1, 5), st.randoms())
def test_some_users_validate_and_of_all_others_the_event_before_the_last_trains(
    log: Interactions, validate: int, random: Any
) -> None:
    split = build(LeaveLast(validate=validate), Context())
    everybody, some = build(LeaveLast(), Context()).parts(log), split.parts(log)
    drawn = set(some.validation.target.tolist())
    assert len(drawn) == min(validate, len(everybody.validation))
    left = set(everybody.validation.target.tolist()) - drawn
    assert some.train.tolist() == sorted({*everybody.train.tolist(), *left})
    assert np.array_equal(some.test.target, everybody.test.target)
    chosen = {
        target: (start, stop) for target, start, stop in zip(*_columns(everybody.validation), strict=True)
    }
    assert {t: (a, b) for t, a, b in zip(*_columns(some.validation), strict=True)} == {
        target: chosen[target] for target in drawn
    }
    assert f"the {validate} of them whose ids hash lowest the one before validates" in some.name
    # Who is drawn follows from the ids: not from the order of the log, nor from users who are not drawn.
    users = log.events["user"]
    order = random.sample(range(len(log)), len(log))
    moved = Interactions.from_frame(log.events[order].drop("event"))
    again = split.parts(moved)
    if "time" in log.events.columns:
        assert set(moved.events["user"].gather(again.validation.target)) == set(users.gather(sorted(drawn)))
    fewer = build(LeaveLast(validate=max(validate - 1, 1)), Context()).parts(log).validation.target
    assert set(fewer.tolist()) <= drawn


def _columns(holdout: Holdout) -> tuple[list[int], list[int], list[int]]:
    return holdout.target.tolist(), holdout.start.tolist(), holdout.stop.tolist()


def test_a_log_without_targets() -> None:
    parts = build(LeaveLast(), Context()).parts(
        Interactions.from_frame(pl.DataFrame({"user": [1], "item": [1]}))
    )
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (1, 0, 0)
    assert set(parts.counts.values()) == {0, 1}


def test_its_name_says_what_it_leaks() -> None:
    parts = build(LeaveLast(), Context()).parts(
        Interactions.from_frame(pl.DataFrame({"user": [1], "item": [1]}))
    )
    assert parts.name == (
        "leave-last: of each user with 3 events or more the last tests and the one before validates; other users' "
        "futures are in training"
    )
