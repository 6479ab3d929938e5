"""The position `time-intervals`, through attention. Legend: `T` events, `H` heads, `e` = d/H."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from positions_oracle import (
    FACTS,
    HEADS,
    SIZE,
    after_cutting,
    after_dropping,
    after_padding,
    assert_equal,
    attended,
    built,
    qkv,
    rhythms,
    slow,
    timed,
    view_of,
    without,
)
from recore_positions.time_intervals import build, shortest_gaps
from recore_positions.time_options import TimeIntervals
from torch import Tensor

from recore import BOTH_SIDES, Context, Facts, RecipeError
from recore.contracts import Position
from recore.ragged import Batch, View


def interval(time: list[int], first: int, i: int, j: int, most: int) -> int:
    """min(k, floor(|t_i − t_j| / g_i)), in whole numbers; g_i the shortest gap above 0 up to event `i`."""
    gaps = [time[m] - time[m - 1] for m in range(first + 1, i + 1) if time[m] > time[m - 1]]
    return min(most, abs(time[i] - time[j]) // min(gaps)) if gaps else 0


def first_of(view: View, row: int) -> int:
    return row - int(view.place[row])


def test_it_keeps_the_contract_and_claims() -> None:
    assert isinstance(built("time-intervals"), Position)
    claims = TimeIntervals().claims()
    assert claims.relative_to == "start"
    assert claims.prefix_consistent
    assert not claims.shift_invariant
    assert claims.padding == BOTH_SIDES
    assert claims.query_time == "last-event"
    assert TimeIntervals().columns() == {"time"}


@settings(deadline=None, max_examples=30)
@given(
    rhythm=rhythms,
    most=st.sampled_from([1, 3, 256]),
    causal=st.booleans(),
    layer=st.integers(0, 1),
    layers=st.sampled_from(["each", "shared"]),
)
def test_it_equals_the_formula_values_and_gradients(
    rhythm: list[list[int]], most: int, causal: bool, layer: int, layers: str
) -> None:
    view = timed(rhythm)
    position = built("time-intervals", without(causal=causal), max_interval=most, layers=layers)
    tensors, time = qkv(view.events), view["time"].tolist()
    number = layer if layers == "each" else 0
    tables = {side: position.get_parameter(side)[number] for side in ("key", "value")}
    assert tables["key"].shape == (most + 1, HEADS, SIZE)

    def vector(side: str) -> Any:
        return lambda i, j: tables[side][interval(time, first_of(view, i), i, j, most)]

    got = attended(position, tensors, view, layer=layer, causal=causal)
    expected = slow(tensors, view, key=vector("key"), value=vector("value"), causal=causal)
    assert_equal(got, expected, [*tensors, position.key, position.value])


@settings(deadline=None, max_examples=50)
@given(rhythm=rhythms)
def test_the_shortest_gap_is_that_of_the_prefix(rhythm: list[list[int]]) -> None:
    view = timed(rhythm)
    time = view["time"].tolist()
    expected = []
    for i in range(view.events):
        gaps = [time[m] - time[m - 1] for m in range(first_of(view, i) + 1, i + 1) if time[m] > time[m - 1]]
        expected.append(min(gaps, default=float("inf")))
    assert shortest_gaps(view, view["time"]).tolist() == expected


def test_the_shortest_gap_of_a_long_history() -> None:
    random = torch.Generator().manual_seed(0)
    lengths = [2277, 1, 1025, 1024]
    step = torch.randint(0, 10**6, (sum(lengths),), generator=random)
    pieces = torch.split(step, lengths)
    view = view_of(lengths, torch.cat([piece.cumsum(0) for piece in pieces]))
    expected = []
    for piece in pieces:
        gap = piece.double().masked_fill(piece == 0, float("inf"))
        gap[0] = float("inf")
        expected.append(gap.cummin(0).values)
    assert torch.equal(shortest_gaps(view, view["time"]), torch.cat(expected))


@settings(deadline=None, max_examples=20)
@given(
    rhythm=rhythms, count=st.integers(1, 5), side=st.sampled_from(["left", "right"]), extra=st.integers(0, 64)
)
def test_each_claim_holds(rhythm: list[list[int]], count: int, side: str, extra: int) -> None:
    position, view = built("time-intervals", max_interval=5), timed(rhythm)
    assert after_cutting(position, view, count) <= 1e-9
    assert after_padding(position, view, side, extra) <= 1e-9


@settings(deadline=None, max_examples=20)
@given(rhythm=rhythms, data=st.data())
def test_no_time_after_the_asking_event_is_read(rhythm: list[list[int]], data: st.DataObject) -> None:
    """Nor any scale that a later gap, shorter than all before, would change."""
    position, view = built("time-intervals"), timed(rhythm)
    place = data.draw(st.integers(1, 6))
    earlier = (view.place < place).nonzero()[:, 0]
    nearer = torch.where(view.place < place, view["time"], view["time"].max() + view.place)
    plain = attended(position, qkv(view.events), view)[earlier]
    moved = attended(position, qkv(view.events), view.with_columns(time=nearer))[earlier]
    assert torch.equal(moved, plain)


def test_what_is_not_claimed_is_not_so() -> None:
    """A scale from the start: drop the one short gap, and intervals of what stays are another unit's."""
    view = timed([[0, 10, 1000, 2000, 4000]])
    moved = after_dropping(built("time-intervals"), view, 2)
    assert moved > 0.05
    # The scale is all that depends on older events: where the shortest gap stays, so does every interval.
    kept = timed([[0, 1000, 2000, 10, 4000, 50]])
    short = kept.cut(kept.offsets[:-1] + 2, kept.offsets[1:])
    assert torch.equal(shortest_gaps(kept, kept["time"])[3:], shortest_gaps(short, short["time"])[1:])


@settings(deadline=None, max_examples=20)
@given(rhythm=rhythms, factor=st.sampled_from([2, 60, 1000]), start=st.integers(-(2**40), 2**40))
def test_neither_the_unit_nor_the_start_of_the_clock_counts(
    rhythm: list[list[int]], factor: int, start: int
) -> None:
    position, view = built("time-intervals"), timed(rhythm)
    other = view.with_columns(time=view["time"] * factor + start)
    tensors = qkv(view.events)
    assert torch.equal(attended(position, tensors, other), attended(position, tensors, view))


def test_events_of_one_time_are_one_interval() -> None:
    view = timed([[5, 0, 0, 0]])
    position, tensors = built("time-intervals"), qkv(4)

    def zero(side: str) -> Any:
        return lambda i, j: position.get_parameter(side)[0, 0]

    expected = slow(tensors, view, key=zero("key"), value=zero("value"))
    assert_equal(attended(position, tensors, view), expected, [*tensors, position.key, position.value])


def test_intervals_are_made_once_per_view() -> None:
    view = timed([[1, 2, 3], [4]])
    batch, x = Batch({"user": view}), torch.zeros(4, 1)
    position, other = built("time-intervals", layers="each"), built("time-intervals", max_interval=2)
    terms = position.place(x, batch, view).terms
    assert len(terms) == 2
    assert len({id(term.index) for layer in terms for term in layer}) == 1
    assert position.place(x, batch, view).terms[0][0].index is terms[0][0].index
    assert other.place(x, batch, view).terms[0][0].index is not terms[0][0].index


def test_no_events_at_all_are_placed() -> None:
    view = view_of([0, 0], torch.zeros(0, dtype=torch.int64))
    assert built("time-intervals").place(torch.zeros(0, 1), Batch({"user": view}), view).terms


def test_vectors_come_from_the_seed_alone() -> None:
    def made(seed: int) -> Tensor:
        return (
            build(TimeIntervals(std=0.5), Context(seed, "model.position", FACTS))
            .get_parameter("key")
            .detach()
        )

    state = torch.get_rng_state()
    one = made(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, made(1))
    assert not torch.equal(one, made(2))
    assert float(one.std()) == pytest.approx(0.5, rel=0.15)


def test_events_without_times_are_refused_with_what_to_do() -> None:
    with pytest.raises(
        ValueError, match="'time-intervals' reads the column 'time', and these events have none"
    ):
        attended(built("time-intervals"), qkv(2), view_of([2]))


def test_an_encoder_without_pair_tables_or_heads_is_refused() -> None:
    (problem,) = TimeIntervals().problems(Facts(terms=frozenset()))
    assert "needs an encoder that takes the term 'pair-table', but this one takes: none" in problem
    assert TimeIntervals().problems(Facts()) == []


def test_data_that_says_that_it_has_no_times_is_refused() -> None:
    (problem,) = TimeIntervals().problems(Facts(timed=False))
    assert problem == (
        "position 'time-intervals' reads times, and the data has none (name their column, as in `time: timestamp` of "
        "recore-data:events, use data that has times, or a position that reads none)"
    )
    assert TimeIntervals().problems(Facts(timed=True)) == []


def test_heads_and_layers_must_be_known() -> None:
    with pytest.raises(RecipeError, match="states its heads and layers, got heads None"):
        build(TimeIntervals(), Context(path="model.position"))
    with pytest.raises(RecipeError, match="needs heads that divide the width, got heads 4 and width 10"):
        build(TimeIntervals(), Context(path="x", facts=Facts(width=10, heads=4, layers=1)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_interval", 0, "`max_interval`: expected at least 1, got 0"),
        ("std", float("nan"), "`std`: expected 0 or more, got nan"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        attrs.evolve(TimeIntervals(), **{name: value})
    assert str(error.value) == message
