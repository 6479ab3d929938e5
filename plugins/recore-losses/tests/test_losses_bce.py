"""`bce` against the formula in float64, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import recore_losses.bce
import torch
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_losses.bce import BinaryCrossEntropy
from recore_losses.options import Bce
from torch import Tensor

from recore import DataError, Facts
from recore.contracts import LossValue, Negatives, Table
from recore.ragged import Targets

BOUND = 1e-9


@frozen(eq=False)
class Problem:
    """What the loss is asked: `hidden (N, d)`, a table, targets, draws `(K,)` or `(N, K)`."""

    hidden: Tensor
    table: Table
    ids: Tensor
    weights: Tensor
    negatives: Negatives

    def run(self, loss: Callable[[Tensor, Targets, Table, Negatives], LossValue]) -> list[Tensor]:
        """Value, weight and gradients."""
        hidden, weight = self.hidden.clone().requires_grad_(), self.table.weight.clone().requires_grad_()
        bias = None if self.table.bias is None else self.table.bias.clone().requires_grad_()
        targets = Targets(torch.arange(len(hidden)), self.ids, self.weights)
        value = loss(hidden, targets, Table(weight, bias, self.table.retired), self.negatives)
        torch.autograd.backward(value.total * 0.7)
        grads = [hidden.grad, weight.grad] + ([] if bias is None else [bias.grad])
        return [value.total.detach(), value.weight, *(grad for grad in grads if grad is not None)]


def formula(hidden: Tensor, targets: Targets, table: Table, negatives: Negatives) -> LossValue:
    """Prediction by prediction and draw by draw."""
    bias = torch.zeros(len(table.weight), dtype=hidden.dtype) if table.bias is None else table.bias
    total = (hidden.sum() + table.weight.sum() + bias.sum()) * 0
    for n, item in enumerate(targets.id.tolist()):
        scores = table.weight @ hidden[n] + bias
        here = scores[item].sigmoid().log()
        draws = negatives.items if negatives.items.dim() == 1 else negatives.items[n]
        for k, draw in enumerate(draws.tolist()):
            kept = negatives.keep is None or bool(negatives.keep[n, k])
            if kept and not (table.retired is not None and bool(table.retired[draw])):
                here = here + (1 - scores[draw].sigmoid()).log()
        total = total - targets.weight[n] * here
    return LossValue(total, targets.weight.sum())


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """0 to 8 predictions over 1 to 40 items with 1 to 4 draws, shared or not, kept or not, some retired."""
    items = draw(st.one_of(st.integers(1, 7), st.integers(8, 40)))  # more pairs than items, and fewer
    count, draws = draw(st.integers(0, 8)), draw(st.integers(1, 4))
    width, random = draw(st.integers(1, 4)), torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    retired = None
    if draw(st.booleans()):
        retired = torch.rand(items, generator=random) < 0.4
        retired[0] = False
    live = torch.arange(items) if retired is None else (~retired).nonzero().squeeze(-1)
    shape = (draws,) if draw(st.booleans()) else (count, draws)
    keep = torch.rand(count, draws, generator=random) < 0.6 if draw(st.booleans()) else None
    return Problem(
        normal(count, width),
        Table(normal(items, width), normal(items) if draw(st.booleans()) else None, retired),
        live[torch.randint(len(live), (count,), generator=random)],
        torch.rand(count, generator=random, dtype=torch.float64),
        Negatives(torch.randint(items, shape, generator=random), keep=keep),
    )


def near(found: list[Tensor], expected: list[Tensor]) -> None:
    """Within the bound of the largest value; gradients of the largest of all together (or of 1e-3)."""
    assert len(found) == len(expected)
    largest = max([1e-3, *(float(t.abs().max()) for t in expected[2:] if t.numel())])
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        scale = largest if number >= 2 else max(1.0, float(other.abs()))
        assert one.numel() == 0 or float((one - other).abs().max()) <= BOUND * scale, f"output {number}"


@given(problems(), st.integers(1, 40))
@settings(deadline=None, max_examples=120)
def test_value_and_gradients_are_those_of_the_formula(problem: Problem, numbers: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recore_losses.bce, "BLOCK_NUMBERS", numbers)  # so that blocks have boundaries
        near(problem.run(BinaryCrossEntropy().loss), problem.run(formula))


@given(problems())
@settings(deadline=None, max_examples=40)
def test_shared_draws_are_the_same_draws_for_every_row(problem: Problem) -> None:
    if problem.negatives.items.dim() == 2:
        return
    rows = problem.negatives.items.expand(len(problem.hidden), -1)
    each = evolve(problem, negatives=evolve(problem.negatives, items=rows))
    near(each.run(BinaryCrossEntropy().loss), problem.run(BinaryCrossEntropy().loss))


def test_with_one_negative_it_is_the_loss_of_the_2018_code() -> None:
    """Sum over predictions / number of them = mean of the positive terms + mean of the negative terms."""
    random = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(9, 4, generator=random), torch.randn(6, 4, generator=random)
    ids, draws = torch.randint(6, (9,), generator=random), torch.randint(6, (9, 1), generator=random)
    targets = Targets(torch.arange(9), ids, torch.ones(9))
    value = BinaryCrossEntropy().loss(hidden, targets, Table(weight), Negatives(draws))
    one = torch.nn.functional.binary_cross_entropy_with_logits
    positive = one((hidden * weight[ids]).sum(-1), torch.ones(9))
    negative = one((hidden * weight[draws[:, 0]]).sum(-1), torch.zeros(9))
    assert math.isclose(float(value.total / value.weight), float(positive + negative), rel_tol=1e-6)


def test_large_scores_are_finite() -> None:
    hidden = torch.tensor([[1e4]], requires_grad=True)
    targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.ones(1))
    table = Table(torch.tensor([[1.0], [-1.0]]))
    value = BinaryCrossEntropy().loss(hidden, targets, table, Negatives(torch.tensor([[0]])))
    torch.autograd.backward(value.total)
    assert float(value.total.detach()) == 2e4
    assert hidden.grad is not None
    assert float(hidden.grad) == 2.0


def test_no_predictions_are_zero_with_gradients_of_zero() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for draws in (torch.zeros(0, 3, dtype=torch.int64), torch.tensor([1, 2, 2])):
        hidden, weight = torch.randn(0, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
        targets = Targets(none, none, torch.zeros(0))
        value = BinaryCrossEntropy().loss(hidden, targets, Table(weight), Negatives(draws))
        torch.autograd.backward(value.total)
        assert (value.total.item(), value.weight.item()) == (0.0, 0.0)
        assert weight.grad is not None
        assert not weight.grad.any()


def test_what_it_refuses() -> None:
    loss, hidden, table = BinaryCrossEntropy(), torch.randn(2, 3), Table(torch.randn(5, 3))
    targets = Targets(torch.arange(2), torch.tensor([0, 4]), torch.ones(2))
    with pytest.raises(
        ValueError, match=r"^loss 'bce' needs negatives, got none \(set `sampler:` beside it\)$"
    ):
        loss.loss(hidden, targets, table, None)
    retired = evolve(table, retired=torch.arange(5) == 4)
    with pytest.raises(
        DataError, match=r"^loss 'bce': 1 of 2 targets are retired items, the first with id 4"
    ):
        loss.loss(hidden, targets, retired, Negatives(torch.zeros(2, 1, dtype=torch.int64)))


def test_problems_ask_for_a_sampler() -> None:
    assert Bce().problems(Facts(negatives=False)) == [
        "needs negatives, but no sampler is set (set `sampler:` beside it)",
    ]
    assert Bce().problems(Facts(negatives=True)) == []
