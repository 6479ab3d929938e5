"""Binary cross-entropy of targets against negatives, value and gradient in one pass.

Legend: `N` predictions, `K` negatives, `V` items, `d` width, `b` events of a block, `J` items scored for each.

A pair of event and item with sign y (+1 the target, −1 a draw) and weight c ≥ 0 adds `c · softplus(−y s)`, whose
derivative by the score s is `−c · y · σ(−y s)`. Autograd through `weight[ids]` spends most of its time in the
backward pass of that indexing; here the gradients of a block are added to the table's rows directly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from recore.component import Context
from recore.contracts import LossValue, Negatives, Table
from recore.ragged import Targets
from recore_losses.common import Summed, scaled, target_ids
from recore_losses.options import Bce

BLOCK_NUMBERS = 2**20  # numbers of gathered item vectors at once: 4 MiB in float32, which stays in the cache


class _Pairs(torch.autograd.Function):
    """`Σ_{n,j} c_nj softplus(−y_j s_nj)`, `s_nj = W[ids_nj] · h_n + b[ids_nj]`, a scalar.

    `ids` are `(N, J)`, or `(J,)` where all events are scored against the same items.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        signs: Tensor,
        coefficients: Tensor,
        gradients: bool,
    ) -> Tensor:
        """`hidden (N, d)`, `weight (V, d)`, `bias (V,)`, `signs (J,)`, `coefficients (N, J)`."""
        count, width = hidden.shape
        shared = ids.dim() == 1
        block = max(1, BLOCK_NUMBERS // max(1, ids.shape[-1] * (1 if shared else width)))
        total = hidden.new_zeros(())
        to_hidden = torch.empty_like(hidden) if gradients else None
        # Fewer pairs than items: the pairs' gradients are kept, and the table's is made of them when it is asked for.
        few = gradients and not shared and ids.numel() < len(weight)
        to_pairs = weight.new_empty(*ids.shape, width) if few else None
        to_weight = torch.zeros_like(weight) if gradients and not few else None
        to_bias = torch.zeros_like(bias) if gradients and bias is not None else None
        common = weight.index_select(0, ids) if shared else None  # (J, d)
        to_common = torch.zeros_like(common) if common is not None else None
        for start in range(0, count, block):
            rows = slice(start, min(start + block, count))
            h, c = hidden[rows], coefficients[rows]
            chosen = ids if shared else ids[rows].reshape(-1)
            if common is not None:
                s = h @ common.T
            else:
                vectors = weight.index_select(0, chosen).view(len(h), -1, width)  # (b, J, d)
                s = (vectors * h[:, None]).sum(-1)
            if bias is not None:
                s = s + bias[chosen].view(-1, s.shape[1])
            s = s.mul_(-signs)
            total += (softplus(s) * c).sum()
            if to_hidden is None:
                continue
            g = s.sigmoid_().mul_(c).mul_(-signs)  # (b, J), the derivative by the score
            if common is not None and to_common is not None:
                torch.mm(g, common, out=to_hidden[rows])
                to_common.addmm_(g.T, h)
            else:
                torch.sum(vectors.mul_(g[..., None]), 1, out=to_hidden[rows])
                torch.mul(h[:, None], g[..., None], out=vectors if to_pairs is None else to_pairs[rows])
                if to_weight is not None:
                    to_weight.index_add_(0, chosen, vectors.view(-1, width))
            if to_bias is not None:
                to_bias.index_add_(0, chosen, g.sum(0) if shared else g.reshape(-1))
        if to_weight is not None and to_common is not None:
            to_weight.index_add_(0, ids, to_common)
        ctx.few = len(weight) if few else None
        if few:
            ctx.save_for_backward(to_hidden, to_pairs, to_bias, ids)
        elif gradients:
            ctx.save_for_backward(to_hidden, to_weight, to_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients are there already; they are only scaled, and those of few pairs brought to their items."""
        if ctx.few is None:
            return scaled(ctx, grad, 4)
        to_hidden, to_pairs, to_bias, ids = ctx.saved_tensors
        wanted, to_weight = ctx.needs_input_grad, None
        if wanted[1]:
            to_weight = to_pairs.new_zeros(ctx.few, to_pairs.shape[-1])
            to_weight.index_add_(0, ids.flatten(), (to_pairs * grad).flatten(0, 1))
        to_bias = to_bias * grad if wanted[2] and to_bias is not None else None
        return to_hidden * grad if wanted[0] else None, to_weight, to_bias, *(None,) * 4


class BinaryCrossEntropy(Summed):
    """Implements `recore.contracts.Loss`; see `recore_losses.options.Bce` for the formula."""

    name = "bce"

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """From hidden states `(N, d)` and draws `(K,)` or `(N, K)`. Raises ValueError without negatives and for
        several ids a target, DataError for retired targets."""
        if negatives is None:
            raise ValueError("loss 'bce' needs negatives, got none (set `sampler:` beside it)")
        ids = target_ids(self.name, targets, table)
        weights = targets.weight.to(table.weight.dtype)[:, None]
        kept = _kept(negatives, table, weights)
        if negatives.items.dim() == 1:
            total = _pairs(hidden, table, ids[:, None], weights, positive=1)
            total = total + _pairs(hidden, table, negatives.items, kept, positive=0)
        else:
            both = torch.cat([ids[:, None], negatives.items], 1)
            total = _pairs(hidden, table, both, torch.cat([weights, kept], 1), positive=1)
        return self.value(total, targets)


def _kept(negatives: Negatives, table: Table, weights: Tensor) -> Tensor:
    """The weights `(N, K)` of draws: those of their targets, 0 where a draw is no candidate."""
    kept = weights.expand(-1, negatives.items.shape[-1])
    if negatives.keep is not None:
        kept = kept * negatives.keep
    return kept if table.retired is None else kept * ~table.retired[negatives.items]


def _pairs(hidden: Tensor, table: Table, ids: Tensor, coefficients: Tensor, positive: int) -> Tensor:
    """The sum over pairs of which the first `positive` of each event are targets, the others draws."""
    weight, bias = table.weight, table.bias
    signs = weight.new_full((ids.shape[-1],), -1.0)
    signs[:positive] = 1.0
    needed = hidden.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    total: Tensor = _Pairs.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        hidden.to(weight.dtype), weight, bias, ids, signs, coefficients, needed and torch.is_grad_enabled()
    )
    return total


def build(options: Bce, context: Context) -> BinaryCrossEntropy:
    """Factory."""
    return BinaryCrossEntropy()
