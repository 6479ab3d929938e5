"""How fresh rows of a table are drawn. Legend: `V` rows of the whole table, `n` rows drawn, `d` width."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recore_embeddings.options import Initial


def fresh_rows(
    count: int, width: int, initial: Initial, std: float, total: int, generator: torch.Generator
) -> Tensor:
    """`(n, d)`, drawn on the CPU from `generator` alone. `total` is V, for xavier's √(2 / (V + d)) (Glorot &
    Bengio 2010, equation 16)."""
    if initial.startswith("xavier"):
        std = math.sqrt(2.0 / (total + width))
    rows = torch.empty(count, width)
    if initial.endswith("uniform"):
        bound = math.sqrt(3.0) * std
        return rows.uniform_(-bound, bound, generator=generator)
    return rows.normal_(0.0, std, generator=generator)
