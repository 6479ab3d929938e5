"""Tables of items and users: one row each, keyed by the data's own ids."""

from __future__ import annotations

import polars as pl
from attrs import evolve

from recore import DataError, Problem
from recore.textfiles import read_text
from recore_data.frames import read
from recore_data.ids import typed
from recore_data.options import Table


def read_tables(
    items: Table | None, users: Table | None, events: pl.DataFrame
) -> tuple[pl.DataFrame | None, pl.DataFrame | None, dict[str, int]]:
    """The tables of items and of users, or None, and what was counted. Raises DataError with the problems of
    both."""
    problems: list[Problem] = []
    counts: dict[str, int] = {}
    made: list[pl.DataFrame | None] = []
    for key, table in (("item", items), ("user", users)):
        if table is None:
            made.append(None)
            continue
        try:
            frame = _read_table(table, key, events[key], counts)
            known = events.select(key).unique().join(frame.select(key), on=key, how="anti").height
            counts[f"{key}s of the log that the table of {key}s lacks"] = known
            made.append(frame)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return made[0], made[1], counts


def _read_table(table: Table, key: str, ids: pl.Series, counts: dict[str, int]) -> pl.DataFrame:
    names = {key: table.id, "title": table.title, "creator": table.creator}
    named = {new: old for new, old in names.items() if old is not None}
    for column in table.columns:
        if column in named:
            raise DataError(
                f"the table of {key}s: column {column!r} is named twice; leave it out of `columns`"
            )
        named[column] = column
    got = read(table, table.path, named.values())
    if got.problems:
        raise DataError(got.problems)
    frame = got.frame.select(pl.col(old).alias(new) for new, old in named.items())
    if got.text:
        text = {key, "title"}
        frame = frame.with_columns(number(frame[name]) for name in frame.columns if name not in text)
    if table.numbers is not None:
        frame, left_out = _renumbered(frame, key, table)
        counts[f"rows of the table of {key}s that the log does not number"] = left_out
    frame = frame.with_columns(_like(frame[key], ids) if got.text or table.numbers else frame[key])
    if "title" in frame.columns and frame["title"].dtype != pl.String:
        frame = frame.with_columns(pl.col("title").cast(pl.String))
    wrong = frame[key].is_null()
    if problems := evolve(got, frame=frame).bad(key, wrong, f"{key}s are missing"):
        raise DataError(problems)
    if frame[key].dtype.is_integer() != ids.dtype.is_integer():
        raise DataError(
            f"{got.name}: the ids of {key}s are {frame[key].dtype}, but those of the log are {ids.dtype}: none "
            "would match"
        )
    return frame


def number(column: pl.Series) -> pl.Series:
    """Integers or floats where all texts are such, otherwise the same column."""
    whole = typed(column)
    if whole.dtype != pl.String or whole.null_count() == len(whole):
        return whole
    floats = whole.cast(pl.Float64, strict=False)
    return floats if floats.null_count() == whole.null_count() else whole


def _like(column: pl.Series, ids: pl.Series) -> pl.Series:
    """Ids that came as text, as the log has them: a log of strings keeps a table of `7`, `8` as strings."""
    return typed(column) if ids.dtype.is_integer() else column.cast(pl.String)


def _renumbered(frame: pl.DataFrame, key: str, table: Table) -> tuple[pl.DataFrame, int]:
    """The table under the log's own numbers, and how many rows that left out."""
    assert table.numbers is not None
    lines = pl.Series([read_text(table.numbers).strip("\n")]).str.split("\n").explode()
    fields = lines.str.extract_all(r"[^ \t\r,]+")
    if not (fields.list.len() == 2).all():
        first = fields.list.len().ne(2).arg_max() or 0
        raise DataError(
            f"{table.numbers}: expected lines of two ids, that in the log and that in the table, but line "
            f"{first + 1} is {lines[first][:40]!r}"
        )
    numbers = pl.DataFrame({"_new": fields.list.get(0), "_old": fields.list.get(1)})
    for column, what in (("_new", "in the log"), ("_old", "in the table")):
        if numbers[column].is_duplicated().any():
            raise DataError(f"{table.numbers}: an id {what} stands in several lines")
    keyed = frame.with_columns(pl.col(key).cast(pl.String).alias("_old"))
    joined = keyed.join(numbers, on="_old", how="inner", maintain_order="left")
    return joined.with_columns(pl.col("_new").alias(key)).drop("_old", "_new"), frame.height - joined.height
