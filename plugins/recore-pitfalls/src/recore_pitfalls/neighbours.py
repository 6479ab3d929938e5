"""The encoder `neighbours-attended`. Legend: `T` events, `d` width."""

from __future__ import annotations

import torch
from attrs import evolve
from torch import Tensor

from recore import Context
from recore.attention import Buckets, KeyBias, PairFunction, PairTable, Rotate, Term
from recore.contracts import Placed
from recore.ragged import Batch, Layout, View, offsets_of
from recore_pitfalls.encoder_options import NeighboursAttended
from recore_pitfalls.rectangle import Wrapped


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
        terms = [tuple(_taken(term, order) for term in layer) for layer in placed.terms]
        hidden = self.inner.encode(x[order], evolve(batch, views=views), turned, Placed(x[order], terms))
        return hidden[back if rows is None else back[rows]]


def _taken(term: Term, order: Tensor) -> Term:
    """The term of events in another order."""
    match term:
        case Rotate(cos=cos, sin=sin):
            return Rotate(cos[order], sin[order])
        case KeyBias(bias=bias):
            return KeyBias(bias[order])
        case PairTable(index=Buckets(f=f, row_column=rows, key_column=keys)):
            return evolve(term, index=Buckets(f, rows[order], keys[order]))
        case PairTable():
            return term
        case PairFunction(f=f, inputs=inputs):
            return PairFunction(lambda rows, keys, *given: f(order[rows], order[keys], *given), inputs)
