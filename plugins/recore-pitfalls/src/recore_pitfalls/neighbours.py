"""The encoder `neighbours-attended`. Legend: `T` events, `d` width."""

from __future__ import annotations

import torch
from attrs import evolve
from torch import Tensor

from recore import Context
from recore.contracts import Placed
from recore.ragged import Batch, Layout, View, offsets_of
from recore_pitfalls.encoder_options import NeighboursAttended
from recore_pitfalls.rectangle import Wrapped, carried


def build(options: NeighboursAttended, context: Context) -> AlongTheBatch:
    """Columns for histories."""
    return AlongTheBatch(options, context)


class AlongTheBatch(Wrapped):
    """The events of one column of the rectangle, one of each history, pass for a history."""

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        column = view.layout.slots(view.offsets)
        order = column.argsort(stable=True)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        turned = view.take(order, offsets_of(torch.bincount(column))).laid_out(Layout())
        views = {name: turned if held is view else held for name, held in batch.views.items()}
        terms = [
            tuple(carried(term, order, lambda x, _: x[order]) for term in layer) for layer in placed.terms
        ]
        hidden = self.inner.encode(x[order], evolve(batch, views=views), turned, Placed(x[order], terms))
        return hidden[back if rows is None else back[rows]]
