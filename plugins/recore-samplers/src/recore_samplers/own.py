"""Which items are a user's own: found, and skipped, by binary search for all rows at once.

Legend: `S` training histories, `V` items that can be drawn, numbered 0 … V − 1 by their *rank* among item ids.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from recore.ragged import Ragged, offsets_of


@frozen(eq=False)
class Own:
    """Per history its own ranks, ascending and distinct.

    `offsets (S + 2,)`: history `S`, behind the last, is empty and stands for "no history". `keys` are
    `history · V + rank` and `gaps` are `history · V + rank − (own ranks before it)`, both ascending.
    """

    count: int
    offsets: Tensor
    keys: Tensor
    gaps: Tensor

    @classmethod
    def of(cls, seen: Ragged, ranks: Tensor, count: int) -> Own:
        """From item ids per history and the rank of each item id (−1: cannot be drawn), `count` being V."""
        history = torch.repeat_interleave(torch.arange(len(seen)), seen.lengths)
        rank = ranks[seen.values]
        history, rank = history[rank >= 0], rank[rank >= 0]
        keys = torch.unique(history * count + rank)
        history = keys // max(count, 1)
        offsets = offsets_of(torch.bincount(history, minlength=len(seen) + 1))
        return cls(count, offsets, keys, keys - (torch.arange(len(keys)) - offsets[history]))

    @property
    def none(self) -> int:
        """The number of the history that is empty."""
        return self.offsets.numel() - 2

    def sizes(self, history: Tensor) -> Tensor:
        """How many own items each of these histories has."""
        return self.offsets[history + 1] - self.offsets[history]

    def find(self, history: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        """How many own ranks are less than `rank`, and whether it is an own rank itself; broadcasts. A rank of
        −1 is nobody's."""
        wanted = history * self.count + rank
        found = torch.searchsorted(self.keys, wanted)
        if not len(self.keys):
            return found, torch.zeros_like(wanted, dtype=torch.bool)
        holds = (self.keys[found.clamp(max=len(self.keys) - 1)] == wanted) & (rank >= 0)
        return found - self.offsets[history], holds

    def skip(self, history: Tensor, place: Tensor) -> Tensor:
        """The rank of the `place`-th rank that is not the history's own; broadcasts.

        It is `place + j`, where j own ranks lie before it: those with rank − (own ranks before) ≤ place.
        """
        j = torch.searchsorted(self.gaps, history * self.count + place, right=True) - self.offsets[history]
        return place + j
