"""The smallest sound evaluator."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl
from attrs import field, frozen

from recore.component import Context, option
from recore.contracts.scoring import Block, Evaluation, Wants


@frozen
class Hits:
    """Hit rate and NDCG at `k`, with one target a row:

        HR@k = [rank ≤ k],  NDCG@k = [rank ≤ k] / log2(1 + rank)

    A target that is no candidate (rank V + 1) is a miss at every k.
    """

    k: int = option(10, help="Length of the list that counts.")


@frozen(eq=False)
class TinyEvaluator:
    """Implements `recore.contracts.Evaluator`, in plain Python."""

    k: int
    _told: list[Evaluation] = field(factory=list)
    _rows: list[dict[str, object]] = field(factory=list)

    @property
    def wants(self) -> Wants:
        """No lists are read; seen items are no candidates."""
        return Wants(k=self.k, seen="history")

    @property
    def formulas(self) -> Mapping[str, str]:
        """By metric."""
        return {f"hr@{self.k}": "[rank ≤ k]", f"ndcg@{self.k}": "[rank ≤ k] / log2(1 + rank)"}

    def start(self, context: Evaluation) -> None:
        """Forgets what was there."""
        self._told[:] = [context]
        self._rows.clear()

    def update(self, block: Block) -> None:
        """A row per query and target."""
        users, lengths = block.users.to_list(), block.length.tolist()
        for user, rank, length in zip(users, block.rank.tolist(), lengths, strict=True):
            hit = rank <= min(self.k, self._told[0].items)
            gain = 1 / math.log2(1 + rank) if hit else 0.0
            row = {f"hr@{self.k}": float(hit), f"ndcg@{self.k}": gain}
            self._rows.append({"user": user, "length": length, **row})

    def finish(self) -> tuple[Mapping[str, float], pl.DataFrame]:
        """Means of the columns."""
        frame = pl.DataFrame(self._rows)
        return {name: math.fsum(frame[name]) / len(frame) for name in self.formulas}, frame


def evaluator(options: Hits, context: Context) -> TinyEvaluator:
    """Factory."""
    return TinyEvaluator(options.k)
