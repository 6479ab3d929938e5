"""Evaluation: every block of queries is scored once, for all evaluators of a recipe.

Legend: `n` queries of a block, `V` items. The same scorer answers here, in training and in `recommend`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from attrs import evolve, field, frozen

from recore.contracts.data import Holdout, Tokenizer
from recore.contracts.scoring import Block, Counted, Evaluation, Evaluator, Grouped, Queries, Scorer
from recore.data import Ids, Interactions
from recore.engine.ranks import rank_block, tie_order
from recore.histories import queries_from, seen_items
from recore.ragged import Ragged, View

SCORES_AT_ONCE = 8_000_000  # scores held together: bounds memory, not results


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


class Examination:
    """The questions of one part of a split, looked up once and asked as often as needed."""

    def __init__(
        self,
        interactions: Interactions,
        holdout: Holdout,
        tokenizer: Tokenizer,
        part: Literal["validation", "test"],
        seed: int,
        trained: Ids,
    ) -> None:
        self.queries: Queries = queries_from(interactions, holdout.start, holdout.stop, holdout.target)
        self.part: Literal["validation", "test"] = part
        self.seed = seed
        self.items = tokenizer.items
        targets = interactions.events["item"].gather(holdout.target)
        self.targets: Ids = tokenizer.item_ids(targets)
        self.lengths: Ids = np.diff(self.queries.offsets)
        item = torch.from_numpy(tokenizer.item_ids(self.queries.events["item"]).copy())
        histories = View({"token": item, "item": item}, torch.from_numpy(self.queries.offsets))
        self.seen: Ragged = seen_items(histories)
        self.in_history = _contains(self.seen, self.targets)
        self.cold = (self.targets < 0) | ~np.isin(self.targets, trained)
        self.events: Ids = interactions.events["event"].gather(holdout.target).to_numpy()
        self.ties = tie_order(tokenizer.items_of(np.arange(self.items)), seed)

    def ask(self, scorer: Scorer, evaluators: Sequence[Evaluator]) -> Evaluated:
        """Score all queries in blocks and let every evaluator see each block."""
        for evaluator in evaluators:
            evaluator.start(Evaluation(self.items, len(self.queries), self.seed, self.part))
        wanted = {
            e.wants.seen: max(x.wants.k for x in evaluators if x.wants.seen == e.wants.seen)
            for e in evaluators
        }
        step = max(1, SCORES_AT_ONCE // max(self.items, 1))
        for begin in range(0, len(self.queries), step):
            end = min(begin + step, len(self.queries))
            scores = scorer.score(scorer.encode(self.queries.block(begin, end)))
            for seen, k in wanted.items():
                block = self._block(scores, begin, end, k, hide_seen=seen == "history")
                for evaluator in evaluators:
                    if evaluator.wants.seen == seen:
                        evaluator.update(evolve(block, scores=scores) if evaluator.wants.scores else block)
        return _finish(evaluators)

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
        users = self.queries.users
        assert users is not None
        return Block(
            users=users.slice(begin, end - begin),
            targets=self.targets[begin:end],
            rank=ranked.rank.numpy(),
            candidates=ranked.candidates.numpy(),
            top=ranked.top.numpy(),
            length=self.lengths[begin:end],
            cold=self.cold[begin:end],
            in_history=self.in_history[begin:end],
            event=self.events[begin:end],
        )


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
