"""Next-user prediction: inputs, targets and queries from the users of items, without a loop over them.

Legend: `T` events of the histories (an item's users), `B` items, `N` predictions, `m` users of a set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recore import Context
from recore.ragged import Targets, View, offsets_of
from recore_duality.options import NextUser

VIEW = "item"


def build(options: NextUser, context: Context) -> Sequence | Set:
    """A sequence, or where nothing orders events across users, a set."""
    if context.facts.order_across_users is False:
        most = context.facts.history
        return Set(most if isinstance(most, int) else None)
    return Sequence()


class _Asked:
    """What both forms share."""

    def reach(self, width: int) -> tuple[int, int]:
        """`(width + 1, width)`: one event is the target and takes no row."""
        return width + 1, width

    def query(self, histories: View) -> tuple[View, Tensor]:
        """The users as they are, and the last rows `(B,)`. Raises ValueError for an item without users."""
        if len(histories) and int(histories.lengths.min()) < 1:
            empty = int((histories.lengths < 1).sum())
            raise ValueError(
                f"next-user: {empty} of {len(histories)} items in a query have no users, expected at least one "
                "each: there is no row to ask from (leave them out and answer for them apart)"
            )
        return histories, histories.last


class Sequence(_Asked):
    """Implements `recore.contracts.Objective`; see `recore_duality.options.NextUser`."""

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """Inputs `(T − B, …)`: all events but the last of each item. Targets `(N,)`, in the order of their
        events, with the times of these where the batch has times. Draws nothing."""
        first, stop = histories.offsets[:-1], histories.offsets[1:]
        inputs = histories.cut(first, torch.maximum(first, stop - 1), histories.index)
        place, sequence = histories.place, histories.sequence
        # Before the event at `place` stand so many events of a strictly earlier time.
        earlier = _strictly_earlier(histories) if "time" in histories.columns else place
        wanted = (histories["item"] >= 0) & (earlier > 0)
        if target_from is not None:
            wanted &= place >= target_from[sequence]
        rows = wanted.nonzero().squeeze(-1)
        where = inputs.offsets[:-1][sequence[rows]] + earlier[rows] - 1
        time = histories["time"][rows] if "time" in histories.columns else None
        weight = torch.ones(len(rows), device=rows.device)
        return inputs, Targets(where, histories["item"][rows], weight, VIEW, time)


def _strictly_earlier(view: View) -> Tensor:
    """For each event `(T,)` how many of its sequence are earlier; times do not fall within a sequence."""
    time = view["time"]
    begins = torch.ones(view.events, dtype=torch.bool, device=time.device)
    begins[1:] = (time[1:] != time[:-1]) | (view.sequence[1:] != view.sequence[:-1])
    run = begins.cumsum(0) - 1  # events of one time in one sequence are a run
    return view.place[begins.nonzero().squeeze(-1)][run]


class Set(_Asked):
    """The same of sets: one user, drawn, is predicted from `most` others, drawn (None: from all)."""

    def __init__(self, most: int | None) -> None:
        self.most = most

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """Inputs: of each item at most `most` users in drawn order, none of them its target. Targets `(N,)`: one
        for each item of two users or more that may have one, predicted from its last row."""
        device, sequence = histories.offsets.device, histories.sequence

        def random() -> Tensor:
            return torch.rand(histories.events, generator=generator, dtype=torch.float64).to(device)

        may = histories["item"] >= 0
        if target_from is not None:
            may &= histories.place >= target_from[sequence]
        # A random order within each item; the first of those that may be a target is it.
        draws = random()
        order = torch.argsort(sequence + torch.where(may, draws, draws + 1) / 2)
        first = histories.offsets[:-1]
        sizes = histories.lengths
        has = torch.zeros(len(histories), dtype=torch.bool, device=device)
        has[sequence[may]] = True
        has &= sizes > 1
        if not bool(may.all()):
            # The others are drawn from all that are left, whether they may be a target or not.
            key = 1 + random()
            key[order[first[has]]] = 0
            order = torch.argsort(sequence + key / 2)
        others = (sizes - 1).clamp(min=0) if self.most is None else (sizes - 1).clamp(min=0, max=self.most)
        others = torch.where(has, others, torch.zeros_like(others))
        offsets = offsets_of(others)
        chosen = torch.repeat_interleave(first + 1 - offsets[:-1], others) + torch.arange(
            int(offsets[-1]), device=device
        )
        inputs = histories.take(order[chosen], offsets, histories.index)
        target = order[first[has]]
        weight = torch.ones(len(target), device=device)
        return inputs, Targets(offsets[1:][has] - 1, histories["item"][target], weight, VIEW)
