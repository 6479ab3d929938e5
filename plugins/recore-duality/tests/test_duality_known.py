"""What is known at a moment, against loops over events; and the windows in which long histories are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from duality_helpers import Row, interactions, logs, make
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_duality.known import Known, read_rows, windows

from recore.ragged import Batch, View, offsets_of
from recore.sequential import blocks
from recore.testing.tiny.data import TinyTokenizer

MANY = settings(deadline=None, max_examples=150)


def known(rows: list[Row], users: list[int]) -> tuple[Known, list[tuple[int, int, int]]]:
    """What is known of `users` in a log, and the log's rows in its own order."""
    log = interactions(rows)
    return Known(log, TinyTokenizer(users)), list(log.events.select("user", "time", "event").iter_rows())


@given(
    logs(), st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True), st.none() | st.integers(-1, 9)
)
@MANY
def test_rows_ages_and_counts(rows: list[Row], users: list[int], moment: int | None) -> None:
    """For users in any numbering, also of whom the log knows nothing, and logs of users who are not numbered."""
    about, held = known(rows, users)
    last, age = about.rows(moment)
    counts = about.counts(moment)
    for number, user in enumerate(users):
        before = [n for n, (u, t, _) in enumerate(held) if u == user and (moment is None or t < moment)]
        assert counts[number] == len(before)
        assert last[number] == (before[-1] if before else -1)
        if before:
            met = held[before[-1]][1]
            assert age[number] == sum(t > met and (moment is None or t < moment) for _, t, _ in held)
        else:
            assert age[number] == -1


@given(logs())
@MANY
def test_moments_between_events_and_of_other_types(rows: list[Row]) -> None:
    about, _ = known(rows, [0, 1, 2, 3, 4])
    for time in range(8):
        between, after = about.rows(time + 0.5), about.rows(time + 1)
        assert [x.tolist() for x in between] == [x.tolist() for x in after]
    assert [x.tolist() for x in about.rows(1e300)] == [x.tolist() for x in about.rows(None)]


@given(logs())
@MANY
def test_states_in_which_users_came(rows: list[Row]) -> None:
    """`before`: of each event the last of its user's that is strictly earlier; ties are not."""
    log = interactions(rows)
    about = Known(log, TinyTokenizer(range(5)))
    held = list(log.events.select("user", "time").iter_rows())
    for row, found in enumerate(about.before(log)):
        earlier = [n for n, (u, t) in enumerate(held) if u == held[row][0] and t < held[row][1]]
        assert found == (earlier[-1] if earlier else -1)


# ---- windows --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), max_size=6), st.none() | st.integers(2, 9))
@MANY
def test_windows_read_each_event_once_with_half_a_window_before_it(
    lengths: list[int], width: int | None
) -> None:
    total = sum(lengths)
    columns = {name: torch.arange(total) for name in ("token", "item", "event")}
    view = View(columns, offsets_of(torch.tensor(lengths, dtype=torch.int64)))
    start, stop, read = windows(view, width)
    rows = []
    for begin, end, first in zip(start.tolist(), stop.tolist(), read.tolist(), strict=True):
        assert begin <= first <= end
        assert width is None or end - begin <= width
        if end > begin:
            (history,) = {int(view.sequence[row]) for row in (begin, end - 1)}  # a window is of one history
            origin = int(view.offsets[history])
            for row in range(first, end):
                # At least half a window before it, or all there is.
                assert begin == origin or width is None or row - begin >= width // 2
        rows += list(range(first, end))
    assert rows == list(range(total))
    keep, theirs = read_rows(start, stop, read)
    laid = [
        row for begin, end in zip(start.tolist(), stop.tolist(), strict=True) for row in range(begin, end)
    ]
    assert theirs.tolist() == rows
    assert [laid[at] for at in keep.tolist()] == rows


@given(st.lists(st.integers(0, 12), max_size=9), st.integers(1, 20))
@MANY
def test_blocks_hold_at_most_so_many_events(lengths: list[int], most: int) -> None:
    found = blocks(torch.tensor(lengths, dtype=torch.int64), most)
    assert [n for block in found for n in range(block.start, block.stop)] == list(range(len(lengths)))
    for block in found:
        assert block.stop > block.start
        assert sum(lengths[block]) <= most or block.stop == block.start + 1


@torch.no_grad()
def test_states_of_histories_longer_than_a_window(recipe_file: Path) -> None:
    """Each state is that of the window it stands in, so it has read at least half a window."""
    rows = [(0, n % 5, n) for n in range(23)] + [(1, n % 3, n) for n in range(4)] + [(2, 4, 1)]
    made = make(recipe_file, {"model": {"history": {"last": 6}}})
    log = interactions(rows)
    model, tokenizer = made.model, made.prepared.context.tokenizer
    assert tokenizer is not None
    states = model.states(log, tokenizer, ())
    assert states.shape == (len(rows) + 1, 4)
    assert not states[-1].any()
    for row in range(len(rows)):
        own = [n for n in range(row + 1) if rows[n][0] == rows[row][0]]
        read = len(own)
        if read > 6:  # windows begin every three events; the last that leaves three or more before the row
            read = 4 + (read - 7) % 3
        history = pl.Series([rows[n][1] for n in own[-read:]])
        ids = torch.from_numpy(tokenizer.item_ids(history))
        view = View(
            {"token": torch.from_numpy(tokenizer.encode(history)), "item": ids, "event": ids},
            torch.tensor([0, read]),
        )
        wanted = model(Batch({"user": view}), view)[-1]
        torch.testing.assert_close(states[row], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("unknown", ["keep", "drop"])
@torch.no_grad()
def test_states_after_unknown_items(recipe_file: Path, unknown: str) -> None:
    """With `drop` an event whose item is unknown leaves the state as it was: zero, if there was none."""
    made = make(recipe_file, {"tokenizer": {"unknown": unknown}})
    rows = [(0, 99, 0), (0, 1, 1), (0, 99, 2), (0, 2, 3), (1, 99, 0), (2, 3, 0)]
    model, tokenizer = made.model, made.prepared.context.tokenizer
    assert tokenizer is not None
    states = model.states(interactions(rows), tokenizer, ())
    if unknown == "drop":
        assert not states[[0, 4, 6]].any()
        assert torch.equal(states[2], states[1])
        without = model.states(interactions([rows[1], rows[3], rows[5]]), tokenizer, ())
        torch.testing.assert_close(states[[1, 3, 5]], without[:3], rtol=0, atol=1e-9)
    else:
        assert states[:6].any(1).all()


def test_states_are_computed_without_gradient_and_leave_the_model_as_it_was(recipe_file: Path) -> None:
    made = make(recipe_file)
    model, tokenizer = made.model, made.prepared.context.tokenizer
    assert tokenizer is not None
    for mode in (True, False):
        model.train(mode)
        states = model.states(interactions([(0, 1, 0)]), tokenizer, ())
        assert model.training is mode
        assert not states.requires_grad


def test_a_large_log_against_polars() -> None:
    """20,000 users at one moment of 200,000 events."""
    random = np.random.default_rng(0)
    rows: Any = pl.DataFrame(
        {
            "user": random.integers(0, 20_000, 200_000),
            "item": random.integers(0, 50, 200_000),
            "time": random.integers(0, 10**6, 200_000),
        }
    )
    from recore.data import Interactions

    log = Interactions.from_frame(rows)
    about = Known(log, TinyTokenizer(range(20_000)))
    last, age = about.rows(500_000)
    events = log.events.filter(pl.col("time") < 500_000)
    expected = events.group_by("user").agg(pl.len(), pl.col("time").max()).sort("user")
    assert (about.counts(500_000)[expected["user"].to_numpy()] == expected["len"].to_numpy()).all()
    assert (log.events["time"].gather(last[expected["user"].to_numpy()]) == expected["time"]).all()
    assert age.max() < len(log)
