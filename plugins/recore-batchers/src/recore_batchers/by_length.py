"""By length: every context is a row of its own, and a batch holds contexts of one length only.

Legend: `B` histories, `E` entries (a context and its target), `R` events that an entry may hold, `G` batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recore.component import Context
from recore.contracts import Plan
from recore.ragged import Layout, offsets_of
from recore_batchers.grouping import Entries, repeated, share, shuffle_groups
from recore_batchers.options import CONTEXTS, ByLength, refused


class ByLengthBatcher:
    """Implements `recore.contracts.Batcher`; see `recore_batchers.options.ByLength`."""

    def __init__(self, options: ByLength, reach: int | None = None) -> None:
        self.options = options
        self.reach = reach

    def epoch(self, lengths: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Plan:
        """The plan of one rank for whole histories of `lengths (B,)` events."""
        options = self.options
        entries = contexts(lengths, self.reach)
        if options.prefixes != "all":
            entries = drawn(entries, (lengths - 1).clamp(min=0), options.prefixes, generator)
        size = entries.target_from  # context events, the rows that are encoded
        order = torch.randperm(len(entries), generator=generator)
        order = order[size[order].argsort(stable=True)]
        groups = cut_by_length(size[order], options.contexts or CONTEXTS, options.tokens)
        if options.order == "shuffled":
            order, groups = shuffle_groups(order, groups, generator)
        return share(order, groups, Layout(), rank, world, entries)


def contexts(lengths: Tensor, reach: int | None = None) -> Entries:
    """Each event but the first of its history as a target `(E,)`, history by history, after as many of the events
    before it as fit: of R events the last is the target."""
    index, nth = repeated((lengths - 1).clamp(min=0))
    stop = nth + 2
    start = torch.zeros_like(stop) if reach is None else (stop - reach).clamp(min=0)
    return Entries(index, start, stop, stop - start - 1)


def drawn(entries: Entries, held: Tensor, k: int, generator: torch.Generator) -> Entries:
    """Of each history's `held (B,)` entries, which stand together, k at random without replacement, each with
    probability min(1, k / held) and of the inverse weight; all where there are no more than k."""
    order = torch.randperm(len(entries), generator=generator)
    order = order[entries.index[order].argsort(stable=True)]  # history by history, within each at random
    first = offsets_of(held)[entries.index]
    kept = order[torch.arange(len(order)) - first < k]
    index = entries.index[kept]
    weight = (held[index] / k).clamp(min=1.0)
    return Entries(index, entries.start[kept], entries.stop[kept], entries.target_from[kept], weight)


def cut_by_length(size: Tensor, most: int, tokens: int | None) -> Tensor:
    """Where contexts of ascending `size (E,)` are cut into batches of one size `(G + 1,)`: of at most `most`
    contexts, or of at most `tokens` events where that is set (one context where even that is more)."""
    counts = torch.bincount(size)
    sizes = counts.nonzero().squeeze(-1)
    counts = counts[sizes]
    each = torch.full_like(sizes, most) if tokens is None else (tokens // sizes).clamp(min=1)
    batches = (counts + each - 1).div(each, rounding_mode="floor")
    which, nth = repeated(batches)
    first = offsets_of(counts)[:-1]
    return torch.cat([first[which] + nth * each[which], torch.tensor([len(size)])])


def build(options: ByLength, context: Context) -> ByLengthBatcher:
    """Factory. Raises RecipeError where the model reads too little for a context and its target."""
    refused("by-length", options.problems(context.facts))
    return ByLengthBatcher(options, context.facts.reach)
