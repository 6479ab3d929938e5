"""Cross-entropy over all items, in blocks of events, the gradient formed in the same pass.

Legend: `N` predictions, `V` items, `d` width, `b` events of a block, `s` scores, `E` = exp(s − max).

Per block the matrix `(b, V)` is written once by a product, swept by a maximum, an exponential and a sum while
it is in the cache, and read by two products. Normalising by the sum, the weight of a prediction and the
subtraction of its target act on rows `(b, d)` of the small factors instead of on the large matrix:

    ∂/∂h_n = w_n / Z_n · E_n W − w_n W[target(n)]
    ∂/∂W   = Eᵀ (w / Z · h) − Σ_n w_n h_n at row target(n)
    ∂/∂b   = Eᵀ (w / Z)     − Σ_n w_n     at target(n)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recore.component import Context
from recore.contracts import LossValue, Negatives, Table
from recore.ragged import Targets
from recore_losses.common import Summed, scaled, target_ids
from recore_losses.options import Ce


class _Blocked(torch.autograd.Function):
    """`Σ_n w_n (logsumexp(W h_n + b) − (W h_n + b)[id_n])`, a scalar."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        weights: Tensor,
        retired: Tensor | None,
        block: int,
        gradients: bool,
    ) -> Tensor:
        """`hidden (N, d)`, `weight (V, d)`, `bias (V,)`, `ids (N,)`, `weights (N,)`, `retired (V,)`."""
        count = len(hidden)
        added = bias if retired is None else _without(retired, weight, bias)
        scores = hidden.new_empty(min(block, count), len(weight))
        each = hidden.new_empty(count)
        to_hidden = torch.empty_like(hidden) if gradients else None
        to_weight = torch.zeros_like(weight) if gradients else None
        to_bias = torch.zeros_like(bias) if gradients and bias is not None else None
        for start in range(0, count, block):
            rows = slice(start, min(start + block, count))
            h = hidden[rows]
            s = scores[: len(h)]  # (b, V)
            if added is None:
                torch.mm(h, weight.T, out=s)
            else:
                torch.addmm(added, h, weight.T, out=s)
            own = s.gather(1, ids[rows, None])
            top = s.amax(1, keepdim=True)
            s.sub_(top).exp_()
            z = s.sum(1, keepdim=True)
            each[rows] = (top + z.log() - own).squeeze(1)
            if to_hidden is None or to_weight is None:
                continue
            share = weights[rows, None] / z  # (b, 1)
            torch.mm(s, weight, out=to_hidden[rows])
            to_hidden[rows].mul_(share)
            to_weight.addmm_(s.T, h * share)
            if to_bias is not None:
                to_bias.addmv_(s.T, share.squeeze(1))
        if to_hidden is not None and to_weight is not None:
            to_hidden.addcmul_(weight.index_select(0, ids), weights[:, None], value=-1)
            to_weight.index_add_(0, ids, hidden * weights[:, None], alpha=-1)
            if to_bias is not None:
                to_bias.index_add_(0, ids, weights, alpha=-1)
            ctx.save_for_backward(to_hidden, to_weight, to_bias)
        return each.mul_(weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients are there already; they are only scaled."""
        return scaled(ctx, grad, 5)


def _without(retired: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A bias `(V,)` that takes retired items out of the sum: −inf there."""
    base = weight.new_zeros(len(weight)) if bias is None else bias
    return base.masked_fill(retired, float("-inf"))


class CrossEntropy(Summed):
    """Implements `recore.contracts.Loss`; see `recore_losses.options.Ce` for the formula."""

    name = "ce"

    def __init__(self, options: Ce) -> None:
        self.options = options

    def block(self, weight: Tensor) -> int:
        """Events to a block for a table `(V, d)`: at most `block`, and at most `limit_mib` of scores."""
        fit = self.options.limit_mib * 2**20 // (max(len(weight), 1) * weight.element_size())
        return max(1, min(self.options.block, fit))

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """From hidden states `(N, d)`. Raises ValueError for several ids a target, DataError for retired
        targets."""
        ids = target_ids(self.name, targets, table)
        weight, bias = table.weight, table.bias
        needed = hidden.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        total: Tensor = _Blocked.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
            hidden.to(weight.dtype),
            weight,
            bias,
            ids,
            targets.weight.to(weight.dtype),
            table.retired,
            self.block(weight),
            needed and torch.is_grad_enabled(),
        )
        return self.value(total, targets)


def build(options: Ce, context: Context) -> CrossEntropy:
    """Factory."""
    return CrossEntropy(options)
