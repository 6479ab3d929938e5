"""Counts of the real data sets, where `RECORE_DATA` says they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from recore_data import events, sequences
from recore_data.leave_last import LeaveLastSplit
from recore_data.options import Events, Sequences, Table

from recore import Context
from recore.data import Interactions

pytestmark = pytest.mark.data


def data(name: str) -> Path:
    path = Path(os.environ.get("RECORE_DATA", "")) / name
    if "RECORE_DATA" not in os.environ or not path.exists():
        pytest.skip(f"RECORE_DATA does not lead to {name}")
    return path


def counted(log: Interactions, users: int, items: int, events: int) -> dict[str, Any]:
    summary = log.summary()
    assert (summary["users"], summary["items"], summary["events"]) == (users, items, events)
    return summary


def test_ml_1m_as_sasrec_has_it() -> None:
    movies = Table(
        data("ml-1m/movies.dat"),
        title="title",
        columns=["genres"],
        format="csv",
        separator="::",
        encoding="latin-1",
        header=["id", "title", "genres"],
        numbers=data("ml-1m/sas_to_original_items.txt"),
    )
    log = sequences.build(Sequences(data("ml-1m/ml-1m.txt"), items=movies), Context()).load(Context())
    summary = counted(log, 6040, 3416, 999_611)
    assert (summary["shortest"], summary["mean"], summary["longest"]) == (18, 165.5, 2277)
    assert summary["order across users"] == "unknown"
    assert log.counts["items of the log that the table of items lacks"] == 0
    assert log.events["event"].is_sorted()
    parts = LeaveLastSplit().parts(log)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (999_611 - 2 * 6040, 6040, 6040)
    assert set(parts.counts.values()) == {0}


def test_beauty_in_both_forms() -> None:
    lines = sequences.build(Sequences(data("beauty/Beauty.txt"), form="lines"), Context()).load(Context())
    assert counted(lines, 22_363, 12_101, 198_502)["mean"] == 8.88
    pairs = sequences.build(Sequences(data("beauty-bert4rec/beauty.txt")), Context()).load(Context())
    counted(pairs, 40_226, 54_542, 353_962)


def test_ml_100k_has_ties() -> None:
    options = Events(
        data("ml-100k/ml-100k.inter"),
        user="user_id:token",
        item="item_id:token",
        time="timestamp:float",
        rating="rating:float",
        format="tsv",
        ties="hash",
    )
    log = events.build(options, Context()).load(Context())
    assert counted(log, 943, 1682, 100_000)["events whose time another of the same user has"] == 75_772


def test_android_and_nyc() -> None:
    items = Table(data("android/items.csv"), id="item", creator="creator")
    log = events.build(Events(data("android/events.csv"), time="time", items=items), Context()).load(
        Context()
    )
    counted(log, 2925, 679, 28_343)
    assert log.items is not None
    assert log.items["creator"].n_unique() == 374
    assert LeaveLastSplit().parts(log).counts["users with fewer than 3 events, all of which train"] == 283
    places = Table(data("nyc/items.csv"), id="item", columns=["latitude", "longitude"])
    nyc = Events(data("nyc/events.csv"), time="minute", items=places)
    log = events.build(nyc, Context()).load(Context())
    counted(log, 1083, 5135, 147_938)
    assert LeaveLastSplit().parts(log).counts["test targets already in their history"] == 754
