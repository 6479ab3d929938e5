"""Where row-wise work runs: on the events alone, or on all cells of the rectangle that a layout asks for.

Legend: `T` events, `C` rows of the frame: T, or B · W cells of the rectangle read row by row.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from recore.ragged import View


@frozen(eq=False)
class Frame:
    """`flat (T,)`: the cell of each event; None where rows are events. `count`: C."""

    flat: Tensor | None
    count: int

    def events(self, x: Tensor) -> Tensor:
        """From rows `(C, …)` to events `(T, …)`."""
        return x if self.flat is None else x.index_select(0, self.flat)

    def spread(self, x: Tensor) -> Tensor:
        """From events `(T, …)` to rows `(C, …)`, zero outside the events."""
        if self.flat is None:
            return x
        return x.new_zeros(self.count, *x.shape[1:]).index_copy(0, self.flat, x)

    def rows(self, rows: Tensor | None) -> Tensor | None:
        """The frame's rows of the events `rows (R,)`."""
        return rows if rows is None or self.flat is None else self.flat[rows]


def framed(x: Tensor, view: View) -> tuple[Tensor, Frame]:
    """Rows `(C, d)` of the inputs `(T, d)`, and their frame. What the layout fills its cells with is set to
    zero, so that no value of it can pass."""
    layout = view.layout
    if layout.padding == "none":
        return x, Frame(None, x.shape[0])
    flat = view.remember("sasrec.flat", lambda: layout.flat(view.offsets))
    cells = layout.rectangle(view.ragged(x)).flatten(0, 1)
    if layout.fill != 0:
        empty = torch.ones(cells.shape[0], dtype=torch.bool, device=x.device).index_fill(0, flat, False)
        cells = cells.masked_fill(empty.unsqueeze(-1), 0.0)
    return cells, Frame(flat, cells.shape[0])
