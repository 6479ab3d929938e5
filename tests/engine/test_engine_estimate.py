"""`recore estimate`: what it counts is what a run does, and what is large is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from engine_helpers import framed, main, walks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import recore
from recore.api import Machine, Result
from recore.engine import estimate as estimating
from recore.engine.estimate import Estimate, estimate
from recore.engine.prepare import prepare
from recore.engine.tally import GROUPS, PASSING, Tally
from recore.engine.trial import trial
from recore.errors import RecoreError

PLAIN = '''
from attrs import frozen
from torch import nn
import torch
from recore import Component, EncoderClaims, Facts, LossClaims, hookimpl, option
from recore.contracts import LossValue

@frozen
class Plain:
    """All scores at once."""

    def claims(self):
        return LossClaims(memory="full")

class PlainLoss:
    def weight(self, targets):
        return targets.weight.sum()

    def loss(self, hidden, targets, table, negatives):
        scores = hidden @ table.weight.T
        each = nn.functional.cross_entropy(scores, targets.id, reduction="none")
        return LossValue((each * targets.weight).sum(), targets.weight.sum())

@frozen
class Silent:
    """An encoder that says nothing of its costs."""

    def claims(self):
        return EncoderClaims(causal=True, padding=frozenset({"left", "right"}), batch_invariant=True)

    def provides(self):
        return Facts(heads=1, layers=1)

class RowWise(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.map = nn.Linear(width, width)

    def encode(self, x, batch, view, placed, rows=None):
        return self.map(x)

@frozen
class Counting:
    """A model that does not train by steps."""

class Counter:
    def fit(self, interactions, parts, fit):
        raise AssertionError("an estimate fits nothing")

    save = load = fit

@hookimpl
def recore_losses():
    yield Component("plain", Plain, "this:loss", summary="plain")

@hookimpl
def recore_encoders():
    yield Component("silent", Silent, "this:encoder", summary="silent")

@hookimpl
def recore_models():
    yield Component("counting", Counting, "this:model", summary="counts")

def loss(options, context):
    return PlainLoss()

def encoder(options, context):
    return RowWise(context.facts.width)

def model(options, context):
    return Counter()
'''


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("loose") / "plain.py"
    file.write_text(PLAIN, encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds do not matter here: each operation is timed for a moment only."""
    monkeypatch.setattr("recore.engine.calibrate.ENOUGH", 0.0)
    monkeypatch.setattr("recore.engine.calibrate.LOOKED", 0.0)


def guess(home: Path, overlay: dict[str, Any] | None = None, plugins: list[Path] | None = None) -> Estimate:
    recipe = recore.load(home / "tiny.yaml", overlay=overlay, plugins=plugins or [])
    return estimate(recipe, 0, Machine(threads=1))


@pytest.fixture(scope="module")
def tiny(home: Path) -> Estimate:
    return guess(home)


def log(users: int, items: int, length: int) -> pl.DataFrame:
    """Users with `length` events each, all items among them."""
    item = np.arange(users * length) % items
    return pl.DataFrame({"user": np.repeat(np.arange(users), length), "item": item})


# ---- what is counted -----------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_run(tiny: Estimate, whole: Result) -> None:
    lines = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    load = tiny.sizes["of a batch"]["user"]
    assert tiny.sizes["batches"] == lines[0]["step"]
    assert tiny.epochs == lines[0]["of"]
    assert tiny.sizes["parameters"] == sum(whole.record["parameters"].values())
    assert sum(tiny.parameters.values()) == tiny.sizes["parameters"]
    # Two events of each user are held out, the last of the others only answers, and six are read at most. Every
    # batch of so short an epoch is drawn, so the mean is exact.
    lengths = walks().group_by("user").len()["len"].to_numpy().astype(int)
    events = np.minimum(lengths - 3, 6).sum()
    assert load["events"] * tiny.sizes["batches"] == pytest.approx(events)
    assert load["predictions"] == load["events"]


def test_every_shipped_part_states_its_costs(tiny: Estimate) -> None:
    assert {row.kind: row.stated for row in tiny.rows} == dict.fromkeys(
        ("embedder", "position", "encoder", "loss", "trainer"), "stated"
    )
    assert tiny.notes == []


ENCODERS = st.fixed_dictionaries(
    {
        "use": st.just("recore-sasrec:sasrec"),
        "layers": st.integers(1, 3),
        "heads": st.sampled_from([1, 2]),
        "ffn_width": st.sampled_from([None, 12]),
        "preset": st.sampled_from([None, "paper", "tensorflow", "pytorch"]),
        "dropout": st.sampled_from([0.0, 0.2]),
    }
)
POSITIONS = st.sampled_from(
    [
        None,
        {"use": "recore-positions:none"},
        {"use": "recore-positions:start-absolute"},
        {"use": "recore-positions:relative-bias", "max_distance": 3},
        {"use": "recore-positions:relative-bias", "max_distance": 3, "layers": "shared"},
    ]
)


@settings(deadline=None, max_examples=12)
@given(encoder=ENCODERS, position=POSITIONS, bias=st.booleans())
def test_stated_parameters_and_products_are_those_of_a_real_step(
    home: Path, encoder: dict[str, Any], position: Any, bias: bool
) -> None:
    """Parameters of each part, one by one; and what torch itself counts in the matrix products of one step."""
    overlay = {
        "model": {
            "encoder": encoder,
            "position": position,
            "embedder": {"use": "recore-embeddings:padding-safe", "width": 8, "bias": bias},
        },
        "batcher": {"users": 100},
    }
    prepared = prepare(recore.load(home / "tiny.yaml", overlay=overlay), 0, Machine(threads=1))
    made = trial(prepared)
    tally = Tally(prepared, made, _NoSpeed())  # type: ignore[arg-type]  # times are not asked for
    stated = 0.0
    for part, facts in tally.told:
        costs = part.costs(facts, tally.drawn.mean["user"])
        if part.kind in ("embedder", "position", "encoder"):
            assert costs is not None
            built = sum(int(np.prod(shape)) for shape in made.matrices(part))
            assert costs.parameters == built, part.name
        if costs is not None and part.kind in ("embedder", "position", "encoder", "loss"):
            stated += costs.flops
    assert made.training is not None
    batches = made.training.draw(0, 0)
    with FlopCounterMode(display=False) as counter:
        made.training.backward(batches, made.training.weights(batches), 1)
    counted = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counted.items() if str(op) in ("aten.mm", "aten.addmm"))
    # What torch does not count is `addmm_` of the loss: one of its three products.
    events = tally.drawn.mean["user"].predictions
    missed = 2 * events * 8 * (prepared.context.facts.items or 0)
    assert abs(stated - missed - products) <= 0.02 * stated


class _NoSpeed:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: {} if name == "seconds" else 0.0


def test_memory_is_within_a_third_of_what_a_run_uses(home: Path, small: Any) -> None:
    guessed = guess(home)
    measured = small().record["peak_memory_mib"]
    assert 0.7 <= guessed.peak / measured <= 1.3


def test_an_estimate_writes_nothing_and_takes_no_step(
    home: Path, monkeypatch: pytest.MonkeyPatch, tiny: Estimate
) -> None:
    before = sorted(home.rglob("*"))
    monkeypatch.chdir(home)
    monkeypatch.setattr("recore.sequential.SequentialTraining.backward", None)
    again = guess(home)
    assert sorted(home.rglob("*")) == before
    assert again.sizes == tiny.sizes


def test_the_whole_is_its_shares(tiny: Estimate) -> None:
    assert tuple(tiny.seconds) == GROUPS
    assert all(value >= 0 for value in tiny.seconds.values())
    assert tiny.seconds["encoder"] > 0
    assert tiny.seconds["loss"] > 0
    assert tiny.seconds["evaluation"] > 0
    assert tiny.total == pytest.approx(3 * tiny.epoch + sum(tiny.once.values()))
    lasting = sum(v for k, v in tiny.memory.items() if k not in (*PASSING, "reading the data", "peak"))
    if tiny.at_peak != "reading the data":
        assert tiny.peak == pytest.approx(lasting + max(tiny.memory[name] for name in PASSING))
    assert tiny.at_peak in (*PASSING, "reading the data")


def test_draws_of_the_sampler_are_what_the_loss_scores(home: Path) -> None:
    sampled = {"use": "recore-samplers:uniform", "count": 5}
    rows = [
        row
        for count in (5, 50)
        for row in guess(
            home,
            {
                "loss": {"use": "recore-losses:bce"},
                "sampler": {**sampled, "count": count, "exclude": "target"},
            },
        ).rows
        if row.kind in ("loss", "sampler")
    ]
    assert [row.kind for row in rows] == ["loss", "sampler"] * 2
    assert rows[2].brief > 5 * rows[0].brief
    assert rows[2].large.startswith("50 negatives")


# ---- what is large is named ----------------------------------------------------------------------------------


def test_scores_of_all_items_at_once_are_named(home: Path, loose: Path) -> None:
    wide = framed(log(300, 12_000, 42)) | {
        "model": {"history": {"last": 50}},
        "batcher": {"users": 300},
        "loss": {"use": "plain"},
    }
    made = guess(home, wide, [loose])
    predictions = 300 * 39
    scores = predictions * 12_000 * 4 / 2**20
    assert made.memory["a training step"] > 2 * scores
    first = made.advice[0]
    assert "% of memory" in first
    assert "N × V scores" in first
    assert "loss 'plain:plain'" in first
    assert "use a blocked loss" in first
    blocked = guess(home, wide | {"loss": {"use": "recore-losses:ce"}})
    assert blocked.memory["a training step"] < scores
    assert not any("N × V" in line and "memory" in line for line in blocked.advice)
    assert any("of the time of an epoch is N × V scores" in line for line in blocked.advice)


def test_a_large_table_is_named(home: Path) -> None:
    made = guess(home, framed(log(300, 12_000, 42)) | {"model": {"embedder": {"width": 1024}}})
    table = 12_000 * 1024 * 4 / 2**20
    assert made.memory["parameters, gradients, optimiser"] >= 3 * table
    assert any(
        "the embedding table of embedder 'recore-embeddings:padding-safe'" in line for line in made.advice
    )
    assert any("a smaller width" in line for line in made.advice)


def test_padding_is_named(home: Path) -> None:
    padded = {"batcher": {"use": "recore-batchers:padded", "side": "right", "users": 8}}
    made = guess(home, padded | {"model": {"history": {"last": 60}}})
    assert any("are padding" in line for line in made.advice)
    load = made.sizes["of a batch"]["user"]
    assert load["cells"] == 60 * load["sequences"]


def test_what_states_nothing_is_named_and_its_parameters_counted(home: Path, loose: Path) -> None:
    made = guess(home, {"model": {"encoder": {"use": "silent"}, "position": None}}, [loose])
    assert made.notes == [
        "encoder 'plain:silent' (model.encoder) does not state its costs: it is taken as its matrices applied to "
        "every event"
    ]
    row = next(row for row in made.rows if row.kind == "encoder")
    assert row.parameters == 8 * 8 + 8
    assert row.seconds["matrix products"] > 0


def test_a_model_that_takes_no_steps_is_said_to_and_not_fitted(home: Path, loose: Path) -> None:
    keys = ("objective", "batcher", "loss", "trainer")
    made = guess(home, {"model": {"use": "counting"}} | dict.fromkeys(keys), [loose])
    assert made.notes == [
        "model 'plain:counting' does not train by steps: what its fit takes is not estimated"
    ]
    assert made.epochs == 0
    assert made.seconds["evaluation"] > 0


def test_parameters_that_do_not_fit_are_refused_before_they_are_built(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating, "_available_mib", lambda: 64.0)
    monkeypatch.setattr(estimating, "trial", None)
    with pytest.raises(RecoreError) as refused:
        guess(home, {"model": {"embedder": {"width": 500_000}, "position": None}})
    assert str(refused.value).startswith("tiny: weights, gradients and moments take ")
    assert "and 64 MiB are free here" in str(refused.value)


# ---- the command ---------------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def test_the_command_shows_every_share(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = main(capsys, "estimate", home / "tiny.yaml", "--threads", 1)
    assert (status, err) == (0, "")
    for word in (
        *GROUPS,
        "an epoch",
        "if all 3 epochs are run",
        "peak",
        "at the peak",
        "nothing was written",
    ):
        assert word in out


def test_the_command_gives_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = main(
        capsys, "estimate", home / "tiny.yaml", "--json", "--threads", 1, "--set", "trainer.epochs=7"
    )
    made = json.loads(out)
    assert status == 0
    assert made["epochs"] == 7
    assert set(made["seconds"]) == set(GROUPS)
    assert made["peak_memory_mib"] == made["memory"]["peak"]


def test_a_run_is_shown_beside_its_estimate(whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = main(capsys, "estimate", whole.folder, "--threads", 1)
    assert status == 0
    assert "estimated / measured" in out
    assert "3 of at most 3 epochs" in out
    status, out, _ = main(capsys, "estimate", whole.folder, "--json", "--threads", 1)
    measured = json.loads(out)["measured"]
    assert measured["peak_memory_mib"] == whole.record["peak_memory_mib"]
    assert measured["seconds"] == pytest.approx(whole.record["seconds_per_epoch"], abs=1e-3)
    status, _, err = main(capsys, "estimate", whole.folder, "--set", "trainer.epochs=7")
    assert status == 2
    assert "is a run: its recipe and seed are its own" in err


def test_wrong_questions_are_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(capsys, "estimate", tmp_path)[0] != 0
    status, _, err = main(capsys, "estimate", home / "tiny.yaml", "--cell", "big")
    assert status == 2
    assert "--cell big: no such cell; this recipe has base" in err
    assert main(capsys, "estimate", home / "tiny.yaml", "--set", "model.embeder.width=3")[0] == 2
