"""The record of a run: small JSON, from which every results page is rendered.

Its form is documented in docs/reference/records.md; `RECORD_FORMAT` rises when it changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recore.engine.evaluate import Evaluated
from recore.engine.machine import Machine, peak_memory_mib, versions
from recore.engine.rundir import write_json
from recore.recipe import Recipe
from recore.statistics import interval

RECORD_FORMAT = 1


def make_record(
    recipe: Recipe,
    seed: int,
    card: Mapping[str, Any],
    test: Evaluated | None,
    validation: Mapping[str, float],
    lines: list[dict[str, Any]],
    machine: Machine,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The record, with 95% intervals over users of every test metric. Without `test` it has no test figures."""
    frame = None if test is None else test.frame
    best = max((line["epoch"] for line in lines if line["best"]), default=None)
    return {
        "format": RECORD_FORMAT,
        "recipe": recipe.name,
        "cell": recipe.cell,
        "seed": seed,
        "card": card,
        "test": {} if test is None else dict(test.totals),
        "validation": dict(validation),
        "intervals": {} if test is None or frame is None else intervals(frame, list(test.totals), seed),
        "groups": {} if test is None else dict(test.groups),
        "counts": {**dict(facts.get("counts", {})), **({} if test is None else dict(test.counts))},
        "users": 0 if frame is None else frame["user"].n_unique(),
        "epochs": len(lines),
        "best_epoch": best,
        "seconds_per_epoch": _mean(lines, "seconds"),
        "validation_seconds_per_epoch": _mean(lines, "validation_seconds"),
        "peak_memory_mib": max([peak_memory_mib(), *(line["peak_memory_mib"] for line in lines)]),
        "parameters": facts.get("parameters"),
        "fit_all": facts.get("fit_all"),
        "update": facts.get("update"),
        "machine": machine.describe(),
        "versions": {**versions(), "plugins": facts.get("plugins", [])},
    }


def intervals(frame: pl.DataFrame, metrics: Sequence[str], seed: int) -> dict[str, list[float]]:
    """95% bootstrap intervals over users of the metrics that the frame holds a row of for each target."""
    users = frame["user"]
    return {
        name: list(interval(frame[name].to_numpy(), seed=seed, users=users))
        for name in metrics
        if name in frame.columns and len(frame)
    }


def _mean(lines: Sequence[Mapping[str, Any]], key: str) -> float:
    return round(float(np.mean([line[key] for line in lines])), 3) if lines else 0.0


def record_path(root: Path, record: Mapping[str, Any]) -> Path:
    """Where a record belongs under a folder of records: `<recipe>/<cell>/seed-<n>.json`."""
    return root / str(record["recipe"]) / str(record["cell"]) / f"seed-{record['seed']}.json"


def keep_record(root: Path, record: Mapping[str, Any]) -> Path:
    """Write a record where it belongs under `root`."""
    path = record_path(root, record)
    write_json(path, record)
    return path
