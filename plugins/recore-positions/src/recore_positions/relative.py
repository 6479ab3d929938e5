"""The position `relative-bias`. Legend: `T` events, `H` heads, `d` width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recore import Context
from recore.attention import PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import heads_and_layers
from recore_positions.relative_options import RelativeBias


def build(options: RelativeBias, context: Context) -> RelativePositions:
    """Build for the encoder's heads and layers. Raises RecipeError where the encoder states none, or the options
    cannot stand together."""
    return RelativePositions(options, context)


def logarithmic(distance: int, number: int, max_distance: int) -> int:
    """T5's bucket of a distance ≥ 0 among `number`, see `RelativeBias`. In whole numbers, so that a distance at
    the edge of a bucket is on the right side of it: with `e` = number // 2 and `n` = number − e the bucket
    `e + b` begins where (distance / e)^n = (max_distance / e)^b."""
    exact = number // 2
    if distance < exact:
        return distance
    wide = number - exact
    if distance >= max_distance:
        return number - 1
    edges = (max_distance**step * exact ** (wide - step) for step in range(1, wide))
    return exact + sum(1 for edge in edges if distance**wide >= edge)


class RelativePositions(nn.Module):
    """`weight (layers or 1, buckets, H)`. Exact: bucket `clip(i − j, low, high) − low`, for asking event `i` and key
    `j`; `low` is 0 where the encoder is causal, −max_distance otherwise. Logarithmic: bucket `spread[…]` of that,
    `spread` `(high − low + 1,)`; the second half of the buckets is for later events, where they can be seen."""

    spread: Tensor | None

    def __init__(self, options: RelativeBias, context: Context) -> None:
        super().__init__()
        facts = context.facts
        heads, layers = heads_and_layers("relative-bias", options.problems(facts), context, options.layers)
        self.high = options.max_distance
        self.low = 0 if facts.causal else -options.max_distance
        spread = None
        if options.buckets == "logarithmic":
            each = options.number if facts.causal else options.number // 2
            spread = torch.tensor(
                [
                    logarithmic(abs(distance), each, self.high) + (each if distance < 0 else 0)
                    for distance in range(self.low, self.high + 1)
                ]
            )
        self.register_buffer("spread", spread, persistent=False)
        weight = torch.zeros(layers, options.rows(bool(facts.causal)), heads)
        if options.initial == "normal":
            weight.normal_(0.0, options.std, generator=context.generator("weights"))
        self.weight = nn.Parameter(weight)

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and a pair table `(high − low + 1, H)` per layer or one for all. Buckets are spread
        to distances here, once a pass, so that attention reads diagonals and gathers nothing per pair."""
        tables = [
            table if self.spread is None else F.embedding(self.spread, table)
            for table in self.weight.unbind(0)
        ]
        return Placed(
            x,
            [
                (PairTable("logit", table, index="distance", low=self.low, high=self.high),)
                for table in tables
            ],
        )
