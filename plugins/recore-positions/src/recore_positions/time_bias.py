"""The position `time-bias`. Legend: `T` events, `H` heads; a tile has `b` sequences, `r` rows and `c` keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import Buckets, PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import heads_and_layers
from recore_positions.time_options import TimeBias
from recore_positions.times import key_times, row_times

NAME = "time-bias"


def build(options: TimeBias, context: Context) -> GapBias:
    """Build for the encoder's heads and layers. Raises RecipeError where the encoder states none, or takes no pair
    tables."""
    return GapBias(options, context)


class GapBias(nn.Module):
    """`weight (layers or 1, buckets, H or 1)`: the number of each bucket of time gaps."""

    def __init__(self, options: TimeBias, context: Context) -> None:
        super().__init__()
        self.options = options
        problems = options.problems(context.facts)
        self.heads, layers = heads_and_layers(NAME, problems, context, options.layers)
        weight = torch.empty(layers, options.buckets, 1 if options.heads == "shared" else self.heads)
        self.weight = nn.Parameter(weight.normal_(0.0, options.std, generator=context.generator("weights")))

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and a pair table `(buckets, H)` per layer or one for all."""
        asked = row_times(batch, view, self.options.query_time, NAME)
        index = Buckets(self.bucket, asked, key_times(view, NAME))
        tables = (table.expand(-1, self.heads) for table in self.weight.unbind(0))
        return Placed(x, [(PairTable("logit", table, index=index),) for table in tables])

    def bucket(self, row: Tensor, key: Tensor) -> Tensor:
        """The bucket of the gap between times `row (b, r, 1)` and `key (b, 1, c)`: int64 `(b, r, c)`."""
        # Gaps are subtracted in the log's own type; float64 leaves none of them on the wrong side of a boundary.
        gap = (row - key).abs().to(torch.float64)
        if self.options.unit != 1:
            gap.mul_(self.options.unit)
        # Truncation is the floor of what is not negative.
        return gap.clamp_(min=1).log_().div_(self.options.width).clamp_(max=self.options.buckets - 1).long()
