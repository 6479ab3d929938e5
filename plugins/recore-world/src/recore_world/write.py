"""A log of any size to one CSV or Parquet file, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from recore import DataError, Problem

if TYPE_CHECKING:
    from recore_world.world import World

FORMATS = ("csv", "parquet")


def write(world: World, path: Path, format: Literal["csv", "parquet"] | None, block: int) -> Path:
    """See `World.write`."""
    chosen = format or path.suffix.lstrip(".").lower()
    problems = []
    if chosen not in FORMATS:
        problems.append(Problem(f"expected a file of format csv or parquet, got {chosen!r}", str(path)))
    if not path.parent.is_dir():
        problems.append(Problem(f"the folder {path.parent} does not exist", str(path), hint="make it first"))
    if problems:
        raise DataError(problems)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        (_csv if chosen == "csv" else _parquet)(world, partial, block)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _csv(world: World, path: Path, block: int) -> None:
    with path.open("wb") as file:
        for number, frame in enumerate(world.frames(block=block)):
            frame.write_csv(file, include_header=number == 0)


def _parquet(world: World, path: Path, block: int) -> None:
    from polars.io.plugins import register_io_source

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        # The sink below asks for all rows and columns; polars checks what it is given against its plan.
        yield from world.frames(block=block)

    schema = world.log([0], steps=1).schema
    register_io_source(source, schema=schema).sink_parquet(path, row_group_size=1 << 17)
