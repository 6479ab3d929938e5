"""`consistency` against its formulas in float64; the kit's checks of losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_duality.consistency import ConsistencyLoss, build
from recore_duality.options import Consistency
from recore_duality.plugin import recore_losses
from torch import Tensor

from recore import Context, LossClaims
from recore.contracts import Table
from recore.ragged import Targets
from recore.testing import failures, load_checks, parametrize_with_checks, part_of, run_checks

(COMPONENT,) = recore_losses()
FORMS: tuple[Literal["cosine", "contrast"], ...] = ("cosine", "contrast")
STOPS: tuple[Literal["own", "encoded"], ...] = ("own", "encoded")


@parametrize_with_checks([part_of("loss", COMPONENT, form, Consistency(form=form)) for form in FORMS])
def test_consistency_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_checks() -> None:
    assert len(load_checks()["loss"]) >= 12


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stop", STOPS)
def test_with_stop_all_but_the_gradient_of_one_side_holds(form: Any, stop: Any) -> None:
    """A gradient that is stopped is not the derivative of the total, so the kit's first sentence must fail; no
    other may."""
    results = run_checks(part_of("loss", COMPONENT, "recore-duality", Consistency(form=form, stop=stop)))
    (failed,) = failures(results)
    assert failed.name == "loss 1"
    side = "item vectors" if stop == "own" else "hidden states"
    assert f"the gradient of the {side} says 0 along a direction" in failed.measured


# ---- formulas -------------------------------------------------------------------------------------------------


def scene(seed: int, n: int = 6, v: int = 9, d: int = 4) -> tuple[Tensor, Tensor, Targets]:
    """Encoded vectors `(n, d)`, item vectors `(v, d)` and targets, in float64."""
    random = torch.Generator().manual_seed(seed)
    encoded, own = (torch.randn(rows, d, generator=random, dtype=torch.float64) for rows in (n, v))
    weight = torch.rand(n, generator=random, dtype=torch.float64).round(decimals=1)
    return encoded, own, Targets(torch.arange(n), torch.randint(v, (n,), generator=random), weight, "item")


def cosine(one: Tensor, other: Tensor) -> Tensor:
    made: Tensor = one @ other / (one.norm() * other.norm())
    return made


def total(loss: ConsistencyLoss, encoded: Tensor, own: Tensor, targets: Targets, **more: Any) -> Tensor:
    value = loss.loss(encoded, targets, Table(own, **more), None)
    assert torch.equal(value.weight, loss.weight(targets))
    ((kept, weight),) = value.terms.values()
    assert set(value.terms) == {"consistency"}
    assert torch.equal(kept, value.total.detach())
    assert torch.equal(weight, value.weight)
    made: Tensor = value.total
    return made


@given(st.integers(0, 10**6), st.sampled_from([0.07, 0.1, 1.0]), st.data())
@settings(deadline=None, max_examples=60)
def test_values_are_those_of_the_formulas(seed: int, temperature: float, data: st.DataObject) -> None:
    encoded, own, targets = scene(seed)
    wanted = torch.zeros((), dtype=torch.float64)
    for row, item, weight in zip(encoded, targets.id.tolist(), targets.weight, strict=True):
        wanted += weight * (1 - cosine(row, own[item]))
    found = total(ConsistencyLoss(Consistency()), encoded, own, targets)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)

    gone = torch.tensor(data.draw(st.lists(st.booleans(), min_size=9, max_size=9)))
    gone[targets.id] = False
    wanted = torch.zeros((), dtype=torch.float64)
    for row, item, weight in zip(encoded, targets.id.tolist(), targets.weight, strict=True):
        others = [torch.exp(cosine(row, own[j]) / temperature) for j in range(9) if not gone[j]]
        wanted -= weight * torch.log(torch.exp(cosine(row, own[item]) / temperature) / sum(others))
    loss = ConsistencyLoss(Consistency(form="contrast", temperature=temperature))
    found = total(loss, encoded, own, targets, retired=gone)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    # Biases of the table say how likely an item is, not what it is.
    assert torch.equal(found, total(loss, encoded, own, targets, retired=gone, bias=torch.arange(9.0)))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_both_sides(form: Any) -> None:
    encoded, own, targets = scene(3)
    loss = ConsistencyLoss(Consistency(form=form))
    sides = encoded.requires_grad_(), own.requires_grad_()
    assert torch.autograd.gradcheck(lambda one, two: total(loss, one, two, targets), sides)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stop", STOPS)
def test_a_side_that_is_stopped_gets_no_gradient_and_the_other_its_own(form: Any, stop: Any) -> None:
    encoded, own, targets = scene(4)
    leaves = [encoded.requires_grad_(), own.requires_grad_()]
    free = total(ConsistencyLoss(Consistency(form=form)), encoded, own, targets)
    stopped = total(ConsistencyLoss(Consistency(form=form, stop=stop)), encoded, own, targets)
    assert torch.equal(stopped, free)
    names = ("encoded", "own")
    both = dict(zip(names, torch.autograd.grad(free, leaves), strict=True))
    found = dict(zip(names, torch.autograd.grad(stopped, leaves, allow_unused=True), strict=True))
    assert found.pop(stop) is None
    ((side, gradient),) = found.items()
    torch.testing.assert_close(gradient, both[side], rtol=1e-12, atol=0)


def test_what_the_users_of_a_retired_item_make_of_it_stays_its_own() -> None:
    """Retired, it is a candidate for its own users only, so the loss is finite."""
    encoded, own, targets = scene(8)
    gone = torch.zeros(9, dtype=torch.bool)
    gone[targets.id[0]] = True
    loss = ConsistencyLoss(Consistency(form="contrast"))
    wanted = torch.zeros((), dtype=torch.float64)
    for row, item, weight in zip(encoded, targets.id.tolist(), targets.weight, strict=True):
        here = [j for j in range(9) if not gone[j] or j == item]
        logits = torch.stack([cosine(row, own[j]) / 0.1 for j in here])
        wanted -= weight * torch.log_softmax(logits, 0)[here.index(item)]
    torch.testing.assert_close(
        total(loss, encoded, own, targets, retired=gone), wanted, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("form", FORMS)
def test_only_the_direction_counts(form: Any) -> None:
    encoded, own, targets = scene(5)
    loss = ConsistencyLoss(Consistency(form=form))
    one, other = total(loss, encoded, own, targets), total(loss, encoded * 1e-3, own * 1e4, targets)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20, 1e18])
def test_vectors_of_length_zero_have_cosine_0_and_all_is_finite(
    form: Any, dtype: torch.dtype, size: float
) -> None:
    """A user's rows may all be unknown, so zero; and very short or long ones must not overflow."""
    encoded, own, targets = scene(6)
    scale = torch.ones(6, 1, dtype=torch.float64)
    scale[0] = size
    sides = (encoded * scale).to(dtype).requires_grad_(), (own * (scale[0] if size else 0.0)).to(dtype)
    own = sides[1].requires_grad_()
    value = total(ConsistencyLoss(Consistency(form=form)), sides[0], own, targets)
    assert torch.isfinite(value)
    for gradient in torch.autograd.grad(value, (sides[0], own)):
        assert torch.isfinite(gradient).all()
    if not size and form == "cosine":
        torch.testing.assert_close(value.double(), targets.weight.sum(), rtol=1e-6, atol=0)


def test_no_items_and_weight_zero() -> None:
    encoded, own, targets = scene(7, n=0)
    for form in FORMS:
        assert total(ConsistencyLoss(Consistency(form=form)), encoded, own, targets) == 0


def test_claims_and_options() -> None:
    assert Consistency().claims() == LossClaims(memory="blocks", agreement=True)
    assert Consistency(form="contrast").claims() == LossClaims(memory="full", agreement=True)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"expected a number above 0, got {wrong}"):
            Consistency(temperature=wrong)
    assert isinstance(build(Consistency(), Context()), ConsistencyLoss)
