"""Ragged batches: no rectangle, random or of like length, by users or by tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from recore.component import Context
from recore.contracts import Plan
from recore.ragged import Layout
from recore_batchers.grouping import cut, like_length, share, shuffle_groups, shuffled
from recore_batchers.options import USERS, Ragged


class RaggedBatcher:
    """Implements `recore.contracts.Batcher`; see `recore_batchers.options.Ragged`."""

    def __init__(self, options: Ragged) -> None:
        self.options = options

    def epoch(self, lengths: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Plan:
        """The plan of one rank for histories of `lengths (B,)` events."""
        options, like = self.options, self.options.order == "like-length"
        order = like_length(lengths, options.spread, generator) if like else shuffled(lengths, generator)
        groups = cut(lengths[order], options.users or USERS, options.tokens)
        if like:
            order, groups = shuffle_groups(order, groups, generator)
        return share(order, groups, Layout(), rank, world)


def build(options: Ragged, context: Context) -> RaggedBatcher:
    """Factory."""
    return RaggedBatcher(options)
