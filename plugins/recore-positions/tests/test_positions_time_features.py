"""The position `time-features`, through attention. Legend: `T` events, `H` heads, `F` waves."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from positions_oracle import (
    FACTS,
    HEADS,
    LAYERS,
    after_cutting,
    after_dropping,
    after_padding,
    apart,
    asked_at,
    assert_equal,
    attended,
    built,
    qkv,
    rhythms,
    slow,
    timed,
    trained,
    view_of,
    without,
)
from recore_positions.time_features import DAY, build
from recore_positions.time_options import PERIODS, TimeFeatures
from torch import Tensor

from recore import BOTH_SIDES, Context, Facts, RecipeError
from recore.contracts import Position
from recore.ragged import Batch

query_times = st.sampled_from(["last-event", "target"])


@pytest.mark.parametrize("query_time", ["last-event", "target"])
def test_it_keeps_the_contract_and_claims(query_time: Any) -> None:
    assert isinstance(built("time-features"), Position)
    options = TimeFeatures(query_time=query_time)
    claims = options.claims()
    assert claims.relative_to == "prediction"
    assert claims.prefix_consistent
    assert claims.shift_invariant
    assert claims.padding == BOTH_SIDES
    assert claims.query_time == query_time
    assert options.columns() == {"time"}


@settings(deadline=None, max_examples=30)
@given(
    rhythm=rhythms,
    query_time=query_times,
    ahead=st.integers(0, 10**7),
    causal=st.booleans(),
    layer=st.integers(0, 1),
    layers=st.sampled_from(["each", "shared"]),
    unit=st.sampled_from([1.0, 60.0]),
    periods=st.sampled_from([(1.0,), (1.0, 7.0), PERIODS]),
)
def test_it_equals_the_formula_values_and_gradients(
    rhythm: list[list[int]],
    query_time: str,
    ahead: int,
    causal: bool,
    layer: int,
    layers: str,
    unit: float,
    periods: tuple[float, ...],
) -> None:
    """Of the periods, too, whose gradient comes through sines and cosines of both sides."""
    view = timed(rhythm)
    position = built(
        "time-features",
        without(causal=causal),
        query_time=query_time,
        layers=layers,
        unit=unit,
        periods=periods,
        horizon=20.0,
    )
    tensors, time = qkv(view.events), view["time"].tolist()
    weight = position.weight[0 if layers == "shared" else layer]

    def logit(i: int, j: int) -> Tensor:
        gap = (time[i] + (ahead if query_time == "target" else 0) - time[j]) * unit
        total = torch.zeros(HEADS, dtype=torch.float64)
        for f, days in enumerate(periods):
            period = days * DAY * torch.exp(position.drift[f] * days / (2 * math.pi * 20.0))
            turn = 2 * math.pi * gap / period
            total = total + weight[:, 0, f] * turn.sin() + weight[:, 1, f] * turn.cos()
        return total

    got = attended(position, tensors, view, asked_at(view, view["time"] + ahead), layer, causal)
    # Gaps of decades are 10^8 turns of the shortest period: the oracle's own phase is known to 10^-8 then.
    longest = max(time) - min(time) + ahead
    far = max(1e-9, 1e-15 * longest * unit / (min(periods) * DAY) * longest * unit / (20 * DAY))
    assert_equal(got, slow(tensors, view, logit, causal=causal), [*tensors, *trained(position)], far)


@settings(deadline=None, max_examples=20)
@given(
    rhythm=rhythms,
    query_time=query_times,
    count=st.integers(1, 5),
    side=st.sampled_from(["left", "right"]),
    extra=st.integers(0, 64),
)
def test_each_claim_holds(
    rhythm: list[list[int]], query_time: str, count: int, side: str, extra: int
) -> None:
    position, view = built("time-features", query_time=query_time), timed(rhythm)
    assert after_cutting(position, view, count, ahead=3600) <= 1e-9
    assert after_dropping(position, view, count, ahead=3600) <= 1e-9
    assert after_padding(position, view, side, extra, ahead=3600) <= 1e-9


def states(position: Any, time: Tensor, asked: Tensor) -> Tensor:
    view = view_of([len(time)], time)
    return attended(position, qkv(len(time)), view, asked_at(view, asked)).detach()


@settings(deadline=None, max_examples=20)
@given(gaps=st.lists(st.integers(0, 10**8), min_size=3, max_size=6), data=st.data(), query_time=query_times)
def test_times_are_read_as_query_time_says(gaps: list[int], data: st.DataObject, query_time: str) -> None:
    position = built("time-features", query_time=query_time)
    time = torch.tensor(gaps).cumsum(0)
    place = data.draw(st.integers(1, len(gaps) - 1))
    plain = states(position, time, time + 60)
    later = time + torch.where(torch.arange(len(time)) < place, 0, 10**7)
    assert torch.equal(states(position, later, time + 60)[:place], plain[:place])
    other = states(position, time, time + 12_345)
    assert torch.equal(other, plain) == (query_time == "last-event")


def test_a_daily_and_a_weekly_rhythm_show() -> None:
    """With the weight on the cosine of a day an event as many days ago counts more than one half a day off."""
    position = built("time-features", noise=0.0, std=0.0)
    day, week = PERIODS.index(1.0), PERIODS.index(7.0)
    zero = torch.zeros(4, HEADS, 4, dtype=torch.float64)
    values = torch.zeros_like(zero)
    values[torch.arange(4), :, torch.arange(4)] = 1  # what a row receives is its weights
    hours = torch.tensor([0, 72, 84, 7 * 24]) * 3600
    view = view_of([4], hours)

    def weights() -> Tensor:
        return attended(position, [zero, zero, values], view)[3, 0].detach()

    assert torch.allclose(weights(), torch.full((4,), 0.25, dtype=torch.float64))
    with torch.no_grad():
        position.weight[0, :, 1, day] = 2.0
    daily = weights()
    assert float(daily[1]) == pytest.approx(float(daily[3]))
    assert float(daily[1]) == pytest.approx(math.exp(4) * float(daily[2]))
    with torch.no_grad():
        position.weight[0, :, 1, day], position.weight[0, :, 1, week] = 0.0, 2.0
    weekly = weights()
    assert float(weekly[0]) == pytest.approx(float(weekly[3]))
    assert float(weekly[2]) < 0.05 * float(weekly[0])


def test_periods_start_where_told_and_a_drift_is_a_phase_at_the_horizon() -> None:
    position = built("time-features", noise=0.0)
    assert (2 * math.pi / position.rates().detach() / DAY).tolist() == pytest.approx(PERIODS)
    assert {1.0, 7.0} <= set(PERIODS)
    before = position.rates().detach()
    with torch.no_grad():
        position.drift += 1e-3
    lag = (before - position.rates().detach()) * 30 * DAY
    assert lag.tolist() == pytest.approx([1e-3] * len(PERIODS), rel=1e-2)


def test_a_gradient_of_the_periods_is_of_the_order_of_gaps_over_the_horizon() -> None:
    """Without that scale a year's gap would give a day's period thousands of times what it gives a year's."""
    position = built("time-features", noise=0.0, std=0.02)
    random = torch.Generator().manual_seed(0)
    time = torch.randint(0, int(365 * DAY), (60,), generator=random).sort().values
    view = view_of([60], time)
    out = attended(position, qkv(60), view)
    (grad,) = torch.autograd.grad(out.square().sum(), [position.drift])
    size = grad.abs()
    assert float(size.max()) < 12 * float(size.median()) + 1.0
    assert float(size.max()) < 10


def test_float32_knows_a_day_after_ten_years() -> None:
    """Phases are made in float64: in float32 seconds since 1970 are known to two minutes."""
    rhythm = [[0, 3650 * 86_400, 43_200, 43_200]]
    wide, narrow = built("time-features", seed=3), built("time-features", seed=3).float()
    view = timed(rhythm)
    tensors = qkv(4)
    got = attended(narrow, [tensor.float() for tensor in tensors], view)
    assert got.dtype == torch.float32
    assert apart(got.double(), attended(wide, tensors, view)) < 1e-5


def test_waves_of_layers_share_the_periods() -> None:
    view = timed([[1, 2], [3]])
    batch, x = Batch({"user": view}), torch.zeros(3, 1)
    each = built("time-features").place(x, batch, view)
    assert len(each.terms) == LAYERS
    assert each.terms[0][0].inputs[1] is each.terms[1][0].inputs[1]
    assert len(built("time-features", layers="shared").place(x, batch, view).terms) == 1


def test_no_events_at_all_are_placed() -> None:
    view = view_of([0], torch.zeros(0, dtype=torch.int64))
    for query_time in ("last-event", "target"):
        position = built("time-features", query_time=query_time)
        assert position.place(torch.zeros(0, 1), Batch({"user": view}), view).terms


def test_numbers_come_from_the_seed_alone() -> None:
    def made(seed: int) -> Tensor:
        return build(TimeFeatures(std=1.0), Context(seed, "model.position", FACTS)).weight.detach()

    state = torch.get_rng_state()
    one = made(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, made(1))
    assert not torch.equal(one, made(2))
    assert one.shape == (LAYERS, HEADS, 2, len(PERIODS))


def test_events_without_times_are_refused_with_what_to_do() -> None:
    with pytest.raises(
        ValueError, match="'time-features' reads the column 'time', and these events have none"
    ):
        attended(built("time-features"), qkv(2), view_of([2]))


def test_an_encoder_without_pair_functions_or_heads_is_refused() -> None:
    (problem,) = TimeFeatures().problems(Facts(terms=frozenset({"pair-table"})))
    assert problem == (
        "position 'time-features' needs an encoder that takes the term 'pair-function', but this one takes: pair-table "
        "(use an encoder with attention, or positions that change inputs)"
    )
    assert TimeFeatures().problems(Facts()) == []


def test_data_that_says_that_it_has_no_times_is_refused() -> None:
    (problem,) = TimeFeatures().problems(Facts(timed=False))
    assert problem == (
        "position 'time-features' reads times, and the data has none (name their column, as in `time: timestamp` of "
        "recore-data:events, use data that has times, or a position that reads none)"
    )
    assert TimeFeatures().problems(Facts(timed=True)) == []


def test_heads_and_layers_must_be_known() -> None:
    with pytest.raises(RecipeError, match="states its heads and layers, got heads None"):
        build(TimeFeatures(), Context(path="model.position"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("periods", (), "`periods`: expected at least one period, got none"),
        ("periods", (1.0, 0.0), "`periods`: expected periods above 0, got 0.0"),
        ("horizon", 0.0, "`horizon`: expected a number above 0, got 0.0"),
        ("unit", float("inf"), "`unit`: expected a number above 0, got inf"),
        ("std", -1.0, "`std`: expected 0 or more, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        attrs.evolve(TimeFeatures(), **{name: value})
    assert str(error.value) == message
