"""Pieces of a plan: entries, their order, where it is cut into batches, and one rank's share.

Legend: `B` histories, `E` entries (histories, or pieces of histories), `G` batches.
"""

from __future__ import annotations

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from recore.contracts import Plan
from recore.ragged import Layout, offsets_of


@frozen(eq=False)
class Entries:
    """Pieces of histories as columns `(E,)`: the events `start` to `stop` of history `index`, of which those from
    place `target_from` on, counted from `start`, are targets; `weight` multiplies their weights (None: 1)."""

    index: Tensor
    start: Tensor
    stop: Tensor
    target_from: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def lengths(self) -> Tensor:
        """Events of each entry, targets included, `(E,)`."""
        return self.stop - self.start


def repeated(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Each history `counts[b]` times: which one `(E,)`, and the how manieth time, from 0, `(E,)`."""
    index = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return index, torch.arange(len(index)) - offsets_of(counts)[index]


def shuffled(lengths: Tensor, generator: torch.Generator) -> Tensor:
    """All histories in random order `(B,)`."""
    return torch.randperm(len(lengths), generator=generator)


def like_length(lengths: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """All histories `(B,)` by length · (1 + spread · u), ascending, equals in random order."""
    order = shuffled(lengths, generator)
    blur = 1 + spread * torch.rand(len(lengths), generator=generator, dtype=torch.float64)
    return order[(lengths[order] * blur).argsort(stable=True)]


def cut_by_users(count: int, users: int) -> Tensor:
    """Where `count` histories in order are cut into batches of `users`, `(G + 1,)`; the last may be smaller."""
    return (
        torch.cat([torch.arange(0, count, users), torch.tensor([count])]) if count else torch.zeros(1).long()
    )


def cut(lengths: Tensor, users: int, tokens: int | None) -> Tensor:
    """Where entries of `lengths (E,)` in order are cut into batches `(G + 1,)`: of `users` entries, or of at most
    `tokens` events where that is set."""
    return cut_by_users(len(lengths), users) if tokens is None else cut_by_tokens(lengths, tokens)


def cut_by_tokens(lengths: Tensor, tokens: int) -> Tensor:
    """Where histories of `lengths (B,)` in order are cut into batches of at most `tokens` events, `(G + 1,)`.

    A batch ends before the history that would not fit any more; one that alone is longer stands alone.
    """
    ends = lengths.cumsum(0).numpy()
    cuts = [0]
    while cuts[-1] < len(ends):  # once a batch, not once a history
        before = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        fit = int(np.searchsorted(ends, before + tokens, side="right"))
        cuts.append(max(fit, cuts[-1] + 1))
    return torch.tensor(cuts)


def shuffle_groups(order: Tensor, groups: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same batches in random order: entries `(B,)` and cuts `(G + 1,)`."""
    picked = torch.randperm(len(groups) - 1, generator=generator)
    sizes = groups.diff()[picked]
    cuts = offsets_of(sizes)
    rows = torch.arange(len(order)) + torch.repeat_interleave(groups[:-1][picked] - cuts[:-1], sizes)
    return order[rows], cuts


def share(
    order: Tensor, groups: Tensor, layout: Layout, rank: int, world: int, entries: Entries | None = None
) -> Plan:
    """One rank's share of the batches: of each, the entries rank, rank + world, …

    `order (E,)` names rows of `entries`; None: whole histories. Splitting every batch, rather than dealing whole
    ones out, keeps the steps those of one process. Raises ValueError for a rank outside the world.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank}, expected 0 to {world - 1} in a world of {world}")
    if world > 1:
        place = torch.arange(len(order)) - torch.repeat_interleave(groups[:-1], groups.diff())
        sizes = (groups.diff() - rank + world - 1).div(world, rounding_mode="floor").clamp(min=0)
        order, groups = order[place % world == rank], offsets_of(sizes)
    if entries is None:
        return Plan(order, groups, layout)
    return Plan(
        entries.index[order],
        groups,
        layout,
        entries.start[order],
        entries.stop[order],
        entries.target_from[order],
        None if entries.weight is None else entries.weight[order],
    )
