"""The record of a run: small JSON, from which every results page is rendered.

Its form is documented in docs/reference/records.md; `RECORD_FORMAT` rises when it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

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
    test: Evaluated,
    validation: Mapping[str, float],
    lines: list[dict[str, Any]],
    machine: Machine,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The record, with 95% intervals over users of every test metric."""
    frame = test.frame
    metrics = [name for name in test.totals if name in frame.columns]
    best = max((line["epoch"] for line in lines if line["best"]), default=None)
    return {
        "format": RECORD_FORMAT,
        "recipe": recipe.name,
        "cell": recipe.cell,
        "seed": seed,
        "card": card,
        "test": dict(test.totals),
        "validation": dict(validation),
        "intervals": {
            name: list(interval(frame[name].to_numpy(), seed=seed)) for name in metrics if len(frame)
        },
        "groups": dict(test.groups),
        "counts": {**dict(facts.get("counts", {})), **dict(test.counts)},
        "users": len(frame),
        "epochs": len(lines),
        "best_epoch": best,
        "seconds_per_epoch": round(float(np.mean([line["seconds"] for line in lines])), 3) if lines else 0.0,
        "validation_seconds_per_epoch": round(
            float(np.mean([line["validation_seconds"] for line in lines])), 3
        )
        if lines
        else 0.0,
        "peak_memory_mib": max([peak_memory_mib(), *(line["peak_memory_mib"] for line in lines)]),
        "parameters": facts.get("parameters"),
        "machine": machine.describe(),
        "versions": {**versions(), "plugins": facts.get("plugins", [])},
    }


def record_path(root: Path, record: Mapping[str, Any]) -> Path:
    """Where a record belongs under a folder of records: `<recipe>/<cell>/seed-<n>.json`."""
    return root / str(record["recipe"]) / str(record["cell"]) / f"seed-{record['seed']}.json"


def keep_record(root: Path, record: Mapping[str, Any]) -> Path:
    """Write a record where it belongs under `root`."""
    path = record_path(root, record)
    write_json(path, record)
    return path
