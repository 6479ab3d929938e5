"""The trainer `standard`, driven as the engine drives it over a linear model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_training.options import Standard
from recore_training.plugin import recore_trainers
from recore_training.standard import StandardTrainer, build
from torch import Tensor, nn

from recore import Context, DataError
from recore.contracts import RowMap, StepReport, Trainer, Verdict
from recore.engine.checkpoint import flatten, restore
from recore.errors import DivergenceError, RunFolderError
from recore.ragged import Batch, View

ROWS = 5
Value = tuple[list[StepReport], list[Verdict], dict[str, Tensor], dict[str, Any]]


class Linear:
    """A `Training` of least squares: row `token` of a table, times a vector, should give a number.

    The batch sizes differ, so that weights matter; each micro-batch gets noise of its own from (step, place),
    as dropout would.
    """

    def __init__(self, batches: int = 3, dtype: torch.dtype = torch.float32, noise: float = 0.1) -> None:
        random = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(ROWS, 3, generator=random, dtype=dtype))
        self.vector = nn.Parameter(torch.randn(3, generator=random, dtype=dtype))
        self.idle = nn.Parameter(torch.zeros(2, dtype=dtype))  # takes part in no step
        self.count = batches
        self.noise = noise
        self.calls: list[tuple[str, Any]] = []

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {"embedder.table": self.table, "vector": self.vector, "idle": self.idle}

    def batches(self, epoch: int) -> int:
        return self.count

    def draw(self, epoch: int, number: int) -> Sequence[Batch]:
        assert 0 <= number < self.count
        self.calls.append(("draw", (epoch, number)))
        random = torch.Generator().manual_seed(1000 * epoch + number)
        size = 2 + (epoch + 2 * number) % 4
        token = torch.randint(0, ROWS, (size,), generator=random)
        wanted = torch.randn(size, generator=random, dtype=self.table.dtype)
        return [Batch({"user": View({"token": token, "wanted": wanted}, torch.tensor([0, size]))})]

    def weights(self, batches: Sequence[Batch]) -> Mapping[str, Tensor]:
        return {"squares": torch.tensor(float(sum(batch.views["user"].events for batch in batches)))}

    def backward(
        self, batches: Sequence[Batch], weights: Mapping[str, Tensor], step: int
    ) -> Mapping[str, tuple[float, float]]:
        self.calls.append(("backward", step))
        total, weight = 0.0, 0.0
        for place, batch in enumerate(batches):
            view = batch.views["user"]
            random = torch.Generator().manual_seed(77 * step + place)
            noise = self.noise * torch.randn(view.events, generator=random, dtype=self.table.dtype)
            loss = ((self.table[view["token"]] @ self.vector + noise - view["wanted"]) ** 2).sum()
            (loss / weights["squares"]).backward()  # type: ignore[no-untyped-call]
            total, weight = total + float(loss.detach()), weight + view.events
        return {"squares": (total, float(weight))}

    def stepped(self, batches: Sequence[Batch], step: int) -> None:
        self.calls.append(("stepped", step))

    def weights_now(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def put(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])


def figure(epoch: int) -> float:
    """A validation figure: rises until epoch 2, then falls."""
    return [0.1, 0.2, 0.5, 0.4, 0.3, 0.3, 0.2, 0.1][epoch]


def rest(trainer: StandardTrainer, training: Linear) -> Value:
    """Drive to the end; reports, verdicts, weights, state."""
    reports, verdicts = [], []
    for report in trainer.steps(training):
        reports.append(report)
        if report.epoch_ended:
            verdicts.append(trainer.judge(figure(report.epoch)))
    return reports, verdicts, training.weights_now(), trainer.state_dict()


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, at any depth."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def through_files(state: Mapping[str, Any]) -> Any:
    """A state as a checkpoint gives it back: tensors apart, the rest through JSON."""
    tensors, plain = flatten(state)
    return restore(tensors, json.loads(json.dumps(plain)))


MANY = Standard(
    learning_rate=0.05,
    betas=(0.8, 0.95),
    weight_decay=0.01,
    epochs=6,
    warm_up=4,
    schedule="cosine",
    clip=0.7,
    accumulate=2,
    patience=3,
)


@pytest.mark.parametrize("options", [MANY, evolve(MANY, optimiser="adamw", accumulate=1, epochs=3)])
def test_resumed_equals_uninterrupted_after_every_step(options: Standard) -> None:
    reports, verdicts, weights, state = rest(build(options, Context()), Linear())
    for stop in range(len(reports)):
        for after_verdict in (False, True):
            trainer, training = build(options, Context()), Linear()
            judged = 0
            for report in trainer.steps(training):
                if report.step == stop + 1 and not after_verdict:
                    break
                if report.epoch_ended:
                    trainer.judge(figure(report.epoch))
                    judged += 1
                if report.step == stop + 1:
                    break
            saved = through_files(trainer.state_dict())
            resumed, again = build(options, Context()), Linear()
            again.put(training.weights_now())
            resumed.load_state_dict(saved)
            missed = []
            if reports[stop].epoch_ended and not after_verdict:  # the engine validates, then goes on
                missed = [resumed.judge(figure(reports[stop].epoch))]
            more, later, found, final = rest(resumed, again)
            at = f"stopped after step {stop + 1}, {'after' if after_verdict else 'before'} the verdict"
            assert more == reports[stop + 1 :], at
            assert missed + later == verdicts[judged:], at
            assert same(found, weights), at
            assert same(final, state), at


def test_a_saved_state_is_a_copy() -> None:
    trainer, training = build(MANY, Context()), Linear()
    steps = trainer.steps(training)
    next(steps)
    saved = trainer.state_dict()
    kept = through_files(saved)
    next(steps)
    assert same(saved, kept)
    resumed = build(MANY, Context())
    resumed.load_state_dict(saved)
    next(resumed.steps(Linear()))
    assert same(saved, kept)


def test_a_state_that_was_loaded_is_given_back_before_the_first_step() -> None:
    trainer = build(MANY, Context())
    next(trainer.steps(Linear()))
    saved = trainer.state_dict()
    resumed = build(MANY, Context())
    resumed.load_state_dict(saved)
    assert same(resumed.state_dict(), saved)


def test_steps_equal_adam_written_out() -> None:
    options = Standard(learning_rate=0.01, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1, epochs=4)
    training = Linear(dtype=torch.float64)
    reports = list(build(options, Context()).steps(training))
    plain = Linear(dtype=torch.float64)
    trained = {name: p for name, p in plain.parameters.items() if name != "idle"}
    first = {name: torch.zeros_like(p) for name, p in trained.items()}
    second = {name: torch.zeros_like(p) for name, p in trained.items()}
    step = 0
    for epoch in range(4):
        for number in range(3):
            step += 1
            for parameter in trained.values():
                parameter.grad = None
            batches = plain.draw(epoch, number)
            plain.backward(batches, plain.weights(batches), step)
            squares = sum(float(p.grad.square().sum()) for p in trained.values() if p.grad is not None)
            assert reports[step - 1].gradient_norm == pytest.approx(math.sqrt(squares), rel=1e-6)
            with torch.no_grad():
                for name, parameter in trained.items():
                    assert parameter.grad is not None
                    grad = parameter.grad + 0.1 * parameter
                    first[name] = 0.9 * first[name] + 0.1 * grad
                    second[name] = 0.99 * second[name] + 0.01 * grad**2
                    corrected = second[name] / (1 - 0.99**step)
                    parameter.sub_(0.01 * (first[name] / (1 - 0.9**step)) / (corrected.sqrt() + 1e-6))
    for name, parameter in plain.parameters.items():
        torch.testing.assert_close(training.parameters[name], parameter, rtol=1e-9, atol=1e-12)


def test_adamw_shrinks_weights_apart_from_the_gradient() -> None:
    training = Linear(batches=1)
    before = training.table.detach().clone()
    list(
        build(Standard(optimiser="adamw", learning_rate=0.01, weight_decay=0.5, epochs=1), Context()).steps(
            training
        )
    )
    (batch,) = training.draw(0, 0)
    quiet = sorted(set(range(ROWS)) - set(batch.views["user"]["token"].tolist()))
    assert quiet
    torch.testing.assert_close(training.table.detach()[quiet], before[quiet] * (1 - 0.01 * 0.5))


@pytest.mark.parametrize("clip", [None, 0.3])
def test_accumulated_batches_are_one_large_batch(clip: float | None) -> None:
    options = Standard(learning_rate=0.05, epochs=2, accumulate=3, clip=clip)
    small = Linear(batches=6, dtype=torch.float64, noise=0.0)
    reports = list(build(options, Context()).steps(small))

    class Large(Linear):
        def draw(self, epoch: int, number: int) -> Sequence[Batch]:
            views = [super(Large, self).draw(epoch, 3 * number + part)[0].views["user"] for part in range(3)]
            columns = {name: torch.cat([view[name] for view in views]) for name in ("token", "wanted")}
            return [Batch({"user": View(columns, torch.tensor([0, len(columns["token"])]))})]

        def batches(self, epoch: int) -> int:
            return 2

    large = Large(batches=6, dtype=torch.float64, noise=0.0)
    other = list(build(evolve(options, accumulate=1), Context()).steps(large))
    assert [report.events for report in reports] == [report.events for report in other]
    for one, two in zip(reports, other, strict=True):
        assert one.losses["squares"] == pytest.approx(two.losses["squares"], rel=1e-9)
        assert one.gradient_norm == pytest.approx(two.gradient_norm, rel=1e-6)
    for name, parameter in small.parameters.items():
        torch.testing.assert_close(parameter, large.parameters[name], rtol=1e-9, atol=1e-12)


def test_batches_come_in_order_and_the_last_step_of_an_epoch_may_hold_fewer() -> None:
    training = Linear(batches=5)
    reports = list(build(Standard(epochs=2, accumulate=2), Context()).steps(training))
    assert [call for call in training.calls if call[0] == "draw"] == [
        ("draw", (epoch, number)) for epoch in range(2) for number in range(5)
    ]
    assert [value for name, value in training.calls if name == "backward"] == [1, 2, 3, 4, 5, 6]
    assert [value for name, value in training.calls if name == "stepped"] == [1, 2, 3, 4, 5, 6]
    assert [(r.step, r.epoch, r.epoch_ended) for r in reports] == [
        (1, 0, False),
        (2, 0, False),
        (3, 0, True),
        (4, 1, False),
        (5, 1, False),
        (6, 1, True),
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.integers(0, 9),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_learning_rates_follow_the_formula(
    schedule: Any, warm_up: int, epochs: int, batches: int, accumulate: int
) -> None:
    options = Standard(
        learning_rate=0.3, schedule=schedule, warm_up=warm_up, epochs=epochs, accumulate=accumulate
    )
    reports = list(build(options, Context()).steps(Linear(batches=batches)))
    step = 0
    for epoch in range(epochs):
        for done in range(0, batches, accumulate):
            p = (epoch * batches + done) / (epochs * batches)
            decay = {"constant": 1.0, "linear": 1 - p, "cosine": (1 + math.cos(math.pi * p)) / 2}[schedule]
            warm = 1.0 if warm_up == 0 else min(1.0, (step + 1) / warm_up)
            assert reports[step].learning_rate == pytest.approx(0.3 * warm * decay, rel=1e-12, abs=1e-15)
            step += 1
    assert step == len(reports)


def test_the_learning_rate_is_the_one_used() -> None:
    training = Linear(batches=1)
    before = training.vector.detach().clone()
    next(build(Standard(learning_rate=0.1, warm_up=10), Context()).steps(training))
    # Adam's first step is one learning rate long in every coordinate.
    torch.testing.assert_close(
        (training.vector.detach() - before).abs(), torch.full((3,), 0.01), rtol=1e-3, atol=0
    )


def test_clipping_bounds_the_whole_gradient() -> None:
    class Watched(Linear):
        def stepped(self, batches: Sequence[Batch], step: int) -> None:
            squares = [p.grad.square().sum() for p in self.parameters.values() if p.grad is not None]
            self.calls.append(("norm", float(torch.stack(squares).sum().sqrt())))

    training = Watched(batches=8)
    reports = list(build(Standard(learning_rate=0.001, clip=1.0, epochs=1), Context()).steps(training))
    norms = [value for name, value in training.calls if name == "norm"]
    for report, used in zip(reports, norms, strict=True):
        assert used == pytest.approx(min(report.gradient_norm, 1.0), rel=1e-5)
    assert min(r.gradient_norm for r in reports) < 1 < max(r.gradient_norm for r in reports)


def test_it_stops_after_so_many_epochs_without_a_better_figure() -> None:
    trainer = build(Standard(epochs=8, patience=2, metric="hr@10"), Context())
    reports, verdicts, _, state = rest(trainer, Linear())
    assert [verdict.best for verdict in verdicts] == [True, True, True, False, False]
    assert verdicts[-1] == Verdict(False, True, "no better hr@10 for 2 epochs: the best is 0.5000 of epoch 3")
    assert reports[-1].epoch == 4
    assert (state["best"], state["best_epoch"], state["waited"]) == (0.5, 3, 2)
    assert list(trainer.steps(Linear())) == []


def test_without_patience_it_runs_to_the_last_epoch_and_equal_figures_are_not_better() -> None:
    trainer = build(Standard(epochs=6), Context())
    reports, verdicts, _, _ = rest(trainer, Linear())
    assert (reports[-1].epoch, trainer.last_epoch, trainer.metric) == (5, 6, "ndcg@10")
    assert not any(verdict.stop for verdict in verdicts)
    assert trainer.judge(0.5).best is False


def test_figures_that_are_no_numbers_are_never_the_best() -> None:
    trainer = build(Standard(patience=1), Context())
    assert trainer.judge(math.nan) == Verdict(
        False, True, "no better ndcg@10 for 1 epoch: the best was never a number"
    )


def test_a_gradient_that_is_not_finite_is_explained_and_touches_nothing() -> None:
    class Exploding(Linear):
        def backward(
            self, batches: Sequence[Batch], weights: Mapping[str, Tensor], step: int
        ) -> Mapping[str, tuple[float, float]]:
            found = super().backward(batches, weights, step)
            if step == 5:
                assert self.vector.grad is not None
                self.vector.grad[1] = math.nan
            return found

    trainer, training = build(Standard(learning_rate=0.25), Context()), Exploding()
    steps = trainer.steps(training)
    for _ in range(4):
        next(steps)
    before = training.weights_now()
    with pytest.raises(DivergenceError) as caught:
        next(steps)
    assert str(caught.value) == (
        "trainer 'standard': at step 5 (epoch 2) the norm of the gradient is nan, expected a finite number; not "
        "finite in: vector (lower learning_rate, now 0.25, lengthen warm_up, or set clip; the parameters are those "
        "of before the step)"
    )
    assert same(training.weights_now(), before)
    with pytest.raises(RuntimeError, match="within a step"):
        trainer.state_dict()


def test_gradients_whose_squares_overflow_are_explained_too() -> None:
    class Huge(Linear):
        def backward(
            self, batches: Sequence[Batch], weights: Mapping[str, Tensor], step: int
        ) -> Mapping[str, tuple[float, float]]:
            found = super().backward(batches, weights, step)
            assert self.vector.grad is not None
            self.vector.grad.fill_(1e30)
            return found

    with pytest.raises(DivergenceError, match="is inf, expected a finite number; not finite in: none alone"):
        next(build(Standard(), Context()).steps(Huge()))


def test_a_failed_state_of_other_parameters_is_refused_with_every_mismatch() -> None:
    trainer = build(Standard(), Context())
    next(trainer.steps(Linear()))
    state = trainer.state_dict()
    state["optimiser"]["old"] = state["optimiser"].pop("vector")
    state["optimiser"]["embedder.table"]["exp_avg"] = torch.zeros(4, 3)
    resumed = build(Standard(), Context())
    resumed.load_state_dict(state)
    with pytest.raises(RunFolderError) as caught:
        next(resumed.steps(Linear()))
    assert str(caught.value).splitlines() == [
        "trainer 'standard': the checkpoint has no optimiser state of parameter 'vector'",
        "trainer 'standard': the checkpoint has state of 'old', which is no parameter here",
        "trainer 'standard': the state 'exp_avg' of parameter 'embedder.table' has shape (4, 3), expected (5, 3)",
    ]


def test_states_of_other_trainers_and_late_ones_are_refused() -> None:
    trainer = build(Standard(), Context())
    with pytest.raises(RunFolderError, match="trainer state has no epoch, batch, step"):
        trainer.load_state_dict({"optimiser": {}})
    next(trainer.steps(Linear()))
    with pytest.raises(RuntimeError, match="before `steps`"):
        trainer.load_state_dict(trainer.state_dict())


def test_an_epoch_without_batches_is_refused() -> None:
    with pytest.raises(DataError, match="epoch 1 has no batch, expected at least one"):
        next(build(Standard(), Context()).steps(Linear(batches=0)))


def test_a_loss_without_weight_is_reported_as_zero() -> None:
    class Empty(Linear):
        def backward(
            self, batches: Sequence[Batch], weights: Mapping[str, Tensor], step: int
        ) -> Mapping[str, tuple[float, float]]:
            return {"squares": (0.0, 0.0)}

    report = next(build(Standard(), Context()).steps(Empty()))
    assert (report.losses, report.gradient_norm) == ({"squares": 0.0}, 0.0)


def grown(training: Linear) -> RowMap:
    """Replace the table as an embedder would: rows 0, 2, 3, 1, 4 and two fresh ones."""
    rows = RowMap(np.asarray([0, 2, 3, 1, -1, 4, -1]), np.asarray([], dtype=np.int64))
    made = torch.zeros(7, 3)
    made[torch.from_numpy(rows.old) >= 0] = training.table.detach()[[0, 2, 3, 1, 4]]
    training.table = nn.Parameter(made)
    return rows


@pytest.mark.parametrize("live", [True, False])
def test_the_optimiser_follows_a_table_whose_rows_moved(live: bool) -> None:
    trainer, training = build(Standard(learning_rate=0.01), Context()), Linear()
    steps: Iterator[StepReport] = trainer.steps(training)
    for _ in range(4):
        next(steps)
    before = trainer.state_dict()
    if not live:
        trainer = build(Standard(learning_rate=0.01), Context())
        trainer.load_state_dict(before)
    rows = grown(training)
    trainer.resize("embedder.table", rows)
    after = trainer.state_dict()
    for quantity in ("exp_avg", "exp_avg_sq"):
        moved, old = (state["optimiser"]["embedder.table"][quantity] for state in (after, before))
        assert torch.equal(moved[[0, 1, 2, 3, 5]], old[[0, 2, 3, 1, 4]])
        assert bool((moved[[4, 6]] == 0).all())
    assert same(after["optimiser"]["vector"], before["optimiser"]["vector"])
    if live:
        with pytest.raises(RuntimeError, match="call `steps` anew"):
            next(steps)
    report = next(trainer.steps(training))
    assert report.step == 5
    assert trainer.state_dict()["optimiser"]["embedder.table"]["exp_avg"].shape == (7, 3)
    with pytest.raises(
        ValueError, match=r"holds no state of 'table'; it does of embedder\.table, idle, vector"
    ):
        trainer.resize("table", rows)


def test_resizing_before_the_first_step_is_nothing() -> None:
    trainer, training = build(Standard(), Context()), Linear()
    trainer.resize("embedder.table", grown(training))
    assert next(trainer.steps(training)).step == 1


def test_it_keeps_the_contract_and_is_offered() -> None:
    (component,) = recore_trainers()
    assert (component.name, component.options, component.factory) == (
        "standard",
        Standard,
        "recore_training.standard:build",
    )
    assert isinstance(build(Standard(), Context()), Trainer)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"learning_rate": 0.0}, "a number above 0, got 0.0"),
        ({"learning_rate": math.inf}, "a number above 0, got inf"),
        ({"betas": (0.9, 1.0)}, r"two numbers from 0 to below 1, got \[0.9, 1.0\]"),
        ({"eps": 0.0}, "a number above 0"),
        ({"weight_decay": -0.1}, "a number from 0, got -0.1"),
        ({"epochs": 0}, "a whole number from 1, got 0"),
        ({"warm_up": -1}, "a number from 0"),
        ({"clip": 0.0}, "a number above 0"),
        ({"accumulate": 0}, "a whole number from 1"),
        ({"patience": 0}, "a whole number from 1"),
        ({"metric": " "}, "the name of a validation metric"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Standard(**wrong)
