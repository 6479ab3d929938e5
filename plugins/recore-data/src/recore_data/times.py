"""Times: integers, floats, or dates and times, which become seconds since 1970 in UTC."""

from __future__ import annotations

import polars as pl

from recore import DataError

EXACT = 2**53  # up to which floats hold every integer
# As ISO 8601 has it, once `T` is a space and `Z` is `+00:00`. One column may mix them: a Python `isoformat`
# leaves out a fraction that is zero.
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f%:z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M%:z",
    "%Y-%m-%d %H:%M:%S%.f%z",
)


def parse(column: pl.Series, format: str | None = None) -> pl.Series:
    """The times `(n,)` of a column, as Int64 or Float64, null where there is none to be had.

    Of text, the reading (integers, floats, dates and times) that leaves the fewest rows is taken, and an
    integer one before others. Raises DataError for a column that holds no times at all.
    """
    dtype = column.dtype
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    if dtype.is_float() or isinstance(dtype, pl.Decimal):
        return _finite(column.cast(pl.Float64))
    if isinstance(dtype, pl.Date | pl.Datetime):
        return _seconds(column)
    if isinstance(dtype, pl.String):
        return _parse_text(column, format)
    raise DataError(f"column {column.name!r}: expected numbers, dates or text as times, got {dtype}")


def _parse_text(column: pl.Series, format: str | None) -> pl.Series:
    column = column.str.strip_chars()
    if format is not None:
        return _seconds(_datetimes(column, format))
    readings = []
    for reading in (_integers, _floats, _iso):
        made = reading(column)
        if made.null_count() == column.null_count():
            return made
        readings.append(made)
    return min(readings, key=lambda made: made.null_count())


def _integers(column: pl.Series) -> pl.Series:
    return column.cast(pl.Int64, strict=False)


def _floats(column: pl.Series) -> pl.Series:
    """Integers that a float cannot hold exactly are none: two of them could become one time."""
    made = _finite(column.cast(pl.Float64, strict=False))
    lost = column.str.contains(r"^[+-]?\d+$") & (made.abs() > EXACT)
    return pl.select(pl.when(~lost).then(made).alias(column.name)).to_series()


def _finite(column: pl.Series) -> pl.Series:
    return pl.select(pl.when(column.is_finite()).then(column).alias(column.name)).to_series()


def _iso(column: pl.Series) -> pl.Series:
    text = column.str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt ]", "${1} ").str.replace(r"\s?[Zz]$", "+00:00")
    done = pl.Series(column.name, [None], dtype=pl.Datetime("us")).new_from_index(0, len(text))
    for format in _FORMATS:
        left = done.is_null() & text.is_not_null()
        if not left.any():
            break
        rows = left.arg_true()
        done = done.scatter(rows, _datetimes(text.gather(rows), format))
    return _seconds(done)


def _datetimes(text: pl.Series, format: str) -> pl.Series:
    """Datetimes in UTC without a zone, null where the text is not of the format."""
    dated = any(sign in format for sign in ("%H", "%I", "%T", "%R", "%s", "%c", "%X", "%r"))
    if not dated:
        return text.str.to_date(format, strict=False).cast(pl.Datetime("us"))
    made = text.str.to_datetime(format, time_unit="us", strict=False)
    if isinstance(made.dtype, pl.Datetime) and made.dtype.time_zone is not None:
        return made.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return made


def _seconds(column: pl.Series) -> pl.Series:
    """Seconds since 1970, whole ones where all are whole. A zone, where there is one, does not count: what is
    stored is UTC. Finer units than microseconds do not fit a float."""
    fine = isinstance(column.dtype, pl.Datetime) and column.dtype.time_unit == "ns"
    if fine and (column.to_physical() % 1000 != 0).any():
        raise DataError(
            f"column {column.name!r} has times finer than microseconds, which seconds as floats cannot tell "
            "apart; give it as integers"
        )
    parts = column.cast(pl.Datetime("us")).to_physical()
    if (parts % 1_000_000 == 0).all():
        return parts // 1_000_000
    # Divided by numpy: polars multiplies by the reciprocal, which is off by a bit.
    floats = pl.Series(column.name, parts.fill_null(0).to_numpy() / 1e6)
    return pl.select(pl.when(parts.is_not_null()).then(floats).alias(column.name)).to_series()
