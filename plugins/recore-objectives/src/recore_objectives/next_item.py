"""Next-item prediction: inputs, targets and queries from histories, without a loop over them.

Legend: `T` events of the histories, `B` sequences, `N` predictions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recore.component import Context
from recore.ragged import Targets, View
from recore_objectives.options import NextItem


class NextItemObjective:
    """Implements `recore.contracts.Objective`; see `recore_objectives.options.NextItem` for the formula.

    `known`: α, and `scale`: log V, of the weights."""

    def __init__(self, known: float = 0.0, scale: float = 1.0) -> None:
        self.known, self.scale = known, scale

    def reach(self, width: int) -> tuple[int, int]:
        """`(width + 1, width)`: the last event of a training history is only a target and takes no row."""
        return width + 1, width

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """Inputs `(T − B, …)` (a history of no events gives none) and targets `(N,)`, in the order of the rows
        that predict them. Targets carry the time of the event to be predicted where the log has times.

        Draws nothing: `generator` is left alone.
        """
        first, stop = histories.offsets[:-1], histories.offsets[1:]
        inputs = histories.cut(first, torch.maximum(first, stop - 1), histories.index)
        # The event after input row i of sequence b stands at row first[b] + place[i] + 1 of the histories.
        place = inputs.place + 1
        after = place + first[inputs.sequence]
        item = histories["item"][after]
        wanted = item >= 0
        if target_from is not None:
            wanted &= place >= target_from[inputs.sequence]
        where = wanted.nonzero().squeeze(-1)
        time = histories["time"][after[where]] if "time" in histories.columns else None
        weight = torch.ones(len(where), device=where.device)
        if self.known and len(where):
            others = _of_others(histories["surprise"], histories.sequence, len(histories))
            weight = weights_of(-self.known / self.scale * others[after[where]]).to(weight.dtype)
        return inputs, Targets(where, item[where], weight, time=time)

    def query(self, histories: View) -> tuple[View, Tensor]:
        """The histories as they are, and their last rows `(B,)`. Raises ValueError for an empty history."""
        if len(histories) and int(histories.lengths.min()) < 1:
            empty = int((histories.lengths < 1).sum())
            raise ValueError(
                f"next-item: {empty} of {len(histories)} histories in a query are empty, expected at least one "
                "event each: there is no row to ask from (leave them out and answer for them apart)"
            )
        return histories, histories.last


def _of_others(column: Tensor, sequence: Tensor, count: int) -> Tensor:
    """For each event the mean of the column over the other events of its sequence that have one, `(T,)`; NaN
    where there are none."""
    told = column.isfinite()
    value = column.masked_fill(~told, 0).double()
    sums = value.new_zeros(count).index_add_(0, sequence, value)
    counts = value.new_zeros(count).index_add_(0, sequence, told.double())
    return (sums[sequence] - value) / (counts[sequence] - told.double())


def weights_of(logits: Tensor) -> Tensor:
    """`(N,)` weights of mean one, proportional to exp(logits); those that are NaN weigh one."""
    told = logits.isfinite()
    weight = torch.ones_like(logits)
    if told.any():
        weight[told] = torch.softmax(logits[told], 0) * told.sum()
    return weight


def build(options: NextItem, context: Context) -> NextItemObjective:
    """Factory."""
    return NextItemObjective(options.known, math.log(max(context.facts.items or 2, 2)))
