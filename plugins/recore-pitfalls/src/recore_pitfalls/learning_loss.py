"""Losses with a class for padding, a mean for a sum, and log_q with the wrong sign.

Legend: `N` predictions, `V` items, `d` width.
"""

from __future__ import annotations

import torch
from attrs import evolve
from torch import Tensor

from recore import Context, Problem, RecipeError
from recore.contracts import Loss, LossValue, Negatives, Table
from recore.ragged import Targets
from recore_pitfalls.learning_options import AroundLoss, LogQAdded, MeanOfBatch, PaddingClass


class Around:
    """`inner`: the sound loss."""

    def __init__(self, options: AroundLoss, context: Context) -> None:
        self.inner: Loss = context.build(options.loss)

    def weight(self, targets: Targets) -> Tensor:
        """The sound loss's."""
        return self.inner.weight(targets)

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """The sound loss's."""
        return self.inner.loss(hidden, targets, table, negatives)


class PaddingClassLoss(Around):
    """One more row."""

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """Over V + 1 rows, the last of them zero."""
        weight = torch.cat([table.weight, torch.zeros_like(table.weight[:1])])
        bias = None if table.bias is None else torch.cat([table.bias, torch.zeros_like(table.bias[:1])])
        retired = table.retired
        if retired is not None:
            retired = torch.cat([retired, torch.zeros_like(retired[:1])])
        return super().loss(hidden, targets, Table(weight, bias, retired), negatives)


class MeanOfBatchLoss(Around):
    """Whatever the weights, the weight of a batch is one."""

    def weight(self, targets: Targets) -> Tensor:
        """1, or 0 where nothing weighs."""
        return (super().weight(targets) > 0).to(targets.weight.dtype)

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """The mean over predictions."""
        value = super().loss(hidden, targets, table, negatives)
        held = torch.where(value.weight > 0, value.weight, torch.ones_like(value.weight))
        return evolve(value, total=value.total / held, weight=self.weight(targets))


class LogQAddedLoss(Around):
    """score + log_q."""

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """With the sign of log_q turned."""
        if negatives is not None:
            log_q, own = negatives.log_q, negatives.log_q_target
            if own is not None:
                own = torch.where(own.isinf(), own, -own)  # −inf says that targets are never drawn
            negatives = evolve(negatives, log_q=None if log_q is None else -log_q, log_q_target=own)
        return super().loss(hidden, targets, table, negatives)


def padding_class(options: PaddingClass, context: Context) -> PaddingClassLoss:
    """Factory. Raises RecipeError around a loss that scores draws only."""
    refuse(options.problems(context.facts), context)
    return PaddingClassLoss(options, context)


def mean_of_batch(options: MeanOfBatch, context: Context) -> MeanOfBatchLoss:
    """Factory."""
    return MeanOfBatchLoss(options, context)


def log_q_added(options: LogQAdded, context: Context) -> LogQAddedLoss:
    """Factory. Raises RecipeError around a loss that does not correct."""
    refuse(options.problems(context.facts), context)
    return LogQAddedLoss(options, context)


def refuse(problems: list[str], context: Context) -> None:
    """Raises RecipeError with what stands against a part."""
    if problems:
        raise RecipeError([Problem(text, path=context.path) for text in problems])
