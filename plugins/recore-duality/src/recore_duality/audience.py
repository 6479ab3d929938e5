"""The evaluator `audience`: ranks of the next user, of the model and of two baselines.

Legend: `n` rows, `r (n,)` pessimistic ranks from 1, U + 1 where the target is no candidate; `U` users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from recore import Context, DataError
from recore.contracts import Block, Evaluation, Queries, Scorer, Tokenizer, Wants
from recore.data import Interactions
from recore_duality.known import Known
from recore_duality.options import Audience

Ids = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
MODEL, ACTIVE, RECENT = "next-user", "next-user:most-active", "next-user:most-recent"
GAINS: dict[str, tuple[Callable[[Ids], Values], str]] = {
    "ndcg": (lambda r: 1.0 / np.log2(1.0 + r), "[r ≤ min({k}, U)] / log2(1 + r)"),
    "hr": (lambda r: np.ones(len(r)), "[r ≤ min({k}, U)]"),
    "mrr": (lambda r: 1.0 / r, "[r ≤ min({k}, U)] / r"),
}
MEANING = {
    MODEL: "r: pessimistic rank of the target's user among all candidate users, asked for its item, U + 1 where it "
    "is none; mean over rows",
    ACTIVE: "the same, users scored by their number of known events",
    RECENT: "the same, users scored by the time of their last known event",
}


class Baseline:
    """Users scored by what is known of them alone. Implements `recore.contracts.Scorer`."""

    def __init__(self, tokenizer: Tokenizer, values: Callable[[Any], Ids], timed: bool) -> None:
        self._tokenizer, self._values, self._timed = tokenizer, values, timed

    @property
    def tokenizer(self) -> Tokenizer:
        """Numbers the users."""
        return self._tokenizer

    def encode(self, queries: Queries) -> Tensor:
        """The moments `(B,)`."""
        if queries.time is None or not self._timed:
            return torch.zeros(len(queries), dtype=torch.int64)
        return torch.from_numpy(np.array(queries.time))

    def score(self, state: Tensor, items: Tensor | None = None) -> Tensor:
        """`(B, U)` in float64."""
        moments, which = torch.unique(state, return_inverse=True)
        rows = [self._values(moment if self._timed else None) for moment in moments.tolist()]
        scores = torch.from_numpy(np.stack(rows).astype(np.float64))[which]
        return scores if items is None else scores[:, items]


def most_active(log: Interactions, users: Tokenizer) -> Baseline:
    """By the number of known events; strictly before the moment where times order events across users."""
    if not log.order_across_users:
        ids = users.item_ids(log.events["user"])
        counts = np.bincount(ids[ids >= 0], minlength=users.items)
        return Baseline(users, lambda moment: counts, timed=False)
    return Baseline(users, Known(log, users).counts, timed=True)


def most_recent(log: Interactions, users: Tokenizer) -> Baseline:
    """By how few events the whole log had since a user's last one."""
    known = Known(log, users)

    def recent(moment: Any) -> Ids:
        _, age = known.rows(moment)
        return np.where(age < 0, -len(log) - 1, -age)

    return Baseline(users, recent, timed=True)


class AudienceEvaluator:
    """Implements `recore.contracts.Evaluator`, `Compared` and `Counted`."""

    def __init__(self, options: Audience, ordered: bool) -> None:
        self.options = options
        self.kinds = (MODEL, ACTIVE, RECENT) if ordered else (MODEL, ACTIVE)
        self._context: Evaluation | None = None
        self._blocks: dict[str, list[Block]] = {}

    @property
    def wants(self) -> Wants:
        """Questions of items."""
        options = self.options
        return Wants(max(options.k), options.seen, view="item", each_epoch=options.each_epoch)

    @property
    def formulas(self) -> Mapping[str, str]:
        """Metric name → formula."""
        return {
            _name(metric, k, kind): f"{GAINS[metric][1].format(k=k)}; {MEANING[kind]}"
            for kind in self.kinds
            for metric in self.options.metrics
            for k in self.options.k
        }

    def start(self, context: Evaluation) -> None:
        """Begin anew."""
        ordered = context.log is None or context.log.order_across_users
        self._context = context
        self._blocks = {kind: [] for kind in self.kinds if ordered or kind != RECENT}

    def rivals(self) -> Mapping[str, Scorer]:
        """The baselines, where the log is told."""
        assert self._context is not None
        log, users = self._context.log, self._context.tokenizer
        if log is None or users is None:
            return {}
        made: dict[str, Scorer] = {ACTIVE: most_active(log, users)}
        if RECENT in self._blocks:
            made[RECENT] = most_recent(log, users)
        return made

    def update(self, block: Block) -> None:
        """Hear a block of the model."""
        self._blocks[MODEL].append(block)

    def update_rival(self, name: str, block: Block) -> None:
        """Hear a block of a baseline."""
        self._blocks[name].append(block)

    def finish(self) -> tuple[Mapping[str, float], pl.DataFrame]:
        """Totals, and a frame with `user` (the target's), `length` (known users of the item), `rank[…]` and a
        column per metric, and `event` where known. Raises DataError when there was nothing to evaluate."""
        if self._context is None:
            raise RuntimeError("`finish` was called before `start`")
        blocks = [block for block in self._blocks[MODEL] if len(block.rank)]
        if not blocks:
            raise DataError(f"evaluator 'audience': the {self._context.part} part holds no target")
        columns: dict[str, Any] = {
            "user": pl.concat([block.users.alias("user") for block in blocks]),
            "length": np.concatenate([block.length for block in blocks]),
        }
        events = [block.event for block in blocks if block.event is not None]
        if len(events) == len(blocks):
            columns["event"] = np.concatenate(events)
        totals: dict[str, float] = {}
        for kind, heard in self._blocks.items():
            if not heard:
                continue
            rank = np.concatenate([block.rank for block in heard])
            columns[f"rank[{kind}]"] = rank
            for metric in self.options.metrics:
                for k in self.options.k:
                    hit = rank <= min(k, self._context.items)
                    gain = np.where(hit, GAINS[metric][0](rank), 0.0)
                    columns[_name(metric, k, kind)] = gain
                    totals[_name(metric, k, kind)] = float(gain.mean())
        return totals, pl.DataFrame(columns)

    def counts(self) -> Mapping[str, int]:
        """Targets that needed a policy."""
        blocks = self._blocks.get(MODEL, [])
        wanted = self.options.seen == "history"
        return {
            "next user: targets not in training (cold)": int(sum(block.cold.sum() for block in blocks)),
            "next user: items without known users": int(sum((block.length == 0).sum() for block in blocks)),
            **(
                {
                    "next user: targets impossible, already among the item's users": int(
                        sum(block.in_history.sum() for block in blocks)
                    )
                }
                if wanted
                else {}
            ),
        }


def _name(metric: str, k: int, kind: str) -> str:
    return f"{metric}@{k}[{kind}]"


def build(options: Audience, context: Context) -> AudienceEvaluator:
    """An evaluator; it draws nothing."""
    return AudienceEvaluator(options, context.facts.order_across_users is not False)
