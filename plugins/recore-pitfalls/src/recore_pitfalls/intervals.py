"""The position `intervals-of-the-future`. Legend: `T` events, `B` sequences, `H` heads, `e` = d/H."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import Buckets, PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.position_options import IntervalsOfTheFuture
from recore_pitfalls.tables import heads_and_layers


def build(options: IntervalsOfTheFuture, context: Context) -> FutureIntervals:
    """Raises RecipeError where the encoder states no heads or layers, or takes no pair tables."""
    return FutureIntervals(options, context)


def shortest_gaps(view: View, time: Tensor) -> Tensor:
    """The shortest gap above 0 between two events in a row of each *whole* history, float64 `(T,)`; ∞ where all have
    one time."""
    least = torch.full((len(view),), torch.inf, dtype=torch.float64, device=time.device)
    if view.events > 1:
        between = (time[1:] - time[:-1]).abs().to(torch.float64)
        counts = (view.place[1:] > 0) & (between > 0)
        least = least.scatter_reduce(0, view.sequence[1:][counts], between[counts], "amin")
    return least[view.sequence]


class FutureIntervals(nn.Module):
    """`key`, `value` `(max_interval + 1, H, e)`: the vectors of each interval, for all layers."""

    def __init__(self, options: IntervalsOfTheFuture, context: Context) -> None:
        super().__init__()
        heads, _ = heads_and_layers(options.problems(context.facts), context)
        self.most = options.max_interval
        random, width = context.generator("weights"), context.facts.width or 0
        shape = (self.most + 1, heads, width // heads)
        self.key = nn.Parameter(torch.empty(shape).normal_(0.0, options.std, generator=random))
        self.value = nn.Parameter(torch.empty(shape).normal_(0.0, options.std, generator=random))

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and a pair table into keys and one into values."""
        time, most = view["time"], self.most
        scale = shortest_gaps(view, time)

        def interval(row: Tensor, key: Tensor) -> Tensor:
            gap = (time[row] - time[key]).abs().to(torch.float64)
            return gap.div_(scale[row]).clamp_(max=most).long()

        rows = torch.arange(view.events, device=time.device)
        index = Buckets(interval, rows, rows)
        return Placed(
            x, [(PairTable("key", self.key, index=index), PairTable("value", self.value, index=index))]
        )
