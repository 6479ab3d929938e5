"""Ids that came as text: integers where all of them are, strings otherwise."""

from __future__ import annotations

import polars as pl


def typed(column: pl.Series) -> pl.Series:
    """Integers where every text is just how an integer is written, so that `007` and `+7` stay as they are;
    the same column otherwise. Nulls stay nulls."""
    if column.dtype != pl.String or column.null_count() == len(column):
        return column
    numbers = column.cast(pl.Int64, strict=False)
    if numbers.null_count() == column.null_count() and (numbers.cast(pl.String) == column).all():
        return numbers
    return column
