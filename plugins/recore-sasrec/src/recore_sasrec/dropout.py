"""Dropout that costs little on the CPU.

torch draws one uniform number of 53 bits per element there, which takes longer than the linear map beside it.
Here one draw of 64 bits gives four numbers of 16 bits, so a rate is kept to the nearest 1/65536, and what is
kept is scaled by exactly that. Like torch's own it uses torch's default generator, which the engine sets for
each step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 1 << 16


def dropped(x: Tensor, rate: float) -> Tensor:
    """`x` with each element zero at `rate`, the others divided by the share kept. Same shape."""
    if rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    return x * factors(x, rate)


def dropped_relu(x: Tensor, rate: float) -> Tensor:
    """`dropped(relu(x), rate)`, written over `x`, which must be nobody else's."""
    if rate == 0.0:
        return F.relu(x, inplace=True)
    if x.device.type != "cpu":
        return F.dropout(F.relu(x, inplace=True), rate)
    y: Tensor = _DroppedRelu.apply(x, rate)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return y


def dropped_sum(base: Tensor, x: Tensor, rate: float) -> Tensor:
    """`base + dropped(x, rate)` in one pass."""
    if rate == 0.0:
        return base + x
    if x.device.type != "cpu":
        return base + F.dropout(x, rate)
    y: Tensor = _DroppedSum.apply(base, x, rate)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return y


class _DroppedRelu(torch.autograd.Function):
    """Keeps the result alone: the gradient passes where it is above 0, grown as what was kept is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.mark_dirty(x)
        ctx.rate = rate
        x.relu_().mul_(factors(x, rate))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grads[0], y, 0).mul_(grown(ctx.rate)), None


class _DroppedSum(torch.autograd.Function):
    """Keeps the factors alone, not `x`."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, rate: float) -> Tensor:
        kept = factors(x, rate)
        ctx.save_for_backward(kept)
        return torch.addcmul(base, x, kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (kept,) = ctx.saved_tensors
        return grads[0], grads[0] * kept, None


def levels(rate: float) -> int:
    """The rate in units of 1/65536."""
    return min(round(rate * LEVELS), LEVELS - 1)


def grown(rate: float) -> float:
    """What is kept is multiplied by this: the inverse of the share kept."""
    return LEVELS / (LEVELS - levels(rate))


def factors(x: Tensor, rate: float) -> Tensor:
    """What elements are multiplied by: 0, or the inverse of the share kept; of the shape and type of `x`."""
    count = x.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = torch.empty_like(x, requires_grad=False, memory_format=torch.contiguous_format)
    # Compared into numbers at once: by way of booleans it takes eight times as long.
    torch.ge(draws.view(torch.int16)[:count].view(x.shape), levels(rate) - LEVELS // 2, out=kept)
    return kept.mul_(grown(rate))
