"""The position `time-bias`, through attention. Legend: `T` events, `H` heads."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from positions_oracle import (
    FACTS,
    HEADS,
    LAYERS,
    after_cutting,
    after_dropping,
    after_padding,
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
from recore_positions.time_bias import build
from recore_positions.time_options import TimeBias
from torch import Tensor

from recore import BOTH_SIDES, Context, Facts, RecipeError
from recore.contracts import Position
from recore.ragged import Batch, Targets

query_times = st.sampled_from(["last-event", "target"])


def bucket(gap: float, unit: float = 1.0, width: float = 0.301, buckets: int = 128) -> int:
    """floor(log(max(1, |Δ|)) / width), at most buckets − 1."""
    return min(math.floor(math.log(max(1.0, abs(gap) * unit)) / width), buckets - 1)


@pytest.mark.parametrize("query_time", ["last-event", "target"])
def test_it_keeps_the_contract_and_claims(query_time: Any) -> None:
    assert isinstance(built("time-bias"), Position)
    options = TimeBias(query_time=query_time)
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
    shared=st.booleans(),
    unit=st.sampled_from([1.0, 60.0, 0.001]),
    buckets=st.sampled_from([2, 20, 128]),
)
def test_it_equals_the_formula_values_and_gradients(
    rhythm: list[list[int]],
    query_time: str,
    ahead: int,
    causal: bool,
    layer: int,
    shared: bool,
    unit: float,
    buckets: int,
) -> None:
    view = timed(rhythm)
    who = "shared" if shared else "each"
    position = built(
        "time-bias",
        without(causal=causal),
        query_time=query_time,
        unit=unit,
        buckets=buckets,
        layers=who,
        heads=who,
    )
    tensors, time = qkv(view.events), view["time"].tolist()
    weight: Tensor = position.weight[0 if shared else layer]
    assert weight.shape == (buckets, 1 if shared else HEADS)

    def logit(i: int, j: int) -> Tensor:
        asked = time[i] + (ahead if query_time == "target" else 0)
        return weight[bucket(asked - time[j], unit, buckets=buckets)]

    got = attended(position, tensors, view, asked_at(view, view["time"] + ahead), layer, causal)
    assert_equal(got, slow(tensors, view, logit, causal=causal), [*tensors, position.weight])


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
    position, view = built("time-bias", query_time=query_time), timed(rhythm)
    assert after_cutting(position, view, count, ahead=3600) <= 1e-9
    assert after_dropping(position, view, count, ahead=3600) <= 1e-9
    assert after_padding(position, view, side, extra, ahead=3600) <= 1e-9


def states(position: Any, time: Tensor, asked: Tensor) -> Tensor:
    view = view_of([len(time)], time)
    return attended(position, qkv(len(time)), view, asked_at(view, asked)).detach()


@settings(deadline=None, max_examples=20)
@given(gaps=st.lists(st.integers(0, 10**8), min_size=3, max_size=6), data=st.data(), query_time=query_times)
def test_times_are_read_as_query_time_says(gaps: list[int], data: st.DataObject, query_time: str) -> None:
    """With `last-event` no time after the asking event is read; with `target` that of the row's own target, too."""
    position = built("time-bias", query_time=query_time)
    time = torch.tensor(gaps).cumsum(0)
    place = data.draw(st.integers(1, len(gaps) - 1))
    plain = states(position, time, time + 60)
    later = time + torch.where(torch.arange(len(time)) < place, 0, 10**7)
    assert torch.equal(states(position, later, time + 60)[:place], plain[:place])
    other = states(position, time, time + 10**9)
    if query_time == "last-event":
        assert torch.equal(other, plain)
    else:
        assert float((other - plain)[1:].abs().amax()) > 1e-3


def test_a_row_without_a_target_asks_at_the_next_event() -> None:
    """What it predicts wherever it does, so that a query, of one target, and training agree."""
    position = built("time-bias", query_time="target")
    time = torch.tensor([0, 5, 90_000, 90_100])
    view = view_of([4], time)
    tensors = qkv(4)
    following = torch.tensor([5, 90_000, 90_100, 777_777])
    full = attended(position, tensors, view, asked_at(view, following))
    last = torch.tensor([3])
    query = Batch({"user": view}, Targets(last, last * 0 - 1, torch.ones(1), time=torch.tensor([777_777])))
    assert torch.equal(attended(position, tensors, view, query), full)


def test_a_query_that_does_not_say_when_is_refused() -> None:
    view = timed([[1, 2]])
    rows = torch.arange(2)
    batch = Batch({"user": view}, Targets(rows, rows, torch.ones(2)))
    position = built("time-bias", query_time="target")
    with pytest.raises(ValueError, match="the time of the event to be predicted is not given"):
        position.place(torch.zeros(2, 1), batch, view)
    assert built("time-bias").place(torch.zeros(2, 1), batch, view).terms


@settings(deadline=None, max_examples=50)
@given(gap=st.one_of(st.integers(0, 400), st.integers(0, 2**62)), start=st.integers(-(2**61), 2**61))
def test_buckets_are_those_of_the_formula_whatever_the_clock(gap: int, start: int) -> None:
    """Nanoseconds since 1970 do not fit float64: differences are taken in the log's own type."""
    assume(abs(math.log(max(gap, 1)) / 0.301 % 1 - 0.5) < 0.5 - 1e-12)
    position = built("time-bias")
    row, key = torch.tensor([[[start + gap]]]), torch.tensor([[[start]]])
    assert position.bucket(row, key).item() == bucket(gap)
    assert position.bucket(key, row).item() == bucket(gap)


def test_whole_gaps_beside_a_boundary_fall_on_their_own_side() -> None:
    """Each bucket's first gap and the one before it: float32 would confuse those of months."""
    position = built("time-bias")
    first = [math.ceil(math.exp(0.301 * number)) for number in range(4, 75)]
    for shift, expected in ((0, 4), (-1, 3)):
        gap = torch.tensor([moment + shift for moment in first])
        found = position.bucket(gap[None, :, None], torch.zeros(1, 1, 1, dtype=torch.int64)).flatten()
        assert found.tolist() == list(range(expected, expected + len(first)))


def test_buckets_of_hstu() -> None:
    """Its public code: `(torch.log(torch.abs(x).clamp(min=1)) / 0.301).long()`, clamped."""
    gap = torch.cat([torch.arange(3000), torch.logspace(3, 12, 500).long()])
    theirs = (torch.log(gap.abs().clamp(min=1).double()) / 0.301).long().clamp(0, 128)
    ours = built("time-bias").bucket(gap[None, :, None], torch.zeros(1, 1, 1, dtype=torch.int64)).flatten()
    assert torch.equal(ours, theirs)
    assert [bucket(86_400), bucket(10 * 365.25 * 86_400)] == [37, 65]


def test_floating_times_are_read_too_and_no_number_is_refused() -> None:
    position, tensors = built("time-bias"), qkv(3)
    time = torch.tensor([0.0, 0.4, 86_400.9], dtype=torch.float64)
    view = view_of([3], time)

    weight: Tensor = position.weight[0]

    def logit(i: int, j: int) -> Tensor:
        return weight[bucket(float(time[i] - time[j]))]

    assert_equal(attended(position, tensors, view), slow(tensors, view, logit), [*tensors, position.weight])
    bad = view_of([3], time * float("nan"))
    with pytest.raises(ValueError, match="'time-bias' got times that are not finite numbers"):
        attended(position, tensors, bad)


def test_events_without_times_are_refused_with_what_to_do() -> None:
    with pytest.raises(
        ValueError, match="give the time of each event, or use a position that reads no times"
    ):
        attended(built("time-bias"), qkv(2), view_of([2]))


def test_no_events_at_all_are_placed() -> None:
    view = view_of([0], torch.zeros(0, dtype=torch.int64))
    for query_time in ("last-event", "target"):
        position = built("time-bias", query_time=query_time)
        assert len(position.place(torch.zeros(0, 1), Batch({"user": view}), view).terms) == LAYERS


def test_numbers_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one = build(TimeBias(std=1.0), Context(1, "model.position", FACTS)).weight.detach()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, build(TimeBias(std=1.0), Context(1, "model.position", FACTS)).weight)
    assert not torch.equal(one, build(TimeBias(std=1.0), Context(2, "model.position", FACTS)).weight)
    assert float(one.std()) == pytest.approx(1.0, rel=0.15)
    assert not build(TimeBias(std=0.0), Context(1, "model.position", FACTS)).weight.any()
    assert len(trained(built("time-bias"))) == 1


def test_an_encoder_without_pair_tables_or_heads_is_refused() -> None:
    (problem,) = TimeBias().problems(Facts(terms=frozenset({"rotate"})))
    assert problem == (
        "position 'time-bias' needs an encoder that takes the term 'pair-table', but this one takes: rotate "
        "(use an encoder with attention, or positions that change inputs)"
    )
    assert TimeBias().problems(Facts()) == []


def test_data_that_says_that_it_has_no_times_is_refused() -> None:
    (problem,) = TimeBias().problems(Facts(timed=False))
    assert problem == (
        "position 'time-bias' reads times, and the data has none (name their column, as in `time: timestamp` of "
        "recore-data:events, use data that has times, or a position that reads none)"
    )
    assert TimeBias().problems(Facts(timed=True)) == []


def test_heads_and_layers_must_be_known() -> None:
    with pytest.raises(RecipeError, match="states its heads and layers, got heads None and layers None"):
        build(TimeBias(), Context(path="model.position"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("buckets", 1, "`buckets`: expected at least 2, got 1 (one number for all gaps says nothing)"),
        ("unit", 0.0, "`unit`: expected a number above 0, got 0.0"),
        ("width", -1.0, "`width`: expected a number above 0, got -1.0"),
        ("std", -1.0, "`std`: expected 0 or more, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        attrs.evolve(TimeBias(), **{name: value})
    assert str(error.value) == message
