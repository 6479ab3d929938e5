"""A batch as a rectangle whose padding cells pass for events, and the wrapper that encoders of this kind share.

Legend: `T` events, `B` sequences, `W` columns, `C` = B · W cells, `R` rows that are asked for, `d` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from recore import Context, Part, Problem, RecipeError
from recore.attention import Buckets, KeyBias, PairFunction, PairTable, Rotate, Term
from recore.contracts import Encoder, Placed
from recore.ragged import Batch, Layout, View
from recore_pitfalls.encoder_options import Around

K = TypeVar("K")


def in_place(context: Context, part: Part[K], changes: dict[str, Any] | None = None) -> K:
    """Build a sound part where the mistake around it stands, so that it draws the initial weights that it would draw
    there by itself: with the same seed nothing but the mistake differs."""
    return context.build(evolve(part, path=context.path, options=evolve(part.options, **(changes or {}))))


class Wrapped(nn.Module):
    """`inner`: the sound encoder."""

    inner: Encoder

    def __init__(self, options: Around, context: Context, changes: dict[str, Any] | None = None) -> None:
        """`changes`: options of the sound encoder that the mistake sets otherwise. Raises RecipeError with what
        stands against the options."""
        super().__init__()
        found = options.problems(context.facts)
        if found:
            raise RecipeError([Problem(text, path=context.path or "model.encoder") for text in found])
        self.inner = in_place(context, options.encoder, changes)

    def sound(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """What the sound encoder gives. `rows` goes on only where it was given, as the contract has it."""
        more = {} if rows is None else {"rows": rows}
        return self.inner.encode(x, batch, view, placed, **more)


@frozen(eq=False)
class Rectangle:
    """`flat (T,)`: the cell of each event; `source (C,)`: the event of each cell, 0 for padding; `real (C,)`: whether
    a cell holds an event. `view`: one sequence of W rows for each history, in a batch `batch` of it."""

    flat: Tensor
    source: Tensor
    real: Tensor
    width: int
    view: View
    batch: Batch

    def spread(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """From events `(T, …)` to cells `(C, …)`."""
        return x.new_full((self.real.numel(), *x.shape[1:]), fill).index_copy(0, self.flat, x)

    @property
    def column(self) -> Tensor:
        """The column of each cell, `(C,)`."""
        return torch.arange(self.real.numel(), device=self.flat.device) % self.width

    def placed(self, inputs: Tensor, placed: Placed) -> Placed:
        """Inputs of the cells `(C, d)`, and the terms of the events as terms of cells."""
        return Placed(
            inputs,
            [tuple(carried(term, self.source, self.spread) for term in terms) for terms in placed.terms],
        )


def carried(term: Term, source: Tensor, move: Callable[[Tensor, float], Tensor]) -> Term:
    """A term of events as one of cells, of which cell `c` stands for event `source[c]`; `move` brings what a term says
    of each event to the cells, with the given number where there is none."""
    match term:
        case Rotate(cos=cos, sin=sin):
            return Rotate(move(cos, 1.0), move(sin, 0.0))
        case KeyBias(bias=bias):
            return KeyBias(move(bias, 0.0))
        case PairTable(index=Buckets(f=f, row_column=rows, key_column=keys)):
            return evolve(term, index=Buckets(f, rows[source], keys[source]))
        case PairTable():
            return term
        case PairFunction(f=f, inputs=inputs):
            return PairFunction(lambda rows, keys, *given: f(source[rows], source[keys], *given), inputs)


def rectangle_of(batch: Batch, view: View, layout: Layout) -> Rectangle:
    """The rectangle that a layout asks for, of a view with at least one event."""
    flat, width = layout.flat(view.offsets), layout.columns(view.offsets)
    real = layout.mask(view.offsets).flatten()
    source = torch.zeros(real.numel(), dtype=torch.int64, device=flat.device)
    source = source.index_copy(0, flat, torch.arange(view.events, device=flat.device))
    columns = {}
    for name, column in view.columns.items():
        empty = column.new_zeros(real.numel(), *column.shape[1:])
        columns[name] = empty.index_copy(0, flat, column)
    wide = View(columns, torch.arange(len(view) + 1, device=flat.device) * width, Layout(), view.index)
    views = {name: wide if held is view else held for name, held in batch.views.items()}
    return Rectangle(flat, source, real, width, wide, evolve(batch, views=views))


class Widened(Wrapped):
    """Runs the sound encoder on all cells of the rectangle as if each were an event."""

    def filled(self, x: Tensor, rectangle: Rectangle) -> Tensor:
        """What the cells hold, `(C, d)`: zero on padding."""
        return rectangle.spread(x)

    def terms(self, placed: Placed, rectangle: Rectangle) -> Placed:
        """What is added to attention."""
        return placed

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        if view.layout.padding == "none" or view.events == 0:
            return self.sound(x, batch, view, placed, rows)
        rectangle = rectangle_of(batch, view, view.layout)
        wide = self.terms(rectangle.placed(self.filled(x, rectangle), placed), rectangle)
        hidden = self.inner.encode(wide.inputs, rectangle.batch, rectangle.view, wide)
        return hidden[rectangle.flat if rows is None else rectangle.flat[rows]]
