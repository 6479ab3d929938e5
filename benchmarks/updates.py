"""Fourteen daily updates of one run, beside a full retrain each day and beside no update at all.

    python benchmarks/updates.py --json docs/results/updates.json      # about 6 minutes on one core
    python benchmarks/updates.py --days 3 --users 200                  # smaller

A simulated log (`recore-world`) in which items are born and retire. The first run is trained on all events before
the first day, for the epochs that validation chose (`--fit-all`). Then, at the beginning of each day:

- *update*: `recore update` of yesterday's run with yesterday's events, all of which train, for `--epochs` epochs;
  items whose day of retirement has come are retired (`--retire`).
- *retrain*: the recipe from the beginning on all events so far, for the epochs that validation chose.
- *none*: the first run as it is.

Each then answers for every event of the day whose user has a history: all that the user did before that event, the
same day included, whatever the run knows of it. Candidates are all items that the run has rows for, without those
of the user's history and without those retired by that day. An item that the run has no row for (born that day, or
for *none* since) is ranked last, hence a miss: it counts in the mean. NDCG@10 = 1 / log2(1 + rank) where rank ≤ 10.

Times are those of the whole command, reading, checking and writing included: wall clock, and processor time, which
suffers less where the machine is busy with other things. Old ids are compared day by day: `ids kept`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from attrs import define, field, frozen
from recore_world.activity import BEGINNING, DAY
from recore_world.dataset import WorldData
from recore_world.options import WorldOptions

import recore
from recore.component import Context
from recore.contracts import Holdout, Queries, Scorer, Tokenizer
from recore.data import Interactions
from recore.engine.evaluate import Examination
from recore.engine.machine import Machine
from recore.engine.run import Opened, reopen
from recore.engine.run import run as run_recipe
from recore.engine.update import Asked, update
from recore.statistics import interval

METRIC, KINDS = "ndcg@10", ("update", "retrain", "none")
LAST = 53  # of sixty days: towards the end of a simulated world users are few
RECIPE: dict[str, Any] = {
    "recore": 1,
    "split": {"use": "recore-data:leave-last"},
    "tokenizer": {"use": "recore-tokenizers:items"},
    "objective": {"use": "recore-objectives:next-item"},
    "model": {
        "history": {"last": 50},
        "embedder": {"use": "recore-embeddings:padding-safe", "width": 32},
        "position": {"use": "recore-positions:start-absolute"},
        "encoder": {"use": "recore-sasrec:sasrec", "layers": 2, "heads": 1, "dropout": 0.2},
    },
    "batcher": {"use": "recore-batchers:ragged", "users": 64},
    "loss": {"use": "recore-losses:ce"},
    "trainer": {
        "use": "recore-training:standard",
        "learning_rate": 3e-3,
        "epochs": 40,
        "patience": 4,
    },
    "evaluators": {"use": "recore-evaluation:ranking", "k": [10]},
}


def recipe(events: pl.DataFrame) -> recore.Recipe:
    """The recipe over a log."""
    from recore.recipe import from_tree

    data = {"use": "recore-data:events", "frame": events, "time": "time"}
    return from_tree({**RECIPE, "data": data}, "updates")


def world(users: int, seed: int) -> Interactions:
    """A log of sixty days; two items of five are born after the first, one of three is drawn to retire."""
    options = WorldOptions(
        users=users,
        items=300,
        events=25.0,
        longest=75,
        days=60,
        births=0.4,
        retirements=0.33,
        propensities=False,
        seed=seed,
    )
    return WorldData(options).load(Context())


@frozen
class Alive:
    """A scorer for which some items are no candidates, `closed (V,)`."""

    scorer: Scorer
    closed: torch.Tensor

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the scorer."""
        return self.scorer.tokenizer

    def encode(self, queries: Queries) -> torch.Tensor:
        """That of the scorer."""
        return self.scorer.encode(queries)

    def score(self, state: torch.Tensor, items: torch.Tensor | None = None) -> torch.Tensor:
        """Scores `(B, V)`, −inf where closed."""
        assert items is None
        return self.scorer.score(state).masked_fill(self.closed, float("-inf"))


def measure(opened: Opened, log: Interactions, since: int, gone: pl.Series) -> tuple[pl.DataFrame, int]:
    """The evaluator's frame, a row for each event of `log` from the time `since` that has a history; and how many
    of these events are of items that the run has no row for."""
    time = log.events["time"].to_numpy()
    offsets = log.offsets()
    first = np.repeat(offsets[:-1], np.diff(offsets))
    target = np.flatnonzero((time >= since) & (np.arange(len(log)) > first))
    tokenizer = opened.scorer.tokenizer
    closed = torch.zeros(tokenizer.items, dtype=torch.bool)
    ids = tokenizer.item_ids(gone)
    closed[torch.from_numpy(ids[ids >= 0])] = True
    every = np.arange(tokenizer.items)
    asked = Examination(log, Holdout(target, first[target], target), tokenizer, "test", opened.seed, every)
    evaluators = [opened.context.build(part) for part in opened.recipe.evaluators]
    return asked.ask(Alive(opened.scorer, closed), evaluators).frame, int(asked.cold.sum())


def timed(work: Callable[[], Path]) -> tuple[Path, dict[str, float]]:
    """What `work` gives, and the seconds that it took."""
    wall, spent = time.perf_counter(), time.process_time()
    made = work()
    took = {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - spent}
    return made, {name: round(value, 2) for name, value in took.items()}


def vocabulary(path: Path) -> pl.Series:
    """The items of a run, by id."""
    tokenizer = reopen(path).scorer.tokenizer
    return tokenizer.items_of(np.arange(tokenizer.items))


@define
class Days:
    """A log with the times of births and retirements among its items, and what goes on over it day by day."""

    log: Interactions
    machine: Machine
    root: Path
    epochs: int  # of an update
    best: int = 0  # those that validation chose, of a run from the beginning
    frames: dict[str, list[pl.DataFrame]] = field(factory=lambda: {name: [] for name in KINDS})

    @property
    def events(self) -> pl.DataFrame:
        """The columns that are used."""
        return self.log.events.select("user", "item", "time")

    def before(self, day: int) -> pl.DataFrame:
        """All events before a day."""
        return self.events.filter(pl.col("time") < BEGINNING + day * DAY)

    def choose(self, day: int) -> None:
        """How many epochs: of the recipe, on the events before a day, with the split's validation."""
        chosen = run_recipe(recipe(self.before(day)), 0, self.machine, self.root / "chosen")
        self.best = chosen.json("record.json")["best_epoch"]

    def retrain(self, day: int) -> Path:
        """From the beginning, on all events before a day."""
        fit_all = {"epochs": self.best, "from": str(self.root / "chosen")}
        made = run_recipe(recipe(self.before(day)), 0, self.machine, self.root / "full", fit_all=fit_all)
        return made.path

    def updated(self, run: Path, day: int) -> Path:
        """Yesterday's run with yesterday's events, and without the items that retired since."""
        fresh = self.before(day).filter(pl.col("time") >= BEGINNING + (day - 1) * DAY)
        seen = self.gone(day).filter(self.gone(day).is_in(self.before(day)["item"].unique().implode()))
        asked = Asked(data=fresh, retire=seen if len(seen) else None, epochs=self.epochs, fit_all=True)
        return update(run, asked, self.machine, self.root / "update").path

    def gone(self, day: int) -> pl.Series:
        """Items that are retired at the beginning of a day."""
        items = self.log.items
        assert items is not None
        return items.filter(pl.col("retired") <= BEGINNING + day * DAY)["item"]

    def measured(self, runs: Mapping[str, Path], day: int) -> dict[str, Any]:
        """NDCG@10 of each run over the events of a day."""
        found: dict[str, Any] = {}
        for name, path in runs.items():
            so_far = Interactions.from_frame(self.before(day + 1))
            opened = reopen(path, self.machine)
            frame, missing = measure(opened, so_far, BEGINNING + day * DAY, self.gone(day))
            found[name] = {METRIC: mean(frame), "missing": missing}
            found["events"] = frame.height
            self.frames[name].append(frame)
        return found


def mean(frame: pl.DataFrame) -> float:
    """Of the metric, over rows."""
    return float(frame[METRIC].to_numpy().mean())


def several(days: Days, first: int, last: int, told: Callable[[str], None]) -> dict[str, Any]:
    """The measurement over the days `first` to `last`."""
    days.choose(first - 1)
    base, took = timed(lambda: days.retrain(first - 1))
    told(f"first run: {days.before(first - 1).height:,} events, {days.best} epochs, {took['seconds']} s")
    current = base
    rows: list[dict[str, Any]] = []
    for day in range(first, last + 1):
        had = vocabulary(current)
        current, of_update = timed(partial(days.updated, current, day))
        full, of_retrain = timed(partial(days.retrain, day))
        record = json.loads((current / "record.json").read_text("utf-8"))
        kept = vocabulary(current)[: len(had)].equals(had)
        row = {"day": day, "items": record["update"]["items"], "ids kept": "yes" if kept else "NO"}
        row |= days.measured({"update": current, "retrain": full, "none": base}, day)
        row["update"] |= of_update
        row["retrain"] |= of_retrain
        rows.append(row)
        told(
            f"day {day}: {row['events']} events, {METRIC} "
            + ", ".join(f"{name} {row[name][METRIC]:.4f}" for name in KINDS)
            + f"; update {of_update['seconds']} s, retrain {of_retrain['seconds']} s"
        )
    return {
        "machine": days.machine.describe(),
        "data": days.log.source,
        "recipe": RECIPE,
        "seed": 0,
        "epochs": {"update": days.epochs, "retrain": days.best},
        "days": rows,
        "total": totals(days, rows),
    }


def totals(days: Days, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all days: means over events with 95% intervals over users, and sums of times."""
    total: dict[str, Any] = {"days": len(rows), "events": sum(row["events"] for row in rows)}
    for name, parts in days.frames.items():
        every = pl.concat(parts, how="diagonal")
        low, high = interval(every[METRIC].to_numpy(), seed=0, users=every["user"])
        total[name] = {METRIC: mean(every), "low": low, "high": high}
        for unit in ("seconds", "processor_seconds", "missing"):
            total[name][unit] = round(sum(row[name].get(unit, 0) for row in rows), 2)
    for unit in ("seconds", "processor_seconds"):
        total[f"share_of_{unit}"] = round(total["update"][unit] / total["retrain"][unit], 3)
    total["added"] = sum(row["items"]["added"] for row in rows)
    total["retired"] = sum(row["items"]["retired"] for row in rows)
    return total


def main(arguments: list[str]) -> int:
    """Measure, print, and write JSON where told."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--days",
        type=int,
        default=14,
        help="how many, up to day 53 of the world (default: 14)",
    )
    parser.add_argument("--users", type=int, default=600, help="users of the world (default: 600)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of an update (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="the world's own seed (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured here")
    args = parser.parse_args(arguments)
    machine = Machine(threads=args.threads)
    machine.prepare()
    print(f"{machine.describe()}", flush=True)
    with TemporaryDirectory() as folder:
        days = Days(world(args.users, args.seed), machine, Path(folder), args.epochs)
        found = several(days, LAST - args.days + 1, LAST, lambda text: print(text, flush=True))
    print(json.dumps(found["total"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
