"""Lines of a delimited text file that do not have as many fields as its first, and blank ones.

polars fills short lines with nulls and cannot tell them from lines whose last field is empty. Only where a file
looks as if it had such lines is it read once more, here, to count.

Legend: `n` lines that hold data, blank ones included.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Final

import polars as pl
from attrs import frozen

from recore import DataError, Problem

SHOWN: Final = 3  # lines that an error shows
WIDEST: Final = 2**31 - 1  # characters of a field that `csv` takes
UNIT: Final = "\x1f"  # a mark that stands in no text: each line is then one field


@frozen(eq=False)
class Counted:
    """`fields (n,)`: fields of each line of data, 0 for blank ones; `line (n,)`: where each begins in the file,
    from 1; `expected`: the fields of the first line."""

    fields: pl.Series
    line: pl.Series
    expected: int

    def blank(self) -> pl.Series:
        """Which lines `(n,)` are blank."""
        return self.fields == 0

    def wrong(self) -> pl.Series:
        """Which lines `(n,)` are neither blank nor as long as the first."""
        return (self.fields != self.expected) & ~self.blank()


def count_fields(text: str, separator: str, quote: str | None, header: bool) -> Counted:
    """Fields of every line; `header`: whether the first one holds names, and is no data."""
    quoted = quote is not None and quote in text
    fields, line = _quoted(text, separator, quote or '"') if quoted else _plain(text, separator)
    first = 1 if header else 0
    return Counted(fields[first:], line[first:], int(fields[0]) if len(fields) else 0)


def _plain(text: str, separator: str) -> tuple[pl.Series, pl.Series]:
    lines = pl.Series([text.removesuffix("\n")]).str.split("\n").explode()
    fields = lines.str.count_matches(separator, literal=True) + 1
    fields = fields.set(lines.str.strip_chars(" \r") == "", 0)
    return fields, pl.int_range(1, len(lines) + 1, eager=True)


def _quoted(text: str, separator: str, quote: str) -> tuple[pl.Series, pl.Series]:
    before = csv.field_size_limit(WIDEST)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote)
        counted, begins, begin = [], [], 1
        for row in reader:
            counted.append(len(row))
            begins.append(begin)
            begin = reader.line_num + 1
    finally:
        csv.field_size_limit(before)
    return pl.Series(counted, dtype=pl.UInt32), pl.Series(begins, dtype=pl.Int64)


def told(path: str, counted: Counted) -> list[Problem]:
    """No problem, or one that shows the first lines of another length."""
    wrong = counted.wrong()
    rows = wrong.arg_true()
    if not len(rows):
        return []
    lengths = Counter(counted.fields.filter(wrong).to_list())
    shown = "; ".join(f"line {counted.line[row]} has {counted.fields[row]}" for row in rows.head(SHOWN))
    what = f"{path}: {len(rows)} of {len(wrong)} lines do not have the {counted.expected} fields of the first"
    hint = "fields that hold the separator belong in quotation marks"
    if min(lengths) < counted.expected:
        hint = "is the file whole? " + hint
    return [Problem(f"{what}: {shown}", hint=hint)]


def require_even(path: str, counted: Counted) -> None:
    """Raises DataError where a line has another number of fields than the first."""
    if problems := told(path, counted):
        raise DataError(problems)
