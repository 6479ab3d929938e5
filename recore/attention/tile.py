"""One tile: some sequences of a group, up to 64 of their rows, and all the keys that those see.

Legend: `n` sequences, `H` heads, `r` rows, `c` keys, `e` = d/H.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from recore.attention.plan import Group
from recore.attention.terms import Buckets


@frozen(eq=False)
class Tile:
    """Sequences `span` of the group, its row columns `band`, its first `columns` key columns; `number` counts
    the tiles of a call."""

    group: Group
    span: slice
    band: slice
    columns: int
    causal: bool
    number: int
    _memo: dict[Any, Tensor] = field(factory=dict)

    @property
    def rows(self) -> int:
        """r."""
        return int(self.band.stop - self.band.start)

    def rows_of(self, rectangle: Tensor) -> Tensor:
        """The tile's part `(n, H, r, e)` of a rectangle of rows `(b, H, r', e)`."""
        return rectangle[self.span, :, self.band]

    def keys_of(self, rectangle: Tensor) -> Tensor:
        """The tile's part `(n, H, c, e)` of a rectangle of keys `(b, H, w, e)`."""
        return rectangle[self.span, :, : self.columns]

    @property
    def row_events(self) -> Tensor:
        """`(n, r)`"""
        return self.group.row_events[self.span, self.band]

    @property
    def key_events(self) -> Tensor:
        """`(n, c)`"""
        return self.group.events[self.span, : self.columns]

    @property
    def at(self) -> Tensor:
        """The column of each row's own event, `(n or 1, r)`."""
        at = self.group.at
        return at[:, self.band] if at.shape[0] == 1 else at[self.span, self.band]

    @property
    def visible(self) -> Tensor:
        """How many keys each row sees, `(n, r or 1)`; 1 for rows of padding before the first event."""
        if self.causal:
            return (self.at - self.group.first[self.span] + 1).clamp(min=1)
        return self.group.seen[self.span].sum(1, keepdim=True)

    def bucket(self, index: Buckets) -> Tensor:
        """Table rows `(n, r, c)` of the tile's pairs, computed once for all tables that share the index."""
        return self._remember(index, lambda: self._bucket(index))

    def _bucket(self, index: Buckets) -> Tensor:
        row, key = index.row_column[self.row_events], index.key_column[self.key_events]
        found = index.f(row[:, :, None], key[:, None, :])
        return found.long().expand(*row.shape, self.columns)

    def distance(self, low: int, high: int) -> Tensor:
        """Rows `(n or 1, r, c)` of a table of distances, whatever columns the rows stand at."""
        column = torch.arange(self.columns, device=self.at.device)
        return self._remember((low, high), lambda: (self.at[:, :, None] - column).clamp(low, high) - low)

    def hide(self, x: Tensor, hidden: float) -> None:
        """Makes x `(n, H, r, c)` −∞ or 0 wherever the row does not see the key. Done by adding −∞ or
        multiplying by 0: filling by a mask takes several times as long."""
        if self.causal and self.group.tight:
            # The tile ends at its last row's own column: only the square before that holds unseen keys.
            x = x[..., self.columns - self.rows :]
            mask = self._remember((hidden, x.dtype), lambda: self._triangle(x, hidden))
        elif not self.causal and self.group.real_keys.numel() == self.group.keys.numel():
            return
        else:
            mask = self._remember((hidden, x.dtype), lambda: self._mask(x, hidden))
        if hidden == 0:
            x.mul_(mask)
        else:
            x.add_(mask)

    def _triangle(self, x: Tensor, hidden: float) -> Tensor:
        if hidden == 0:
            return x.new_ones(self.rows, self.rows).tril_()
        return x.new_full((self.rows, self.rows), hidden).triu_(1)

    def _mask(self, x: Tensor, hidden: float) -> Tensor:
        seen = self.group.seen[self.span, None, : self.columns]
        if self.causal:
            column, at = torch.arange(self.columns, device=seen.device), self.at[..., None]
            # Padding sees itself: a softmax over nothing is not a number, and neither is its gradient.
            seen = (seen & (column <= at)) | (column == at)
        shown = x.new_full((), 1.0 if hidden == 0 else 0.0)
        return torch.where(seen, shown, hidden)[:, None]

    def _remember(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]
