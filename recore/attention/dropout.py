"""Dropout of attention weights: each tile's mask from one seed, the same in the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from recore.rng import derive

_LEVELS = 2**16


class Dropout:
    """Masks of one call. A weight is dropped when 16 random bits, read as a number, fall short of the rate in
    units of 2⁻¹⁶: the rate is the nearest multiple of that, and `grow`, what the weights kept are multiplied
    by, is exact for the rate used. (Four weights a random number: torch's own Bernoulli takes ten times as
    long, longer than the attention.)"""

    def __init__(self, rate: float, seed: int, device: torch.device) -> None:
        self.short = min(round(rate * _LEVELS), _LEVELS - 1)
        self.grow = _LEVELS / (_LEVELS - self.short)
        self.seed = seed
        self.generator = torch.Generator(device)

    def mask(self, number: int, into: Tensor) -> Tensor:
        """Writes 1 (kept) or 0 (dropped) into a contiguous tensor, for tile `number`."""
        self.generator.manual_seed(derive(self.seed, "attention", number))
        drawn = torch.empty(-(-into.numel() // 4), dtype=torch.int64, device=into.device)
        drawn.random_(-(2**63), None, generator=self.generator)
        bits = drawn.view(torch.int16)[: into.numel()].view(into.shape)
        return torch.ge(bits, self.short - _LEVELS // 2, out=into)
