"""`ce` against the formula in float64, its memory, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_losses.ce import CrossEntropy, build
from recore_losses.options import Ce
from torch import Tensor

from recore import Context, DataError
from recore.contracts import Table
from recore.ragged import Targets

BOUND = 1e-9


@frozen(eq=False)
class Problem:
    """What a loss is asked: `hidden (N, d)`, a table, targets."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    retired: Tensor | None
    ids: Tensor
    weights: Tensor

    def run(self, loss: CrossEntropy, order: Tensor | None = None) -> list[Tensor]:
        """Value, weight and gradients of hidden, weight, bias, rows of hidden in the order given."""
        order = torch.arange(len(self.hidden)) if order is None else order
        hidden = self.hidden[order].requires_grad_()
        weight = self.weight.clone().requires_grad_()
        bias = None if self.bias is None else self.bias.clone().requires_grad_()
        targets = Targets(order, self.ids[order], self.weights[order])
        value = loss.loss(hidden, targets, Table(weight, bias, self.retired), None)
        assert torch.equal(value.weight, loss.weight(targets))
        assert set(value.terms) == {"ce"}
        torch.autograd.backward(value.total * 0.7)
        grads = [hidden.grad, weight.grad] + ([] if bias is None else [bias.grad])
        return [value.total.detach(), value.weight, *(grad for grad in grads if grad is not None)]

    def slow(self) -> list[Tensor]:
        """The same from the formula, one prediction at a time, over the items that are not retired."""
        hidden = self.hidden.clone().requires_grad_()
        weight = self.weight.clone().requires_grad_()
        bias = None if self.bias is None else self.bias.clone().requires_grad_()
        live = torch.ones(len(weight), dtype=torch.bool) if self.retired is None else ~self.retired
        total = (hidden.sum() + weight.sum() + (0 if bias is None else bias.sum())) * 0
        for n, (item, w) in enumerate(zip(self.ids.tolist(), self.weights, strict=True)):
            scores = weight @ hidden[n] + (0 if bias is None else bias)
            total = total + w * (scores[live].exp().sum().log() - scores[item])
        torch.autograd.backward(total * 0.7)
        grads = [hidden.grad, weight.grad] + ([] if bias is None else [bias.grad])
        return [total.detach(), self.weights.sum(), *(grad for grad in grads if grad is not None)]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """0 to 12 predictions over 1 to 9 items, some retired, some rows alike so that scores tie."""
    count, items, width = draw(st.integers(0, 12)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    weight = normal(items, width)
    if draw(st.booleans()):
        weight = weight[:1].repeat(items, 1)
    retired = None
    if draw(st.booleans()):
        retired = torch.rand(items, generator=random) < 0.4
        retired[draw(st.integers(0, items - 1))] = False
    live = torch.arange(items) if retired is None else (~retired).nonzero().squeeze(-1)
    ids = live[torch.randint(len(live), (count,), generator=random)]
    weights = torch.rand(count, generator=random, dtype=torch.float64)
    weights[::3] = 0.0
    bias = normal(items) if draw(st.booleans()) else None
    return Problem(normal(count, width) * 3, weight, bias, retired, ids, weights)


def near(found: list[Tensor], expected: list[Tensor], bound: float = BOUND) -> None:
    """Within `bound` of the largest value; gradients within `bound` of the largest of all together
    (or of 1e-3: with one item they are truly zero)."""
    assert len(found) == len(expected)
    largest = max([1e-3, *(float(t.abs().max()) for t in expected[2:] if t.numel())])
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        scale = largest if number >= 2 else max(1.0, float(other.abs()))
        assert one.shape == other.shape
        assert one.numel() == 0 or float((one - other).abs().max()) <= bound * scale, f"output {number}"


@given(problems(), st.integers(1, 13))
@settings(deadline=None, max_examples=120)
def test_value_and_gradients_are_those_of_the_formula(problem: Problem, block: int) -> None:
    near(problem.run(CrossEntropy(Ce(block=block))), problem.slow())


@given(problems(), st.integers(1, 13), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_order_and_block_change_nothing(problem: Problem, block: int, random: object) -> None:
    order = list(range(len(problem.hidden)))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    rows = torch.tensor(order, dtype=torch.int64)
    one, other = problem.run(CrossEntropy(Ce())), problem.run(CrossEntropy(Ce(block=block)), rows)
    one[2] = one[2][rows]
    near(other, one)


def test_float32_at_the_size_of_a_step() -> None:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(600, 64, generator=random)
    weight = torch.randn(1000, 64, generator=random)
    ids = torch.randint(1000, (600,), generator=random)
    ones = torch.ones(600)
    found = Problem(hidden, weight, None, None, ids, ones).run(CrossEntropy(Ce()))
    exact = Problem(hidden.double(), weight.double(), None, None, ids, ones.double()).run(CrossEntropy(Ce()))
    assert found[0].dtype == torch.float32
    near([t.double() for t in found], exact, bound=1e-5)


def test_large_scores_do_not_overflow() -> None:
    hidden = torch.tensor([[1e4], [-1e4]])
    found = Problem(hidden, torch.tensor([[1.0], [-1.0]]), None, None, torch.tensor([0, 0]), torch.ones(2))
    total, _, to_hidden, to_weight = found.run(CrossEntropy(Ce()))
    assert float(total) == 2e4
    assert to_hidden.isfinite().all()
    assert to_weight.isfinite().all()


def test_without_gradient_none_is_formed() -> None:
    weight = torch.randn(5, 3, requires_grad=True)
    targets = Targets(torch.arange(2), torch.tensor([0, 4]), torch.ones(2))
    with torch.no_grad():
        value = CrossEntropy(Ce()).loss(torch.randn(2, 3), targets, Table(weight), None)
    assert not value.total.requires_grad
    frozen_table = CrossEntropy(Ce()).loss(torch.randn(2, 3), targets, Table(weight.detach()), None)
    assert not frozen_table.total.requires_grad


def test_only_what_trains_gets_a_gradient() -> None:
    hidden, weight = torch.randn(2, 3, requires_grad=True), torch.randn(5, 3)
    bias = torch.zeros(5, requires_grad=True)
    targets = Targets(torch.arange(2), torch.tensor([0, 4]), torch.ones(2))
    torch.autograd.backward(CrossEntropy(Ce()).loss(hidden, targets, Table(weight, bias), None).total)
    assert hidden.grad is not None
    assert bias.grad is not None
    assert weight.grad is None


def test_no_predictions_are_zero_with_gradients_of_zero() -> None:
    hidden, weight = torch.randn(0, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    value = CrossEntropy(Ce()).loss(hidden, Targets(none, none, torch.zeros(0)), Table(weight), None)
    torch.autograd.backward(value.total)
    assert (value.total.item(), value.weight.item()) == (0.0, 0.0)
    assert hidden.grad is not None
    assert weight.grad is not None
    assert not weight.grad.any()


def test_retired_targets_are_refused() -> None:
    targets = Targets(torch.arange(3), torch.tensor([0, 2, 2]), torch.ones(3))
    table = Table(torch.randn(4, 2), retired=torch.tensor([False, False, True, False]))
    with pytest.raises(DataError) as caught:
        CrossEntropy(Ce()).loss(torch.randn(3, 2), targets, table, None)
    assert str(caught.value) == (
        "loss 'ce': 2 of 3 targets are retired items, the first with id 2, expected items that can still be "
        "recommended (a retired item may stay in histories but is no target)"
    )


def test_several_ids_a_target_are_refused() -> None:
    targets = Targets(torch.arange(3), torch.zeros(3, 2, dtype=torch.int64), torch.ones(3))
    with pytest.raises(ValueError, match=r"^loss 'ce' takes one item id .* expected \(N,\), got \(3, 2\)$"):
        CrossEntropy(Ce()).loss(torch.randn(3, 2), targets, Table(torch.randn(4, 2)), None)


@pytest.mark.parametrize(
    ("items", "limit", "events"), [(3_416, 256, 256), (500_000, 256, 134), (500_000, 1, 1), (10, 1, 256)]
)
def test_the_block_shrinks_with_many_items(items: int, limit: int, events: int) -> None:
    loss = build(Ce(limit_mib=limit), Context())
    assert loss.block(torch.empty(items, 1)) == events


MEMORY = """
import resource, torch
from recore_losses.ce import CrossEntropy
from recore_losses.options import Ce
from recore.contracts import Table
from recore.ragged import Targets
torch.set_num_threads(1)
N, V, d = 2048, 60_000, 8
hidden = torch.randn(N, d).requires_grad_()
weight = torch.randn(V, d).requires_grad_()
targets = Targets(torch.arange(N), torch.randint(V, (N,)), torch.ones(N))
loss = CrossEntropy(Ce(limit_mib=24))
few = Targets(targets.where[:8], targets.id[:8], targets.weight[:8])
loss.loss(hidden[:8], few, Table(weight), None).total.backward()  # what libraries load at first use
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loss.loss(hidden, targets, Table(weight), None).total.backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_is_that_of_a_block_and_not_of_all_scores() -> None:
    """All scores would be 469 MiB; a block is 24, the gradients and their copies below 10."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    grown = float(done.stdout)
    assert grown < 120, f"peak memory grew by {grown:.0f} MiB"
