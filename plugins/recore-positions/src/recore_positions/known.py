"""The position `known-item`. Legend: `T` events, `H` heads, `V` items, `m` knots."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import KeyBias
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import heads_and_layers
from recore_positions.known_options import KnownItem


def build(options: KnownItem, context: Context) -> KnownPositions:
    """Build for the encoder's heads and layers. Raises RecipeError where the encoder states none, or the number
    of items is not known."""
    return KnownPositions(options, context)


class KnownPositions(nn.Module):
    """`weight (layers or 1, m + 1, H)`: the values at the knots, and in the last row those without evidence."""

    def __init__(self, options: KnownItem, context: Context) -> None:
        super().__init__()
        items = context.facts.items
        unknown = (
            []
            if items is not None
            else ["position 'known-item' needs the number of items, which nobody said"]
        )
        heads, layers = heads_and_layers("known-item", unknown, context, options.layers)
        assert items is not None
        self.evidence = options.evidence
        self.most = math.log(max(items, 2))
        self.weight = nn.Parameter(torch.zeros(layers, options.knots + 1, heads))

    def unit(self, column: Tensor) -> Tensor:
        """The evidence `(T,)` brought to [0, 1]; NaN stays."""
        if self.evidence == "surprise":
            return (column / (2 * self.most)).clamp(0, 1)
        if self.evidence == "rank":
            return (torch.log1p(column) / self.most).clamp(0, 1)
        return ((1 + column) / 2).clamp(0, 1)

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and a bias `(T, H)` for each key, per layer or one for all."""
        last = self.weight.shape[1] - 2  # of the knots
        at = self.unit(view[self.evidence].to(x.dtype)) * last
        without = at.isnan()
        # Each event's share of each knot: 1 at the knot itself, falling to 0 at its neighbours.
        knots = torch.arange(last + 1, device=x.device, dtype=x.dtype)
        share = (1 - (at.masked_fill(without, -2)[:, None] - knots).abs()).clamp(min=0)
        share = torch.cat([share, without[:, None].to(x.dtype)], 1)
        return Placed(x, [(KeyBias(share @ table),) for table in self.weight.unbind(0)])
