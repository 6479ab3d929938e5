"""Ragged batches: all events of all sequences end to end, and the one way to make a rectangle of them.

Legend: `T` events in a batch, `B` sequences, `N` predictions, `W` columns of a rectangle, `d` width.
No padding item exists in a Ragged; whatever a rectangle holds outside the events is `Layout.fill`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from attrs import evolve, field, frozen
from torch import Tensor

V = TypeVar("V")


@frozen(eq=False)
class Ragged:
    """`values (T, …)` of `B` sequences, sequence `b` at rows `offsets[b]` to `offsets[b + 1]`; `offsets (B+1,)`
    are int64, start at 0, end at T and never fall."""

    values: Tensor
    offsets: Tensor

    @property
    def lengths(self) -> Tensor:
        """Events per sequence, `(B,)`."""
        return self.offsets.diff()

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    def __getitem__(self, index: int) -> Tensor:
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]


def offsets_of(lengths: Tensor) -> Tensor:
    """Offsets `(B+1,)` from lengths `(B,)`."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def slices(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the slices `[start, stop)` end to end `(T,)`, and their offsets `(B+1,)`."""
    offsets = offsets_of(stop - start)
    shift = torch.repeat_interleave(start - offsets[:-1], stop - start)
    return torch.arange(int(offsets[-1]), device=start.device) + shift, offsets


# The kit counts rectangles, to say so when a part made none: then padding was not put to the test.
_counters: list[list[int]] = []


@contextmanager
def count_rectangles() -> Iterator[list[int]]:
    """Counts the rectangles made within the block: `[n]`."""
    counter = [0]
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


@frozen
class Layout:
    """How a rectangle is to be made where one is made: on which side its padding stands, how wide it is
    (None: the longest sequence) and what the padding holds. The default asks for no rectangle."""

    padding: Literal["none", "left", "right"] = "none"
    width: int | None = None
    fill: float = 0.0

    def columns(self, offsets: Tensor) -> int:
        """W. Raises ValueError when the width is less than the longest sequence."""
        longest = int(offsets.diff().max()) if offsets.numel() > 1 else 0
        if self.width is not None and self.width < longest:
            raise ValueError(f"a layout of width {self.width} cannot hold a sequence of {longest} events")
        return longest if self.width is None else self.width

    def slots(self, offsets: Tensor) -> Tensor:
        """The column of each event `(T,)`."""
        lengths = offsets.diff()
        first = offsets[:-1]
        if self.padding == "left":
            first = first - (self.columns(offsets) - lengths)
        at = torch.arange(int(offsets[-1]), device=offsets.device)
        return at - torch.repeat_interleave(first, lengths)

    def flat(self, offsets: Tensor) -> Tensor:
        """The cell of each event `(T,)` in the rectangle read row by row."""
        rows = torch.arange(offsets.numel() - 1, device=offsets.device)
        return torch.repeat_interleave(rows * self.columns(offsets), offsets.diff()) + self.slots(offsets)

    def mask(self, offsets: Tensor) -> Tensor:
        """True where a cell holds an event `(B, W)`."""
        cells = torch.zeros(
            (offsets.numel() - 1) * self.columns(offsets), dtype=torch.bool, device=offsets.device
        )
        cells[self.flat(offsets)] = True
        return cells.view(offsets.numel() - 1, -1)

    def rectangle(self, ragged: Ragged) -> Tensor:
        """`(B, W, …)`, with `fill` outside the events. Integers cannot hold NaN: they get their smallest
        value then, which is as wrong as an id can be."""
        for counter in _counters:
            counter[0] += 1
        values, offsets = ragged.values, ragged.offsets
        fill: float | int = self.fill
        if not values.is_floating_point() and fill != fill:
            fill = torch.iinfo(values.dtype).min if values.dtype != torch.bool else True
        shape = (len(ragged) * self.columns(offsets), *values.shape[1:])
        cells = values.new_full(shape, fill).index_copy(0, self.flat(offsets), values)
        return cells.view(len(ragged), -1, *values.shape[1:])


@frozen(eq=False)
class View:
    """One view of the log in a batch: named columns `(T, …)` over common offsets, and a Layout.

    Columns that always exist: `token (T,)` or `(T, n)`, rows of the embedder; `item (T,)`, rows of the table
    that scores (−1 where there is none: an unknown item, a row that an objective added); `event (T,)`, the
    log's row id (−1 on added rows). Others are there because a part asked for them (`columns()`).
    `index (B,)` says which training history each sequence comes from (−1: none).
    """

    columns: Mapping[str, Tensor]
    offsets: Tensor
    layout: Layout = field(factory=Layout)
    index: Tensor | None = None
    _cache: dict[Any, Any] = field(factory=dict, repr=False)

    def __getitem__(self, column: str) -> Tensor:
        return self.columns[column]

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    @property
    def events(self) -> int:
        """T."""
        return int(self.columns["token"].shape[0])

    @property
    def lengths(self) -> Tensor:
        """Events per sequence, `(B,)`."""
        return self.remember("lengths", self.offsets.diff)

    @property
    def sequence(self) -> Tensor:
        """Which sequence each event belongs to, `(T,)`."""
        rows = torch.arange(len(self), device=self.offsets.device)
        return self.remember("sequence", lambda: torch.repeat_interleave(rows, self.lengths))

    @property
    def place(self) -> Tensor:
        """How many events stand before each event in its sequence, `(T,)`."""
        return self.remember("place", lambda: Layout().slots(self.offsets))

    @property
    def last(self) -> Tensor:
        """The row of the last event of each sequence, `(B,)`; sequences must not be empty."""
        return self.offsets[1:] - 1

    def ragged(self, values: Tensor) -> Ragged:
        """Values `(T, …)` as a Ragged over this view's sequences."""
        return Ragged(values, self.offsets)

    def remember(self, key: Any, make: Callable[[], V]) -> V:
        """What `make` gives, made once per view: layers share plans, masks and indices."""
        if key not in self._cache:
            self._cache[key] = make()
        kept: V = self._cache[key]
        return kept

    def take(self, rows: Tensor, offsets: Tensor, index: Tensor | None = None) -> View:
        """A view of the given rows, cut anew."""
        return View({n: c[rows] for n, c in self.columns.items()}, offsets, self.layout, index)

    def cut(self, start: Tensor, stop: Tensor, index: Tensor | None = None) -> View:
        """A view whose sequences are the row slices `[start, stop)`."""
        rows, offsets = slices(start, stop)
        return self.take(rows, offsets, index)

    def last_events(self, count: int) -> View:
        """Each sequence's last `count` events."""
        stop = self.offsets[1:]
        return self.cut(torch.maximum(self.offsets[:-1], stop - count), stop, self.index)

    def laid_out(self, layout: Layout) -> View:
        """The same events under another layout, with an empty cache."""
        return View(self.columns, self.offsets, layout, self.index)

    def with_columns(self, **columns: Tensor) -> View:
        """The same events with columns added or replaced."""
        return View({**self.columns, **columns}, self.offsets, self.layout, self.index)

    def to(self, device: torch.device | str) -> View:
        """This view on a device."""
        return View(
            {n: c.to(device) for n, c in self.columns.items()},
            self.offsets.to(device),
            self.layout,
            None if self.index is None else self.index.to(device),
        )


@frozen(eq=False)
class Targets:
    """Which row's hidden state predicts what: of view `view`, row `where[n]` predicts item `id[n]`, counted
    with `weight[n]`. `id (N,)` or `(N, n)` are rows of the table that scores; `time (N,)` where known."""

    where: Tensor
    id: Tensor
    weight: Tensor
    view: str = "user"
    time: Tensor | None = None

    def __len__(self) -> int:
        return int(self.where.shape[0])

    def to(self, device: torch.device | str) -> Targets:
        """These targets on a device."""
        time = None if self.time is None else self.time.to(device)
        return Targets(self.where.to(device), self.id.to(device), self.weight.to(device), self.view, time)


@frozen(eq=False)
class Batch:
    """One or more named views of the log (`user`: a user's items; `item`: an item's users), and targets."""

    views: Mapping[str, View]
    targets: Targets | None = None

    def link(self, source: str, target: str) -> Tensor:
        """For each row of view `source`, the first row of view `target` with the same event, or −1."""
        wanted, held = self.views[source]["event"], self.views[target]["event"]
        order = held.argsort(stable=True)
        spots = torch.searchsorted(held[order], wanted).clamp(max=max(len(order) - 1, 0))
        if len(order) == 0:
            return torch.full_like(wanted, -1)
        rows = order[spots]
        return torch.where((held[rows] == wanted) & (wanted >= 0), rows, torch.full_like(rows, -1))

    def to(self, device: torch.device | str) -> Batch:
        """This batch on a device."""
        views = {name: view.to(device) for name, view in self.views.items()}
        return evolve(self, views=views, targets=None if self.targets is None else self.targets.to(device))
