"""The loss `consistency`: what an item is, against what its users make of it. `N` items, `V` items, `d` width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recore import Context
from recore.contracts import LossValue, Negatives, Table
from recore.ragged import Targets
from recore_duality.options import Consistency

SHORTEST = 1e-12  # vectors that are not longer have no direction


class ConsistencyLoss:
    """Implements `recore.contracts.Loss`; see `recore_duality.options.Consistency` for the formula."""

    def __init__(self, options: Consistency) -> None:
        self.options = options

    def weight(self, targets: Targets) -> Tensor:
        """The sum of the targets' weights."""
        return targets.weight.sum()

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """From encoded vectors `(N, d)`; `targets.id (N,)` are the items that they encode."""
        stop = self.options.stop
        encoded = hidden.detach() if stop == "encoded" else hidden
        rows = table.weight.detach() if stop == "own" else table.weight
        weight = targets.weight.to(rows.dtype)
        if self.options.form == "cosine":
            each = 1 - (_unit(encoded) * _unit(rows.index_select(0, targets.id))).sum(-1)
        else:
            scores = _unit(encoded) @ _unit(rows).T / self.options.temperature
            if table.retired is not None:
                # A retired item is nobody else's candidate any more; what its users make of it stays its own.
                own = scores.gather(1, targets.id[:, None])
                scores = scores.masked_fill(table.retired, float("-inf")).scatter(1, targets.id[:, None], own)
            each = F.cross_entropy(scores, targets.id, reduction="none")
        total = (each * weight).sum()
        summed = self.weight(targets)
        return LossValue(total, summed, {"consistency": (total.detach(), summed)})


def _unit(x: Tensor) -> Tensor:
    """Length 1; zero stays zero, and its gradient finite, as it is not just above zero: the third power of 1/|x|
    must be a number in float32."""
    squares = x.square().sum(-1, keepdim=True)
    there = squares > SHORTEST**2
    return torch.where(there, x * torch.rsqrt(torch.where(there, squares, torch.ones_like(squares))), x)


def build(options: Consistency, context: Context) -> ConsistencyLoss:
    """Factory."""
    return ConsistencyLoss(options)
