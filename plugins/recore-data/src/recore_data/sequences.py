"""The dataset `sequences`: lines of `user item`, or a line per user; the file's order is the order."""

from __future__ import annotations

import polars as pl
from attrs import frozen

from recore import Context, DataError, Problem
from recore.data import Interactions
from recore.textfiles import read_text
from recore_data.ids import typed
from recore_data.options import Sequences
from recore_data.tables import read_tables

SHOWN = 3  # bad lines that an error shows


def build(options: Sequences, context: Context) -> SequencesDataset:
    """The dataset, unread."""
    return SequencesDataset(options)


@frozen
class SequencesDataset:
    """Keeps `recore.contracts.Dataset`."""

    options: Sequences

    def load(self, context: Context) -> Interactions:
        """Read the file. Raises DataError for a file that is missing, empty, or not of the form."""
        options = self.options
        fields = _fields(options)
        blank = int((fields.list.len() == 0).sum())
        lines = pl.DataFrame({"line": pl.int_range(1, len(fields) + 1, eager=True), "fields": fields})
        lines = lines.filter(pl.col("fields").list.len() > 0)
        if not lines.height:
            raise DataError(f"{options.path} holds no events")
        events = _pairs(options, lines) if options.form == "pairs" else _lines(options, lines)
        events = events.with_columns(typed(events["user"]), typed(events["item"]))
        items, users, counts = read_tables(options.items, options.users, events)
        if blank:
            counts = {**counts, "blank lines skipped": blank}
        return Interactions.from_frame(
            events,
            items=items,
            users=users,
            order_across_users=False,
            counts=counts,
            source=f"{options.path.name}, form {options.form}",
        )


def _fields(options: Sequences) -> pl.Series:
    """The fields of each line of the file."""
    text = read_text(options.path)
    lines = pl.Series([text.removesuffix("\n")]).str.split("\n").explode()
    return lines.str.extract_all(r"[^ \t\r]+")


def _pairs(options: Sequences, lines: pl.DataFrame) -> pl.DataFrame:
    wrong = lines.filter(pl.col("fields").list.len() != 2)
    if wrong.height:
        longer = bool((wrong["fields"].list.len() > 2).any())
        raise DataError(
            Problem(
                f"{options.path}: expected lines of `user item`, but {wrong.height} of {lines.height} lines have "
                f"another number of fields: {_shown(wrong)}",
                hint="for a line per user, `user item item …`, set `form: lines`"
                if longer
                else "columns with other marks between them are read by `events`",
            )
        )
    return lines.select(
        user=pl.col("fields").list.get(0),
        item=pl.col("fields").list.get(1),
    )


def _lines(options: Sequences, lines: pl.DataFrame) -> pl.DataFrame:
    users = lines.select("line", "fields", user=pl.col("fields").list.get(0))
    again = users.filter(pl.col("user").is_duplicated())
    if again.height:
        raise DataError(
            Problem(
                f"{options.path}: expected a line per user, but {again['user'].n_unique()} users have several "
                f"lines: {_shown(again)}",
                hint="for a line per event, `user item`, set `form: pairs`",
            )
        )
    alone = users.filter(pl.col("fields").list.len() < 2)
    if alone.height:
        raise DataError(
            Problem(
                f"{options.path}: expected `user item item …`, but {alone.height} of {lines.height} lines hold a "
                f"user and no item: {_shown(alone)}",
                hint="remove these lines",
            )
        )
    items = pl.col("fields").list.slice(1)
    return users.select("user", item=items).explode("item")


def _shown(lines: pl.DataFrame) -> str:
    """The first lines, each with its number and the beginning of what it holds."""
    texts = []
    for number, fields in lines.select("line", "fields").head(SHOWN).iter_rows():
        text = " ".join(fields)
        texts.append(f"line {number} is {text[:40]!r}{' …' if len(text) > 40 else ''} ({len(fields)} fields)")
    return "; ".join(texts)
