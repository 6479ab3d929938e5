"""What the tests of the engine share: a tiny recipe, a tiny log, and how two runs are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recore.api import Result

Small = Callable[..., Result]
Forked = Callable[..., tuple[int, str, str]]

RECIPE = """\
recore: 1
data: {use: recore-data:events, path: log.csv, items: {path: titles.csv, id: item, title: title}}
split: {use: recore-data:leave-last}
tokenizer: {use: recore-tokenizers:items}
objective: {use: recore-objectives:next-item}
model:
  history: {last: 6}
  embedder: {use: recore-embeddings:padding-safe, width: 8}
  position: {use: recore-positions:start-absolute}
  encoder: {use: recore-sasrec:sasrec, layers: 1, dropout: 0.2}
batcher: {use: recore-batchers:ragged, users: 8}
loss: {use: recore-losses:ce}
trainer: {use: recore-training:standard, learning_rate: 1e-2, epochs: 3}
evaluators: {use: recore-evaluation:ranking, k: [5, 10]}
"""
USERS, ITEMS = 30, 24


def walks(users: int = USERS, items: int = ITEMS, seed: int = 0) -> pl.DataFrame:
    """Users who walk over the items in steps of one or two, without meeting one again."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        at = int(random.integers(items))
        steps = random.integers(1, 3, size=int(random.integers(4, 11)))
        rows += [(f"u{user}", f"i{(at + int(step)) % items:02d}") for step in np.cumsum(steps)]
    return pl.DataFrame(rows, schema=["user", "item"], orient="row")


def figures(folder: Path) -> dict[str, Any]:
    """What must be equal to the last bit in two runs that are the same: metrics, epochs, weights."""
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    kept = ("epoch", "step", "losses", "validation", "best", "stop", "learning_rate")
    return {
        **{key: record[key] for key in ("test", "validation", "intervals", "groups", "best_epoch", "counts")},
        "lines": [{key: line[key] for key in kept} for line in lines],
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "users": pl.read_parquet(folder / "users-test.parquet").to_dict(as_series=False),
    }


def command(*arguments: str | Path, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """`recore …` in a fresh process."""
    return subprocess.Popen(
        [sys.executable, "-m", "recore.cli.main", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """`recore …` in this process: exit status, what it printed, what it complained."""
    from recore.cli.main import main as command_line

    capsys.readouterr()
    try:
        status = command_line([str(argument) for argument in arguments])
    except SystemExit as stopped:  # argparse
        status = int(stopped.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def framed(frame: Any) -> dict[str, Any]:
    """What laid over the tiny recipe makes a frame its data."""
    return {"data": {"use": "recore-data:events", "path": None, "items": None, "frame": frame}}
