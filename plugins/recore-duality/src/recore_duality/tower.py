"""The tower of `dual` that encodes items from their users, and the users as they score.

Legend: `T` events, `B` sequences, `N` questions, `R` known states, `U` users, `d` width.
"""

from __future__ import annotations

import math

import torch
from attrs import evolve
from torch import Tensor, nn

from recore import Context, Facts
from recore.contracts import Embedder, Encoder, Objective, Position, Table, Tokenizer
from recore.ragged import Batch, Layout, View
from recore.sequential import folded
from recore_duality.options import ItemView

OCTAVES = 48  # ages up to 2^48 events are told apart
STATE = "state"  # the column of the view `item`: which known state an event's user was in, −1 for none


class ItemTower(nn.Module):
    """Items from their users: see `recore_duality.options.Dual` for the formulas."""

    def __init__(self, options: ItemView, context: Context) -> None:
        super().__init__()
        users = users_of(context)
        facts = (context.facts.views or {})["item"].merged(Facts(items=users.items, tokens=users.tokens))
        inner = evolve(context, tokenizer=users, interactions=None, seen=None)
        self.options = options
        self.ordered = context.facts.order_across_users is True
        self.objective: Objective = inner.build(options.objective, facts)
        self.embedder: Embedder = inner.build(options.embedder, facts)
        self.positions: list[Position] = [inner.build(part, facts) for part in options.positions]
        self.encoder: Encoder = inner.build(options.encoder, facts)
        for number, position in enumerate(self.positions):
            if isinstance(position, nn.Module):
                self.add_module(f"position{number}", position)
        width = context.facts.width
        assert width is not None
        self.width = width
        # [s; e] → [q₁; q₂], at first the identity; in a set there is no second half.
        query = torch.eye(2 * width) if self.ordered else torch.eye(width, 2 * width)
        self.query = nn.Parameter(query)
        self.state = nn.Parameter(torch.zeros(width, width)) if self.ordered else None
        # r(a) = −ln(1 + a) at first: a power law of how long ago, before anything is learned.
        octaves = -math.log(2.0) * torch.arange(OCTAVES + 1, dtype=torch.get_default_dtype())
        octaves[OCTAVES] = octaves[OCTAVES // 2]  # users of whom nothing is known
        self.recency = nn.Parameter(octaves) if self.ordered else None
        self.history = int(options.history.last)
        self.padding = context.facts.padding or "none"

    @property
    def layout(self) -> Layout:
        """The rectangle that its batches ask for, training and queries alike."""
        return Layout(self.padding, self.history)

    def encoded(self, view: View, where: Tensor, known: Tensor) -> Tensor:
        """States `(N, d)` at the rows `where (N,)`; of a set, the mean over the sequence that each is in. `known
        (R + 1, d)`: states of users by row, the last one zero; the column `state` points into it."""
        batch = Batch({"item": view})
        x = self.embedder.embed(batch, view)
        if self.state is not None:
            x = x + known[view[STATE]] @ self.state
        placed = folded(self.positions, x, batch, view)
        hidden = self.encoder.encode(placed.inputs, batch, view, placed)
        if self.ordered:
            return hidden.index_select(0, where)
        sums = hidden.new_zeros(len(view), hidden.shape[1]).index_add(0, view.sequence, hidden)
        return (sums / view.lengths.clamp(min=1)[:, None]).index_select(0, view.sequence[where])

    def asking(self, encoded: Tensor, own: Tensor) -> Tensor:
        """`(N, 2d)`, or of sets `(N, d)`, from encoded states and the items' own vectors `(N, d)`."""
        return torch.cat([encoded, own], 1) @ self.query.T

    def users(self, known: Tensor, last: Tensor, age: Tensor) -> Table:
        """The rows that score at a moment, `(U, 2d)`: own vectors beside the states at the rows `last (U,)`;
        `age (U,)` in events gives the bias. Of sets, own vectors alone."""
        table = self.embedder.table()
        if self.recency is None:
            return table
        # Piecewise linear in log2(1 + age); users without a state get the last value.
        place = torch.log2(1 + age.clamp(min=0).to(torch.float64)).clamp(max=OCTAVES - 1 - 1e-9)
        low = place.floor().long()
        part = (place - low).to(self.recency.dtype)
        bias = torch.lerp(self.recency[low], self.recency[low + 1], part)
        bias = torch.where(age < 0, self.recency[OCTAVES], bias)
        if table.bias is not None:
            bias = bias + table.bias
        return Table(torch.cat([table.weight, known[last]], 1), bias, table.retired)


def users_of(context: Context) -> Tokenizer:
    """The tokenizer of users. The engine makes one for a model that encodes the view `item`."""
    if context.users is None:
        raise RuntimeError("model 'dual': no tokenizer of users in the context")
    return context.users
