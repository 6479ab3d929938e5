"""`by-length`: every context as often as stated, in batches of one length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from batchers_oracle import LENGTHS, LONG, REACHES, Pair, calls, edges, learned, pairs, plan_of, spans
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_batchers.by_length import ByLengthBatcher, build
from recore_batchers.options import CONTEXTS, ByLength
from recore_batchers.plugin import recore_batchers

from recore import BatcherClaims, Context, Facts
from recore.errors import RecipeError
from recore.ragged import Layout
from recore.rng import generator
from recore.testing import parametrize_with_checks, part_of

COMPONENT = {component.name: component for component in recore_batchers()}["by-length"]
OPTIONS = [
    ByLength(),
    ByLength(order="ascending", contexts=3),
    ByLength(tokens=40),
    ByLength(prefixes=1, contexts=4),
    ByLength(prefixes=3, tokens=40),
]


@parametrize_with_checks(
    [part_of("batcher", COMPONENT, f"recore-batchers{n}", made) for n, made in enumerate(OPTIONS)]
)
def test_by_length_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def stated(lengths: list[int], reach: int | None) -> Counter[Pair]:
    """Each event but the first of its history after as many events before it as the model reads."""
    room = math.inf if reach is None else reach - 1
    return Counter(
        (history, int(max(0, target - room)), target)
        for history, length in enumerate(lengths)
        for target in range(1, length)
    )


@pytest.mark.parametrize("options", OPTIONS[:3])
@pytest.mark.parametrize("reach", [*REACHES, None])
def test_every_pair_exactly_once_at_the_edges(options: ByLength, reach: int | None) -> None:
    lengths = edges(reach)
    plan = plan_of(ByLengthBatcher(options, reach), lengths)
    assert pairs(plan, lengths) == stated(lengths, reach)
    if options == OPTIONS[0] or (reach or LONG) < 200:  # the oracle is slow
        assert learned(plan, lengths) == stated(lengths, reach)


@given(LENGTHS, st.sampled_from([*REACHES, None]), st.sampled_from(OPTIONS[:3]), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_every_pair_exactly_once(lengths: list[int], reach: int | None, options: ByLength, seed: int) -> None:
    plan = plan_of(ByLengthBatcher(options, reach), lengths, seed)
    assert pairs(plan, lengths) == stated(lengths, reach)
    assert learned(plan, lengths) == stated(lengths, reach)
    assert plan.weight is None


@given(LENGTHS, st.sampled_from([*REACHES, None]), st.sampled_from(OPTIONS), st.integers(0, 9))
@settings(deadline=None, max_examples=80)
def test_batches_hold_contexts_of_one_length(
    lengths: list[int], reach: int | None, options: ByLength, seed: int
) -> None:
    plan = plan_of(ByLengthBatcher(options, reach), lengths, seed)
    batches: Counter[int] = Counter()
    contexts: Counter[int] = Counter()
    held = [{stop - start - 1 for _, start, stop, _, _ in batch} for batch in spans(plan, lengths)]
    for sizes, batch in zip(held, spans(plan, lengths), strict=True):
        (size,) = sizes
        assert 1 <= size < (reach or 10**9)
        assert all(since == size for _, _, _, since, _ in batch)
        batches[size] += 1
        contexts[size] += len(batch)
        if options.tokens is not None:
            assert len(batch) * size <= options.tokens or len(batch) == 1
        else:
            assert len(batch) <= (options.contexts or CONTEXTS)
    for size, count in contexts.items():  # no more batches than are needed
        most = (options.contexts or CONTEXTS) if options.tokens is None else max(1, options.tokens // size)
        assert batches[size] == math.ceil(count / most)
    if options.order == "ascending":
        assert [max(sizes) for sizes in held] == sorted(max(sizes) for sizes in held)
    assert plan.layout == Layout()


@given(LENGTHS, st.integers(1, 6), st.sampled_from([*REACHES, None]), st.integers(0, 9))
@settings(deadline=None, max_examples=80)
def test_k_prefixes_of_each_history_weighed(lengths: list[int], k: int, reach: int | None, seed: int) -> None:
    plan = plan_of(ByLengthBatcher(ByLength(prefixes=k), reach), lengths, seed)
    found = pairs(plan, lengths)
    assert found <= stated(lengths, reach)  # each at most once, with the context that it has among all
    assert learned(plan, lengths) == found
    drawn = Counter(history for history, _, _ in found)
    assert drawn == Counter({h: min(k, n - 1) for h, n in enumerate(lengths) if n > 1})
    for batch in spans(plan, lengths):
        for history, _, _, _, weight in batch:
            assert weight == pytest.approx(max(1.0, (lengths[history] - 1) / k), rel=1e-6)


def chi_square(counts: Counter[Any], cells: int) -> float:
    expected = sum(counts.values()) / cells
    assert len(counts) == cells
    return sum((count - expected) ** 2 / expected for count in counts.values())


def test_every_subset_is_as_likely_and_histories_draw_apart() -> None:
    """Of 4 contexts 2 are drawn, by either of two histories: 36 outcomes, chi-square with 35 degrees of freedom
    below 66.6 (p = 0.001)."""
    batcher, counts = ByLengthBatcher(ByLength(prefixes=2)), Counter[Any]()
    for seed in range(2000):
        plan = plan_of(batcher, [5, 5], seed)
        sets = [frozenset(plan.stop[plan.index == history].tolist()) for history in (0, 1)]  # type: ignore[index]  # here there is one
        counts[tuple(sets)] += 1
    assert chi_square(counts, 36) < 66.6


def test_the_expected_sum_over_drawn_contexts_is_that_of_all() -> None:
    """Of any function of pairs, and of the weights that it is divided by: within five standard errors."""
    lengths, rounds = [2, 3, 9, 30, 1, 12], 800
    value = torch.rand(6, 30, generator=generator(1), dtype=torch.float64) + 1
    whole = sum(float(value[h, t]) for h, n in enumerate(lengths) for t in range(1, n))
    sums, weights = torch.zeros(rounds, dtype=torch.float64), torch.zeros(rounds, dtype=torch.float64)
    batcher = ByLengthBatcher(ByLength(prefixes=4), 5)
    for seed in range(rounds):
        plan = plan_of(batcher, lengths, seed)
        assert plan.stop is not None
        assert plan.weight is not None
        sums[seed] = (value[plan.index, plan.stop - 1] * plan.weight).sum()
        weights[seed] = plan.weight.double().sum()
    assert abs(float(sums.mean()) - whole) < 5 * float(sums.std()) / rounds**0.5
    assert (
        float(weights.std()) < 1e-4
    )  # k are drawn, never more or fewer: the weights always sum to their count
    assert float(weights[0]) == pytest.approx(sum(n - 1 for n in lengths))


def test_lengths_come_in_random_order_unless_ascending() -> None:
    """Three batches of one context each: 6 orders, chi-square with 5 degrees of freedom below 20.5 (p = 0.001)."""
    counts = Counter[Any]()
    for seed in range(1500):
        plan = plan_of(ByLengthBatcher(ByLength()), [4], seed)
        counts[tuple(plan.stop.tolist())] += 1  # type: ignore[union-attr]  # here there is one
    assert chi_square(counts, 6) < 20.5
    rising = plan_of(ByLengthBatcher(ByLength(order="ascending")), [4, 7, 1])
    assert rising.stop is not None
    assert rising.stop.tolist() == sorted(rising.stop.tolist())


def test_drawn_contexts_of_long_histories_do_not_stand_first() -> None:
    """A shuffle that chose them must not order them: which comes first in a batch is a fair coin."""
    first = Counter[int]()
    for seed in range(2000):
        plan = plan_of(ByLengthBatcher(ByLength(prefixes=1)), [2, 6], seed)
        if len(plan) == 1:  # both drew the context of one event
            first[int(plan.index[0])] += 1
    count = first.total()
    assert count > 200
    assert abs(first[0] - count / 2) < 5 * count**0.5 / 2


@given(LENGTHS, st.sampled_from(OPTIONS), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_ranks_share_the_batches_of_one_process(lengths: list[int], options: ByLength, world: int) -> None:
    batcher = ByLengthBatcher(options, 9)
    alone = spans(plan_of(batcher, lengths, 1), lengths)
    shares = [spans(plan_of(batcher, lengths, 1, rank, world), lengths) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)}
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        assert sorted(entry for part in parts for entry in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("options", OPTIONS)
def test_an_epoch_is_planned_without_a_loop_over_histories(options: ByLength) -> None:
    """As many calls of torch for 1,000 histories as for 10."""
    counts = [calls(lambda n=n: plan_of(ByLengthBatcher(options, 9), [7, 12] * n)) for n in (5, 500)]  # type: ignore[misc]  # bound in the loop
    assert counts[0] == counts[1] > 5


def test_claims_and_facts() -> None:
    assert ByLength().claims() == BatcherClaims(each="target", random=True)
    assert ByLength(prefixes=4).claims() == BatcherClaims(each="drawn", random=True)
    assert ByLength().provides() == Facts(padding="none", one_prediction_per_row=True, whole_histories=True)
    assert build(ByLength(), Context(facts=Facts(reach=7))).reach == 7
    assert build(ByLength(), Context()).reach is None


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="expected `all` or at least 1 prefix, got 0"):
        ByLength(prefixes=0)
    with pytest.raises(ValueError, match="'contexts' must be >= 1: 0"):
        ByLength(contexts=0)
    (problem,) = ByLength(contexts=5, tokens=7).problems(Facts())
    assert problem.startswith("contexts is 5 and tokens is 7: expected one of them")
    with pytest.raises(RecipeError, match="batcher 'by-length': the model reads 1 events"):
        build(ByLength(), Context(facts=Facts(reach=1)))
