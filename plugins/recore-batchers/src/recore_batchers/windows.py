"""Windows: long histories in overlapping pieces, so that every event is a target once and none is dropped.

Legend: `B` histories, `E` entries (windows), `R` events that a window may hold, `C` events of context.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recore.component import Context
from recore.contracts import Plan
from recore.errors import RecipeError
from recore.ragged import Layout
from recore_batchers.grouping import Entries, cut, repeated, share
from recore_batchers.options import USERS, Windows, refused


class WindowsBatcher:
    """Implements `recore.contracts.Batcher`; see `recore_batchers.options.Windows`."""

    def __init__(self, options: Windows, reach: int) -> None:
        self.options = options
        self.reach = reach

    def epoch(self, lengths: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Plan:
        """The plan of one rank for whole histories of `lengths (B,)` events."""
        options = self.options
        entries = windows(lengths, self.reach, options.events_before(self.reach))
        order = torch.randperm(len(entries), generator=generator)
        groups = cut(entries.lengths[order], options.users or USERS, options.tokens)
        return share(order, groups, Layout(), rank, world, entries)


def windows(lengths: Tensor, reach: int, context: int) -> Entries:
    """The windows `(E,)` of histories of `lengths (B,)`, history by history, in order of time."""
    step = reach - context  # new targets of a full window after the first
    more = (lengths - reach + step - 1).div(step, rounding_mode="floor").clamp(min=0)
    index, nth = repeated(torch.where(lengths > 1, 1 + more, 0))
    held = lengths[index]
    start = torch.minimum(nth * step, (held - reach).clamp(min=0))
    stop = torch.minimum(start + reach, held)
    new = torch.where(nth > 0, nth * step + context, 0)  # the first event that no earlier window predicts
    return Entries(index, start, stop, new - start)


def build(options: Windows, context: Context) -> WindowsBatcher:
    """Factory. Raises RecipeError where the model does not truncate, or reads too little for the context."""
    refused("windows", options.problems(context.facts))
    if context.facts.reach is None:
        raise RecipeError(
            "windows: the model did not say how many events an entry may hold (`Facts.reach`), expected at least 2"
        )
    return WindowsBatcher(options, context.facts.reach)
