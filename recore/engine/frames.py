"""Data frames from Python as polars frames, so that a run can keep them. pandas need not be installed."""

from __future__ import annotations

from typing import Any

import polars as pl

from recore.errors import DataError


def as_polars(frame: Any) -> pl.DataFrame:
    """A polars, lazy polars or pandas frame as a polars one, without its index.

    Raises DataError for names that repeat and for columns that hold values of several types.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"the frame has several columns {', '.join(map(repr, twice))}")
    return pl.DataFrame([_column(name, frame.iloc[:, number]) for number, name in enumerate(names)])


def _column(name: str, column: Any) -> pl.Series:
    """Numbers and times of numpy as they are, all else value by value: polars' own way needs pyarrow."""
    present = column.notna().to_numpy()
    kind = getattr(column.dtype, "kind", "O")
    plain = type(column.dtype).__module__.startswith("numpy")
    try:
        if plain and kind in "iub":
            return pl.Series(name, column.to_numpy())
        if plain and kind in "fM":
            values = pl.Series(name, column.to_numpy())
            return pl.select(pl.when(pl.Series(present)).then(values).alias(name)).to_series()
        return pl.Series(
            name, [value if there else None for value, there in zip(column, present, strict=True)]
        )
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"column {name!r} of the frame holds values of several types: {error}") from error
