"""Objectives whose rows of padding predict or ask, and whose targets are shifted wrongly.

Legend: `T` input rows, `B` histories, `N` predictions, `W` rows of the longest.
"""

from __future__ import annotations

import torch
from attrs import evolve, frozen
from torch import Tensor

from recore import Context
from recore.contracts import Objective
from recore.ragged import Targets, View, offsets_of
from recore_pitfalls.learning_options import (
    AroundObjective,
    LastColumnAsked,
    PaddingPredicts,
    PredictsItself,
    ShiftedTwice,
)


@frozen(eq=False)
class Padded:
    """A view whose histories all have W rows, those of none left out. `row (T,)`: where each row went; `added (T',)`:
    whether a row is padding."""

    view: View
    row: Tensor
    added: Tensor


def padded(view: View, pad: int) -> Padded:
    """Rows of token `pad` after the last event of each history, up to the longest of the view."""
    lengths = view.lengths
    width = int(lengths.max()) if len(view) else 0
    full = torch.where(lengths > 0, width, 0)
    offsets = offsets_of(full)
    sequence = torch.repeat_interleave(torch.arange(len(view)), full)
    column = torch.arange(int(offsets[-1])) - offsets[sequence]
    added = column >= lengths[sequence]
    source = view.offsets[sequence] + torch.minimum(column, lengths[sequence] - 1)
    columns = {name: values[source] for name, values in view.columns.items()}
    for name, value in (("token", pad), ("item", -1), ("event", -1)):
        columns[name] = columns[name].clone()
        columns[name][added] = value
    return Padded(View(columns, offsets, view.layout, view.index), offsets[view.sequence] + view.place, added)


class Around:
    """`inner`: the sound objective; `pad`: the token of padding."""

    def __init__(self, options: AroundObjective, context: Context) -> None:
        self.inner: Objective = context.build(options.objective)
        specials = context.tokenizer.specials if context.tokenizer is not None else ()
        self.pad = next((special.id for special in specials if special.name == "pad"), 0)

    def reach(self, width: int) -> tuple[int, int]:
        """The sound objective's: padding reaches no further than the longest history."""
        return self.inner.reach(width)

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """The sound objective's."""
        return self.inner.training(histories, generator, target_from)

    def query(self, histories: View) -> tuple[View, Tensor]:
        """The sound objective's."""
        return self.inner.query(histories)


class PaddingPredictsObjective(Around):
    """Rows of padding predict item 0."""

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """Inputs padded to the longest; a target more for each row of padding."""
        inputs, targets = super().training(histories, generator, target_from)
        if not inputs.events:
            return inputs, targets
        wide = padded(inputs, self.pad)
        more = wide.added.nonzero().squeeze(-1)
        time = targets.time
        if time is not None:
            time = torch.cat([time, wide.view["time"][more].to(time.dtype)])
        return wide.view, Targets(
            torch.cat([wide.row[targets.where], more]),
            torch.cat([targets.id, torch.zeros_like(more)]),
            torch.cat([targets.weight, torch.ones(len(more), dtype=targets.weight.dtype)]),
            targets.view,
            time,
        )


class PredictsItselfObjective(Around):
    """Each row predicts its own item."""

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """The sound inputs, and their own items as targets."""
        inputs, targets = super().training(histories, generator, target_from)
        own = inputs["item"][targets.where]
        known = own >= 0
        return inputs, evolve(some(targets, known), id=own[known])


class ShiftedTwiceObjective(Around):
    """Each row predicts what the row after it should."""

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """The sound inputs, and each target one row earlier; the first of a history has no row."""
        inputs, targets = super().training(histories, generator, target_from)
        later = some(targets, inputs.place[targets.where] > 0)
        return inputs, evolve(later, where=later.where - 1)


class LastColumnAskedObjective(Around):
    """The last column of the rectangle asks."""

    def query(self, histories: View) -> tuple[View, Tensor]:
        """Inputs padded to the longest, and their last rows."""
        inputs, _ = super().query(histories)
        wide = padded(inputs, self.pad)
        return wide.view, wide.view.last


def some(targets: Targets, chosen: Tensor) -> Targets:
    """Of `targets (N,)` those that are chosen."""
    time = None if targets.time is None else targets.time[chosen]
    return Targets(targets.where[chosen], targets.id[chosen], targets.weight[chosen], targets.view, time)


def padding_predicts(options: PaddingPredicts, context: Context) -> PaddingPredictsObjective:
    """Factory."""
    return PaddingPredictsObjective(options, context)


def predicts_itself(options: PredictsItself, context: Context) -> PredictsItselfObjective:
    """Factory."""
    return PredictsItselfObjective(options, context)


def shifted_twice(options: ShiftedTwice, context: Context) -> ShiftedTwiceObjective:
    """Factory."""
    return ShiftedTwiceObjective(options, context)


def last_column_asked(options: LastColumnAsked, context: Context) -> LastColumnAskedObjective:
    """Factory."""
    return LastColumnAskedObjective(options, context)
