"""Dropout that costs little on the CPU.

torch draws one uniform number of 53 bits per element there, which takes longer than the linear map beside it.
Here one draw of 64 bits gives four numbers of 16 bits, so a rate is kept to the nearest 1/65536, and what is
kept is scaled by exactly that. Like torch's own it uses torch's default generator, which the engine sets for
each step.
"""

from __future__ import annotations

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


def dropped_sum(base: Tensor, x: Tensor, rate: float) -> Tensor:
    """`base + dropped(x, rate)` in one pass."""
    if rate == 0.0:
        return base + x
    if x.device.type != "cpu":
        return base + F.dropout(x, rate)
    return torch.addcmul(base, x, factors(x, rate))


def factors(x: Tensor, rate: float) -> Tensor:
    """What elements are multiplied by: 0, or the inverse of the share kept; of the shape and type of `x`."""
    drop = min(round(rate * LEVELS), LEVELS - 1)
    count = x.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = torch.empty_like(x, requires_grad=False, memory_format=torch.contiguous_format)
    # Compared into numbers at once: by way of booleans it takes eight times as long.
    torch.ge(draws.view(torch.int16)[:count].view(x.shape), drop - LEVELS // 2, out=kept)
    return kept.mul_(LEVELS / (LEVELS - drop))
