"""Hypothesis strategies for the objects of recore: logs, histories, batches, layouts.

Examples are small on purpose, and shrink to few events with small ids.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import polars as pl
import torch
from hypothesis import strategies as st
from torch import Tensor

from recore.builtin import EVIDENCE
from recore.claims import Side
from recore.data import Interactions, Ties
from recore.ragged import Batch, Layout, Targets, View, offsets_of
from recore.testing.tiny.data import SPECIALS

NAN = float("nan")
MOST_EXTRA = 64  # columns of padding that a forced layout may have beyond the longest history


def lengths(
    *, longest: int = 8, most: int = 4, fewest: int = 1, shortest: int = 1
) -> st.SearchStrategy[list[int]]:
    """Events of each of `fewest` to `most` histories, `shortest` to `longest` events each."""
    return st.lists(st.integers(shortest, longest), min_size=fewest, max_size=most)


@st.composite
def histories(
    draw: st.DrawFn,
    *,
    items: int = 12,
    longest: int = 8,
    most: int = 4,
    fewest: int = 1,
    columns: Collection[str] = ("time",),
    unknown: bool = False,
    distinct: bool = False,
) -> View:
    """Histories as a View without a rectangle, in the numbering of the kit's tokenizer (token = item + 3).

    Args:
        items: V; item ids are drawn from `0 … V − 1`.
        longest, fewest, most: events of a history, and histories.
        columns: further columns. `time` is int64 and never falls within a history, `creator` and others
            that end in `id` are small integers, those that a model makes of known items (`recore.evidence`) are in
            their range, NaN at the first event, and all others are float64 of both signs.
        unknown: whether items may be unknown (token 1, item −1).
        distinct: no item twice in a history; `longest` is at most V then.
    """
    held = draw(lengths(longest=min(longest, items) if distinct else longest, most=most, fewest=fewest))
    low = -1 if unknown else 0
    if distinct:
        item = [i for n in held for i in draw(st.permutations(range(items)))[:n]]
    else:
        total = sum(held)
        item = draw(st.lists(st.integers(low, items - 1), min_size=total, max_size=total))
    ids = torch.tensor(item, dtype=torch.int64)
    made = {
        "token": torch.where(ids >= 0, ids + len(SPECIALS), torch.ones_like(ids)),
        "item": ids,
        "event": torch.arange(len(ids)) + draw(st.integers(0, 3)),
    }
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    offsets = offsets_of(torch.tensor(held, dtype=torch.int64))
    for name in sorted(set(columns) - set(made)):
        made[name] = _column(name, offsets, random)
    index = torch.randperm(len(held), generator=random)
    return View(made, offsets, index=index)


def _column(name: str, offsets: Tensor, random: torch.Generator) -> Tensor:
    count = int(offsets[-1])
    if name == "time":
        steps = torch.randint(0, 100_000, (count,), generator=random)
        return torch.cat([piece.cumsum(0) for piece in torch.split(steps, offsets.diff().tolist())])
    if name == "creator" or name.endswith("id"):
        return torch.randint(0, 5, (count,), generator=random)
    if name in EVIDENCE:
        made = 3 * torch.rand(count, generator=random, dtype=torch.float64)
        made = {"surprise": made, "rank": made.round(), "agreement": made / 1.5 - 1}[name]
        first = offsets[:-1][offsets.diff() > 0]
        return made.index_fill(0, first, NAN)  # nothing stands before the first event
    return torch.randn(count, generator=random, dtype=torch.float64)


@st.composite
def ragged_batches(
    draw: st.DrawFn,
    *,
    items: int = 12,
    longest: int = 8,
    most: int = 4,
    fewest: int = 1,
    columns: Collection[str] = ("time",),
    unknown: bool = False,
) -> Batch:
    """A batch with the view `user`, whose rows each predict some item (weight 1, a time an hour later)."""
    view = draw(
        histories(items=items, longest=longest, most=most, fewest=fewest, columns=columns, unknown=unknown)
    )
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return Batch({"user": view}, targets_of(view, items, random))


def targets_of(view: View, items: int, random: torch.Generator) -> Targets:
    """Every row of a view predicts some item."""
    ids = torch.randint(items, (view.events,), generator=random)
    time = view["time"] + 3600 if "time" in view.columns else None
    return Targets(torch.arange(view.events), ids, torch.ones(view.events), time=time)


def layouts(longest: int, side: Side | None = None, extra: int = MOST_EXTRA) -> st.SearchStrategy[Layout]:
    """Forced rectangles for histories of at most `longest` events: padding on one side (both are drawn where
    `side` is None), 0 to `extra` columns more than needed, filled with NaN, 0 or a large number."""
    sides: tuple[Literal["left", "right"], ...] = ("left", "right") if side is None else (side,)
    return st.builds(
        Layout,
        padding=st.sampled_from(sides),
        width=st.integers(0, extra).map(lambda more: longest + more),
        fill=st.sampled_from((NAN, 0.0, 1e9)),
    )


@st.composite
def interactions(
    draw: st.DrawFn,
    *,
    users: int = 6,
    items: int = 8,
    longest: int = 6,
    times: bool | None = None,
    text: bool | None = None,
    shuffled: bool = True,
    ties: Ties = "file",
) -> Interactions:
    """A log of 1 to `users` users with 1 to `longest` events each; repeats and equal times are likely.

    `times`: with a column `time` or without, or (None) either. `text`: ids are awkward strings or integers,
    or either. `shuffled`: rows of different users stand mixed in the file.
    """
    timed = draw(st.booleans()) if times is None else times
    named = draw(st.booleans()) if text is None else text
    held = draw(lengths(longest=longest, most=users))
    rows = [user for user, count in enumerate(held) for _ in range(count)]
    if shuffled:
        rows = draw(st.permutations(rows))
    total = len(rows)
    chosen = draw(st.lists(st.integers(0, items - 1), min_size=total, max_size=total))
    frame = pl.DataFrame(
        {
            "user": [f"u{user}" if named else 5 * user + 2 for user in rows],
            "item": [item_name(item) if named else 10 * item + 7 for item in chosen],
        }
    )
    if timed:
        when = draw(st.lists(st.integers(0, 9), min_size=total, max_size=total))
        frame = frame.with_columns(pl.Series("time", when, dtype=pl.Int64))
    return Interactions.from_frame(frame, ties=ties)


AWKWARD = ("0", "00", "-1", " ", "", "[PAD]", "[UNK]", "pad", "a b", "ä", "日本", "a\tb", '"', "None", "nan")


def item_name(number: int) -> str:
    """A string id; the first ones are awkward: digits, blanks, the names of special rows, other scripts."""
    return AWKWARD[number] if number < len(AWKWARD) else f"item {number}"
