"""`next-user` against slow loops, as a sequence and as a set; the kit's checks of objectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_duality.next_user import Sequence, Set, build
from recore_duality.options import NextUser
from recore_duality.plugin import recore_objectives
from torch import Tensor

from recore import Context, Facts
from recore.ragged import Layout, Targets, View, offsets_of
from recore.testing import load_checks, parametrize_with_checks, part_of

(COMPONENT,) = recore_objectives()


@parametrize_with_checks([part_of("objective", COMPONENT, "recore-duality")])
def test_the_sequence_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_checks() -> None:
    assert len(load_checks()["objective"]) >= 8


@st.composite
def views(draw: st.DrawFn, times: bool | None = None, shortest: int = 0) -> View:
    """0 to 6 items of `shortest` to 7 users each; some users unknown (−1); times that tie, or none."""
    lengths = draw(st.lists(st.integers(shortest, 7), max_size=6))
    total = sum(lengths)
    users = torch.tensor(
        draw(st.lists(st.integers(-1, 9), min_size=total, max_size=total)), dtype=torch.int64
    )
    columns = {"token": users + 2, "item": users, "event": torch.arange(total) + 100}
    if draw(st.booleans()) if times is None else times:
        steps = draw(st.lists(st.integers(0, 2), min_size=total, max_size=total))
        pieces = torch.split(torch.tensor(steps, dtype=torch.int64), lengths)
        columns["time"] = torch.cat([piece.cumsum(0) for piece in pieces]) if pieces else torch.zeros(0)
    index = torch.arange(len(lengths)) + 7 if draw(st.booleans()) else None
    return View(columns, offsets_of(torch.tensor(lengths, dtype=torch.int64)), Layout("left", 9), index)


def begins(data: st.DataObject, view: View) -> tuple[Tensor | None, list[int]]:
    """The first place of each item that may be a target, as a tensor or None, and as a list."""
    chosen = data.draw(st.none() | st.lists(st.integers(0, 8), min_size=len(view), max_size=len(view)))
    since = None if chosen is None else torch.tensor(chosen, dtype=torch.int64)
    return since, [0] * len(view) if chosen is None else chosen


def known(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


# ---- sequences ------------------------------------------------------------------------------------------------


@given(views(), st.data())
@settings(deadline=None, max_examples=200)
def test_each_user_is_predicted_from_the_last_that_is_strictly_earlier(
    view: View, data: st.DataObject
) -> None:
    since, first = begins(data, view)
    before = torch.get_rng_state()
    inputs, targets = Sequence().training(view, torch.Generator(), since)
    assert torch.equal(before, torch.get_rng_state())
    timed = "time" in view.columns
    expected = []
    for b in range(len(view)):
        start, stop = int(view.offsets[b]), int(view.offsets[b + 1])
        for row in range(start, stop):
            if view["item"][row] < 0 or row - start < first[b]:
                continue
            earlier = [
                other
                for other in range(start, stop)
                if (view["time"][other] < view["time"][row] if timed else other < row)
            ]
            if earlier:
                context = tuple(range(start + 100, earlier[-1] + 101))
                time = int(view["time"][row]) if timed else None
                expected.append((b, context, int(view["item"][row]), time))
    found = []
    for n, row in enumerate(targets.where.tolist()):
        b = int(inputs.sequence[row])
        context = tuple(inputs["event"][int(inputs.offsets[b]) : row + 1].tolist())
        time = None if targets.time is None else int(targets.time[n])
        found.append((b, context, int(targets.id[n]), time))
    assert found == expected
    assert targets.view == "item"
    assert (targets.time is not None) == timed
    assert targets.weight.tolist() == [1.0] * len(expected)
    assert inputs.lengths.tolist() == [max(0, length - 1) for length in view.lengths.tolist()]
    assert set(inputs.columns) == set(view.columns)
    assert inputs.layout == view.layout
    assert (inputs.index is None) if view.index is None else torch.equal(known(inputs.index), view.index)


def test_ties_are_not_earlier_and_do_not_run_over_into_the_next_item() -> None:
    users = torch.arange(7)
    view = View(
        {"token": users, "item": users, "event": users, "time": torch.tensor([1, 1, 2, 2, 2, 2, 3])},
        torch.tensor([0, 4, 7]),
    )
    inputs, targets = Sequence().training(view, torch.Generator())
    # Users 0 and 1 come at time 1, 2 and 3 at time 2; of the other item 4 and 5 at time 2, 6 at time 3.
    assert inputs["item"].tolist() == [0, 1, 2, 4, 5]
    pairs = list(zip(inputs["item"][targets.where].tolist(), targets.id.tolist(), strict=True))
    assert pairs == [(1, 2), (1, 3), (5, 6)]


# ---- sets -----------------------------------------------------------------------------------------------------


def drawn(view: View, most: int | None, seed: int, since: Tensor | None = None) -> tuple[View, Targets]:
    return Set(most).training(view, torch.Generator().manual_seed(seed), since)


@given(views(times=False), st.none() | st.integers(1, 5), st.integers(0, 99), st.data())
@settings(deadline=None, max_examples=200)
def test_one_user_of_a_set_is_predicted_from_others(
    view: View, most: int | None, seed: int, data: st.DataObject
) -> None:
    since, first = begins(data, view)
    before = torch.get_rng_state()
    inputs, targets = drawn(view, most, seed, since)
    assert torch.equal(before, torch.get_rng_state())
    again, same = drawn(view, most, seed, since)
    assert all(torch.equal(inputs[name], again[name]) for name in inputs.columns)
    assert torch.equal(targets.where, same.where)
    assert torch.equal(targets.id, same.id)
    assert len(inputs) == len(view)
    assert targets.view == "item"
    assert targets.time is None
    assert targets.weight.tolist() == [1.0] * len(targets)
    assert (inputs.index is None) if view.index is None else torch.equal(known(inputs.index), view.index)
    sequences = inputs.sequence[targets.where].tolist()
    assert targets.where.tolist() == [int(inputs.offsets[b + 1]) - 1 for b in sequences]  # the last row
    number = 0
    for b in range(len(view)):
        own = view["event"][int(view.offsets[b]) : int(view.offsets[b + 1])].tolist()
        read = inputs["event"][int(inputs.offsets[b]) : int(inputs.offsets[b + 1])].tolist()
        users = dict(zip(view["event"].tolist(), view["item"].tolist(), strict=True))
        may = [event for at, event in enumerate(own) if users[event] >= 0 and at >= first[b]]
        if len(own) < 2 or not may:
            assert not read
            assert b not in sequences
            continue
        assert sequences[number] == b
        assert len(read) == len(set(read)) == min(len(own) - 1, most or len(own))
        assert set(read) < set(own)
        # Some event that may be the target, of the target's user, is not among those that are read.
        assert int(targets.id[number]) in {users[event] for event in set(may) - set(read)}
        number += 1
    assert number == len(targets)


@given(views(times=False), st.none() | st.integers(1, 3), st.data())
@settings(deadline=None, max_examples=25)
def test_each_user_that_may_be_is_a_target_in_some_draw(
    view: View, most: int | None, data: st.DataObject
) -> None:
    since, first = begins(data, view)
    allowed, seen = set(), set()
    for b in range(len(view)):
        rows = range(int(view.offsets[b]), int(view.offsets[b + 1]))
        if len(rows) > 1:
            allowed |= {(b, int(view["item"][row])) for row in rows[first[b] :] if view["item"][row] >= 0}
    for seed in range(120):
        inputs, targets = drawn(view, most, seed, since)
        sequences = inputs.sequence[targets.where].tolist()
        seen |= set(zip(sequences, targets.id.tolist(), strict=True))
    assert seen == allowed


def counted(
    view: View, most: int | None, since: Tensor | None = None, draws: int = 3_000
) -> tuple[dict[int, float], dict[int, float]]:
    """How often each user of a single item is the target, and how often among those that are read."""
    target, read = Counter[int](), Counter[int]()
    for seed in range(draws):
        inputs, targets = drawn(view, most, seed, since)
        target.update(targets.id.tolist())
        read.update(inputs["event"].tolist())
    return (
        {key: value / draws for key, value in target.items()},
        {key: value / draws for key, value in read.items()},
    )


def one_item(users: list[int]) -> View:
    ids = torch.tensor(users)
    return View(
        {"token": ids + 2, "item": ids, "event": torch.arange(len(users))}, torch.tensor([0, len(users)])
    )


NEAR = 0.04  # five standard errors of a share of 3,000 draws


def test_targets_and_those_read_are_drawn_evenly() -> None:
    target, read = counted(one_item([5, 6, 7, 8, 9]), 2)
    assert target == pytest.approx(dict.fromkeys((5, 6, 7, 8, 9), 1 / 5), abs=NEAR)
    assert read == pytest.approx(dict.fromkeys(range(5), 4 / 5 * 2 / 4), abs=NEAR)


@pytest.mark.parametrize("how", ["unknown users", "a first place"])
def test_those_that_are_no_targets_are_read_as_often_as_others(how: str) -> None:
    """Of five, two may not be the target; the others take turns, and every one that is not it is read alike."""
    users = [-1, -1, 7, 8, 9] if how == "unknown users" else [5, 6, 7, 8, 9]
    since = None if how == "unknown users" else torch.tensor([2])
    target, read = counted(one_item(users), 2, since)
    assert target == pytest.approx(dict.fromkeys((7, 8, 9), 1 / 3), abs=NEAR)
    wanted = {0: 1 / 2, 1: 1 / 2} | dict.fromkeys((2, 3, 4), 2 / 3 * 1 / 2)
    assert read == pytest.approx(wanted, abs=NEAR)


def test_other_generators_give_other_pairs() -> None:
    view = one_item(list(range(9)))
    found = {tuple(drawn(view, 3, seed)[0]["item"].tolist()) for seed in range(20)}
    assert len(found) > 10


# ---- both -----------------------------------------------------------------------------------------------------


@given(views(shortest=1))
@settings(deadline=None, max_examples=60)
def test_a_query_is_the_users_asked_from_the_last(view: View) -> None:
    for objective in (Sequence(), Set(3)):
        inputs, where = objective.query(view)
        assert inputs is view
        assert where.tolist() == [int(stop) - 1 for stop in view.offsets[1:]]


def test_an_item_without_users_cannot_be_asked() -> None:
    users = torch.arange(3)
    view = View({"token": users, "item": users, "event": users}, torch.tensor([0, 2, 2, 3]))
    with pytest.raises(ValueError, match="have no users") as caught:
        Sequence().query(view)
    assert str(caught.value) == (
        "next-user: 1 of 3 items in a query have no users, expected at least one each: there is no row to ask from "
        "(leave them out and answer for them apart)"
    )


def test_the_log_decides_between_a_sequence_and_a_set() -> None:
    def built(**facts: object) -> Sequence | Set:
        return build(NextUser(), Context(facts=Facts(**facts)))  # type: ignore[arg-type]  # facts by name

    assert isinstance(built(order_across_users=True, history=20), Sequence)
    as_set = built(order_across_users=False, history=20)
    assert isinstance(as_set, Set)
    assert as_set.most == 20
    assert as_set.reach(20) == built(order_across_users=True).reach(20) == (21, 20)
    assert NextUser().provides() == Facts(appended=0)
