"""The whole log, read and split as a run will read it, in numbers.

Legend: `u` users, `n` events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl
from attrs import field, frozen

from recore.component import Context
from recore.contracts.data import SplitParts
from recore.data import Ids, Interactions
from recore.errors import DataError, Problem
from recore.newrecipe.columns import Roles
from recore.newrecipe.look import Look
from recore.newrecipe.parts import PARTS
from recore.recipe import from_tree, make_builder

ENDINGS: Final = {
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson"),
}  # from which the dataset tells a format
CORE: Final = 5  # events under which users and items count as rare


@frozen
class Ratings:
    """Ratings that are explicit: how many different values, their range, and the events with a high one: at
    least `high`."""

    values: int
    low: float
    top: float
    high: float
    share: float


@frozen
class Findings:
    """What is known of a log. `lengths`: events per training history, at 50, 90, 95 and 100 percent. `repeats`: the
    share of events whose item the user had before; `runs`: of those, directly before. `counts`: what the dataset
    and the split counted; `histories (u,)`: events in training of each."""

    events: int
    users: int
    items: int
    training: int
    tested: int
    mean: float
    lengths: Mapping[int, int]
    short: int
    rare_users: int
    rare_items: int
    times: bool
    first: float | None
    last: float | None
    tied: int
    equal: int
    in_order: bool
    clocks: bool
    repeats: float
    runs: int
    repeated_targets: int
    cold_targets: int
    ratings: Ratings | None
    counts: Mapping[str, int] = field(factory=dict)
    histories: Ids = field(factory=lambda: np.zeros(0, dtype=np.int64))

    def predictions(self, last: int) -> int:
        """Events predicted in an epoch when the last `last` of each training history are read."""
        return int(np.clip(self.histories - 1, 0, last).sum())


def data_tree(look: Look, roles: Roles, path: str) -> dict[str, Any]:
    """The `data:` of the recipe: which dataset, and what it has to be told."""
    if look.form in ("pairs", "lines") and (roles.user, roles.item) == ("column 1", "column 2"):
        tree: dict[str, Any] = {"use": PARTS["sequences"], "path": path}
        return tree if look.form == "pairs" else {**tree, "form": "lines"}
    chosen = {"user": roles.user, "item": roles.item, "time": roles.time, "rating": roles.rating}
    found = {role: name for role, name in chosen.items() if name is not None}
    # Columns without names get those of their roles.
    given = {} if look.header else {name: role for role, name in found.items()}
    tree = {"use": PARTS["events"], "path": path}
    tree |= {role: given.get(name, name) for role, name in found.items()}
    if roles.moments is not None and roles.moments.format is not None:
        tree["time_format"] = roles.moments.format
    name = look.path.name.lower().removesuffix(".gz")
    format = look.format or "tsv"
    endings = {
        "csv": (".csv",),
        "tsv": (".tsv", ".tab"),
        "parquet": (".parquet", ".pq"),
        "jsonl": (".jsonl", ".ndjson"),
    }
    if not name.endswith(endings[format]):
        tree["format"] = format
    if look.separator is not None and look.separator != {"csv": ",", "tsv": "\t"}.get(format):
        tree["separator"] = look.separator
    if look.encoding != "utf-8":
        tree["encoding"] = look.encoding
    if not look.header:
        tree["header"] = [given.get(name, name) for name in look.names]
    return tree


def read_findings(look: Look, roles: Roles) -> Findings:
    """Read and split the log. Raises DataError with all that is wrong in it."""
    tree = data_tree(look, roles, str(look.path.resolve()))
    recipe = from_tree(
        {
            "recore": 1,
            "data": tree,
            "split": {"use": PARTS["split"]},
            "tokenizer": {"use": PARTS["tokenizer"]},
            "objective": {"use": PARTS["objective"]},
            "model": {
                "embedder": {"use": PARTS["embedder"]},
                "encoder": {"use": PARTS["encoder"]},
            },
            "batcher": {"use": PARTS["batcher"]},
            "loss": {"use": PARTS["ce"]},
            "trainer": {"use": PARTS["trainer"]},
            "evaluators": [{"use": PARTS["evaluator"]}],
        }
    )
    context = Context(facts=recipe.facts, builder=make_builder(recipe.plugins))
    log: Interactions = context.build(recipe.data).load(context)
    parts: SplitParts = context.build(recipe.split).parts(log)
    if not len(parts.test):
        most = int(np.diff(log.offsets()).max())
        what = f"{look.path}: no user has 3 events, one each to train on, to validate and to test; the most is {most}"
        hint = "is this column the user? --user COL" if not roles.session else "try longer sessions, or users"
        raise DataError(Problem(what, hint=hint))
    return _findings(look, log, parts)


def _findings(look: Look, log: Interactions, parts: SplitParts) -> Findings:
    events = log.events
    offsets = log.offsets()
    lengths = np.diff(offsets)
    kept = np.diff(log.rows(parts.train).offsets())
    timed = "time" in events.columns
    again = events.select(pl.struct("user", "item").is_first_distinct()).to_series()
    runs = events.select(pl.struct("user", "item").rle_id()).to_series()
    of_item = events.group_by("item").len()["len"]
    counts = {**log.counts, **parts.counts}
    return Findings(
        events=len(log),
        users=len(lengths),
        items=of_item.len(),
        training=len(parts.train),
        tested=len(parts.test),
        mean=float(lengths.mean()),
        lengths={q: int(np.quantile(kept, q / 100, method="inverted_cdf")) for q in (50, 90, 95, 100)},
        short=int((lengths < 3).sum()),
        rare_users=int((lengths < CORE).sum()),
        rare_items=int((of_item < CORE).sum()),
        times=timed,
        first=float(events["time"].min()) if timed else None,  # type: ignore[arg-type]  # numbers, never null
        last=float(events["time"].max()) if timed else None,  # type: ignore[arg-type]
        tied=_counted(counts, "events whose time another"),
        equal=_counted(counts, "events equal in user"),
        in_order=not timed or bool(events["event"].diff().drop_nulls().ge(0).all()) or _sorted_file(events),
        clocks=timed and _own_clocks(events, offsets),
        repeats=1 - float(again.mean()),  # type: ignore[arg-type]  # of booleans
        runs=int((runs.diff() == 0).sum()),
        repeated_targets=_counted(counts, "test targets already in their history"),
        cold_targets=_counted(counts, "test targets not in training"),
        ratings=_ratings(events),
        counts=counts,
        histories=kept,
    )


def _counted(counts: Mapping[str, int], begins: str) -> int:
    return next((count for what, count in counts.items() if what.startswith(begins)), 0)


def _sorted_file(events: pl.DataFrame) -> bool:
    """Whether the rows stand in the file in the order of time, within each user at least."""
    rows = events.select("user", "event", "time").sort("event")
    falls = rows.select((pl.col("time").diff().over("user") < 0).any()).item()
    return not falls


def _own_clocks(events: pl.DataFrame, offsets: Ids) -> bool:
    """Whether each user's times begin anew: then they say nothing about the order across users."""
    starts = events["time"].gather(offsets[:-1])
    return len(starts) > 2 and starts.n_unique() == 1


def _ratings(events: pl.DataFrame) -> Ratings | None:
    if "rating" not in events.columns:
        return None
    column = events["rating"].cast(pl.Float64)
    low, top = float(column.min()), float(column.max())  # type: ignore[arg-type]  # checked to be numbers
    high = low + 0.75 * (top - low)
    return Ratings(column.n_unique(), low, top, high, float((column >= high).mean()))  # type: ignore[arg-type]
