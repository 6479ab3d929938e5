"""The position `alibi`. Legend: `T` events, `H` heads, `L` events of the longest history of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import refuse
from recore_positions.ordered_options import Alibi


def build(options: Alibi, context: Context) -> LinearBias:
    """Build for the encoder's heads. Raises RecipeError where the encoder states none or takes no pair tables."""
    problems = options.problems(context.facts)
    if context.facts.heads is None:
        problems.append(
            "position 'alibi' needs an encoder that states its heads, got none (use an encoder with attention, "
            "such as recore-sasrec:sasrec)"
        )
    refuse(problems, context)
    return LinearBias(options, context)


def exponents(heads: int, exponent: float = 8.0) -> list[float]:
    """`log2` of one over each head's slope. For `heads` a power of two `exponent · h / heads`, h = 1 … heads; else
    those of the next lower power of two and every second one of the next higher."""
    lower = 2 ** int(math.log2(heads))
    found = [exponent * h / lower for h in range(1, lower + 1)]
    return found + [exponent * h / (2 * lower) for h in range(1, 2 * lower, 2)][: heads - lower]


class LinearBias(nn.Module):
    """`exponent (H,)` where slopes are learned: slopes are `2^-exponent`. Otherwise nothing trains."""

    def __init__(self, options: Alibi, context: Context) -> None:
        super().__init__()
        assert context.facts.heads is not None
        self.causal = bool(context.facts.causal)
        self.fixed = tuple(exponents(context.facts.heads, options.exponent))
        learned = options.slopes == "learned"
        self.exponent = nn.Parameter(torch.tensor(self.fixed)) if learned else None

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and for all layers a pair table of the distances that occur, `(L, H)`, or
        `(2L − 1, H)` where the encoder is not causal."""
        if self.exponent is not None:
            high = self._farthest(view)
            table = self._table(high, self.exponent)
        else:
            key = ("alibi", self.fixed, self.causal, x.dtype, x.device)
            high, table = view.remember(key, lambda: self._made(view, x))
        low = 0 if self.causal else -high
        return Placed(x, [(PairTable("logit", table, index="distance", low=low, high=high),)])

    def _made(self, view: View, x: Tensor) -> tuple[int, Tensor]:
        high = self._farthest(view)
        exponent = torch.tensor(self.fixed, dtype=torch.float64, device=x.device)
        return high, self._table(high, exponent).to(x.dtype)

    def _farthest(self, view: View) -> int:
        """The largest distance in the batch: the table is exact for all of them."""
        return int(view.lengths.max()) - 1 if view.events else 0

    def _table(self, high: int, exponent: Tensor) -> Tensor:
        distance = torch.arange(0 if self.causal else -high, high + 1, device=exponent.device).abs()
        return -distance[:, None] * torch.exp2(-exponent)
