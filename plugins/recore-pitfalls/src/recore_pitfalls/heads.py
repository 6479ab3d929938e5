"""The encoder `heads-by-view`. Legend: `B` sequences, `W` columns, `H` pieces, `e` = d/H, `T` events, `d` width."""

from __future__ import annotations

from attrs import evolve
from torch import Tensor

from recore import Context
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.encoder_options import HeadsByView
from recore_pitfalls.rectangle import Wrapped


def build(options: HeadsByView, context: Context) -> Viewed:
    """Raises RecipeError where the pieces do not divide the width."""
    return Viewed(options, context)


class Viewed(Wrapped):
    """Cuts and joins vectors by views of the rectangle."""

    def __init__(self, options: HeadsByView, context: Context) -> None:
        super().__init__(options, context)
        self.heads = options.heads

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        if not view.events:
            return self.sound(x, batch, view, placed, rows)
        layout = evolve(view.layout, fill=0.0)
        flat = layout.flat(view.offsets)
        cells = layout.rectangle(view.ragged(x))
        count, width, whole = cells.shape
        cut = cells.view(count, self.heads, width, -1).transpose(1, 2).reshape(count * width, whole)[flat]
        hidden = self.inner.encode(cut, batch, view, Placed(cut, placed.terms))
        back = layout.rectangle(view.ragged(hidden)).view(count, width, self.heads, -1).transpose(1, 2)
        joined = back.reshape(count * width, whole)
        return joined[flat if rows is None else flat[rows]]
