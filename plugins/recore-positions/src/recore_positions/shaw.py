"""The positions `relative-keys` and `relative-keys-values`.

Legend: `T` events, `H` heads, `e` = d/H, `m` vectors of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import refuse
from recore_positions.relative_options import RelativeKeys, RelativeKeysValues


def build_keys(options: RelativeKeys, context: Context) -> KeyVectors:
    """Free tables for keys. Raises RecipeError where the encoder states no heads, layers or width."""
    _refuse("relative-keys", options.problems(context.facts), context)
    return KeyVectors("relative-keys", ("key",), options, context)


def build_keys_values(options: RelativeKeysValues, context: Context) -> KeyVectors | TiedVectors:
    """Free tables for keys and values, or the tied one. Raises RecipeError where the encoder states no heads,
    layers or width, or does not take them."""
    _refuse("relative-keys-values", options.problems(context.facts), context)
    if options.tied:
        return TiedVectors(options, context)
    return KeyVectors("relative-keys-values", ("key", "value"), options, context)


def _refuse(name: str, problems: list[str], context: Context) -> None:
    facts = context.facts
    if facts.heads is None or facts.layers is None or facts.width is None or facts.width % facts.heads:
        problems.append(
            f"position {name!r} needs an encoder that states its heads and layers, and heads that divide the width, "
            f"got heads {facts.heads}, layers {facts.layers} and width {facts.width} (use an encoder with "
            "attention, such as recore-sasrec:sasrec)"
        )
    refuse(problems, context)


class KeyVectors(nn.Module):
    """`key (layers or 1, m, H or 1, e)`, and `value` alike: vector `clip(i − j, low, high) − low` for asking event
    `i` and key `j`. `low` is 0 where the encoder is causal, −max_distance otherwise."""

    def __init__(
        self,
        name: str,
        into: Sequence[Literal["key", "value"]],
        options: RelativeKeys | RelativeKeysValues,
        context: Context,
    ) -> None:
        super().__init__()
        facts = context.facts
        assert facts.heads is not None
        assert facts.layers is not None
        assert facts.width is not None
        self.name, self.into, self.heads = name, tuple(into), facts.heads
        self.high = options.max_distance
        self.low = 0 if facts.causal else -options.max_distance
        layers = 1 if options.layers == "shared" else facts.layers
        heads = 1 if options.heads == "shared" else facts.heads
        random = context.generator("weights")
        for side in self.into:
            drawn = torch.empty(layers, self.high - self.low + 1, heads, facts.width // facts.heads)
            self.register_parameter(side, nn.Parameter(drawn.normal_(0.0, options.std, generator=random)))

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and for each layer, or for all, a pair table `(m, H, e)` into keys, and values."""
        sides = [
            [self._term(side, table) for table in self.get_parameter(side).unbind(0)] for side in self.into
        ]
        return Placed(x, list(zip(*sides, strict=True)))

    def _term(self, side: Literal["key", "value"], table: Tensor) -> PairTable:
        table = table.expand(-1, self.heads, -1)
        return PairTable(side, table, index="distance", low=self.low, high=self.high)


class TiedVectors(nn.Module):
    """`weight (m, d)`: row `δ − 1` is the input vector `P_δ`. Row 0 is added to every input; what distance `δ − 1`
    adds to keys and values is `P_δ − P_1`, mapped by the encoder."""

    def __init__(self, options: RelativeKeysValues, context: Context) -> None:
        super().__init__()
        assert context.facts.width is not None
        drawn = torch.empty(options.max_distance + 1, context.facts.width)
        self.weight = nn.Parameter(drawn.normal_(0.0, options.std, generator=context.generator("weights")))

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """`x + P_1`, `(T, d)`, and for all layers two pair tables `(m, d)` in the input space."""
        table, high = self.weight - self.weight[0], self.weight.shape[0] - 1
        key = PairTable("key", table, index="distance", low=0, high=high, project=True)
        value = PairTable("value", table, index="distance", low=0, high=high, project=True)
        return Placed(x + self.weight[0], [(key, value)])
