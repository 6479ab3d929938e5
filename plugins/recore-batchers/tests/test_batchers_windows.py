"""`windows`: no event dropped, every target once, with at least the stated context."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
from batchers_oracle import LENGTHS, REACHES, Pair, calls, edges, learned, pairs, plan_of, spans
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_batchers.options import USERS, Windows
from recore_batchers.plugin import recore_batchers
from recore_batchers.windows import WindowsBatcher, build

from recore import BatcherClaims, Context, Facts
from recore.errors import RecipeError
from recore.ragged import Layout
from recore.testing import parametrize_with_checks, part_of

COMPONENT = {component.name: component for component in recore_batchers()}["windows"]
OPTIONS = [Windows(), Windows(context=1, users=3), Windows(context=3, tokens=40)]


@parametrize_with_checks(
    [part_of("batcher", COMPONENT, f"recore-batchers{n}", made) for n, made in enumerate(OPTIONS)]
)
def test_windows_keep_the_contract(check: Callable[[], None]) -> None:
    check()


def stated(lengths: list[int], reach: int, context: int) -> tuple[Counter[Pair], list[tuple[int, int, int]]]:
    """The pairs, and (history, start, stop) of the windows, built one after the other as the docstring says."""
    found: Counter[Pair] = Counter()
    cut = []
    for history, length in enumerate(lengths):
        if length < 2:
            continue
        start, stop, new = 0, min(reach, length), 1
        while True:
            cut.append((history, start, stop))
            found.update((history, start, target) for target in range(new, stop))
            new = stop
            if new == length:
                break
            start = new - context
            stop = start + reach
            if stop > length:  # moved back until it is full
                start, stop = length - reach, length
    return found, cut


CASES = [(reach, context) for reach in REACHES for context in sorted({1, reach // 2, reach - 1})]


def holds(lengths: list[int], reach: int, context: int, options: Windows, seed: int = 0) -> None:
    plan = plan_of(WindowsBatcher(options, reach), lengths, seed)
    expected, cut = stated(lengths, reach, context)
    found = pairs(plan, lengths)
    assert found == expected
    assert sorted(entry[:3] for batch in spans(plan, lengths) for entry in batch) == sorted(cut)
    # Each target exactly once, and what is before it in its window.
    assert Counter((h, t) for h, _, t in found.elements()) == Counter(
        (h, t) for h, n in enumerate(lengths) for t in range(1, n)
    )
    assert all(target - start >= min(context, target) for _, start, target in found)
    for _, start, stop in cut:
        assert stop - start <= reach
    windows = Counter(history for history, _, _ in cut)
    for history, length in enumerate(lengths):
        more = max(0, math.ceil((length - reach) / (reach - context)))
        assert windows[history] == (1 + more if length > 1 else 0)
    if max(lengths, default=0) < 500:
        assert learned(plan, lengths) == found


@pytest.mark.parametrize(("reach", "context"), CASES)
def test_every_target_once_at_the_edges(reach: int, context: int) -> None:
    lengths = edges(reach)
    holds(lengths, reach, context, Windows(context=context, users=7))
    short = [length for length in lengths if length < 500]
    holds(short, reach, context, Windows(context=context))


@given(LENGTHS, st.sampled_from(CASES), st.integers(0, 9), st.data())
@settings(deadline=None, max_examples=100)
def test_every_target_once(lengths: list[int], case: tuple[int, int], seed: int, data: st.DataObject) -> None:
    reach, context = case
    size = data.draw(st.sampled_from([{}, {"users": 3}, {"tokens": 30}]))
    holds(lengths, reach, context, Windows(context=context, **size), seed)


def test_half_is_context_unless_said() -> None:
    lengths = [30, 7]
    for reach in (2, 3, 8, 21):
        holds(lengths, reach, reach // 2, Windows())


@given(LENGTHS, st.integers(2, 60))
@settings(deadline=None, max_examples=40)
def test_the_budget_is_kept_or_a_window_stands_alone(lengths: list[int], tokens: int) -> None:
    batches = spans(plan_of(WindowsBatcher(Windows(tokens=tokens), 20), lengths), lengths)
    for batch in batches:
        size = sum(stop - start for _, start, stop, _, _ in batch)
        assert size <= tokens or len(batch) == 1
    by_count = spans(plan_of(WindowsBatcher(Windows(users=4), 20), lengths), lengths)
    assert all(len(batch) == 4 for batch in by_count[:-1])


def test_windows_of_a_history_are_shuffled_among_all() -> None:
    plan = plan_of(WindowsBatcher(Windows(), 5), [40] * 20)
    assert plan.layout == Layout()
    assert len(plan.index) > USERS
    assert plan.index.tolist() != sorted(plan.index.tolist())
    assert plan.start is not None
    mine = plan.start[plan.index == 3].tolist()
    assert mine != sorted(mine)


@given(LENGTHS, st.sampled_from(OPTIONS), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_ranks_share_the_batches_of_one_process(lengths: list[int], options: Windows, world: int) -> None:
    batcher = WindowsBatcher(options, 9)
    alone = spans(plan_of(batcher, lengths, 1), lengths)
    shares = [spans(plan_of(batcher, lengths, 1, rank, world), lengths) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)}
    for number, batch in enumerate(alone):
        assert sorted(entry for share in shares for entry in share[number]) == sorted(batch)


def test_an_epoch_is_planned_without_a_loop_over_histories() -> None:
    """As many calls of torch for 1,000 histories as for 10."""
    counts = [calls(lambda n=n: plan_of(WindowsBatcher(Windows(), 9), [7, 32] * n)) for n in (5, 500)]  # type: ignore[misc]  # bound in the loop
    assert counts[0] == counts[1] > 5


def test_claims_and_facts() -> None:
    assert Windows().claims() == BatcherClaims(each="target", random=True)
    assert Windows().provides() == Facts(padding="none", whole_histories=True)
    assert Windows().provides().one_prediction_per_row is None
    assert build(Windows(context=2), Context(facts=Facts(history=6, reach=7))).reach == 7


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="'context' must be >= 1: 0"):
        Windows(context=0)
    assert Windows(context=6).problems(Facts(history=6)) == []
    (problem,) = Windows(context=7).problems(Facts(history=6))
    assert problem == (
        "context is 7, but a window holds 7 events: expected 1 to 6, so that each window has something new to "
        "predict (lower `context`, or raise `model.history.last`)"
    )
    # An objective whose histories are no longer than its rows leaves less room than the history says.
    assert Windows(context=6).problems(Facts(history=6, reach=6)) != []
    with pytest.raises(RecipeError, match="batcher 'windows': context is 6, but a window holds 6 events"):
        build(Windows(context=6), Context(facts=Facts(history=6, reach=6)))
    (problem,) = Windows().problems(Facts(history="all"))
    assert "set `model.history.last` to a number, or use `untruncated`" in problem
    with pytest.raises(RecipeError, match="did not say how many events an entry may hold"):
        build(Windows(), Context())
    (problem,) = Windows(users=5, tokens=7).problems(Facts())
    assert problem.startswith("users is 5 and tokens is 7: expected one of them")
