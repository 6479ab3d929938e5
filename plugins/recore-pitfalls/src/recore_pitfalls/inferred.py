"""The encoder `mask-inferred`. Legend: `T` events, `H` heads, `d` width."""

from __future__ import annotations

from torch import Tensor

from recore import Context
from recore.attention import KeyBias
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.encoder_options import MaskInferred
from recore_pitfalls.rectangle import Wrapped

HIDDEN = float(-(2**32) + 1)  # the published number


def build(options: MaskInferred, context: Context) -> Inferred:
    """Raises RecipeError where the encoder takes no bias per key."""
    return Inferred(options, context)


class Inferred(Wrapped):
    """Hides from all rows the events whose vectors sum to zero."""

    def __init__(self, options: MaskInferred, context: Context) -> None:
        super().__init__(options, context)
        self.heads = options.provides().heads or 1

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        none = (x.sum(-1, keepdim=True) == 0).expand(-1, self.heads)
        term = KeyBias(x.new_zeros(none.shape).masked_fill(none, HIDDEN))
        placed = Placed(placed.inputs, [(*terms, term) for terms in placed.terms])
        return self.sound(x, batch, view, placed, rows)
