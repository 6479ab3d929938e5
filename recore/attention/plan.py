"""Where attention makes rectangles: which sequences share one, and how events get in and out.

Legend: `T` events, `R` rows that ask, `b` sequences of a group, `w` key columns, `r` row columns.

The *store* is what rectangles are read from: the T events themselves, padded on the right group by group; or,
where the view's Layout asks for a rectangle, the cells of that rectangle read row by row, with its own padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from recore.ragged import View, offsets_of

# Sequences share a rectangle when the shortest is at least this part of the longest, less a few columns.
# On ML-1M's lengths cut at 200 that is about ten rectangles with 7% of area wasted (measured: four rectangles
# waste 15% and take 6% longer, twice as many narrower ones save nothing).
_ALIKE, _SLACK = 0.8, 2
# A rectangle more costs, over both passes, as much as so many of its cells: shorter histories join the rectangle of
# longer ones where less than that is wasted. Batches of a few short histories are then one or two rectangles.
_CALL = 2**12


@frozen(eq=False)
class Group:
    """Sequences that share one rectangle.

    `keys (b, w)`: the store's row in each cell. `seen (b, w)`: True where it is an event. `events (b, w)`: the
    view's row in each cell; padding repeats an event of the sequence. `first (b, 1)`: the column of the
    sequence's first event.
    `rows (b, r)`: the row of `q` that asks in each cell. `asks (b, r)`: True where one does. `at (b or 1, r)`:
    the column of its event among the keys. `row_events (b, r)`: its event. `results (b, r)`: the row of the
    result. Where every event asks these are `keys`, `seen`, the columns themselves, `events` and `events`.
    `real_keys`, `real_rows`: the cells that hold an event, or a row that asks, counted row by row.
    `aligned`: row cell `i` stands at key column `i`, whatever the sequence. `tight`: besides, all cells before a
    row's own are events of its sequence, so that the causal triangle is the whole mask of the real rows.
    """

    keys: Tensor
    seen: Tensor
    events: Tensor
    first: Tensor
    rows: Tensor
    asks: Tensor
    at: Tensor
    row_events: Tensor
    results: Tensor
    real_keys: Tensor
    real_rows: Tensor
    aligned: bool
    tight: bool

    @property
    def width(self) -> int:
        """Key columns."""
        return int(self.keys.shape[1])

    @property
    def count(self) -> int:
        """Row columns."""
        return int(self.rows.shape[1])

    def __len__(self) -> int:
        return int(self.keys.shape[0])


@frozen(eq=False)
class Plan:
    """Groups, and where results stand once their row rectangles are laid end to end.

    `rows`: the row of `q` in every row cell, all groups end to end; `keys`: likewise of the store;
    `row_home (R,)`: the cell that holds each row's result; `key_home (n,)` the cells that hold the store's
    rows `key_rows (n,)` (None: all of them, in order), each store row that any group reads once.
    `distinct`: no event asks twice.
    """

    groups: tuple[Group, ...]
    rows: Tensor
    keys: Tensor
    row_home: Tensor
    key_home: Tensor
    key_rows: Tensor | None
    distinct: bool = True


def alike(lengths: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """Slices of falling lengths `(n,)` in which all are within 20% of the longest, or too few to stand alone."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(lengths):
        least = _ALIKE * lengths[start] - _SLACK
        stop = int(np.searchsorted(-lengths, -least, side="right"))
        first = found[-1][0] if found else start
        wasted = (stop - start) * (int(lengths[first]) ** 2 - int(lengths[start]) ** 2)
        if found and wasted < _CALL:
            found[-1] = (first, stop)
        else:
            found.append((start, stop))
        start = stop
    return found


def plan_of(view: View, rows: Tensor | None) -> Plan:
    """The view's plan, kept on the view: one for all rows, and one for the rows last asked for."""
    if rows is None:
        return view.remember("attention plan", lambda: _all_rows(view))
    kept: dict[str, Any] = view.remember("attention plan of rows", dict)
    # The same tensor may hold other rows by now: torch counts what is done to it in place.
    version = None if rows.is_inference() else rows._version
    if kept.get("rows") is not rows or kept["version"] != version:
        kept.update(rows=rows, version=version, plan=_some_rows(view, rows))
    plan: Plan = kept["plan"]
    return plan


def _cells(view: View, sequences: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of sequences `(b,)`: the store's rows, which are events, the view's rows `(b, w)`, and the column at
    which each starts `(b, 1)`."""
    start, length = view.offsets[sequences, None], view.lengths[sequences, None]
    if view.layout.padding == "none":
        column = torch.arange(width, device=start.device)
        events = start + torch.minimum(column, length - 1)
        return events, column < length, events, torch.zeros_like(start)
    whole = view.layout.columns(view.offsets)
    column = torch.arange(whole, device=start.device)
    first = whole - length if view.layout.padding == "left" else torch.zeros_like(length)
    place = column - first
    events = start + torch.minimum(place.clamp(min=0), length - 1)
    return sequences[:, None] * whole + column, (place >= 0) & (place < length), events, first


def _groups(lengths: Tensor, layout: str) -> list[tuple[Tensor, int]]:
    """Which sequences `(b,)` share a rectangle, and its width; empty sequences are in none."""
    order = lengths.argsort(descending=True, stable=True)
    falling = lengths[order].cpu().numpy()
    falling = falling[: int((falling > 0).sum())]
    slices = alike(falling) if layout == "none" else [(0, len(falling))] * (len(falling) > 0)
    return [(order[start:stop], int(falling[start])) for start, stop in slices]


def _all_rows(view: View) -> Plan:
    groups = []
    for sequences, width in _groups(view.lengths, view.layout.padding):
        keys, seen, events, first = _cells(view, sequences, width)
        at = torch.arange(keys.shape[1], device=keys.device)[None]
        real, tight = _true(seen), view.layout.padding != "left"
        groups.append(
            Group(keys, seen, events, first, keys, seen, at, events, events, real, real, True, tight)
        )
    return _finished(view, groups, None)


def _some_rows(view: View, rows: Tensor) -> Plan:
    """Sequences that ask for like numbers of rows (a factor of four), then of like length, share a
    rectangle; a sequence nobody asks for is in none."""
    sequence, place = view.sequence[rows], view.place[rows]
    order = (sequence * (view.events + 1) + place).argsort(stable=True)
    counts = torch.bincount(sequence, minlength=len(view))
    asked = offsets_of(counts)
    classes = torch.where(counts > 0, counts.clamp(min=1).to(torch.float64).log2().div(2).ceil().long(), -1)
    groups = []
    for kind in torch.unique(classes).tolist():
        if kind < 0:
            continue
        members = (classes == kind).nonzero()[:, 0]
        for chosen, width in _groups(view.lengths[members], view.layout.padding):
            sequences = members[chosen]
            keys, seen, events, first = _cells(view, sequences, width)
            count = counts[sequences, None]
            column = torch.arange(int(count.max()), device=keys.device)
            own = order[asked[sequences, None] + torch.minimum(column, count - 1)]
            asks, at = column < count, place[own] + first
            real = _true(seen), _true(asks)
            groups.append(
                Group(keys, seen, events, first, own, asks, at, rows[own], own, *real, False, False)
            )
    return _finished(view, groups, rows)


def _true(cells: Tensor) -> Tensor:
    """The places of what is True, counted row by row."""
    return cells.flatten().nonzero()[:, 0]


def _finished(view: View, groups: list[Group], rows: Tensor | None) -> Plan:
    nothing = torch.zeros(0, dtype=torch.int64, device=view.offsets.device)

    def end_to_end(pieces: list[Tensor]) -> Tensor:
        return torch.cat([nothing, *(piece.flatten() for piece in pieces)])

    def home(store: Tensor, real: Tensor, size: int) -> Tensor:
        held = torch.zeros(size, dtype=torch.int64, device=store.device)
        held[store[real]] = real
        return held

    keys, seen = end_to_end([g.keys for g in groups]), end_to_end([g.seen for g in groups]).bool()
    asking, asks = end_to_end([g.rows for g in groups]), end_to_end([g.asks for g in groups]).bool()
    if view.layout.padding == "none" and rows is None:
        key_home = home(keys, _true(seen), view.events)
        return Plan(tuple(groups), asking, keys, key_home, key_home, None)
    real = _true(seen)
    if rows is None:
        cells = view.layout.flat(view.offsets)
        where = home(asking, _true(asks), len(view) * view.layout.columns(view.offsets))
        return Plan(tuple(groups), asking, keys, where[cells], real, keys[real])
    row_home = home(asking, _true(asks), rows.numel())
    distinct = torch.unique(rows).numel() == rows.numel()
    return Plan(tuple(groups), asking, keys, row_home, real, keys[real], distinct)
