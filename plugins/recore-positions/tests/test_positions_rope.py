"""The position `rope`, through attention. Legend: `T` events, `H` heads, `e` = d/H."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from positions_oracle import (
    SIZE,
    after_cutting,
    after_dropping,
    after_padding,
    assert_equal,
    attended,
    built,
    lengths,
    qkv,
    slow,
    trained,
    view_of,
    without,
)
from recore_positions.ordered_options import Rope
from recore_positions.rope import build
from torch import Tensor

from recore import BOTH_SIDES, Context, Facts, RecipeError
from recore.contracts import Position
from recore.ragged import Batch

bases = st.sampled_from([10.0, 40.0, 10000.0])


def test_it_keeps_the_contract_and_claims() -> None:
    assert isinstance(built("rope"), Position)
    claims = Rope().claims()
    assert claims.relative_to == "prediction"
    assert claims.prefix_consistent
    assert claims.shift_invariant
    assert claims.padding == BOTH_SIDES
    assert claims.query_time == "none"
    assert trained(built("rope")) == []


@settings(deadline=None, max_examples=25)
@given(held=lengths, base=bases, causal=st.booleans(), layer=st.integers(0, 1))
def test_it_equals_the_formula_values_and_gradients(
    held: list[int], base: float, causal: bool, layer: int
) -> None:
    """Each pair of coordinates by the 2 × 2 matrix of its angle, event by event."""
    view = view_of(held)
    position = built("rope", without(causal=causal), base=base)
    tensors = qkv(view.events)

    def turn(i: int, x: Tensor) -> Tensor:
        place, coordinates = int(view.place[i]), []
        for n in range(SIZE // 2):
            angle = place * base ** (-2 * n / SIZE)
            even, odd = x[:, 2 * n], x[:, 2 * n + 1]
            coordinates += [
                even * math.cos(angle) - odd * math.sin(angle),
                even * math.sin(angle) + odd * math.cos(angle),
            ]
        return torch.stack(coordinates, -1)

    got = attended(position, tensors, view, layer=layer, causal=causal)
    assert_equal(got, slow(tensors, view, turn=turn, causal=causal), tensors)


@settings(deadline=None, max_examples=20)
@given(
    held=lengths,
    base=bases,
    count=st.integers(1, 6),
    side=st.sampled_from(["left", "right"]),
    extra=st.integers(0, 64),
)
def test_each_claim_holds(held: list[int], base: float, count: int, side: str, extra: int) -> None:
    position, view = built("rope", base=base), view_of(held)
    assert after_cutting(position, view, count) <= 1e-9
    assert after_dropping(position, view, count) <= 1e-9
    assert after_padding(position, view, side, extra) <= 1e-9


def test_angles_are_exact_far_out_and_narrow_only_at_the_end() -> None:
    """In float32 an angle of 2,276 radians would be known to a ten-thousandth only."""
    view = view_of([2277])
    (turn,) = built("rope").place(torch.zeros(2277, 1), Batch({"user": view}), view).terms[0]
    assert turn.cos.dtype == torch.float32
    assert turn.cos.shape == (2277, SIZE // 2)
    for place in (1, 200, 2276):
        for n in range(SIZE // 2):
            angle = place * 10000 ** (-2 * n / SIZE)
            assert float(turn.cos[place, n]) == pytest.approx(math.cos(angle), abs=6e-8)
            assert float(turn.sin[place, n]) == pytest.approx(math.sin(angle), abs=6e-8)


def test_turns_are_made_once_per_view_and_base() -> None:
    view = view_of([3])
    batch, x = Batch({"user": view}), torch.zeros(3, 1)
    one, other = built("rope"), built("rope", base=10.0)
    assert one.place(x, batch, view).terms[0][0] is one.place(x, batch, view).terms[0][0]
    assert not torch.equal(
        one.place(x, batch, view).terms[0][0].cos, other.place(x, batch, view).terms[0][0].cos
    )
    assert one.place(x.bfloat16(), batch, view).terms[0][0].cos.dtype == torch.float32


def test_no_events_at_all_are_placed() -> None:
    view = view_of([0])
    placed = built("rope").place(torch.zeros(0, 1), Batch({"user": view}), view)
    assert placed.terms[0][0].cos.shape == (0, SIZE // 2)


def test_the_bases_named_in_the_help_do_what_it_says() -> None:
    def turns(base: float, size: int, history: int) -> list[float]:
        return [history * base ** (-2 * n / size) / (2 * math.pi) for n in range(size // 2)]

    for history, share in ((200, 3 / 5), (50, 3 / 4)):
        assert sum(pair < 1 for pair in turns(10000, 64, history)) / 32 == pytest.approx(share, abs=0.01)
    assert 1 / turns(10000, 16, 1)[-1] > 10_000
    for history, base in ((50, 8.5), (200, 36.0)):
        assert base == pytest.approx((history / (2 * math.pi)) ** (64 / 62), rel=0.02)
        assert turns(base, 64, history)[-1] == pytest.approx(1, rel=0.02)


def test_an_odd_rotary_width_is_refused_in_one_line() -> None:
    (problem,) = Rope().problems(Facts(width=50, heads=2, terms=frozenset({"rotate"})))
    assert problem == (
        "position 'rope' turns pairs of coordinates and needs an even width per head, got 25 (a width of 50 over 2 "
        "heads; make the embedder's width a multiple of 4)"
    )
    assert Rope().problems(Facts(width=52, heads=2)) == []
    assert Rope().problems(Facts(width=50)) == []
    # That heads do not divide the width is the encoder's to say.
    assert Rope().problems(Facts(width=50, heads=4)) == []
    with pytest.raises(RecipeError, match="needs an even width per head, got 3"):
        build(Rope(), Context(path="model.position", facts=Facts(width=6, heads=2)))


def test_an_encoder_that_does_not_turn_or_has_no_heads_is_refused() -> None:
    (problem,) = Rope().problems(Facts(terms=frozenset({"pair-table"})))
    assert problem == (
        "position 'rope' needs an encoder that takes the term 'rotate', but this one takes: pair-table "
        "(use an encoder with attention, or positions that change inputs)"
    )
    with pytest.raises(RecipeError, match="got heads None and width None"):
        build(Rope(), Context(path="model.position"))


@pytest.mark.parametrize("base", [1.0, 0.0, -3.0, float("nan"), float("inf")])
def test_a_base_out_of_range_is_refused(base: float) -> None:
    with pytest.raises(ValueError, match="`base`: expected a number above 1, got"):
        Rope(base=base)
