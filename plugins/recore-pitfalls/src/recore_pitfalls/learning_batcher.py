"""Batchers that drop the last batch, and that never change the order. Legend: `B` histories."""

from __future__ import annotations

import torch
from torch import Tensor

from recore import Context
from recore.contracts import Batcher, Plan
from recore_pitfalls.learning_options import LastBatchDropped, OrderKept


class LastDropped:
    """`inner`: the sound batcher."""

    def __init__(self, inner: Batcher) -> None:
        self.inner = inner

    def epoch(self, lengths: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Plan:
        """The sound plan without its last batch, where that is smaller than some other."""
        before = generator.get_state()
        sizes = self.inner.epoch(lengths, generator).groups.diff()
        generator.set_state(before)
        plan = self.inner.epoch(lengths, generator, rank, world)
        if len(sizes) < 2 or int(sizes[-1]) == int(sizes.max()):
            return plan
        left = int(plan.groups[-2])

        def some(column: Tensor | None) -> Tensor | None:
            return None if column is None else column[:left]

        return Plan(
            plan.index[:left],
            plan.groups[:-1],
            plan.layout,
            some(plan.start),
            some(plan.stop),
            some(plan.target_from),
            some(plan.weight),
        )


class SameOrder:
    """`inner`: the sound batcher."""

    def __init__(self, inner: Batcher) -> None:
        self.inner = inner

    def epoch(self, lengths: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Plan:
        """The sound plan of one seed, whatever the epoch."""
        return self.inner.epoch(lengths, torch.Generator().manual_seed(0), rank, world)


def last_batch_dropped(options: LastBatchDropped, context: Context) -> LastDropped:
    """Factory."""
    return LastDropped(context.build(options.batcher))


def order_kept(options: OrderKept, context: Context) -> SameOrder:
    """Factory."""
    return SameOrder(context.build(options.batcher))
