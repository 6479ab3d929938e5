"""Causal masks that are none. The sound encoder is built without its own, and the wrong one is put in as a table of
distances. Legend: `T` events, `H` heads, `d` width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recore import Context
from recore.attention import PairTable
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.encoder_options import Masked, MaskMissing, MaskNextVisible, MaskTransposed
from recore_pitfalls.rectangle import Wrapped

HIDDEN = float(-(2**32) + 1)


def build_next_visible(options: MaskNextVisible, context: Context) -> Mismasked:
    """Distances −1 and up are seen. Raises RecipeError where the encoder cannot be built so."""
    return Mismasked(options, context, [HIDDEN, 0.0, 0.0], low=-2)


def build_transposed(options: MaskTransposed, context: Context) -> Mismasked:
    """Distances 0 and below are seen. Raises RecipeError where the encoder cannot be built so."""
    return Mismasked(options, context, [0.0, HIDDEN], low=0)


def build_missing(options: MaskMissing, context: Context) -> Mismasked:
    """All are seen. Raises RecipeError where the encoder cannot be built so."""
    return Mismasked(options, context, [], low=0)


class Mismasked(Wrapped):
    """Adds `logit[clip(row − key)]`, counted from `low` on, to every logit."""

    logit: Tensor

    def __init__(self, options: Masked, context: Context, logit: list[float], low: int) -> None:
        super().__init__(options, context, {"causal": False})
        self.low = low
        heads = options.provides().heads or 1
        table = torch.tensor(logit)[:, None].expand(-1, heads).clone()
        self.register_buffer("logit", table, persistent=False)

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        if self.logit.numel():
            term = PairTable("logit", self.logit.to(x.dtype), low=self.low)
            placed = Placed(placed.inputs, [(*terms, term) for terms in placed.terms])
        return self.sound(x, batch, view, placed, rows)
