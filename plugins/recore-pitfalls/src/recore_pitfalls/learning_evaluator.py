"""Evaluators for which ties are won, and which average averages. Legend: `n` queries of a block, `V` items."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from attrs import evolve

from recore import Context
from recore.contracts import Block, Evaluation, Evaluator, Wants
from recore_pitfalls.learning_options import AroundEvaluator, MeanOfBlocks, TiesWon


class Around:
    """`inner`: the sound evaluator."""

    def __init__(self, options: AroundEvaluator, context: Context) -> None:
        self.inner: Evaluator = context.build(options.evaluator)

    @property
    def wants(self) -> Wants:
        """The sound evaluator's."""
        return self.inner.wants

    @property
    def formulas(self) -> Mapping[str, str]:
        """The sound evaluator's."""
        return self.inner.formulas

    def start(self, context: Evaluation) -> None:
        """As the sound evaluator does."""
        self.inner.start(context)

    def update(self, block: Block) -> None:
        """As the sound evaluator does."""
        self.inner.update(block)

    def finish(self) -> tuple[Mapping[str, float], pl.DataFrame]:
        """The sound evaluator's."""
        return self.inner.finish()


class TiesWonEvaluator(Around):
    """Ranks count strictly higher scores only."""

    @property
    def wants(self) -> Wants:
        """Rows of scores, to see ties."""
        return evolve(super().wants, scores=True)

    def update(self, block: Block) -> None:
        """Each rank without the items that score exactly as the target does. Raises ValueError without scores."""
        if block.scores is None:
            raise ValueError("evaluator 'ties-won' asked for scores, and the block has none")
        scores = block.scores.detach().cpu().numpy()
        ranked = (block.targets >= 0) & (block.rank <= scores.shape[1])
        own = scores[np.arange(len(scores)), np.maximum(block.targets, 0)]
        ties = (scores == own[:, None]).sum(1) - 1
        rank = np.where(ranked, np.maximum(block.rank - ties, 1), block.rank).astype(np.int64)
        super().update(evolve(block, rank=rank))


class MeanOfBlocksEvaluator(Around):
    """Each block is an evaluation of its own."""

    def start(self, context: Evaluation) -> None:
        """Forget the blocks."""
        self.context = context
        self.blocks: list[tuple[Mapping[str, float], pl.DataFrame]] = []

    def update(self, block: Block) -> None:
        """Evaluate a block."""
        self.inner.start(self.context)
        self.inner.update(block)
        self.blocks.append(self.inner.finish())

    def finish(self) -> tuple[Mapping[str, float], pl.DataFrame]:
        """The mean of the blocks' means."""
        frame = pl.concat([frame for _, frame in self.blocks])
        names = self.blocks[0][0]
        return {name: float(np.mean([totals[name] for totals, _ in self.blocks])) for name in names}, frame


def ties_won(options: TiesWon, context: Context) -> TiesWonEvaluator:
    """Factory."""
    return TiesWonEvaluator(options, context)


def mean_of_blocks(options: MeanOfBlocks, context: Context) -> MeanOfBlocksEvaluator:
    """Factory."""
    return MeanOfBlocksEvaluator(options, context)
