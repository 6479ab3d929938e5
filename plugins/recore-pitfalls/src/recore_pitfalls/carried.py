"""The encoder `state-carried`. Legend: `T` events, `B` sequences, `d` width."""

from __future__ import annotations

from torch import Tensor

from recore import Context
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.encoder_options import StateCarried
from recore_pitfalls.rectangle import Wrapped


def build(options: StateCarried, context: Context) -> Carrying:
    """Nothing is carried yet."""
    return Carrying(options, context)


class Carrying(Wrapped):
    """`carried (B, d)`: in evaluation, the last states of the batch before."""

    carried: Tensor | None = None

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        if self.training:
            return self.sound(x, batch, view, placed, rows)
        full = (view.lengths > 0).nonzero().squeeze(-1)
        if self.carried is not None:
            reached = full[: len(self.carried)]
            x = x.index_add(0, view.offsets[reached], self.carried[: len(reached)].to(x))
        hidden = self.inner.encode(x, batch, view, Placed(x, placed.terms))
        self.carried = hidden.detach()[view.offsets[1:][full] - 1]
        return hidden if rows is None else hidden[rows]
