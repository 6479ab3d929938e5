"""The position `relative-bias`. Legend: `T` events, `H` heads, `d` width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context, Problem, RecipeError
from recore.attention import PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.options import RelativeBias


def build(options: RelativeBias, context: Context) -> RelativePositions:
    """Build for the encoder's heads and layers. Raises RecipeError where the encoder states none."""
    return RelativePositions(options, context)


class RelativePositions(nn.Module):
    """`weight (layers or 1, buckets, H)`: bucket `clip(i − j, low, high) − low`, for asking event `i` and key
    `j`. `low` is 0 where the encoder is causal, −max_distance otherwise."""

    def __init__(self, options: RelativeBias, context: Context) -> None:
        super().__init__()
        facts = context.facts
        layers = 1 if options.layers == "shared" else facts.layers
        if facts.heads is None or layers is None:
            raise RecipeError(
                Problem(
                    f"position 'relative-bias' needs an encoder that states its heads and layers, got heads "
                    f"{facts.heads} and layers {facts.layers}",
                    path=context.path or "model.position",
                    hint="use an encoder with attention, such as recore-sasrec:sasrec",
                )
            )
        self.high = options.max_distance
        self.low = 0 if facts.causal else -options.max_distance
        weight = torch.zeros(layers, self.high - self.low + 1, facts.heads)
        if options.initial == "normal":
            weight.normal_(0.0, options.std, generator=context.generator("weights"))
        self.weight = nn.Parameter(weight)

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and a pair table `(buckets, H)` per layer or one for all."""
        return Placed(
            x,
            [
                (PairTable("logit", table, index="distance", low=self.low, high=self.high),)
                for table in self.weight.unbind(0)
            ],
        )
