"""The data set `appended`: a log and the events that came after it. `recore update` writes it into a run's recipe.

append     a log with further events; raises with every column that does not fit
conformed  further events as the log types them
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from attrs import evolve, frozen

from recore.builtin import Appended
from recore.component import Context
from recore.data import Interactions
from recore.errors import DataError, Problem
from recore.frames import as_polars

IDS = ("user", "item", "creator")
APPENDED, OF_BASE, LATER = "events appended", ", before events were appended", ", and events that came later"


def build(options: Appended, context: Context) -> AppendedData:
    """The factory."""
    return AppendedData(options)


@frozen(eq=False)
class AppendedData:
    """Keeps `recore.contracts.Dataset`."""

    options: Appended

    def load(self, context: Context) -> Interactions:
        """The base, read as if it stood alone, and the further events after it. Raises DataError."""
        options = self.options
        base = context.build(evolve(options.base, path=context.path)).load(context)
        tables = {
            name: None if value is None else read_frame(value)
            for name, value in (("items", options.items), ("users", options.users))
        }
        return append(base, read_frame(options.events), tables["items"], tables["users"])


def read_frame(value: Any) -> pl.DataFrame:
    """A frame, or the Parquet file that holds it. Raises DataError."""
    if not isinstance(value, Path):
        return as_polars(value)
    try:
        return pl.read_parquet(value)
    except (OSError, pl.exceptions.PolarsError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"{value} cannot be read as a Parquet file: {why}") from error


def append(
    base: Interactions,
    events: pl.DataFrame,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
) -> Interactions:
    """`base` with `events (user, item, …)` after its own: rows of `base` keep their `event` ids, those that are
    added follow, in their order. With times every user's events are in order of time; of equal times the older
    row comes first, unless ties are broken by `hash`. Rows of `items` and `users` replace those of the same id.

    Raises DataError with every column that is missing, unknown or of another type.
    """
    further = conformed(base.events, events)
    first = int(base.events["event"].max()) + 1 if len(base) else 0  # type: ignore[arg-type]  # integers
    numbers = pl.int_range(first, first + further.height, dtype=pl.Int64, eager=True).alias("event")
    further = further.with_columns(numbers).select(base.events.columns)
    grown = pl.concat([base.events, further], how="vertical_relaxed")
    tables = {"item": merged(base.items, items, "item"), "user": merged(base.users, users, "user")}
    return Interactions.from_frame(
        grown,
        items=tables["item"],
        users=tables["user"],
        ties=base.ties,
        order_across_users=base.order_across_users,
        counts=_counts(base, grown, further.height, tables),
        source=base.source if base.source.endswith(LATER) else base.source + LATER,
    )


def _counts(
    base: Interactions, grown: pl.DataFrame, added: int, tables: Mapping[str, pl.DataFrame | None]
) -> dict[str, int]:
    """What was counted of the base, and is true of it only; what is true of the whole is counted anew."""
    counts = {
        name if name == APPENDED or name.endswith(OF_BASE) else name + OF_BASE: count
        for name, count in base.counts.items()
        if not name.startswith(("events whose time another", "events equal in"))
    }
    counts[APPENDED] = base.counts.get(APPENDED, 0) + added
    for key, table in tables.items():
        if table is not None:
            lacking = grown.select(key).unique().join(table.select(key), on=key, how="anti")
            counts[f"{key}s of the log that the table of {key}s lacks"] = lacking.height
    return counts


def conformed(base: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """The columns of `base` but `event`, in that order, typed alike. Integer ids become text where the log's are
    text; numbers may be whole in one and not in the other. Raises DataError with all that does not fit."""
    wanted = [name for name in base.columns if name != "event"]
    problems = []
    missing = [name for name in wanted if name not in events.columns]
    if missing:
        problems.append(Problem(f"the new events lack {', '.join(missing)}, which the log has"))
    strange = [name for name in events.columns if name not in base.columns]
    if strange:
        problems.append(Problem(f"the new events have {', '.join(strange)}, which the log does not have"))
    columns = []
    for name in wanted:
        if name in events.columns:
            column, problem = _alike(name, base[name].dtype, events[name])
            columns.append(column)
            problems += [] if problem is None else [problem]
    if problems:
        raise DataError(problems)
    return pl.DataFrame(columns)


def _alike(name: str, wanted: pl.DataType, column: pl.Series) -> tuple[pl.Series, Problem | None]:
    """A column as the log types it, or what stands against that."""
    dtype = column.dtype
    text = isinstance(wanted, pl.String) and isinstance(dtype, pl.Categorical | pl.Enum)
    if dtype == wanted or text or isinstance(dtype, pl.Null) or (dtype.is_integer() and wanted.is_integer()):
        return column.cast(wanted), None
    if name in IDS and isinstance(wanted, pl.String) and dtype.is_integer():
        return column.cast(pl.String), None
    if name not in IDS and dtype.is_numeric() and (wanted.is_numeric() or isinstance(wanted, pl.Null)):
        return column, None
    hint = "ids are looked up as they are: 7 and '7' are not the same" if name in IDS else ""
    return column, Problem(
        f"column {name!r} of the new events: expected {wanted}, as in the log, got {dtype}", hint=hint
    )


def merged(base: pl.DataFrame | None, new: pl.DataFrame | None, key: str) -> pl.DataFrame | None:
    """Two tables as one; a row of `new` stands for that of `base` with the same id. Raises DataError where the
    columns cannot be brought together."""
    if base is None or new is None:
        return base if new is None else new
    try:
        both = pl.concat(
            [base.join(new, on=key, how="anti", maintain_order="left"), new], how="diagonal_relaxed"
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the new table of {key}s does not fit the one before: {error}") from error
    return both.select(list(dict.fromkeys([*base.columns, *new.columns])))
