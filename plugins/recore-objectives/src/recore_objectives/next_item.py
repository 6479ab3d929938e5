"""Next-item prediction: inputs, targets and queries from histories, without a loop over them.

Legend: `T` events of the histories, `B` sequences, `N` predictions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recore.component import Context
from recore.ragged import Targets, View
from recore_objectives.options import NextItem


class NextItemObjective:
    """Implements `recore.contracts.Objective`; see `recore_objectives.options.NextItem` for the formula."""

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


def build(options: NextItem, context: Context) -> NextItemObjective:
    """Factory."""
    return NextItemObjective()
