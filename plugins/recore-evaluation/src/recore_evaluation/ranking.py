"""The evaluator `ranking`: collects ranks block by block; totals, rows, quartiles and counts at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from attrs import evolve

from recore import Context, DataError
from recore.contracts import Block, Evaluation, Wants
from recore_evaluation.metrics import Ids, formula, names, values
from recore_evaluation.options import Ranking

QUARTILES = ("q1", "q2", "q3", "q4")


def build(options: Ranking, context: Context) -> RankingEvaluator:
    """An evaluator; it draws nothing."""
    return RankingEvaluator(options)


class RankingEvaluator:
    """Implements `recore.contracts.Evaluator`, `Grouped` and `Counted`."""

    def __init__(self, options: Ranking) -> None:
        self.options = options
        self.names = names(options.metrics, options.k)
        self._context: Evaluation | None = None
        self._blocks: list[Block] = []
        self._frame: pl.DataFrame | None = None

    @property
    def wants(self) -> Wants:
        """Lists of the longest cut-off, and the filter."""
        return Wants(max(self.options.k), self.options.seen)

    @property
    def formulas(self) -> Mapping[str, str]:
        """Metric name → formula."""
        return {name: formula(name) for name in self.names}

    def start(self, context: Evaluation) -> None:
        """Begin anew."""
        self._context, self._blocks, self._frame = context, [], None

    def update(self, block: Block) -> None:
        """Hear a block; its lists are not kept."""
        self._blocks.append(evolve(block, top=np.empty((len(block.rank), 0), dtype=np.int64)))

    def finish(self) -> tuple[Mapping[str, float], pl.DataFrame]:
        """Totals, and a frame with `user`, `length`, `rank`, `candidates`, a column per metric, and `event`
        where known.

        Raises DataError when there was nothing to evaluate: a mean over no rows is no figure.
        """
        if self._context is None:
            raise RuntimeError("`finish` was called before `start`")
        blocks = [block for block in self._blocks if len(block.rank)]
        if not blocks:
            raise DataError(
                f"evaluator 'ranking': the {self._context.part} part holds no target (every history may be "
                "too short for the split)"
            )
        rank = _joined([block.rank for block in blocks])
        columns: dict[str, Any] = {
            "user": pl.concat([block.users.alias("user") for block in blocks]),
            "length": _joined([block.length for block in blocks]),
            "rank": rank,
            "candidates": _joined([block.candidates for block in blocks]),
        }
        events = [block.event for block in blocks if block.event is not None]
        if len(events) == len(blocks):
            columns["event"] = _joined(events)
        columns |= {name: values(name, rank, self._context.items) for name in self.names}
        self._frame = pl.DataFrame(columns)
        return self._totals(self._frame), self._frame

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Totals by quartile of history length, with `users` and the `range` of lengths."""
        if not self.options.quartiles:
            return {}
        frame = self._finished()
        found: dict[str, Mapping[str, Any]] = {}
        quartile = quartiles(frame["length"].to_numpy())
        for number, name in enumerate(QUARTILES):
            rows = frame.filter(pl.Series(quartile == number))
            if len(rows):
                lengths = rows["length"].to_numpy()
                spread = {"users": rows["user"].n_unique(), "range": [int(lengths.min()), int(lengths.max())]}
                found[name] = {**self._totals(rows), **spread}
        return found

    def counts(self) -> Mapping[str, int]:
        """Targets that needed a policy."""
        cold = sum(int(block.cold.sum()) for block in self._blocks)
        known = sum(int((block.in_history & ~block.cold).sum()) for block in self._blocks)
        impossible = int((self._finished()["rank"] > self._items()).sum())
        policy = "made impossible by the seen filter" if self.options.seen == "history" else "candidates"
        return {
            "targets": len(self._finished()),
            "cold targets (never seen in training)": cold,
            f"targets in their own history ({policy})": known,
            "targets that are no candidates (rank V + 1)": impossible,
        }

    def _totals(self, rows: pl.DataFrame) -> dict[str, float]:
        # fsum: exact, so the order of users and blocks cannot show in the last digit.
        return {name: math.fsum(rows[name].to_list()) / len(rows) for name in self.names}

    def _finished(self) -> pl.DataFrame:
        if self._frame is None:
            raise RuntimeError("`groups` and `counts` are asked for after `finish`")
        return self._frame

    def _items(self) -> int:
        return self._context.items if self._context else 0


def quartiles(lengths: Ids) -> npt.NDArray[np.int64]:
    """The quartile 0 … 3 `(n,)` of each length: how many of the 25th, 50th and 75th percentile (the smallest
    length that at least that share does not exceed) lie below it."""
    edges = np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf")
    return np.searchsorted(edges, lengths, side="left").astype(np.int64)


def _joined(pieces: list[Ids]) -> Ids:
    return np.concatenate(pieces)
