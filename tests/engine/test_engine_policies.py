"""What a run does with data that is legal and awkward: by a stated policy, and counted in the record.

Each count is compared with a slow oracle written here from the sentence of the policy, through `recore run`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import polars as pl
import pytest
from engine_helpers import main

import recore
from recore.api import Machine
from recore.contracts import Holdout

BOUND = 4  # model.history.last of these recipes

Event = tuple[str, str, int]


def awkward(seed: int = 0) -> list[Event]:
    """Users of 1 to 14 events with repeats, ties, duplicates, items that only tests have, and ids with spaces, signs
    and letters of other scripts."""
    random = np.random.default_rng(seed)
    names = [f"item {n}, №{n} “日本”" if n % 2 else f" i{n} " for n in range(14)]
    rows: list[Event] = []
    for user in range(26):
        who, at = f"user {user} ü/\t" if user % 3 else f"u{user}", 100
        length = int(random.integers(1, 15))
        for step in range(length):
            at += int(random.integers(0, 3))  # 0: a tie
            item = names[int(random.integers(len(names)))]
            if (step == length - 1 and user % 5 == 0) or (step == length - 2 and user % 5 == 1):
                item = f"only once: {user}"
            rows.append((who, item, at))
            if user % 7 == 0 and step == 0:
                rows.append(rows[-1])  # a duplicate row
    return rows


def run(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], rows: list[Event], more: str = ""
) -> dict[str, Any]:
    """The record of one epoch over these events."""
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_csv(tmp_path / "log.csv")
    (tmp_path / "mine.yaml").write_text(
        f"recore: 1\nextends: {home / 'tiny.yaml'}\n"
        "data: {path: log.csv, items: ~, time: time}\n"
        f"model: {{history: {{last: {BOUND}}}}}\ntrainer: {{epochs: 1}}\n{more}",
        encoding="utf-8",
    )
    status, out, err = main(capsys, "run", tmp_path / "mine.yaml", "--runs", tmp_path / "runs", "--quiet")
    assert (status, err) == (0, "")
    record: dict[str, Any] = json.loads((Path(out.strip()) / "record.json").read_text(encoding="utf-8"))
    return {**record, "folder": Path(out.strip())}


def histories(rows: list[Event]) -> dict[str, list[Event]]:
    """Each user's events in order of time; equal times in the order of the rows."""
    found: dict[str, list[Event]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return {user: sorted(events, key=lambda event: event[2]) for user, events in found.items()}


def expected(rows: list[Event], seen: str = "history") -> dict[str, int]:
    """Every count of the record, one sentence after another."""
    of = histories(rows)
    long = {user: events for user, events in of.items() if len(events) >= 3}
    train = {user: events[:-2] if user in long else events for user, events in of.items()}
    trained = {item for events in train.values() for _, item, _ in events}
    # Times of a user that several of their events have; rows that are equal in everything.
    times = Counter((user, at) for user, _, at in rows)
    equal = Counter(rows)
    counts = {
        "events whose time another of the same user has": sum(n for n in times.values() if n > 1),
        "events equal in user, item and time": sum(n for n in equal.values() if n > 1),
        "users with fewer than 3 events, all of which train": len(of) - len(long),
    }
    for part, back in (("validation", 2), ("test", 1)):
        targets = [(events[len(events) - back], events[: len(events) - back]) for events in long.values()]
        counts |= {
            f"{part} targets not in training (cold)": sum(target[1] not in trained for target, _ in targets),
            f"{part} targets already in their history": sum(
                target[1] in {item for _, item, _ in before} for target, before in targets
            ),
            f"{part} targets at the time of an event of their history": sum(
                target[2] == before[-1][2] for target, before in targets
            ),
        }
    # A training history gives its last event as a target only, so one more than the bound is of use.
    for part, reach, lengths in (
        ("training", BOUND + 1, [len(events) for events in train.values()]),
        ("validation", BOUND, [len(events) - 2 for events in long.values()]),
        ("test", BOUND, [len(events) - 1 for events in long.values()]),
    ):
        counts[f"{part} histories longer than the last {reach} events, which are read"] = sum(
            length > reach for length in lengths
        )
        counts[f"events that {part} histories lose from view by that"] = sum(
            max(length - reach, 0) for length in lengths
        )
    cold = counts["test targets not in training (cold)"]
    again = sum(
        events[-1][1] in {item for _, item, _ in events[:-1]} and events[-1][1] in trained
        for events in long.values()
    )
    policy = "made impossible by the seen filter" if seen == "history" else "candidates"
    counts |= {
        "targets": len(long),
        "cold targets (never seen in training)": cold,
        f"targets in their own history ({policy})": again,
        "targets that are no candidates (rank V + 1)": cold + (again if seen == "history" else 0),
    }
    return counts


@pytest.mark.parametrize("seen", ["history", "none"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_policy_is_counted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seen: str, seed: int
) -> None:
    rows = awkward(seed)
    record = run(
        *(tmp_path, home, capsys, rows),
        f"evaluators: {{use: recore-evaluation:ranking, k: [5, 10], seen: {seen}}}\n",
    )
    wanted = expected(rows, seen)
    # The awkward log is one: none of the counts is 0 for want of a case.
    assert [what for what, count in wanted.items() if not count] == []
    assert record["counts"] == wanted
    # Ids come back as they were given, spaces and signs included.
    users = pl.read_parquet(record["folder"] / "users-test.parquet")
    assert set(users["user"]) == {user for user, events in histories(rows).items() if len(events) >= 3}
    # What is no candidate stands behind every item.
    items = len({item for events in _training(rows) for item in events})
    assert (users["rank"] == items + 1).sum() == wanted["targets that are no candidates (rank V + 1)"]


def _training(rows: list[Event]) -> list[list[str]]:
    return [
        [item for _, item, _ in (events[:-2] if len(events) >= 3 else events)]
        for events in histories(rows).values()
    ]


def test_what_transforms_drop_is_on_the_card(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = awkward()
    record = run(tmp_path, home, capsys, rows, "transforms: {use: recore-data:collapse-repeats}\n")
    runs = sum(a[1] == b[1] for events in histories(rows).values() for a, b in pairwise(events))
    (step,) = record["card"]["protocol"]["data"]["transforms"]
    assert step["use"] == "recore-data:collapse-repeats"
    assert step["dropped"] == {"events": runs}
    assert step["left"]["events"] == len(rows) - runs
    assert runs > 0


def test_a_model_that_reads_everything_cuts_nothing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a bound there is nothing to count; with a wide one the counts are there, and 0."""
    rows = awkward()
    told = "model: {history: {last: 50}}\n"
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_csv(tmp_path / "log.csv")
    (tmp_path / "wide.yaml").write_text(
        f"recore: 1\nextends: {home / 'tiny.yaml'}\ndata: {{path: log.csv, items: ~}}\ntrainer: {{epochs: 1}}\n{told}"
    )
    status, out, err = main(capsys, "run", tmp_path / "wide.yaml", "--runs", tmp_path / "runs", "--quiet")
    assert (status, err) == (0, "")
    counts = json.loads((Path(out.strip()) / "record.json").read_text(encoding="utf-8"))["counts"]
    cut = {what: n for what, n in counts.items() if "longer than" in what or "lose from view" in what}
    assert len(cut) == 6
    assert set(cut.values()) == {0}


def test_the_policies_are_told_before_training(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not 0 stands in the plan, with its policy in its words."""
    rows = awkward()
    wanted = expected(rows)
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_csv(tmp_path / "log.csv")
    (tmp_path / "mine.yaml").write_text(
        f"recore: 1\nextends: {home / 'tiny.yaml'}\ndata: {{path: log.csv, items: ~, time: time}}\n"
        f"model: {{history: {{last: {BOUND}}}}}\ntrainer: {{epochs: 1}}\n"
    )
    status, out, _ = main(capsys, "run", tmp_path / "mine.yaml", "--runs", tmp_path / "runs")
    assert status == 0
    for what in (
        "users with fewer than 3 events, all of which train",
        "test targets not in training (cold)",
        "test targets already in their history",
        f"training histories longer than the last {BOUND + 1} events, which are read",
        "events that test histories lose from view by that",
    ):
        assert f"{what}: {wanted[what]:,}" in out
    assert f"{wanted['events whose time another of the same user has']} events tied, ties by file" in out


# ---- real data -------------------------------------------------------------------------------------------

REAL = """\
recore: 1
split: {use: recore-data:leave-last}
tokenizer: {use: recore-tokenizers:items}
objective: {use: recore-objectives:next-item}
model:
  history: {last: 20}
  embedder: {use: recore-embeddings:padding-safe, width: 8}
  encoder: {use: recore-sasrec:sasrec, layers: 1, dropout: 0.0}
batcher: {use: recore-batchers:ragged, users: 2048}
loss: {use: recore-losses:bce}
sampler: {use: recore-samplers:uniform, count: 1, exclude: target}
trainer: {use: recore-training:standard, learning_rate: 1e-3, epochs: 1}
evaluators: {use: recore-evaluation:ranking, k: [10]}
"""


def data_file(name: str) -> Path:
    path = Path(os.environ.get("RECORE_DATA", "")) / name
    if "RECORE_DATA" not in os.environ or not path.exists():
        pytest.skip(f"RECORE_DATA does not lead to {name}")
    return path


def real(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: str) -> dict[str, Any]:
    """The record of one cheap epoch over a real log."""
    data_file(name)
    (tmp_path / "real.yaml").write_text(f"{REAL}data: {data}\n")
    status, out, err = main(capsys, "run", tmp_path / "real.yaml", "--runs", tmp_path / "runs", "--quiet")
    assert (status, err) == (0, "")
    record: dict[str, Any] = json.loads((Path(out.strip()) / "record.json").read_text())
    return {**record, "ranks": pl.read_parquet(Path(out.strip()) / "users-test.parquet")["rank"]}


@pytest.mark.data
def test_a_tenth_of_the_targets_of_the_larger_beauty_is_cold(tmp_path: Path) -> None:
    """4,018 of 40,226, ranked behind all items. The whole log is read and split; 2,000 of its targets are asked, of
    a model that is not trained, since 2 × 40,226 rankings of 54,542 items take a minute and more."""
    from recore.engine.prepare import prepare
    from recore.sequential import SequentialScorer

    data_file("beauty-bert4rec/beauty.txt")
    path = "$RECORE_DATA/beauty-bert4rec/beauty.txt"
    (tmp_path / "real.yaml").write_text(f"{REAL}data: {{use: recore-data:sequences, path: {path}}}\n")
    prepared = prepare(recore.load(tmp_path / "real.yaml"), 0, Machine())
    counts = prepared.parts.counts
    assert len(prepared.parts.test) == 40_226
    assert counts["test targets not in training (cold)"] == 4_018
    assert counts["training histories longer than the last 21 events, which are read"] > 0
    assert prepared.card["protocol"]["data"]["order across users"] == "unknown"
    whole = prepared.examination("test")
    assert int(whole.cold.sum()) == 4_018
    test = prepared.parts.test
    some = np.random.default_rng(0).permutation(len(test))[:2_000]
    some.sort()
    prepared.parts = attrs.evolve(
        prepared.parts, test=Holdout(test.target[some], test.start[some], test.stop[some])
    )
    tokenizer = prepared.context.tokenizer
    assert tokenizer is not None
    objective = prepared.context.build(prepared.recipe.objective)
    model: Any = prepared.model()
    scorer = SequentialScorer(model, tokenizer, objective, frozenset())
    got = prepared.examination("test").ask(scorer, prepared.evaluators)
    cold = int(whole.cold[some].sum())
    assert 150 < cold < 250
    assert got.counts["cold targets (never seen in training)"] == cold
    assert got.counts["targets that are no candidates (rank V + 1)"] == cold
    assert ((got.frame["rank"] == tokenizer.items + 1).to_numpy() == whole.cold[some]).all()


@pytest.mark.data
def test_most_targets_of_nyc_are_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "nyc/events.csv"
    record = real(
        tmp_path, capsys, name, f"{{use: recore-data:events, path: $RECORE_DATA/{name}, time: minute}}"
    )
    counts = record["counts"]
    assert counts["targets"] == 1_083
    assert counts["test targets already in their history"] == 754
    assert counts["targets in their own history (made impossible by the seen filter)"] == 754
    assert counts["targets that are no candidates (rank V + 1)"] == 754
    assert counts["events whose time another of the same user has"] == 13_644
    assert counts["events equal in user, item and time"] == 899
    # Every history is longer than 20: 1,083 users have 17 to 2,515 events.
    assert counts["test histories longer than the last 20 events, which are read"] > 1_000
