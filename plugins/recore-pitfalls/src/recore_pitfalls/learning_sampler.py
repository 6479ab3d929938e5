"""Samplers that draw padding, draw what they say they exclude, and report the probability of one draw.

Legend: `N` predictions, `K` negatives, `V` items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from recore import Context
from recore.contracts import Negatives, Sampler, StepModel
from recore.ragged import Batch
from recore_pitfalls.learning_loss import refuse
from recore_pitfalls.learning_options import AroundSampler, LogQOfOneDraw, OwnItemsDrawn, PaddingDrawn


class Around:
    """`inner`: the sound sampler."""

    def __init__(self, options: AroundSampler, context: Context) -> None:
        self.inner: Sampler = context.build(options.sampler)

    def draw(self, batch: Batch, model: StepModel, generator: torch.Generator) -> Negatives:
        """The sound sampler's."""
        return self.inner.draw(batch, model, generator)

    def log_q(self, batch: Batch, items: Tensor) -> Tensor:
        """The sound sampler's."""
        return self.inner.log_q(batch, items)

    def observe(self, batch: Batch, model: StepModel) -> None:
        """As the sound sampler does."""
        self.inner.observe(batch, model)

    def state_dict(self) -> Mapping[str, Any]:
        """The sound sampler's."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The sound sampler's."""
        self.inner.load_state_dict(state)


class PaddingDrawnSampler(Around):
    """One draw in V + 1 is padding."""

    def __init__(self, options: PaddingDrawn, context: Context) -> None:
        super().__init__(options, context)
        items = context.facts.items if context.tokenizer is None else context.tokenizer.items
        if items is None:
            raise ValueError("sampler 'padding-drawn' is built when the number of items is known")
        self.items, self.form = items, options.form

    def draw(self, batch: Batch, model: StepModel, generator: torch.Generator) -> Negatives:
        """Padding in place of some draws."""
        drawn = super().draw(batch, model, generator)
        padding = torch.randint(self.items + 1, drawn.items.shape, generator=generator) == self.items
        padding = padding.to(drawn.items.device)
        if self.form == "id":
            return evolve(drawn, items=drawn.items.masked_fill(padding, self.items))
        rows = len(batch.targets) if batch.targets is not None else 0
        kept = ~padding.expand(rows, padding.shape[-1])
        return evolve(drawn, keep=kept if drawn.keep is None else kept & drawn.keep)

    def log_q(self, batch: Batch, items: Tensor) -> Tensor:
        """As if padding were never drawn."""
        return super().log_q(batch, items.clamp(max=self.items - 1))


class LogQOfOneDrawSampler(Around):
    """log K is missing."""

    def __init__(self, options: LogQOfOneDraw, context: Context) -> None:
        super().__init__(options, context)
        self.count = int(options.sampler.options.count)

    def draw(self, batch: Batch, model: StepModel, generator: torch.Generator) -> Negatives:
        """The sound draws."""
        drawn = super().draw(batch, model, generator)
        own = drawn.log_q_target
        return evolve(
            drawn,
            log_q=None if drawn.log_q is None else drawn.log_q - math.log(self.count),
            log_q_target=None if own is None else own - math.log(self.count),
        )

    def log_q(self, batch: Batch, items: Tensor) -> Tensor:
        """Of one draw."""
        return super().log_q(batch, items) - math.log(self.count)


def padding_drawn(options: PaddingDrawn, context: Context) -> PaddingDrawnSampler:
    """Factory."""
    return PaddingDrawnSampler(options, context)


def own_items_drawn(options: OwnItemsDrawn, context: Context) -> Around:
    """Factory: the sound sampler as it is; the mistake is what is said of it. Raises RecipeError around one that
    excludes."""
    refuse(options.problems(context.facts), context)
    return Around(options, context)


def log_q_of_one_draw(options: LogQOfOneDraw, context: Context) -> LogQOfOneDrawSampler:
    """Factory. Raises RecipeError around a sampler without an exact log_q."""
    refuse(options.problems(context.facts), context)
    return LogQOfOneDrawSampler(options, context)
