"""The log and its tables as polars frames, in the data's own ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recore_world.activity import BEGINNING, DAY
from recore_world.draws import Ints
from recore_world.simulate import Step
from recore_world.titles import titles, topic_names

if TYPE_CHECKING:
    from recore_world.world import World


def named(letter: str, numbers: Ints) -> pl.Series:
    """ "u17" for user 17."""
    return pl.select(pl.format(letter + "{}", pl.Series(numbers))).to_series()


class Log:
    """Gathers the events of `users (n,)` from a walk with exactly these users."""

    def __init__(self, world: World, users: Ints, steps: int | None = None) -> None:
        self.world, self.users = world, users
        self.counts = world.counts[users] if steps is None else np.minimum(world.counts[users], steps)
        self.first = np.cumsum(self.counts) - self.counts
        total = int(self.counts.sum())
        self.item, self.time = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
        self.propensity = np.empty(total)

    def add(self, step: Step) -> None:
        """Take over one step."""
        rows = self.first[step.index] + step.state.m
        self.item[rows], self.time[rows] = step.item, step.state.time
        if self.world.options.propensities:
            q = self.world.exposure.probability(step.state, step.item[:, None])
            self.propensity[rows] = q[:, 0]

    def frame(self) -> pl.DataFrame:
        """The events, grouped by user in the order given, in order within each."""
        counts, total = self.counts, len(self.item)
        place = np.arange(total) - np.repeat(self.first, counts)
        frame = pl.DataFrame(
            {
                "event": np.repeat(self.world.offsets[self.users], counts) + place,
                "user": named("u", np.repeat(self.users, counts)),
                "item": named("i", self.item),
                "time": self.time,
                "creator": named("u", self.world.catalogue.creator[self.item]),
            }
        )
        if self.world.options.propensities:
            frame = frame.with_columns(pl.Series("propensity", self.propensity))
        return frame


def exposures(world: World, step: Step) -> pl.DataFrame:
    """One step's slates, a row for each slot."""
    n, slots = step.slate.shape
    slot = np.tile(np.arange(slots), n)
    return pl.DataFrame(
        {
            "event": np.repeat(world.offsets[step.state.user] + step.state.m, slots),
            "slot": slot,
            "item": named("i", step.slate.reshape(-1)),
            "propensity": world.exposure.probability(step.state, step.slate).reshape(-1),
            "chosen": slot == np.repeat(step.slot, slots),
        }
    )


def items(world: World) -> pl.DataFrame:
    """`item`, `title`, `topic`, `creator`, `born`, `retired`."""
    catalogue, options = world.catalogue, world.options
    retired = pl.Series(BEGINNING + catalogue.retired * DAY)
    return pl.DataFrame(
        {
            "item": named("i", np.arange(len(catalogue))),
            "title": titles(catalogue.topic, catalogue.number, options.topics),
            "topic": np.array(topic_names(options.topics))[catalogue.topic],
            "creator": named("u", catalogue.creator),
            "born": BEGINNING + catalogue.born * DAY,
            "retired": retired.set(pl.Series(catalogue.retired >= options.days), None),
        }
    )


def users(world: World) -> pl.DataFrame:
    """`user`, `made`."""
    numbers = np.arange(world.options.users)
    made = np.bincount(world.catalogue.creator, minlength=world.options.users)
    return pl.DataFrame({"user": named("u", numbers), "made": made})
