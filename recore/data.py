"""Interactions: a log as polars frames, grouped by user and ordered within each, with its provenance.

Ids are kept as the data gives them, integers or strings. The order of events is fixed here, once, by a stated
policy. What the digests are made of is in `recore/digest.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from attrs import evolve, field, frozen

from recore.digest import digest_frame, hash_rows
from recore.errors import DataError, Problem

Ids = npt.NDArray[np.int64]
Ties = Literal["file", "hash"]


@frozen(eq=False)
class Interactions:
    """A log.

    Args:
        events: one row per event: `event` (a stable row id), `user`, `item`, and optional `time`, `creator`,
            `rating`, `propensity`, …; grouped by user (in order of first appearance, under `hash` in order
            of their ids), ordered within a user.
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
        """Order a frame with `user`, `item` and perhaps `time` (integer or float). Without `time` the order
        of the rows is the order of events. Integer ids are held as Int64, categories as strings.

        Rows that bring no `event` ids get some: their place in the frame, or with `ties="hash"`, where the
        place must not count, their place in the result.

        Raises DataError for missing columns, missing values, ids that are neither integers nor strings,
        times that are not finite numbers, event ids that repeat, tables that do not fit the log.
        """
        problems, tables = _check(events), {"item": items, "user": users}
        for key, table in tables.items():
            problems += _check_table(table, key, events)
        if problems:
            raise DataError(problems)
        events = _canonical(events, ("user", "item", "creator", "time", "event"))
        timed = "time" in events.columns
        found = dict(counts or {})
        ordered = _by_content(events) if timed and ties == "hash" else _by_place(events)
        if timed:
            found["events whose time another of the same user has"] = int(_tied(ordered).sum())
        keys = ["user", "item", *(["time"] if timed else [])]
        repeats = ordered.group_by(keys).len().filter(pl.col("len") > 1)["len"].sum()
        found["events equal in user, item" + (" and time" if timed else "")] = int(repeats)
        return cls(
            events=ordered.rechunk(),
            items=None if items is None else _canonical(items, ("item",)),
            users=None if users is None else _canonical(users, ("user",)),
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
        runs = self.events["user"].rle_id().to_numpy()
        return np.concatenate([[0], np.flatnonzero(np.diff(runs)) + 1, [len(runs)]]).astype(np.int64)

    def user_ids(self) -> pl.Series:
        """The users, in the order of their histories."""
        return self.events["user"].gather(self.offsets()[:-1])

    def rows(self, rows: Ids) -> Interactions:
        """The log of these rows only, ascending; tables and policy stay."""
        return evolve(self, events=self.events[rows])

    def transposed(self) -> Interactions:
        """The same events seen from the other side: users and items change places. Each item's events are in
        order of time; equal times, and all events where there are no times, in the order of this log, which
        across users says nothing (`recore.timeline` treats ties as unordered)."""
        swapped = {"user": "item", "item": "user"}
        return Interactions(
            events=_by_place(self.events.rename(swapped)).rechunk(),
            items=None if self.users is None else self.users.rename({"user": "item"}),
            users=None if self.items is None else self.items.rename({"item": "user"}),
            ties=self.ties,
            order_across_users=self.order_across_users,
            source=self.source,
        )

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
            if frame is not None:
                digest_frame(digest, label, frame)
        return digest.hexdigest()


# ---- order -----------------------------------------------------------------------------------------------


def _by_place(events: pl.DataFrame) -> pl.DataFrame:
    """Users in order of first appearance; within a user by time, equal times by place (a stable sort)."""
    events = events.with_row_index("_row").with_columns(pl.col("_row").min().over("user").alias("_first"))
    if "event" not in events.columns:
        events = events.with_columns(pl.col("_row").cast(pl.Int64).alias("event"))
    keys = ["_first", *(["time"] if "time" in events.columns else []), "_row"]
    return _columns_first(events.sort(keys).drop("_row", "_first"))


def _by_content(events: pl.DataFrame) -> pl.DataFrame:
    """Users in order of their ids; within a user by time, equal times by a hash of (user, item, time), so
    that reading one column more moves no item; rows equal in those by a hash of all else, then by `event`."""
    events = events.sort("user", "time")
    rows = np.flatnonzero(_tied(events))
    tied = events[rows].with_columns(pl.struct("user", "time").rle_id().alias("_run"))
    named = {"user", "item", "time", "event"}
    tied = tied.with_columns(
        pl.Series("_hash", hash_rows(tied, ("user", "item", "time"))),
        pl.Series("_rest", hash_rows(tied, [c for c in events.columns if c not in named])),
    )
    keys = ["_run", "_hash", "_rest", *(["event"] if "event" in events.columns else [])]
    order = np.arange(events.height)
    # Runs are contiguous and `_run` rises, so the tied rows go back to the places they came from.
    order[rows] = rows[tied.select(pl.arg_sort_by(keys)).to_series().to_numpy()]
    events = events[order]
    if "event" not in events.columns:
        events = events.with_row_index("event").with_columns(pl.col("event").cast(pl.Int64))
    return _columns_first(events)


def _tied(events: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows `(n,)` of an ordered log have the user and the time of a neighbour."""
    same = np.ones(max(events.height - 1, 0), dtype=np.bool_)
    for name in ("user", "time"):
        column = events[name]
        same &= (column.slice(1) == column.slice(0, len(same))).to_numpy()
    tied: npt.NDArray[np.bool_] = np.append(same, False) | np.insert(same, 0, False)
    return tied


def _columns_first(events: pl.DataFrame) -> pl.DataFrame:
    return events.select("event", "user", "item", pl.exclude("event", "user", "item"))


# ---- checks ----------------------------------------------------------------------------------------------


def _check(events: pl.DataFrame) -> list[Problem]:
    if not events.height:
        return [Problem("the log holds no events")]
    problems: list[Problem] = []
    for name in ("user", "item"):
        if name not in events.columns:
            problems.append(Problem(f"the log has no column {name!r}; it has {', '.join(events.columns)}"))
    for name in ("user", "item", "time", "event"):
        if name in events.columns and (missing := events[name].null_count()):
            problems.append(Problem(f"{missing} of {events.height} events have no {name}"))
    for name in ("user", "item", "creator"):
        if name in events.columns:
            problems += _check_ids(events[name], f"column {name!r} of the log")
    if "event" in events.columns:
        problems += _check_event(events["event"])
    if "time" in events.columns:
        problems += _check_time(events["time"])
    return problems


def _check_ids(column: pl.Series, what: str) -> list[Problem]:
    dtype = column.dtype
    if dtype.is_integer():
        lost = column.cast(pl.Int64, strict=False).null_count() - column.null_count()
        if lost:
            return [Problem(f"{what}: {lost} ids do not fit 64 signed bits", hint="give them as strings")]
        return []
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum) or (
        isinstance(dtype, pl.Null) and column.name == "creator"
    ):
        return []
    hint = "integers turned to floats are a sign of missing values" if dtype.is_float() else "cast them"
    return [Problem(f"{what}: expected integers or strings, got {dtype}", hint=hint)]


def _check_event(column: pl.Series) -> list[Problem]:
    if not column.dtype.is_integer():
        return [Problem(f"column 'event' of the log: expected integers, got {column.dtype}")]
    if (column < 0).any():
        return [Problem("column 'event' of the log: expected ids from 0, got negative ones")]
    repeated = len(column) - column.n_unique()
    return [Problem(f"column 'event' of the log: {repeated} event ids repeat")] if repeated else []


def _check_time(column: pl.Series) -> list[Problem]:
    if not (column.dtype.is_integer() or column.dtype.is_float()):
        return [Problem(f"times must be numbers, got {column.dtype}")]
    if column.dtype.is_float() and (wrong := int((~column.is_finite()).sum())):
        return [Problem(f"{wrong} of {len(column)} times are not finite numbers")]
    if column.dtype == pl.UInt64 and (column > 2**63 - 1).any():
        return [Problem("some times do not fit 64 signed bits")]
    return []


def _check_table(table: pl.DataFrame | None, key: str, events: pl.DataFrame) -> list[Problem]:
    """A table has its key, once per row, of the kind of id that the log has."""
    if table is None:
        return []
    what = f"the table of {key}s"
    if key not in table.columns:
        return [Problem(f"{what} has no column {key!r}; it has {', '.join(table.columns)}")]
    ids = table[key]
    if not table.height:
        return [Problem(f"{what} is empty")]
    if missing := ids.null_count():
        return [Problem(f"{what}: {missing} of {table.height} rows have no {key}")]
    if problems := _check_ids(ids, what):
        return problems
    if key in events.columns and ids.dtype.is_integer() != events[key].dtype.is_integer():
        return [
            Problem(
                f"{what} has {_kind(ids)} ids, but the log has {_kind(events[key])} ids: none would match"
            )
        ]
    repeated = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(repeated):
        first = ", ".join(repr(value) for value in repeated.head(3))
        return [Problem(f"{what}: {len(repeated)} ids stand in several rows, as {first}")]
    return []


def _kind(ids: pl.Series) -> str:
    return "integer" if ids.dtype.is_integer() else "string"


def _canonical(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Integers as Int64, floats as Float64, categories as strings, in these columns."""
    casts = []
    for name in (name for name in names if name in frame.columns):
        dtype = frame[name].dtype
        if dtype.is_integer():
            casts.append(pl.col(name).cast(pl.Int64))
        elif dtype.is_float():
            casts.append(pl.col(name).cast(pl.Float64))
        elif not isinstance(dtype, pl.Null):
            casts.append(pl.col(name).cast(pl.String))
    return frame.with_columns(casts)
