"""The encoder `width-mean`. Legend: `T` events, `d` width."""

from __future__ import annotations

from torch import Tensor

from recore import Context
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.encoder_options import WidthMean
from recore_pitfalls.rectangle import Wrapped


def build(options: WidthMean, context: Context) -> Mean:
    """By width or by events, as set."""
    return Mean(options, context)


class Mean(Wrapped):
    """To each input, the sum of the inputs up to and including it over `divide` is added."""

    def __init__(self, options: WidthMean, context: Context) -> None:
        super().__init__(options, context)
        self.divide = options.divide

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        if view.events:
            total = x.cumsum(0)
            total = total - (total - x)[view.offsets[:-1].clamp(max=view.events - 1)][view.sequence]
            number = (view.place + 1).unsqueeze(-1)
            x = x + total / (view.layout.columns(view.offsets) if self.divide == "width" else number)
        return self.sound(x, batch, view, Placed(x, placed.terms), rows)
