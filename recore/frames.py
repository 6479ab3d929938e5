"""Data frames from Python as polars frames, for datasets that take them and runs that keep them. pandas need not be
installed."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import polars as pl

from recore.errors import DataError


@runtime_checkable
class _Pandas(Protocol):
    """As much of a pandas frame as is needed; pandas itself is not."""

    @property
    def columns(self) -> Any: ...
    @property
    def iloc(self) -> Any: ...


def as_polars(frame: Any) -> pl.DataFrame:
    """A polars, lazy polars or pandas frame as a polars one, without its index.

    Raises DataError for anything else, for names that repeat, and for columns that hold values of several types.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, _Pandas):
        names = [str(name) for name in frame.columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"the frame has several columns {', '.join(map(repr, twice))}")
        return pl.DataFrame([_column(name, frame.iloc[:, n]) for n, name in enumerate(names)])
    raise DataError(f"expected a polars or pandas frame, got {type(frame).__module__}.{type(frame).__name__}")


def _column(name: str, column: Any) -> pl.Series:
    """A column of a pandas frame; whatever pandas holds to be missing is null. Numbers and times of numpy are
    taken as they are, all else value by value (pyarrow, which could do better, need not be there)."""
    present = column.notna().to_numpy()
    kind = getattr(column.dtype, "kind", "O")
    plain = type(column.dtype).__module__.startswith("numpy")
    try:
        if plain and kind in "iub":
            return pl.Series(name, column.to_numpy())
        if plain and kind in "fM":
            values = pl.Series(name, column.to_numpy())
            return pl.select(pl.when(pl.Series(present)).then(values).alias(name)).to_series()
        objects = [value if there else None for value, there in zip(column.tolist(), present, strict=True)]
        return pl.Series(name, objects)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"column {name!r} of the frame holds values of several types: {error}") from error
