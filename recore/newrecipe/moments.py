"""How times are written: numbers in some unit, ISO 8601, or dates of another form.

Only as much as is needed to choose a column and a `time_format`; the dataset reads the times themselves.
"""

from __future__ import annotations

from typing import Final, Literal

import polars as pl
from attrs import frozen

Unit = Literal["s", "ms", "us", "ns", "own", "date"]

EARLIEST, LATEST = 1e8, 4.2e9  # seconds: 1973 to 2103
UNITS: Final[dict[Unit, float]] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
IN_WORDS: Final[dict[Unit, str]] = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "own": "numbers of a clock of their own",
    "date": "dates",
}
ISO = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?\s?([Zz]|[+-]\d{2}:?\d{2})?)?\s*$"
CLOCKS: Final = ("", " %H:%M", " %H:%M:%S", "T%H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
# Written alike in two ways: only one with a day above 12 tells them apart.
PAIRS: Final = (
    ("%d/%m/%Y", "%m/%d/%Y"),
    ("%d-%m-%Y", "%m-%d-%Y"),
    ("%d.%m.%Y", "%m.%d.%Y"),
    ("%d/%m/%y", "%m/%d/%y"),
)
OTHERS: Final = (
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d %b %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %B %Y",
    "%m %d, %Y",
)


@frozen(eq=False)
class Moments:
    """`unit`; `format`, where the dataset has to be told one; `other`, a second one that fits as well; `dates`:
    without a time of day; `sure`: whether the values alone show that they are times; `values (n,)`: roughly, as
    numbers that order them."""

    unit: Unit
    values: pl.Series
    format: str | None = None
    other: str | None = None
    dates: bool = False
    sure: bool = True

    def in_words(self) -> str:
        """How they are written."""
        if self.unit != "date":
            return IN_WORDS[self.unit]
        kind = "dates without a time of day" if self.dates else "dates and times"
        return f"{kind}, {'as ISO 8601 has them' if self.format is None else f'written {self.format}'}"


def read_moments(column: pl.Series, format: str | None = None) -> Moments | None:
    """How a column of times is written, or None where it holds no times."""
    column = column.drop_nulls()
    if not len(column):
        return None
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        dates = isinstance(column.dtype, pl.Date)
        return Moments("date", column.cast(pl.Datetime("us")).to_physical(), dates=dates)
    if column.dtype.is_numeric():
        return _numbers(column.cast(pl.Float64))
    if column.dtype != pl.String:
        return None
    text = column.str.strip_chars()
    if format is not None:
        given = _parsed(text, format)
        return None if given is None else Moments("date", given, format, dates="%H" not in format)
    numbers = text.cast(pl.Float64, strict=False)
    if not numbers.null_count():
        compact = _parsed(text, "%Y%m%d") if text.str.contains(r"^(19|20)\d{6}$").all() else None
        return _numbers(numbers) if compact is None else Moments("date", compact, "%Y%m%d", dates=True)
    if text.str.contains(ISO).all():
        short = text.str.replace("T", " ").str.slice(0, 19)
        dated = bool((text.str.len_chars() == 10).all())
        values = pl.Series(short.str.replace_all(r"[^\d]", "").str.pad_end(14, "0").cast(pl.Float64))
        return Moments("date", values, dates=dated)
    return _written(text)


def _numbers(numbers: pl.Series) -> Moments | None:
    low, high = numbers.min(), numbers.max()
    if not isinstance(low, float) or not isinstance(high, float) or not numbers.is_finite().all():
        return None
    for unit, size in UNITS.items():
        if EARLIEST * size <= low and high <= LATEST * size:
            return Moments(unit, numbers, dates=unit == "s" and bool((numbers % 86_400 == 0).all()))
    return Moments("own", numbers, sure=False)


def _written(text: pl.Series) -> Moments | None:
    for clock in CLOCKS:
        for day_first, month_first in PAIRS:
            fits = [(form + clock, _parsed(text, form + clock)) for form in (day_first, month_first)]
            good = [(form, read) for form, read in fits if read is not None]
            if good:
                form, first = good[0]
                other = good[1][0] if len(good) > 1 and not (first == good[1][1]).all() else None
                return Moments("date", first, form, other, dates=not clock)
        for form in OTHERS:
            values = _parsed(text, form + clock)
            if values is not None:
                return Moments("date", values, form + clock, dates=not clock)
    return None


def _parsed(text: pl.Series, format: str) -> pl.Series | None:
    """The times of a column of which every one is of the format."""
    head = text.head(50)
    try:
        for part in (head, text):
            if "%H" in format or "%I" in format:
                made = part.str.to_datetime(format, time_unit="us", strict=False)
            else:
                made = part.str.to_date(format, strict=False).cast(pl.Datetime("us"))
            if made.null_count():
                return None
    except pl.exceptions.PolarsError:
        return None
    values = made.dt.replace_time_zone(None).to_physical().cast(pl.Float64)
    years = made.dt.year()
    return values if int(years.min() or 0) > 1900 else None  # type: ignore[arg-type]  # of years, integers
