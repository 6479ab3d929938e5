"""Padded batches: the rectangle that most implementations use."""

from __future__ import annotations

import torch
from torch import Tensor

from recore.component import Context
from recore.contracts import Plan
from recore.ragged import Layout
from recore_batchers.grouping import cut_by_users, share, shuffled
from recore_batchers.options import Padded


class PaddedBatcher:
    """Implements `recore.contracts.Batcher`; see `recore_batchers.options.Padded`."""

    def __init__(self, options: Padded) -> None:
        self.options = options

    def epoch(self, lengths: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Plan:
        """The plan of one rank for histories of `lengths (B,)` events. The width is the model's to set."""
        order = shuffled(lengths, generator)
        groups = cut_by_users(len(order), self.options.users)
        return share(order, groups, Layout(self.options.side), rank, world)


def build(options: Padded, context: Context) -> PaddedBatcher:
    """Factory."""
    return PaddedBatcher(options)
