"""Evaluation: every block of queries is scored once, for all evaluators of a recipe.

Legend: `n` queries of a block, `V` items. The same scorer answers here, in training and in `recommend`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from attrs import evolve, field, frozen

from recore.contracts.data import Holdout, Tokenizer
from recore.contracts.scoring import (
    Block,
    Compared,
    Counted,
    Dual,
    Evaluation,
    Evaluator,
    Grouped,
    Queries,
    Scorer,
    Wants,
)
from recore.data import Ids, Interactions
from recore.engine.ranks import rank_block, tie_order
from recore.engine.scored import scored
from recore.errors import RecoreError
from recore.histories import queries_from, seen_items
from recore.ragged import Ragged, View
from recore.timeline import Timeline


@frozen
class Evaluated:
    """`totals` by metric; `frames`, per evaluator, a row per query and target; `groups`, totals of groups of
    rows; `counts` of rows that needed a policy."""

    totals: Mapping[str, float]
    frames: Sequence[pl.DataFrame]
    groups: Mapping[str, Any] = field(factory=dict)
    counts: Mapping[str, int] = field(factory=dict)

    @property
    def frame(self) -> pl.DataFrame:
        """The frames side by side; what two of them hold is taken from the first."""
        wide = self.frames[0]
        for frame in self.frames[1:]:
            fresh = [name for name in frame.columns if name not in wide.columns]
            wide = pl.concat([wide, frame.select(fresh)], how="horizontal")
        return wide


class Questions:
    """Questions looked up once: a query, and its target, a row of `targets`; `users` are those of the targets, in
    either direction."""

    def __init__(
        self,
        queries: Queries,
        users: pl.Series,
        targets: pl.DataFrame,
        tokenizer: Tokenizer,
        part: Literal["validation", "test"],
        seed: int,
        trained: Ids,
    ) -> None:
        self.queries, self.users = queries, users
        self.part: Literal["validation", "test"] = part
        self.seed = seed
        self.items = tokenizer.items
        self.targets: Ids = tokenizer.item_ids(targets["item"])
        self.lengths: Ids = np.diff(self.queries.offsets)
        item = torch.from_numpy(tokenizer.item_ids(self.queries.events["item"]).copy())
        histories = View({"token": item, "item": item}, torch.from_numpy(self.queries.offsets))
        self.seen: Ragged = seen_items(histories)
        self.in_history = _contains(self.seen, self.targets)
        self.cold = (self.targets < 0) | ~np.isin(self.targets, trained)
        self.events: Ids = targets["event"].to_numpy()
        self.times = targets["time"].to_numpy() if "time" in targets.columns else None
        self.ties = tie_order(tokenizer.items_of(np.arange(self.items)), seed)

    def hear(self, scorer: Scorer, evaluators: Sequence[Evaluator], about: Evaluation) -> None:
        """Start the evaluators and show them all blocks, and to those that compare the blocks of their rivals."""
        for evaluator in evaluators:
            evaluator.start(about)
        self._show(scorer, [(evaluator.wants, evaluator.update) for evaluator in evaluators])
        for evaluator in evaluators:
            if isinstance(evaluator, Compared):
                for name, rival in evaluator.rivals().items():
                    self._show(rival, [(evaluator.wants, partial(evaluator.update_rival, name))])

    def _show(self, scorer: Scorer, hearing: Sequence[tuple[Wants, Callable[[Block], None]]]) -> None:
        wanted = {
            wants.seen: max(other.k for other, _ in hearing if other.seen == wants.seen)
            for wants, _ in hearing
        }
        for begin, end, scores in scored(scorer, self.queries):
            for seen, k in wanted.items():
                block = self._block(scores, begin, end, k, hide_seen=seen == "history")
                for wants, hear in hearing:
                    if wants.seen == seen:
                        hear(evolve(block, scores=scores) if wants.scores else block)

    def _block(self, scores: torch.Tensor, begin: int, end: int, k: int, hide_seen: bool) -> Block:
        low, high = int(self.seen.offsets[begin]), int(self.seen.offsets[end])
        seen = Ragged(self.seen.values[low:high], self.seen.offsets[begin : end + 1] - low)
        ranked = rank_block(
            scores,
            torch.from_numpy(self.targets[begin:end]),
            seen=seen if hide_seen else None,
            order=self.ties,
            k=k,
        )
        return Block(
            users=self.users.slice(begin, end - begin),
            targets=self.targets[begin:end],
            rank=ranked.rank.numpy(),
            candidates=ranked.candidates.numpy(),
            top=ranked.top.numpy(),
            length=self.lengths[begin:end],
            cold=self.cold[begin:end],
            in_history=self.in_history[begin:end],
            event=self.events[begin:end],
            time=None if self.times is None else self.times[begin:end],
        )


class Examination(Questions):
    """The questions of one part of a split, asked as often as needed. `audience`: the same targets asked about from
    the other side, where some evaluator wants that."""

    def __init__(
        self,
        interactions: Interactions,
        holdout: Holdout,
        tokenizer: Tokenizer,
        part: Literal["validation", "test"],
        seed: int,
        trained: Ids,
        audience: Audience | None = None,
    ) -> None:
        self.audience = audience
        queries = queries_from(interactions, holdout.start, holdout.stop, holdout.target)
        assert queries.users is not None
        targets = interactions.events[holdout.target]
        super().__init__(queries, queries.users, targets, tokenizer, part, seed, trained)

    def ask(self, scorer: Scorer, evaluators: Sequence[Evaluator]) -> Evaluated:
        """Score all queries in blocks and let every evaluator see each block."""
        by_view = {view: [e for e in evaluators if e.wants.view == view] for view in ("user", "item")}
        if by_view["user"]:
            self.hear(
                scorer, by_view["user"], Evaluation(self.items, len(self.queries), self.seed, self.part)
            )
        if by_view["item"]:
            if self.audience is None or not isinstance(scorer, Dual):
                raise RecoreError(
                    "an evaluator asks for the next user of items, but the model ranks no users"
                )
            self.audience.hear_both(scorer, by_view["item"])
        return _finish(evaluators)


class Audience:
    """The same targets from the other side: after the item's earlier users, who is next?

    `known` are the events that may be known: of the log without the targets. Where times order events across
    users, a question sees those strictly earlier than its target; where they do not, an item's users are all
    of them, as a set.
    """

    def __init__(
        self,
        known: Interactions,
        targets: pl.DataFrame,
        part: Literal["validation", "test"],
        seed: int,
    ) -> None:
        self.known, self.log = known, known.transposed()
        self.targets, self.part, self.seed = targets, part, seed
        self._questions: Questions | None = None

    def hear_both(self, scorer: Dual, evaluators: Sequence[Evaluator]) -> None:
        """Ask the transposed scorer, whose tokenizer numbers the users."""
        answering = scorer.audience(self.known)
        asked = self.questions(answering.tokenizer)
        about = Evaluation(
            asked.items, len(asked.queries), self.seed, self.part, self.known, answering.tokenizer
        )
        asked.hear(answering, evaluators, about)

    def questions(self, tokenizer: Tokenizer) -> Questions:
        """The questions, for a tokenizer of users; looked up once."""
        if self._questions is None:
            trained = np.unique(tokenizer.item_ids(self.log.events["item"]))
            targets = self.targets
            queries = audience_queries(self.log, targets["item"], targets.get_column("time", default=None))
            swapped = targets.rename({"user": "item", "item": "user"})
            self._questions = Questions(
                queries, targets["user"], swapped, tokenizer, self.part, self.seed, trained
            )
        return self._questions


def audience_queries(log: Interactions, items: pl.Series, time: pl.Series | None) -> Queries:
    """Questions of items `(n,)`: the histories are the item's users in `log`, a transposed one, strictly before
    `time (n,)` where that is given and times order events across users; all of them otherwise."""
    offsets, asking = log.offsets(), log.user_ids()
    place = places(asking, items)
    known = place >= 0
    start = np.where(known, offsets[:-1][place], 0)
    stop = np.where(known, offsets[1:][place], 0)
    moments = time.to_numpy() if time is not None and log.order_across_users else None
    if moments is not None:
        times = Timeline(offsets, log.events["time"].to_numpy())
        stop = np.where(known, times.stop(np.maximum(place, 0), moments), 0)
    rows = queries_from(log, start, stop, None)
    return Queries(rows.events, rows.offsets, items, moments)


def places(known: pl.Series, asked: pl.Series) -> Ids:
    """The place `(n,)` of each id among the known ones, or −1."""
    table = pl.DataFrame({"id": known, "place": np.arange(len(known))})
    found = asked.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")
    return found["place"].fill_null(-1).to_numpy()


def _contains(seen: Ragged, targets: Ids) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each target is among the items of its row, `(n,)`."""
    rows = torch.repeat_interleave(torch.arange(len(seen)), seen.lengths)
    wanted = torch.from_numpy(targets)[rows]
    hits = torch.zeros(len(seen), dtype=torch.int64).index_add_(0, rows, (seen.values == wanted).long())
    found: np.ndarray[Any, np.dtype[np.bool_]] = (hits > 0).numpy()
    return found


def _finish(evaluators: Sequence[Evaluator]) -> Evaluated:
    totals: dict[str, float] = {}
    frames: list[pl.DataFrame] = []
    groups: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for evaluator in evaluators:
        figures, frame = evaluator.finish()
        totals |= {name: float(value) for name, value in figures.items()}
        frames.append(frame)
        if isinstance(evaluator, Grouped):
            for name, group in evaluator.groups().items():
                groups[name] = {**groups.get(name, {}), **group}
        if isinstance(evaluator, Counted):
            counts |= evaluator.counts()
    return Evaluated(totals, frames, groups, counts)
