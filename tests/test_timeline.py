"""`recore.timeline`: what is strictly earlier, against loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recore.timeline import Timeline

Groups = list[list[float]]
TIMES = st.integers(-3, 5) | st.sampled_from([-1.5, 0.5, 2.0])


@st.composite
def groups(draw: st.DrawFn) -> Groups:
    """Groups of ascending times with ties; some may be empty."""
    return [sorted(group) for group in draw(st.lists(st.lists(TIMES, max_size=6), max_size=5))]


def timeline(held: Groups, dtype: Any = np.float64) -> Timeline:
    offsets = np.concatenate([[0], np.cumsum([len(group) for group in held])]).astype(np.int64)
    return Timeline(offsets, np.asarray([time for group in held for time in group], dtype=dtype))


@given(groups(), st.data())
@settings(deadline=None, max_examples=200)
def test_strictly_earlier_events_of_a_group(held: Groups, data: st.DataObject) -> None:
    one = timeline(held)
    if not held:
        return
    asked = data.draw(st.lists(st.tuples(st.integers(0, len(held) - 1), TIMES), max_size=8))
    group = np.asarray([g for g, _ in asked], dtype=np.int64)
    time = np.asarray([t for _, t in asked], dtype=np.float64)
    stop, last = one.stop(group, time), one.last(group, time)
    assert stop.dtype == last.dtype == np.int64
    for n, (g, t) in enumerate(asked):
        before = sum(other < t for other in held[g])
        first = sum(len(other) for other in held[:g])
        assert stop[n] == first + before
        assert last[n] == (first + before - 1 if before else -1)


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.int32])
def test_times_of_any_type_and_moments_outside(dtype: Any) -> None:
    one = timeline([[1, 1, 4], [], [2]], dtype)
    group = np.asarray([0, 1, 2])
    for moment, stops in ((0, [0, 3, 3]), (1, [0, 3, 3]), (2, [2, 3, 3]), (4, [2, 3, 4]), (99, [3, 3, 4])):
        assert one.stop(group, np.full(3, moment, dtype)).tolist() == stops
    assert one.last(group, np.full(3, np.inf)).tolist() == [2, -1, 3]
    assert one.last(group, np.full(3, -np.inf)).tolist() == [-1, -1, -1]


def test_large_times_are_told_apart() -> None:
    """Nanoseconds since 1970 differ by one: no float in between."""
    now = 1_700_000_000_123_456_789
    one = timeline([[now, now + 1]], np.int64)
    assert one.stop(np.asarray([0, 0, 0]), np.asarray([now, now + 1, now + 2])).tolist() == [0, 1, 2]


def test_an_empty_log() -> None:
    one = timeline([[], []])
    assert one.last(np.asarray([0, 1]), np.asarray([1.0, 2.0])).tolist() == [-1, -1]
    assert timeline([]).stop(np.zeros(0, dtype=np.int64), np.zeros(0)).tolist() == []
