"""A model taken up to its first step and no further: what a batch holds and how large the questions are.

The batches are those of a run: drawn by the recipe's own parts, and looked at instead of learned from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from attrs import define, evolve, field, frozen
from torch import nn

from recore.component import Facts, Part
from recore.contracts.learning import Training
from recore.contracts.scoring import Model, Scorer
from recore.costs import Load
from recore.engine.drive import Fit, Stateful
from recore.engine.evaluate import Examination
from recore.engine.prepare import Prepared
from recore.engine.scored import QUERIES_AT_ONCE, SCORES_AT_ONCE
from recore.plugins import Plugins
from recore.ragged import Batch, Layout
from recore.recipe import make_builder
from recore.sequential import EVENTS_AT_ONCE

DRAWING = 0.5  # seconds of drawing batches to look at


class _Ready(Exception):
    """Training would begin now."""

    def __init__(self, training: Training, scorer: Scorer) -> None:
        super().__init__("training would begin now")
        self.training, self.scorer = training, scorer


@define
class _Trial(Fit):
    """What a model is given to be fitted, except that no step is taken."""

    def drive(self, training: Training, states: Mapping[str, Stateful], scorer: Scorer, model: Model) -> Path:
        raise _Ready(training, scorer)


class _Recording:
    """Plugins whose factories note what they built for which part."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self.built: dict[int, Any] = {}

    def factory(self, part: Part[Any]) -> Callable[..., Any]:
        make = self._plugins.factory(part)

        def noted(options: Any, context: Any) -> Any:
            self.built[id(part)] = made = make(options, context)
            return made

        return noted


@frozen
class Trial:
    """A recipe ready for its first step: the `model`, what drives it (None: nothing trains by steps), its `scorer`,
    the `validation` questions, and what was `built` for each part, by `id(part)`."""

    prepared: Prepared
    model: Model
    training: Training | None
    scorer: Scorer | None
    validation: Examination | None
    built: Mapping[int, Any]

    def matrices(self, part: Part[Any]) -> list[tuple[int, ...]]:
        """The shapes of the trained tensors of a part, without those of the parts within it."""
        module = self.built.get(id(part))
        if not isinstance(module, nn.Module):
            return []
        inner = [self.built.get(id(one)) for one in part.parts()]
        theirs = {id(p) for one in inner if isinstance(one, nn.Module) for p in one.parameters()}
        return [tuple(p.shape) for p in module.parameters() if p.requires_grad and id(p) not in theirs]


def trial(prepared: Prepared) -> Trial:
    """Build what a run builds and stop before its first step."""
    recording = _Recording(prepared.recipe.plugins)
    prepared.context = evolve(prepared.context, builder=make_builder(cast(Plugins, recording)))
    model = prepared.model()
    validation = prepared.examination("validation") if len(prepared.parts.validation) else None
    fit = _Trial(
        recipe=prepared.recipe,
        context=prepared.context,
        machine=prepared.machine,
        validation=validation,
        evaluators=prepared.evaluators,
        trainer=prepared.trainer,
    )
    training, scorer = None, None
    if prepared.trainer is not None:
        try:
            model.fit(prepared.log, prepared.parts, fit)
        except _Ready as ready:
            training, scorer = ready.training, ready.scorer
    return Trial(prepared, model, training, scorer, validation, recording.built)


@define
class Drawn:
    """What the batches of an epoch hold: `count` of them; `mean` and `largest` sizes by view; `lengths` of as many
    sequences as one of them has, such as all of them together have, and the `layout` of one; `seconds` of the
    processor to draw one; `first` what the first takes beyond that."""

    count: int
    mean: dict[str, Load] = field(factory=dict)
    largest: dict[str, Load] = field(factory=dict)
    lengths: dict[str, list[int]] = field(factory=dict)
    layout: dict[str, Layout] = field(factory=dict)
    seconds: float = 0.0
    first: float = 0.0


def drawn(training: Training, number: int) -> Drawn:
    """Draw batches of the first epoch for half a second, evenly spread over it, the first one apart; `number`:
    bytes of a float."""
    begun = time.thread_time()
    count = training.batches(0)
    found = Drawn(count)
    if count < 1:
        return found
    batches = [training.draw(0, 0)]
    found.first = time.thread_time() - begun
    begun = time.thread_time()
    for place in _spread(count):
        batches.append(training.draw(0, place))
        if time.thread_time() - begun > DRAWING:
            break
    found.seconds = (time.thread_time() - begun) / (len(batches) - 1)
    found.first = max(0.0, found.first - found.seconds)
    sizes = list(training.parameters.values())
    whole = Load(parameters=sum(p.numel() for p in sizes), tensors=len(sizes), number=number)
    by_view: dict[str, list[Load]] = {}
    for step in batches[1:]:
        for name, load in _loads(step, whole).items():
            by_view.setdefault(name, []).append(load)
    for name, loads in by_view.items():
        found.mean[name] = _mean(loads, len(batches) - 1)
        found.largest[name] = max(loads, key=lambda load: load.cells)
    together: dict[str, list[int]] = {}
    for step in batches[1:]:
        for batch in step:
            for name, view in batch.views.items():
                together.setdefault(name, []).extend(view.lengths.tolist())
                found.layout[name] = view.layout
    for name, lengths in together.items():
        found.lengths[name] = _thinned(lengths, len(batches) - 1)
    return found


def _thinned(lengths: list[int], by: int) -> list[int]:
    """One in `by`, evenly spread from shortest to longest, in another order: a batch may hold one length only."""
    some = sorted(lengths)[by // 2 :: by] or lengths[:1]
    return [some[place] for place in _spread(len(some))]


def _spread(count: int) -> list[int]:
    """Each of 0 … count − 1 once, any beginning of which is spread over them all."""
    stride = next(n for n in range(max(1, round(count * 0.618)), 0, -1) if math.gcd(n, count) == 1)
    return [(number * stride) % count for number in range(count)]


def _loads(step: Sequence[Batch], whole: Load) -> dict[str, Load]:
    """The sizes of one step by view."""
    found: dict[str, Load] = {}
    for batch in step:
        for name, view in batch.views.items():
            there = found.get(name, evolve(whole, view=name))
            targets = batch.targets
            own = targets is not None and targets.view == name
            padded = view.layout.padding != "none"
            cells = len(view) * view.layout.columns(view.offsets) if padded else view.events
            predictions = len(targets) if targets is not None and own else 0
            found[name] = evolve(
                there,
                events=there.events + view.events,
                sequences=there.sequences + len(view),
                asked=there.asked + min(predictions, view.events),
                cells=there.cells + cells,
                predictions=there.predictions + predictions,
            )
    return found


def _mean(loads: Sequence[Load], steps: int) -> Load:
    """The mean over `steps`, of which not all need to have this view."""
    keys = ("events", "sequences", "asked", "cells", "predictions")
    return evolve(loads[0], **{key: sum(getattr(load, key) for load in loads) / steps for key in keys})


@frozen
class Questions:
    """The questions of one part in one view: `queries` against `items`, read `batches` times by the encoder in
    batches of `load`, the `largest` of them; `block` queries are scored together; `lengths` of one batch."""

    queries: int
    items: int
    block: int
    batches: float
    load: Load
    largest: Load
    lengths: list[int]
    layout: Layout


def questions(
    of: Examination, facts: Facts, whole: Load, layout: Layout, lengths: np.ndarray[Any, Any]
) -> Questions:
    """The questions of an examination, whose histories of `lengths (n,)` are cut as the model cuts them."""
    items, count = max(facts.items or of.items, 1), len(of.queries)
    added = facts.appended or 0
    read = lengths if facts.history in (None, "all") else np.minimum(lengths, int(facts.history or 0) - added)
    read = read + added
    block = min(max(1, SCORES_AT_ONCE // items), max(count, 1))
    blocks = -(-count // min(max(block, QUERIES_AT_ONCE), max(count, 1)))  # encoded together
    total = float(read.sum())
    batches = max(1.0, blocks * math.ceil(total / max(blocks, 1) / EVENTS_AT_ONCE))
    wide = layout.padding != "none" and layout.width is not None

    def load(events: float, sequences: float) -> Load:
        return evolve(
            whole,
            events=events,
            sequences=sequences,
            asked=sequences,
            cells=sequences * (layout.width or 0) if wide else events,
            predictions=sequences,
            training=False,
        )

    sample = np.sort(read)[:: max(1, round(total / EVENTS_AT_ONCE))]
    mean = load(total / batches, count / batches)
    largest = load(min(total, float(EVENTS_AT_ONCE), total / max(blocks, 1) * 1.1), count / batches)
    return Questions(count, items, block, batches, mean, largest, sample.tolist(), layout)
