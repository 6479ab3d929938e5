"""The encoder `norm-over-history`. Legend: `B` sequences, `W` columns, `T` events, `d` width."""

from __future__ import annotations

import torch.nn.functional as F
from attrs import evolve
from torch import Tensor

from recore import Context
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.encoder_options import NormOverHistory
from recore_pitfalls.rectangle import Wrapped


def build(options: NormOverHistory, context: Context) -> Normed:
    """A norm before the sound encoder."""
    return Normed(options, context)


class Normed(Wrapped):
    """Normalises the inputs over all of `(W, d)`."""

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        if view.events:
            layout = evolve(view.layout, fill=0.0)
            cells = layout.rectangle(view.ragged(x))
            x = F.layer_norm(cells, cells.shape[1:]).flatten(0, 1)[layout.flat(view.offsets)]
        return self.sound(x, batch, view, Placed(x, placed.terms), rows)
