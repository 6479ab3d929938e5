"""The scorers of `dual`: the core's for items, and one of users for each log that may be known.

Legend: `B` queries, `U` users, `d` width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recore.contracts import Queries, Tokenizer
from recore.data import Interactions
from recore.histories import cut_queries, tokenise
from recore.sequential import SequentialScorer, blocks, evaluating, score_table
from recore_duality.known import Known
from recore_duality.tower import STATE, users_of

if TYPE_CHECKING:
    from recore_duality.model import DualModel


class DualScorer(SequentialScorer):
    """Implements `recore.contracts.Scorer` and `Dual`."""

    model: DualModel

    def audience(self, log: Interactions) -> AudienceScorer:
        """The scorer of users from what may be known; a transposed log is not meant."""
        return AudienceScorer(self, log)


class AudienceScorer:
    """Items in the data's own ids → scores of all users. Implements `recore.contracts.Scorer`."""

    def __init__(self, scorer: DualScorer, log: Interactions) -> None:
        self.model = scorer.model
        self.items, self.columns = scorer.tokenizer, scorer.columns
        self._tokenizer = users_of(self.model.context)
        self.known: Known | None = None
        width = self.model.item.width
        self.states = self.model.embedder.table().weight.new_zeros(1, width)
        if self.model.item.ordered:
            self.known = Known(log, self._tokenizer)
            self.states = self.model.states(log, self.items, self.columns)

    @property
    def tokenizer(self) -> Tokenizer:
        """Numbers the candidates: users."""
        return self._tokenizer

    @torch.no_grad()
    def encode(self, queries: Queries) -> Tensor:
        """`(B, 2d + 1)` in float64 (of sets `(B, d + 1)`): what asks, and the moment it asks at, by its place
        in the log's times (−1: the end)."""
        model, tower = self.model, self.model.item
        assert queries.users is not None
        known = self.items.item_ids(queries.users)
        own = model.own(torch.from_numpy(known.copy()).to(self.states.device))
        encoded = own.new_zeros(len(queries), tower.width)
        # Unknown users that are dropped make room for others, so they go before histories are cut.
        if self._tokenizer.unknown == "drop":
            queries = of_known(queries, self._tokenizer)
        cut = cut_queries(queries, tower.history) if tower.ordered else spread(queries, tower.history)
        view = tokenise(cut.events, cut.offsets, self._tokenizer, self.columns)
        if self.known is not None:
            view = view.with_columns(**{STATE: self.known.came(view["event"])})
        full = (view.lengths > 0).nonzero().squeeze(-1)
        with evaluating(model):
            for block in blocks(view.lengths[full]):
                index = full[block]
                part = view.cut(view.offsets[index], view.offsets[index + 1])
                inputs, where = tower.objective.query(part)
                inputs = inputs.laid_out(tower.layout).to(own.device)
                encoded[index.to(own.device)] = tower.encoded(inputs, where.to(own.device), self.states)
        asking = tower.asking(encoded, own).double()
        return torch.cat([asking, self._moments(queries).to(asking.device)[:, None]], 1)

    def _moments(self, queries: Queries) -> Tensor:
        if self.known is None or queries.time is None:
            return torch.full((len(queries),), -1.0, dtype=torch.float64)
        # All times between two of the log's are one moment.
        place = np.searchsorted(self.known.timeline.distinct, queries.time, side="left")
        return torch.from_numpy(place.astype(np.float64))

    @torch.no_grad()
    def score(self, state: Tensor, items: Tensor | None = None) -> Tensor:
        """Scores `(B, U)`, or `(B, n)` of users `items (n,)`; the users are looked up once for each moment."""
        tower, dtype = self.model.item, self.states.dtype
        asking, moment = state[:, :-1].to(dtype), state[:, -1]
        scores = asking.new_empty(len(state), self._tokenizer.items)
        for one in torch.unique(moment).tolist():
            rows = (moment == one).nonzero().squeeze(-1)
            table = tower.users(self.states, *self._at(int(one)))
            scores[rows] = score_table(asking[rows], table)
        return scores if items is None else scores[:, items]

    def _at(self, place: int) -> tuple[Tensor, Tensor]:
        if self.known is None:
            none = torch.empty(0, dtype=torch.int64)
            return none, none
        distinct = self.known.timeline.distinct
        moment: Any = None if place < 0 or place >= len(distinct) else distinct[place]
        last, age = self.known.rows(moment)
        return torch.from_numpy(last).to(self.states.device), torch.from_numpy(age).to(self.states.device)


def of_known(queries: Queries, tokenizer: Tokenizer) -> Queries:
    """The same questions without the events of unknown users."""
    known = tokenizer.item_ids(queries.events["item"]) >= 0
    if known.all():
        return queries
    before = np.concatenate([[0], np.cumsum(known)]).astype(np.int64)
    return Queries(
        queries.events[np.flatnonzero(known)], before[queries.offsets], queries.users, queries.time
    )


def spread(queries: Queries, most: int) -> Queries:
    """The same questions with at most `most` events of each, spread evenly over the places of the log: of a set
    no event is later than another."""
    lengths = np.diff(queries.offsets)
    kept = np.minimum(lengths, most)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], kept)
    of, among = np.repeat(lengths, kept), np.repeat(kept, kept)
    rows = np.repeat(queries.offsets[:-1], kept) + (2 * place + 1) * of // (2 * np.maximum(among, 1))
    return Queries(queries.events[rows], offsets, queries.users, queries.time)
