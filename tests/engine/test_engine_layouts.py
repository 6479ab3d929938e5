"""One training step, laid out ragged, on the left and on the right with any number of extra columns of NaN: the same
loss and the same gradient of every parameter, for every scheme that is shipped but `window-absolute`."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch
from attrs import evolve
from engine_helpers import walks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import recore
from recore.contracts.learning import Training
from recore.engine.machine import Machine
from recore.engine.prepare import prepare
from recore.engine.trial import trial
from recore.plugins import discover
from recore.ragged import Layout
from recore.testing.cases import scramble

TOLERANCE = 1e-9
# Options that make a scheme fit histories of 6 events, and those that change how it works.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "relative-bias": [{"max_distance": 3}, {"buckets": "logarithmic"}],
    "relative-keys": [{"max_distance": 3}],
    "relative-keys-values": [{"max_distance": 3}, {"tied": True, "max_distance": 6}],
    "time-bias": [{}, {"query_time": "target"}],
    "time-features": [{}, {"query_time": "target"}],
    "known-item": [{"evidence": name} for name in ("surprise", "rank", "agreement")],
}
SCHEMES = sorted(
    found.component.name for found in discover().of("position") if found.provider == "recore-positions"
)
CASES = [(name, options) for name in SCHEMES for options in OPTIONS.get(name, [{}])]


def timed() -> pl.DataFrame:
    log = walks()
    return log.with_columns(time=(pl.int_range(pl.len()) * 3571 % 977 + pl.int_range(pl.len()) * 500))


def training(name: str, options: dict[str, Any], heads: int = 2) -> Any:
    """What a trainer drives, in float64, with every parameter moved from where it starts."""
    batcher = {"use": "recore-batchers:ragged", "users": 8}
    if name == "window-absolute":
        batcher = {"use": "recore-batchers:padded", "users": 8, "side": "right"}
    if name == "prediction-absolute":
        batcher = {"use": "recore-batchers:by-length", "contexts": 8}
    recipe = recore.load(
        "sasrec",
        overlay={
            "data": {"use": "recore-data:events", "frame": timed(), "time": "time"},
            "model": {
                "history": {"last": 6},
                "embedder": {"width": 8},
                "position": {"use": f"recore-positions:{name}", **options},
                "encoder": {"layers": 2, "heads": heads, "dropout": 0.0},
            },
            "batcher": batcher,
        },
    )
    made = trial(prepare(recipe, 0, Machine())).training
    model: Any = made.model  # type: ignore[union-attr]
    model.double()
    scramble(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for special in model.context.tokenizer.specials:
            if not special.trainable:
                model.embedder.weight[special.id] = 0
    return made


def step(made: Training, batches: Any, layout: Layout | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The losses and the gradients of one step whose views are laid out so (None: as they were drawn)."""
    for parameter in made.parameters.values():
        parameter.grad = None
    if layout is not None:
        longest = max(int(batch.views["user"].lengths.max()) for batch in batches)
        layout = evolve(layout, width=longest + (layout.width or 0))
        batches = [
            evolve(batch, views={name: view.laid_out(layout) for name, view in batch.views.items()})
            for batch in batches
        ]
    losses = made.backward(batches, made.weights(batches), 1)
    return dict(losses), {name: p.grad.clone() for name, p in made.parameters.items() if p.grad is not None}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}{case[1] or ''}")
def case(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param[0], training(*request.param)


def test_a_step_is_the_same_however_it_is_laid_out(case: tuple[str, Any]) -> None:
    name, made = case

    @settings(deadline=None, max_examples=8)
    @given(
        number=st.integers(0, made.batches(0) - 1),
        side=st.sampled_from(["left", "right"]),
        extra=st.integers(0, 9),
    )
    def holds(number: int, side: Any, extra: int) -> None:
        # Columns counted from the left edge move with the padding there, and only there.
        if name == "window-absolute":
            side = "right"
        batches = made.draw(0, number)
        plain = step(made, batches, None)
        other = step(made, batches, Layout(side, extra, float("nan")))
        apart = distance(plain, other)
        assert apart <= TOLERANCE, f"{name}: {extra} more columns on the {side} moved the step by {apart:.2g}"

    holds()


def distance(one: Any, other: Any) -> float:
    """How far apart losses and gradients are, relative to the largest gradient."""
    losses = max(abs(one[0][name][0] - other[0][name][0]) / abs(one[0][name][0]) for name in one[0])
    assert one[1].keys() == other[1].keys()
    largest = max(float(grad.abs().max()) for grad in one[1].values())
    found = [
        float((grad - other[1][name]).abs().nan_to_num(nan=float("inf")).max())
        for name, grad in one[1].items()
    ]
    return max(losses, max(found) / largest)


def test_window_absolute_moves_with_padding_on_the_left_as_it_says() -> None:
    made = training("window-absolute", {})
    batches = made.draw(0, 0)
    apart = distance(
        step(made, batches, Layout("right", 0)), step(made, batches, Layout("left", 0, float("nan")))
    )
    assert apart > 1e-3


def test_every_scheme_is_tried() -> None:
    assert len(SCHEMES) == 13
    assert len(CASES) == 19
