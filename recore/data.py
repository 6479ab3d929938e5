"""Interactions: a log as polars frames, grouped by user and ordered within each, with its provenance.

Ids are kept as the data gives them. The order of events is fixed here, once, by a stated policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from attrs import evolve, field, frozen

from recore.errors import DataError, Problem

Ids = npt.NDArray[np.int64]
Ties = Literal["file", "hash"]


@frozen(eq=False)
class Interactions:
    """A log.

    Args:
        events: one row per event: `event` (a stable row id), `user`, `item`, and optional `time`, `creator`,
            `rating`, `propensity`, …; grouped by user (in order of first appearance), ordered within a user.
        items, users: optional tables with a column `item` or `user` and whatever is known of each
            (`title`, `creator`, features).
        ties: how equal times were broken: `file` (order of the rows) or `hash` (of the row's content: any
            order of the rows gives the same histories).
        order_across_users: whether times order events of different users. A log without times, grouped by
            user, has no such order.
        counts: what was seen and dropped while reading, by reason; goes on the record.
        source: what it was read from, in words.
    """

    events: pl.DataFrame
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    ties: Ties = "file"
    order_across_users: bool = False
    counts: Mapping[str, int] = field(factory=dict)
    source: str = ""

    @classmethod
    def from_frame(
        cls,
        events: pl.DataFrame,
        *,
        items: pl.DataFrame | None = None,
        users: pl.DataFrame | None = None,
        ties: Ties = "file",
        order_across_users: bool | None = None,
        counts: Mapping[str, int] | None = None,
        source: str = "",
    ) -> Interactions:
        """Order a frame with `user`, `item` and perhaps `time` (integer or float). Rows get `event` ids by
        their place unless they have some. Without `time` the order of the rows is the order of events.

        Raises DataError for missing columns, missing values, times that are not numbers.
        """
        _check(events)
        if "event" not in events.columns:
            events = events.with_row_index("event").with_columns(pl.col("event").cast(pl.Int64))
        timed = "time" in events.columns
        first = pl.int_range(pl.len()).min().over("user").alias("_first")
        keys = ["_first"] + (["time"] if timed else [])
        events = events.with_columns(first)
        if timed and ties == "hash":
            events = events.with_columns(_row_hash(events))
            # The users' own order must not depend on the order of the rows either.
            events = events.with_columns(pl.col("_hash").min().over("user").alias("_first"))
            events = events.sort([*keys, "_hash"], maintain_order=True)
        else:
            events = events.sort(keys, maintain_order=True)
        found = dict(counts or {})
        if timed:
            tied = pl.struct("user", "time").is_duplicated()
            found["events whose time another of the same user has"] = events.select(tied.sum()).item()
        duplicates = events.select(pl.struct("user", "item", *(["time"] if timed else [])).is_duplicated())
        key = "events equal in user, item" + (" and time" if timed else "")
        found[key] = int(duplicates.to_series().sum())
        return cls(
            events=events.select(pl.exclude("_first", "_hash")).rechunk(),
            items=items,
            users=users,
            ties=ties,
            order_across_users=timed if order_across_users is None else order_across_users,
            counts=found,
            source=source,
        )

    def __len__(self) -> int:
        return self.events.height

    def offsets(self) -> Ids:
        """Rows at which users begin, and the number of rows at the end: `(users + 1,)`."""
        if not self.events.height:
            return np.zeros(1, dtype=np.int64)
        runs = self.events["user"].rle_id().to_numpy().astype(np.int64)
        return np.append(np.searchsorted(runs, np.arange(runs[-1] + 1)), len(runs)).astype(np.int64)

    def user_ids(self) -> pl.Series:
        """The users, in the order of their histories."""
        return self.events["user"].gather(self.offsets()[:-1])

    def rows(self, rows: Ids) -> Interactions:
        """The log of these rows only, ascending; tables and policy stay."""
        return evolve(self, events=self.events[rows])

    def summary(self) -> dict[str, Any]:
        """Counts for people and for the record."""
        lengths = np.diff(self.offsets())
        return {
            "events": len(self),
            "users": len(lengths),
            "items": self.events["item"].n_unique(),
            "shortest": int(lengths.min()) if len(lengths) else 0,
            "mean": round(float(lengths.mean()), 2) if len(lengths) else 0.0,
            "longest": int(lengths.max()) if len(lengths) else 0,
            "times": "time" in self.events.columns,
            "ties": self.ties if "time" in self.events.columns else "file",
            "order across users": "known" if self.order_across_users else "unknown",
            **self.counts,
        }

    def fingerprint(self) -> str:
        """sha256 over the ordered events and the tables: equal data, equal fingerprint, on any machine."""
        digest = hashlib.sha256()
        for label, frame in (("events", self.events), ("items", self.items), ("users", self.users)):
            if frame is None:
                continue
            for name in sorted(frame.columns):
                digest.update(f"{label}.{name}:{frame.height};".encode())
                _digest(digest, frame[name])
        return digest.hexdigest()


def _check(events: pl.DataFrame) -> None:
    problems = [
        Problem(f"the log has no column {name!r}; it has {', '.join(events.columns)}")
        for name in ("user", "item")
        if name not in events.columns
    ]
    if not problems:
        for name in ("user", "item", "time"):
            if name in events.columns and (missing := events[name].null_count()):
                problems.append(Problem(f"{missing} of {events.height} events have no {name}"))
    if "time" in events.columns and not events["time"].dtype.is_numeric():
        problems.append(Problem(f"times must be numbers, got {events['time'].dtype}"))
    elif (
        "time" in events.columns and events["time"].dtype.is_float() and not events["time"].is_finite().all()
    ):
        problems.append(Problem("some times are not finite numbers"))
    if not events.height:
        problems.append(Problem("the log holds no events"))
    if problems:
        raise DataError(problems)


def _row_hash(events: pl.DataFrame) -> pl.Series:
    """A hash of each row's content without its place, the same in every version of every library."""
    columns = [name for name in sorted(events.columns) if name not in ("event", "_first")]
    text = events.select(
        pl.concat_str([pl.col(c).cast(pl.String).fill_null("") for c in columns], separator="\x1f")
    )
    hashes = (
        int.from_bytes(hashlib.blake2b(row.encode(), digest_size=8).digest(), "little")
        for row in text.to_series()
    )
    return pl.Series("_hash", hashes, dtype=pl.UInt64)


def _digest(digest: Any, column: pl.Series) -> None:
    if column.dtype.is_integer() or column.dtype == pl.Boolean:
        digest.update(column.cast(pl.Int64).fill_null(-(2**62)).to_numpy().tobytes())
    elif column.dtype.is_float():
        digest.update(column.cast(pl.Float64).fill_null(float("nan")).to_numpy().tobytes())
    else:
        text = (
            column.cast(pl.String, strict=False)
            if column.dtype != pl.List
            else column.cast(pl.List(pl.String)).list.join("\x1e")
        )
        text = text.fill_null("\x00")
        digest.update(text.str.len_bytes().cast(pl.Int64).to_numpy().tobytes())
        digest.update("".join(text).encode())
