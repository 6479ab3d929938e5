"""Transforms: which events stay. The order of those that do, and their ids, never change.

Each builds a mask over the rows and counts what it drops by reason; none leaves a log empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import numpy as np
import polars as pl
from attrs import frozen

from recore import Context, DataError, Problem
from recore.contracts import Dropped
from recore.data import Interactions
from recore_data.options import CollapseRepeats, KCore, RatingAtLeast, Since

Keep = Callable[[pl.DataFrame], tuple[pl.Series, Mapping[str, int]]]


@frozen(eq=False)
class Filter:
    """A transform that keeps some rows. `keep` gives which `(n,)`, and counts by reason besides the events."""

    name: str
    keep: Keep
    remedy: str

    def apply(self, interactions: Interactions) -> tuple[Interactions, Dropped]:
        """Raises DataError when nothing would be left, or a column is missing."""
        mask, reasons = self.keep(interactions.events)
        rows = mask.to_numpy().nonzero()[0].astype(np.int64)
        if not len(rows):
            raise DataError(
                Problem(f"{self.name} leaves none of {len(interactions)} events", hint=self.remedy)
            )
        kept = interactions if len(rows) == len(interactions) else interactions.rows(rows)
        return kept, Dropped({"events": len(interactions) - len(rows), **reasons})


# ---- k-core ----------------------------------------------------------------------------------------------


def k_core(options: KCore, context: Context) -> Filter:
    """Users and items with enough events among each other."""

    def keep(events: pl.DataFrame) -> tuple[pl.Series, Mapping[str, int]]:
        left = events.select("user", "item", row=pl.int_range(pl.len()))
        height = -1
        while left.height != height:
            height = left.height
            for key, least in (("user", options.users), ("item", options.items)):
                left = left.filter(pl.len().over(key) >= least)
        mask = np.zeros(events.height, dtype=np.bool_)
        mask[left["row"].to_numpy()] = True
        return pl.Series(mask), {
            f"{key}s under {least} events": events[key].n_unique() - left[key].n_unique()
            for key, least in (("user", options.users), ("item", options.items))
        }

    return Filter(f"k-core (users {options.users}, items {options.items})", keep, "lower the thresholds")


# ---- rating-at-least -------------------------------------------------------------------------------------


def rating_at_least(options: RatingAtLeast, context: Context) -> Filter:
    """Events with a rating that reaches the threshold."""

    def keep(events: pl.DataFrame) -> tuple[pl.Series, Mapping[str, int]]:
        rating = _column(events, "rating", "rating-at-least")
        mask = (rating >= options.least).fill_null(False)
        return mask, _lost(events, mask)

    return Filter(f"rating-at-least ({options.least})", keep, "lower the threshold")


# ---- since -----------------------------------------------------------------------------------------------


def since(options: Since, context: Context) -> Filter:
    """Events at or after a time."""
    first = options.time if options.date is None else _date(options.date)
    assert first is not None  # the options have one of the two

    def keep(events: pl.DataFrame) -> tuple[pl.Series, Mapping[str, int]]:
        mask = _column(events, "time", "since") >= first
        return mask, _lost(events, mask)

    return Filter(f"since ({options.date or options.time})", keep, "give an earlier time")


def _date(text: str) -> float:
    """Seconds since 1970 of a date, UTC where it names no zone."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# ---- collapse-repeats ------------------------------------------------------------------------------------


def collapse_repeats(options: CollapseRepeats, context: Context) -> Filter:
    """The first event of each run of one item within a user's history."""

    def keep(events: pl.DataFrame) -> tuple[pl.Series, Mapping[str, int]]:
        run = events.select(pl.struct("user", "item").rle_id()).to_series()
        return run.diff().fill_null(1) != 0, {}

    return Filter("collapse-repeats", keep, "")


def _column(events: pl.DataFrame, name: str, part: str) -> pl.Series:
    if name not in events.columns:
        raise DataError(
            f"transform {part!r} needs the column {name!r}, but the log has {', '.join(events.columns)}"
        )
    return events[name]


def _lost(events: pl.DataFrame, mask: pl.Series) -> Mapping[str, int]:
    """Users and items that have no event left."""
    left = events.filter(mask)
    return {
        f"{key}s with no event left": events[key].n_unique() - left[key].n_unique()
        for key in ("user", "item")
    }
