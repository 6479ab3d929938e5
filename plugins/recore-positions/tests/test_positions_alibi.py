"""The position `alibi`, through attention. Legend: `T` events, `H` heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from positions_oracle import (
    HEADS,
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
from recore_positions.alibi import build, exponents
from recore_positions.ordered_options import Alibi
from torch import Tensor

from recore import BOTH_SIDES, Context, Facts, RecipeError
from recore.attention import PairTable
from recore.contracts import Position
from recore.ragged import Batch


def published(heads: int) -> list[float]:
    """The slopes of the paper's code, `get_slopes`, as it is written there."""

    def of_a_power_of_two(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    lower = 1
    while 2 * lower <= heads:
        lower *= 2
    if lower == heads:
        return of_a_power_of_two(heads)
    return of_a_power_of_two(lower) + published(2 * lower)[0::2][: heads - lower]


@pytest.mark.parametrize("heads", range(1, 21))
def test_slopes_are_those_of_the_papers_code(heads: int) -> None:
    made = [2**-exponent for exponent in exponents(heads)]
    assert made == pytest.approx(published(heads), rel=1e-12)


def test_slopes_of_eight_and_of_one_head() -> None:
    assert [2**-exponent for exponent in exponents(8)] == [1 / 2**n for n in range(1, 9)]
    assert exponents(1) == [8]
    assert exponents(2, 4.0) == [2, 4]


def test_it_keeps_the_contract_and_claims() -> None:
    assert isinstance(built("alibi"), Position)
    claims = Alibi().claims()
    assert claims.relative_to == "prediction"
    assert claims.prefix_consistent
    assert claims.shift_invariant
    assert claims.padding == BOTH_SIDES
    assert claims.query_time == "none"
    assert trained(built("alibi")) == []


@settings(deadline=None, max_examples=25)
@given(held=lengths, causal=st.booleans(), learned=st.booleans(), layer=st.integers(0, 1))
def test_it_equals_the_formula_values_and_gradients(
    held: list[int], causal: bool, learned: bool, layer: int
) -> None:
    slopes: Any = "learned" if learned else "fixed"
    position = built("alibi", without(causal=causal), slopes=slopes)
    tensors, view = qkv(sum(held)), view_of(held)
    slope = torch.tensor([2**-4, 2**-8], dtype=torch.float64)
    if learned:
        slope = 2.0**-position.exponent

    def logit(i: int, j: int) -> Tensor:
        return -slope * abs(i - j)

    got = attended(position, tensors, view, layer=layer, causal=causal)
    assert_equal(got, slow(tensors, view, logit, causal=causal), [*tensors, *trained(position)])


@settings(deadline=None, max_examples=20)
@given(
    held=lengths, count=st.integers(1, 6), side=st.sampled_from(["left", "right"]), extra=st.integers(0, 64)
)
def test_each_claim_holds(held: list[int], count: int, side: str, extra: int) -> None:
    for slopes in ("fixed", "learned"):
        position, view = built("alibi", slopes=slopes), view_of(held)
        assert after_cutting(position, view, count) <= 1e-9
        assert after_dropping(position, view, count) <= 1e-9
        assert after_padding(position, view, side, extra) <= 1e-9


def test_no_distance_is_clipped_however_long_the_history() -> None:
    """A table of fixed size would be wrong beyond it: 2,277 is ML-1M's longest history."""
    view = view_of([2277, 3])
    position = built("alibi")
    (table,) = position.place(
        torch.zeros(view.events, 1, dtype=torch.float64), Batch({"user": view}), view
    ).terms[0]
    assert isinstance(table, PairTable)
    assert (table.low, table.high) == (0, 2276)
    assert torch.equal(table.table[:, 0], -torch.arange(2277, dtype=torch.float64) / 16)
    v = qkv(view.events)[2].detach()
    zero = torch.zeros_like(v)
    got = attended(position, [zero, zero, v], view)[2276, 1]
    weights = torch.exp(torch.arange(-2276, 1, dtype=torch.float64) / 256)
    assert torch.allclose(got, (weights[:, None] * v[:2277, 1]).sum(0) / weights.sum(), rtol=1e-9)


def test_one_table_for_all_layers_is_kept_on_the_view_and_not_between_schemes() -> None:
    view = view_of([4, 2])
    batch = Batch({"user": view})
    one, other = built("alibi"), built("alibi", exponent=4.0)
    x = torch.zeros(6, 1)
    placed = one.place(x, batch, view)
    assert len(placed.terms) == 1
    first, again = placed.terms[0][0].table, one.place(x, batch, view).terms[0][0].table
    assert first is again
    assert not torch.equal(first, other.place(x, batch, view).terms[0][0].table)
    assert one.place(x.double(), batch, view).terms[0][0].table.dtype == torch.float64
    (both,) = built("alibi", without(causal=False)).place(x, batch, view).terms[0]
    assert (both.low, both.high, tuple(both.table.shape)) == (-3, 3, (7, HEADS))


def test_learned_slopes_start_where_fixed_ones_are() -> None:
    position = built("alibi", slopes="learned", noise=0.0)
    assert position.exponent.tolist() == [4.0, 8.0]
    assert len(trained(position)) == 1


def test_no_events_at_all_are_placed() -> None:
    view = view_of([0])
    placed = built("alibi").place(torch.zeros(0, 1), Batch({"user": view}), view)
    assert placed.terms[0][0].table.shape == (1, HEADS)


def test_an_encoder_without_pair_tables_or_heads_is_refused() -> None:
    (problem,) = Alibi().problems(Facts(terms=frozenset({"rotate"})))
    assert problem == (
        "position 'alibi' needs an encoder that takes the term 'pair-table', but this one takes: rotate "
        "(use an encoder with attention, or positions that change inputs)"
    )
    assert Alibi().problems(Facts()) == []
    with pytest.raises(RecipeError, match="needs an encoder that states its heads, got none"):
        build(Alibi(), Context(path="model.position"))


@pytest.mark.parametrize("exponent", [0.0, -1.0, float("nan"), float("inf")])
def test_an_exponent_out_of_range_is_refused(exponent: float) -> None:
    with pytest.raises(ValueError, match="`exponent`: expected a number above 0, got"):
        Alibi(exponent=exponent)
