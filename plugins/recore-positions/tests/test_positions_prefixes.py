"""`prediction-absolute` through the real training, `recore-batchers:by-length` and all, beside a loop that runs the
model on each prefix by itself; and the packed form, `relative-keys-values` with `tied: true`, beside both.

Legend: `E` predictions of an epoch, `d` width. In float64, to 1e-9 of the largest value; gradients to 1e-9 of the
largest over all parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import recore
from recore.api import Machine
from recore.engine.prepare import prepare
from recore.engine.report import Silent
from recore.engine.rundir import RunFolder
from recore.ragged import Batch
from recore.sequential import SequentialModel, SequentialTraining

BOUND, ITEMS = 5, 17
# The lengths of training histories: two more events of each user are validation and test.
HELD = (1, 2, 3, BOUND - 1, BOUND, BOUND + 1, BOUND + 2, 13, 2, 7)
RECIPE = f"""\
recore: 1
data: {{use: recore-data:events, path: log.csv}}
split: {{use: recore-data:leave-last}}
tokenizer: {{use: recore-tokenizers:items}}
objective: {{use: recore-objectives:next-item}}
model:
  history: {{last: {BOUND}}}
  embedder: {{use: recore-embeddings:padding-safe, width: 8}}
  position: {{use: recore-positions:prediction-absolute, std: 0.5}}
  encoder: {{use: recore-sasrec:sasrec, heads: 2, dropout: 0.0}}
batcher: {{use: recore-batchers:by-length, contexts: 4}}
loss: {{use: recore-losses:ce}}
trainer: {{use: recore-training:standard}}
evaluators: {{use: recore-evaluation:ranking}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefixes")
    random = torch.Generator().manual_seed(0)
    rows = [
        (f"u{user}", f"i{int(item)}")
        for user, held in enumerate(HELD)
        for item in torch.randperm(ITEMS, generator=random)[: held + 2]
    ]
    pl.DataFrame(rows, schema=["user", "item"], orient="row").write_csv(folder / "log.csv")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


def training(home: Path, folder: Path, overlay: dict[str, Any]) -> tuple[SequentialModel, SequentialTraining]:
    """The recipe, built as a run builds it; weights with noise, the same for the same parameters."""
    made = prepare(recore.load(home / "recipe.yaml", overlay=overlay), 0, Machine(precision="float64"))
    model = made.model()
    assert isinstance(model, SequentialModel)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=random, dtype=torch.float64), alpha=0.3)
    return model, SequentialTraining(model, made.fit(RunFolder(folder), Silent()))


Outcome = tuple[dict[int, Tensor], dict[str, Tensor]]


def by_training(model: SequentialModel, side: SequentialTraining) -> Outcome:
    """States, by the log's row of the event they stand at, and the gradients of the mean loss of an epoch."""
    batches = [batch for number in range(side.batches(0)) for batch in side.draw(0, number)]
    states: dict[int, Tensor] = {}
    for batch in batches:
        view, targets = batch.views["user"], batch.targets
        assert targets is not None
        rows = zip(view["event"][targets.where].tolist(), model(batch, view, targets.where), strict=True)
        for event, state in rows:
            assert event not in states, "each target once"
            states[event] = state.detach()
    model.zero_grad()
    side.backward(batches, side.weights(batches), 1)
    return states, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def by_loop(model: SequentialModel, side: SequentialTraining) -> Outcome:
    """Every event with one before it is a target after the last `BOUND` events before it, each prefix alone."""
    held, states, losses = side.histories, {}, []
    for number in range(len(held)):
        first, stop = int(held.offsets[number]), int(held.offsets[number + 1])
        for target in range(first + 1, stop):
            start = torch.tensor([max(first, target - BOUND)])
            view = held.cut(start, torch.tensor([target])).laid_out(model.layout)
            (state,) = model(Batch({"user": view}), view)[-1:]
            table = model.embedder.table()
            losses.append(F.cross_entropy(table.weight @ state, held["item"][target]))
            states[int(view["event"][-1])] = state.detach()
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(torch.stack(losses).mean(), parameters)
    return states, dict(zip(names, found, strict=True))


def gap(one: dict[Any, Tensor], other: dict[Any, Tensor]) -> float:
    """How far they are apart, of the largest."""
    assert set(one) == set(other)
    largest = max(float(value.abs().max()) for value in one.values())
    return max(float((one[key] - other[key]).abs().max()) for key in one) / largest


def apart(one: Outcome, other: Outcome) -> tuple[float, float]:
    """How far states and gradients are apart."""
    return gap(one[0], other[0]), gap(one[1], other[1])


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("norm", [{}, {"norm": "all", "residual": "input"}], ids=["queries", "all"])
def test_by_length_equals_a_loop_over_prefixes(
    home: Path, tmp_path: Path, layers: int, norm: dict[str, Any]
) -> None:
    model, side = training(home, tmp_path, {"model": {"encoder": {"layers": layers, **norm}}})
    states, gradients = apart(by_loop(model, side), by_training(model, side))
    assert len(by_loop(model, side)[0]) == sum(held - 1 for held in HELD)
    assert states <= 1e-9
    assert gradients <= 1e-9


def forms(home: Path, folder: Path, encoder: dict[str, Any]) -> tuple[float, float]:
    """How far the packed form is from prefixes by length, histories within the bound."""
    base = {"history": {"last": max(HELD)}, "encoder": encoder}
    prefixes = training(home, folder, {"model": base})
    tied = {"use": "recore-positions:relative-keys-values", "tied": True, "max_distance": max(HELD) - 1}
    packed = training(
        home,
        folder,
        {
            "model": {**base, "position": {**tied, "std": 0.5}},
            "batcher": {"use": "recore-batchers:ragged", "users": 3},
        },
    )
    for (name, a), (other, b) in zip(
        prefixes[0].named_parameters(), packed[0].named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b), "one seed draws the same vectors for both forms"
    return apart(by_training(*prefixes), by_training(*packed))


def test_one_layer_packed_equals_by_length(home: Path, tmp_path: Path) -> None:
    states, gradients = forms(home, tmp_path, {"layers": 1})
    assert states <= 1e-9
    assert gradients <= 1e-9


@pytest.mark.parametrize("encoder", [{"layers": 2}, {"layers": 1, "norm": "all", "residual": "input"}])
def test_two_layers_or_a_norm_on_keys_and_values_do_not(
    home: Path, tmp_path: Path, encoder: dict[str, Any]
) -> None:
    states, gradients = forms(home, tmp_path, encoder)
    assert states > 0.02
    assert gradients > 0.02
