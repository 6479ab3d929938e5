"""Tables of items and users."""

from __future__ import annotations

import polars as pl

from recore_data.options import Table


def read_tables(
    items: Table | None, users: Table | None, events: pl.DataFrame
) -> tuple[pl.DataFrame | None, pl.DataFrame | None, dict[str, int]]:
    return None, None, {}
