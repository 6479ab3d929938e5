"""Histories longer than what the model reads, counted: how many are cut, and how many events that takes from view.

`model.history.last` is a stated policy; this is its cost on the log at hand, for the record.
"""

from __future__ import annotations

import numpy as np

from recore.component import Context
from recore.contracts.data import SplitParts
from recore.contracts.learning import Objective
from recore.data import Ids, Interactions
from recore.recipe import Recipe


def beyond_bound(
    recipe: Recipe, context: Context, training: Interactions, parts: SplitParts
) -> dict[str, int]:
    """Counts by part, zeros included; none where the model reads whole histories. What the objective appends or
    predicts only counts as the objective says (`reach`): the last event of a training history takes no row."""
    last = recipe.facts.history
    if not isinstance(last, int) or recipe.objective is None:
        return {}
    objective: Objective = context.build(recipe.objective)
    train, query = objective.reach(last)
    lengths: dict[str, tuple[Ids, int]] = {
        "validation": (parts.validation.stop - parts.validation.start, query),
        "test": (parts.test.stop - parts.test.start, query),
    }
    if not recipe.facts.whole_histories:  # a batcher that cuts histories itself loses no event
        lengths = {"training": (np.diff(training.offsets()), train), **lengths}
    counts = {}
    for part, (length, reach) in lengths.items():
        counts[f"{part} histories longer than the last {reach} events, which are read"] = int(
            (length > reach).sum()
        )
        counts[f"events that {part} histories lose from view by that"] = int((length - reach).clip(0).sum())
    return counts
