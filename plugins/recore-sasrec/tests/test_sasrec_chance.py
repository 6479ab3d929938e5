"""What is drawn: initial weights and dropout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_sasrec.affine import Affine, Rule
from recore_sasrec.block import Block
from recore_sasrec.details import Place
from recore_sasrec.dropout import dropped, dropped_relu, dropped_sum
from recore_sasrec.encoder import SasrecEncoder, build
from recore_sasrec.options import Sasrec
from torch import Tensor

from recore import Context, Facts
from recore.contracts import Placed
from recore.ragged import Batch, View, offsets_of
from recore.rng import default_generator


def encoder(options: Sasrec, seed: int = 0, width: int = 64) -> SasrecEncoder:
    return build(options, Context(seed, "model.encoder", Facts(width=width)))


@pytest.mark.parametrize("rule", ["normal", "xavier-normal", "xavier-uniform"])
@pytest.mark.parametrize("fan_out", [None, 400])
def test_linear_maps_have_the_stated_deviation(rule: Rule, fan_out: int | None) -> None:
    affine = Affine(100, 200)
    affine.draw(rule, 0.3, torch.Generator().manual_seed(0), fan_out)
    deviation = 0.3 if rule == "normal" else math.sqrt(2 / (100 + (fan_out or 200)))
    weight = affine.weight.detach()
    assert float(weight.std()) == pytest.approx(deviation, rel=0.03)
    if rule == "xavier-uniform":
        assert float(weight.abs().max()) <= math.sqrt(3) * deviation
    assert affine.bias is not None
    assert not affine.bias.any()


@pytest.mark.parametrize(
    ("options", "qkv", "others", "bias"),
    [
        (Sasrec(), math.sqrt(2 / 256), 0.02, 0.0),
        (Sasrec(std=0.1), math.sqrt(2 / 256), 0.1, 0.0),
        (Sasrec(preset="paper"), math.sqrt(2 / 128), math.sqrt(2 / 128), 0.0),
        (Sasrec(preset="tensorflow"), math.sqrt(2 / 128), math.sqrt(2 / 128), 0.0),
        (Sasrec(preset="pytorch"), math.sqrt(2 / 256), math.sqrt(2 / 128), 1 / 8 / math.sqrt(3)),
    ],
)
def test_each_preset_draws_its_own_initial_weights(
    options: Sasrec, qkv: float, others: float, bias: float
) -> None:
    for block in encoder(options).blocks:
        assert isinstance(block, Block)
        assert (block.qkv.bias is None) == (options.preset == "paper")
        assert (block.output is None) == (options.preset in ("paper", "tensorflow"))
        assert float(block.qkv.weight.detach().std()) == pytest.approx(qkv, rel=0.05)
        maps = [block.first, block.second, *([block.output] if block.output is not None else [])]
        for affine in maps:
            assert float(affine.weight.detach().std()) == pytest.approx(others, rel=0.05)
        for affine in (block.first, block.second):
            assert affine.bias is not None
            assert float(affine.bias.detach().std()) == pytest.approx(bias, rel=0.3)


def test_initial_weights_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one = encoder(Sasrec(preset="pytorch"), seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), state), "torch's default generator was used"
    with default_generator(5):
        again = encoder(Sasrec(preset="pytorch"), seed=3).state_dict()
    other = encoder(Sasrec(preset="pytorch"), seed=4).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["blocks.0.qkv.weight"], other["blocks.0.qkv.weight"])
    assert not torch.equal(one["blocks.0.qkv.weight"], one["blocks.1.qkv.weight"])


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(0.001, 0.95), seed=st.integers(0, 2**30), odd=st.integers(0, 3))
def test_elements_are_dropped_at_the_rate_and_the_sum_is_kept(rate: float, seed: int, odd: int) -> None:
    count = 40_000 + odd
    with default_generator(seed):
        y = dropped(torch.ones(count, dtype=torch.float64), rate)
    kept = y != 0
    share = 1 - round(rate * 65536) / 65536
    assert torch.allclose(y[kept], torch.tensor(1 / share, dtype=torch.float64), rtol=1e-12)
    for lane in range(4):
        mine = kept[lane::4].double()
        error = math.sqrt(share * (1 - share) / len(mine))
        assert abs(float(mine.mean()) - share) <= 6 * error, f"lane {lane} of each draw"
    neighbours = (kept[:-1] & kept[1:]).double().mean()
    assert abs(float(neighbours) - share**2) <= 6 * math.sqrt(share**2 * (1 - share**2) / count * 3)


def test_dropout_is_the_generators_and_its_gradient_is_its_factor() -> None:
    x = torch.randn(30, 5, requires_grad=True, generator=torch.Generator().manual_seed(0))
    base = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    results = []
    for _ in range(2):
        with default_generator(7):
            y = dropped(x, 0.5)
        results.append(y)
    with default_generator(7):
        summed = dropped_sum(base, x, 0.5)
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(summed, base + results[0], rtol=0, atol=1e-6)
    grad = torch.autograd.grad(results[0].sum(), x)[0]
    assert torch.equal(grad, torch.where(results[0] == 0, 0.0, 2.0))
    assert torch.equal(dropped(x, 0.0), x)
    assert torch.equal(dropped_sum(base, x, 0.0), base + x)


def test_dropout_in_one_pass_is_dropout_in_two() -> None:
    """Values and gradients of the sum and of the activation, to the last bit."""
    random = torch.Generator().manual_seed(0)
    x, base, given = (torch.randn(31, 5, generator=random) for _ in range(3))
    for rate in (0.0, 0.1, 0.5):
        for both in (False, True):
            apart, joined = ([t.clone().requires_grad_() for t in (x, base)] for _ in range(2))
            with default_generator(7):
                two = apart[1] + dropped(apart[0], rate) if both else dropped(apart[0].relu(), rate)
            with default_generator(7):
                # The activation writes over its argument, so that is a tensor made for it.
                one = dropped_sum(joined[1], joined[0], rate) if both else dropped_relu(joined[0] * 1, rate)
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
            torch.autograd.backward([two, one], [given, given])
            for mine, theirs in zip(joined[: 1 + both], apart, strict=False):
                assert mine.grad is not None
                assert theirs.grad is not None
                assert torch.equal(mine.grad, theirs.grad)


def states(options: Sasrec, training: bool, seed: int) -> Tensor:
    built = encoder(options, width=8).train(training)
    view = View({"token": torch.zeros(7, dtype=torch.int64)}, offsets_of(torch.tensor([4, 3])))
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    with default_generator(seed):
        return built.encode(x, Batch({"user": view}), view, Placed(x)).detach()


@pytest.mark.parametrize("place", ["input", "attention", "attention-output", "hidden", "output"])
def test_each_place_of_dropout_is_there_in_training_only(place: Place) -> None:
    options = Sasrec(preset="pytorch", dropout=0.5, dropouts=[place])
    plain = states(options, False, 0)
    assert torch.equal(plain, states(options, False, 1))
    one, again, other = (states(options, True, seed) for seed in (0, 0, 1))
    assert torch.equal(one, again), "the same seed, the same dropout"
    assert not torch.allclose(one, plain)
    assert not torch.allclose(one, other)


def test_without_a_rate_or_a_place_training_is_evaluation() -> None:
    for options in (Sasrec(dropout=0.0), Sasrec(dropout=0.5, dropouts=[])):
        assert torch.equal(states(options, True, 0), states(options, False, 1))
