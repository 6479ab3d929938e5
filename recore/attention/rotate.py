"""Queries and keys turned by their positions, before any kernel: one complex product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recore.attention.terms import Rotate


def rotated(x: Tensor, terms: Sequence[Rotate], rows: Tensor | None) -> Tensor:
    """`x (R or T, H, e)` turned by every term in turn; `rows (R,)` are the events of x (None: all)."""
    for term in terms:
        cos, sin = (column if rows is None else column[rows] for column in (term.cos, term.sin))
        turn = torch.complex(cos.to(_real(x)), sin.to(_real(x)))[:, None]
        pairs = torch.view_as_complex(x.to(_real(x)).reshape(*x.shape[:-1], -1, 2))
        x = torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
    return x


def _real(x: Tensor) -> torch.dtype:
    """Half precision has no complex products worth the name."""
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
