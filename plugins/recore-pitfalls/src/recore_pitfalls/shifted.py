"""The position `bias-shifted`. Legend: `T` events, `H` heads, `W` columns of the rectangle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import Buckets, PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.position_options import BiasShifted
from recore_pitfalls.tables import heads_and_layers


def build(options: BiasShifted, context: Context) -> Shifted:
    """Raises RecipeError where the encoder states no heads or layers, or takes no pair tables."""
    return Shifted(options, context)


class Shifted(nn.Module):
    """`weight (layers, max_distance + 1, H)`."""

    def __init__(self, options: BiasShifted, context: Context) -> None:
        super().__init__()
        heads, layers = heads_and_layers(options.problems(context.facts), context)
        self.most = options.max_distance
        drawn = torch.empty(layers, self.most + 1, heads)
        self.weight = nn.Parameter(drawn.normal_(0.0, options.std, generator=context.generator("weights")))

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, a pair table per layer."""
        column, width, most = view.layout.slots(view.offsets), view.layout.columns(view.offsets), self.most

        def read(row: Tensor, key: Tensor) -> Tensor:
            beside = (row - key - 1).clamp(0, most)
            below = (row + 1).clamp(max=most)  # the next row's column 0
            return torch.where(key + 1 < width, beside, below)

        index = Buckets(read, column, column)
        return Placed(x, [(PairTable("logit", table, index=index),) for table in self.weight.unbind(0)])
