"""A linear map whose weights come from a given generator, never from torch's default one."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rule = Literal["normal", "xavier-normal", "xavier-uniform"]


class Affine(nn.Module):
    """`x (…, i) → x · weightᵀ + bias (…, o)`; `weight (o, i)`, `bias (o,)` or None, from 0."""

    bias: nn.Parameter | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.register_parameter("bias", nn.Parameter(torch.zeros(outputs)) if bias else None)

    @torch.no_grad()
    def draw(self, rule: Rule, std: float, generator: torch.Generator, fan_out: int | None = None) -> None:
        """Draw the weights: normal(0, std), or by the fans (Glorot & Bengio 2010, equation 16: deviation
        √(2 / (fan in + fan out)))."""
        outputs, inputs = self.weight.shape
        if rule == "normal":
            self.weight.normal_(0.0, std, generator=generator)
            return
        deviation = math.sqrt(2.0 / (inputs + (fan_out or outputs)))
        if rule == "xavier-normal":
            self.weight.normal_(0.0, deviation, generator=generator)
        else:
            bound = math.sqrt(3.0) * deviation
            self.weight.uniform_(-bound, bound, generator=generator)

    @torch.no_grad()
    def draw_bias(self, generator: torch.Generator) -> None:
        """Draw the bias as torch does by default: uniform(−1/√i, 1/√i)."""
        if self.bias is not None:
            bound = 1.0 / math.sqrt(self.weight.shape[1])
            self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, o)`."""
        return F.linear(x, self.weight, self.bias)

    def part(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The outputs `start` to `stop` alone, `(…, stop − start)`."""
        bias = None if self.bias is None else self.bias[start:stop]
        return F.linear(x, self.weight[start:stop], bias)
