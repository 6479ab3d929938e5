"""Writing: the same events in one file, whole or not at all, and in memory that does not grow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from attrs import evolve
from recore_world import World, WorldOptions

from recore import DataError

SMALL = WorldOptions(users=70, items=120, events=12.0, longest=30, slate=6, days=30, topics=5)

MEASURED = """
import resource, sys
from recore_world import World, WorldOptions
events = int(sys.argv[1])
options = WorldOptions(users=events // 6, items=5000, events=6.0, shortest=3, longest=40, slate=4)
world = World(options)
world.log([0, 1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
world.write(sys.argv[2], block=2048)
print(len(world), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_holds_the_log(ending: str, tmp_path: Path) -> None:
    world = World(SMALL)
    path = world.write(tmp_path / f"log.{ending}", block=16)
    read = pl.read_csv(path) if ending == "csv" else pl.read_parquet(path)
    assert read.equals(world.log())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_format_may_be_named_and_the_column_of_propensities_withheld(tmp_path: Path) -> None:
    world = World(evolve(SMALL, propensities=False))
    path = world.write(tmp_path / "log.txt", "csv")
    assert pl.read_csv(path).columns == ["event", "user", "item", "time", "creator"]


def test_what_cannot_be_written_is_refused_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "log.xlsx"
    with pytest.raises(DataError) as error:
        World(SMALL).write(path)
    assert str(error.value).splitlines() == [
        f"{path}: expected a file of format csv or parquet, got 'xlsx'",
        f"{path}: the folder {path.parent} does not exist (make it first)",
    ]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.csv"
    path.write_text("old")
    world = World(SMALL)
    frames = world.frames

    def broken(*, block: int) -> Iterator[pl.DataFrame]:
        yield next(frames(block=block))
        raise OSError("no space left")

    monkeypatch.setattr(world, "frames", broken)
    with pytest.raises(OSError, match="no space left"):
        world.write(path, block=16)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_log(ending: str, tmp_path: Path) -> None:
    """300,000 events (a frame of about 25 MiB, and slates of 40) in blocks of 2,048 users take under 120 MiB
    more than two users do, libraries' own buffers included."""
    path = tmp_path / f"log.{ending}"
    shown = subprocess.run(
        [sys.executable, "-c", MEASURED, "300000", str(path)], capture_output=True, text=True, check=True
    )
    events, mib = shown.stdout.split()
    assert int(events) > 290_000
    assert float(mib) < 120
