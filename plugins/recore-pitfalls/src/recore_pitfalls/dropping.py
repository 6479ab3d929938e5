"""The encoder `dropout-in-evaluation`. Legend: `T` events, `R` rows, `d` width."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from recore import Context
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.encoder_options import DropoutInEvaluation
from recore_pitfalls.rectangle import Wrapped


def build(options: DropoutInEvaluation, context: Context) -> AlwaysDropping:
    """The sound encoder, in training mode for good."""
    return AlwaysDropping(options, context)


class AlwaysDropping(Wrapped):
    """`eval()` stops here."""

    def train(self, mode: bool = True) -> Self:
        """The mode of this module, never of the one within."""
        super().train(mode)
        if isinstance(self.inner, nn.Module):
            self.inner.train()
        return self

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        return self.sound(x, batch, view, placed, rows)
