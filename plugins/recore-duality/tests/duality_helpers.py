"""A tiny recipe of two views, logs with many equal times, and models in float64 with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from attrs import evolve, frozen
from hypothesis import strategies as st
from recore_duality.model import DualModel
from recore_duality.scorer import AudienceScorer, DualScorer
from recore_duality.training import DualTraining

import recore
from recore.api import Machine
from recore.data import Interactions
from recore.engine.prepare import Prepared, prepare
from recore.engine.report import Silent

Row = tuple[int, int, int]  # user, item, time

RECIPE = """\
recore: 1
data: {use: recore-data:events, time: time}
split: {use: recore-data:leave-last}
tokenizer: {use: recore-tokenizers:items}
objective: {use: recore-objectives:next-item}
model:
  use: recore-duality:dual
  history: {last: 40}
  embedder: {use: recore-embeddings:padding-safe, width: 4, initial: normal, std: 0.5}
  position: {use: recore-positions:start-absolute}
  encoder: {use: recore-sasrec:sasrec, layers: 1, dropout: 0.0}
  item:
    objective: {use: recore-duality:next-user}
    history: {last: 3}
    embedder: {use: recore-embeddings:padding-safe, width: 4, initial: normal, std: 0.5}
    position: {use: recore-positions:start-absolute}
    encoder: {use: recore-sasrec:sasrec, layers: 1, dropout: 0.0}
    moments: 2
    questions: 3
batcher: {use: recore-batchers:ragged, users: 8}
loss:
  - {name: next-item, use: recore-losses:ce}
  - {name: next-user, use: recore-losses:ce, view: item}
  - {name: consistency, use: recore-duality:consistency, view: item}
trainer: {use: recore-duality:duality, epochs: 3, learning_rate: 1e-2}
evaluators:
  - {use: recore-evaluation:ranking, k: [5, 10]}
  - {use: recore-duality:audience, k: [5, 10]}
"""
# What laid over it makes an item's users a set.
SET: dict[str, Any] = {
    "data": {"order_across_users": False},
    "model": {"item": {"position": None, "encoder": {"causal": False}}},
}


def framed(rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """What laid over the recipe makes these rows (user, item, time) its data."""
    return {"data": {"frame": pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")}}


def laid(*overlays: Mapping[str, Any]) -> dict[str, Any]:
    """Overlays over each other, mappings key by key."""
    made: dict[str, Any] = {}
    for overlay in overlays:
        for key, value in overlay.items():
            both = isinstance(value, Mapping) and isinstance(made.get(key), dict)
            made[key] = laid(made[key], value) if both else value
    return made


def walks(users: int = 8, items: int = 6, seed: int = 0) -> list[Row]:
    """Users over items at times that tie within and across users, each user with 4 to 7 events."""
    random = torch.Generator().manual_seed(seed)
    rows = []
    for user in range(users):
        count = int(torch.randint(4, 8, (1,), generator=random))
        times = torch.randint(0, 10, (count,), generator=random).sort().values.tolist()
        met = torch.randint(0, items, (count,), generator=random).tolist()
        rows += list(zip([user] * count, met, times, strict=True))
    order = torch.randperm(len(rows), generator=random).tolist()
    return [rows[n] for n in order]


def interactions(rows: Sequence[Row], **more: Any) -> Interactions:
    """A log whose event ids are places in `rows`."""
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").with_row_index("event")
    return Interactions.from_frame(frame.with_columns(pl.col("event").cast(pl.Int64)), **more)


@st.composite
def logs(draw: st.DrawFn, users: int = 5, items: int = 6, times: int = 8, most: int = 16) -> list[Row]:
    """One to `most` events with many equal times; users and items may repeat."""
    row = st.tuples(st.integers(0, users - 1), st.integers(0, items - 1), st.integers(0, times - 1))
    return draw(st.lists(row, min_size=1, max_size=most))


@frozen(repr=False)
class Made:
    """A prepared recipe and its model, in float64, in evaluation mode, with random weights everywhere."""

    prepared: Prepared
    model: DualModel

    def training(self, log: Interactions | None = None) -> DualTraining:
        """The model's side of a step over a log (None: the training part)."""
        fit: Any = self.prepared.fit(Path("nowhere"), Silent())  # type: ignore[arg-type]  # not written to
        if log is not None:
            fit.context = evolve(fit.context, interactions=log)
        training = DualTraining(self.model, fit)
        self.model.eval()
        return training

    def answering(self, log: Interactions) -> AudienceScorer:
        """The scorer of users where `log` is known."""
        fit: Any = self.prepared.fit(Path("nowhere"), Silent())  # type: ignore[arg-type]  # not written to
        scorer = DualScorer(self.model, fit.tokenizer, fit.build_objective(), fit.columns)
        return scorer.audience(log)


def make(
    recipe: Path, *overlays: Mapping[str, Any], seed: int = 1, dtype: torch.dtype = torch.float64
) -> Made:
    """The model of the recipe under some overlays; `walks()` unless one of them brings data."""
    overlay = laid(framed(walks()), *overlays)
    prepared = prepare(recore.load(recipe, overlay=overlay), 0, Machine(threads=1))
    model: Any = prepared.model()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64) * 0.5)
    return Made(prepared, model.to(dtype).eval())


def figures(folder: Path) -> dict[str, Any]:
    """What must be equal to the last bit in two runs that are the same: metrics, epochs, the best weights, and all
    tensors of the last checkpoint."""
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    kept = ("epoch", "step", "losses", "validation", "best", "stop", "learning_rate")
    return {
        **{key: record[key] for key in ("test", "validation", "intervals", "best_epoch", "counts")},
        "lines": [{key: line[key] for key in kept} for line in lines],
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "end": max((folder / "checkpoints").iterdir()).joinpath("state.safetensors").read_bytes(),
        "rows": pl.read_parquet(folder / "users-test.parquet").to_dict(as_series=False),
    }
