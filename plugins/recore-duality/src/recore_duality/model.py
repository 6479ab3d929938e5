"""The model `dual`: the core's assembled model for users, and a tower beside it for items.

Legend: `T` events, `B` sequences, `R` known states, `U` users, `V` items, `d` width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from attrs import evolve
from torch import Tensor, nn

from recore import Context, Facts
from recore.contracts import Embedder, Encoder, Objective, Placed, Position, SplitParts, Table, Tokenizer
from recore.data import Interactions
from recore.engine.drive import Fit
from recore.histories import tokenise
from recore.ragged import Batch, Layout, View
from recore.sequential import EVENTS_AT_ONCE, SequentialModel
from recore_duality.known import read_rows, windows
from recore_duality.options import Dual, ItemView

OCTAVES = 48  # ages up to 2^48 events are told apart
STATE = "state"  # the column of the view `item`: which known state an event's user was in, −1 for none


def build(options: Dual, context: Context) -> DualModel:
    """Build the parts of both views and wire them."""
    return DualModel(options, context)


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
        placed = Placed(x)
        for position in self.positions:
            more = position.place(placed.inputs, batch, view)
            placed = joined(placed, more)
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


def joined(one: Placed, more: Placed) -> Placed:
    """Terms of one position after those of another."""
    count = max(len(one.terms), len(more.terms))
    terms = [one.layer(layer) + more.layer(layer) for layer in range(count)]
    return Placed(more.inputs, terms)


def users_of(context: Context) -> Tokenizer:
    """The tokenizer of users. The engine makes one for a model that encodes the view `item`."""
    if context.users is None:
        raise RuntimeError("model 'dual': no tokenizer of users in the context")
    return context.users


class DualModel(SequentialModel):
    """Implements `recore.contracts.Model`; the view `user` is the core's own."""

    def __init__(self, options: Dual, context: Context) -> None:
        super().__init__(options, context)
        self.dual = options
        self.item = ItemTower(options.item, context)

    def own(self, items: Tensor) -> Tensor:
        """The items' own vectors `(N, d)`, zero for unknown ones (−1)."""
        weight = self.embedder.table().weight
        rows = weight.index_select(0, items.clamp(min=0))
        return rows * (items >= 0).to(rows.dtype)[:, None]

    @torch.no_grad()
    def states(self, log: Interactions, tokenizer: Tokenizer, columns: Iterable[str]) -> Tensor:
        """`(T + 1, d)`: for each event of a log the state of its user after it, and a zero row at the end. An
        event whose item the tokenizer drops leaves the state as it was."""
        view = tokenise(log.events, log.offsets(), tokenizer, columns)
        start, stop, read = windows(view, self.history)
        table = self.embedder.table().weight
        found = table.new_zeros(view.events + 1, table.shape[1])
        was_training = self.training
        self.eval()
        try:
            for block in blocks(stop - start):
                cut = view.cut(start[block], stop[block]).laid_out(self.layout).to(table.device)
                hidden = self(Batch({"user": cut}), cut)
                keep, rows = read_rows(start[block], stop[block], read[block])
                found[rows.to(table.device)] = hidden[keep.to(table.device)]
        finally:
            self.train(was_training)
        return found if view.events == len(log) else self._spread(found, view, log)

    def _spread(self, found: Tensor, view: View, log: Interactions) -> Tensor:
        """States of all events where some were dropped: that of the user's last event that was not, or zero."""
        event = torch.from_numpy(log.events["event"].to_numpy().copy())
        kept = torch.isin(event, view["event"])
        lengths = torch.from_numpy(log.offsets()).diff()
        so_far = kept.long().cumsum(0)
        before = torch.cat([so_far.new_zeros(1), so_far])[torch.from_numpy(log.offsets()[:-1])]
        none = so_far == torch.repeat_interleave(before, lengths)
        rows = torch.where(none, torch.tensor(-1), so_far - 1)
        return torch.cat([found[rows.to(found.device)], found[-1:]])

    def fit(self, interactions: Interactions, parts: SplitParts, fit: Fit) -> DualScorer:
        """Train as the recipe says, and give the scorer of the best epoch."""
        from recore_duality.training import DualTraining

        training = DualTraining(self, fit)
        scorer = DualScorer(self, fit.tokenizer, training.objective, fit.columns)
        states = {"model": self, "duality": training, **training.samplers_by_name()}
        return self.load(fit.drive(training, states, scorer, self), fit)

    def load(self, folder: Path, fit: Fit) -> DualScorer:
        """Weights from `folder`, and the scorer of them. Raises RunFolderError when they do not fit."""
        scorer = super().load(folder, fit)
        return DualScorer(self, scorer.tokenizer, scorer.objective, scorer.columns)


def blocks(lengths: Tensor, most: int = EVENTS_AT_ONCE) -> list[slice]:
    """Consecutive sequences of at most `most` events together."""
    ends = lengths.cumsum(0)
    found, begin = [], 0
    while begin < len(lengths):
        used = int(ends[begin - 1]) if begin else 0
        end = max(int(torch.searchsorted(ends, used + most, right=True)), begin + 1)
        found.append(slice(begin, end))
        begin = end
    return found


from recore_duality.scorer import DualScorer  # noqa: E402  # it needs the model's names
