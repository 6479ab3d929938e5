"""Intervals cover as often as they say, p is uniform where nothing differs, and unlike runs are refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recore import statistics
from recore.errors import DataError
from recore.statistics import Paired, interval, paired

SIMULATIONS = 600


def gains(rng: np.random.Generator, count: int) -> Any:
    """NDCG@10 of made-up ranks: mostly zeros, as real figures are."""
    rank = rng.integers(1, 40, count)
    return np.where(rank <= 10, 1 / np.log2(1 + rank), 0.0)


def frame(values: Any, users: Any = None, **columns: Any) -> pl.DataFrame:
    held = range(len(values)) if users is None else users
    return pl.DataFrame({"user": held, "ndcg@10": np.asarray(values, dtype=np.float64), **columns})


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    ranks = np.arange(1, 40)
    truth = float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0).mean())
    covered = 0
    for seed in range(SIMULATIONS):
        low, high = interval(gains(rng, 250), seed, draws=400)
        covered += low <= truth <= high
    assert 0.93 <= covered / SIMULATIONS <= 0.97


def test_intervals_of_users_with_several_targets_cover_too_and_are_wider_than_of_lone_rows() -> None:
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(60), 4)
    covered, wider = 0, 0
    for seed in range(200):
        values = np.repeat(rng.normal(size=60), 4) + 0.1 * rng.normal(size=240)
        low, high = interval(values, seed, draws=150, users=pl.Series(users))
        alone = interval(values, seed, draws=150)
        covered += low <= 0 <= high
        wider += high - low > alone[1] - alone[0]
    assert 0.905 <= covered / 200 <= 0.985
    assert wider == 200


def test_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(3)
    found = []
    for seed in range(SIMULATIONS):
        a, b = frame(gains(rng, 80)), frame(gains(rng, 80))
        found.append(paired(a, b, "ndcg@10", seed=seed, draws=10, permutations=300).p)
    for level in (0.05, 0.2, 0.5, 0.8):
        share = float(np.mean(np.asarray(found) <= level))
        assert abs(share - level) <= 4 * np.sqrt(level * (1 - level) / SIMULATIONS) + 1 / 300, (level, share)


def test_p_equals_the_exact_test_over_all_sign_flips() -> None:
    difference = np.asarray([0.5, 0.25, 0.25, -0.25, 1.0, 0.0, 0.75])
    flips = np.asarray(list(itertools.product([-1, 1], repeat=len(difference))))
    exact = float((np.abs(flips @ difference) >= difference.sum() - 1e-12).mean())
    found = paired(frame(difference), frame(np.zeros(7)), "ndcg@10", permutations=40_000)
    assert found.difference == pytest.approx(difference.mean())
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 40_000))


def test_all_rows_of_a_user_flip_together() -> None:
    users, events = np.repeat(np.arange(3), 20), np.arange(60)
    a = frame(np.ones(60), users, event=events)
    b = frame(np.zeros(60), users, event=events)
    found = paired(a, b, "ndcg@10", permutations=20_000)
    assert found.users == 3
    assert found.p == pytest.approx(2 / 8, abs=0.015)  # all up, or all down, of eight ways
    assert (found.difference, found.low, found.high) == (1.0, 1.0, 1.0)


def test_an_interval_equals_a_bootstrap_of_drawn_rows() -> None:
    values = gains(np.random.default_rng(4), 300)
    rng = np.random.default_rng(5)
    means = values[rng.integers(0, 300, (20_000, 300))].mean(axis=1)
    low, high = interval(values, 0, draws=20_000)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1.5e-3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.randoms(), st.integers(0, 2**32))
def test_neither_the_order_of_the_users_nor_the_memory_changes_an_interval(
    values: list[float], random: Any, seed: int
) -> None:
    users = [random.randrange(5) for _ in values]
    order = random.sample(range(len(values)), len(values))
    whole = interval(values, seed, draws=50, users=users)
    shuffled = interval([values[i] for i in order], seed, draws=50, users=[users[i] for i in order])
    assert whole == shuffled
    assert min(values) - 1e-12 <= whole[0] <= whole[1] <= max(values) + 1e-12
    before = statistics.CELLS
    statistics.CELLS = 7
    try:
        assert interval(values, seed, draws=50, users=users) == pytest.approx(whole, abs=1e-12)
    finally:
        statistics.CELLS = before


def test_sums_within_a_user_do_not_depend_on_the_order_of_its_rows() -> None:
    rng = np.random.default_rng(8)
    values, users = rng.normal(size=400), rng.integers(0, 9, 400)
    order = rng.permutation(400)
    whole = interval(values, 0, draws=200, users=pl.Series(users))
    assert interval(values[order], 0, draws=200, users=pl.Series(users[order])) == whole


def test_runs_are_paired_by_user_whatever_their_order() -> None:
    rng = np.random.default_rng(6)
    a, b = frame(gains(rng, 50)), frame(gains(rng, 50))
    found = paired(a, b, "ndcg@10")
    assert paired(a.sample(fraction=1.0, shuffle=True, seed=1), b.reverse(), "ndcg@10") == found
    turned = paired(b, a, "ndcg@10")
    assert turned.difference == -found.difference
    assert turned.p == found.p
    assert found.low < found.difference < found.high
    assert paired(a, a, "ndcg@10") == Paired(0.0, 0.0, 0.0, 1.0, 50)


def test_rows_of_several_targets_are_paired_by_target() -> None:
    a = frame([1.0, 0.0, 0.5], ["u", "u", "w"], event=[1, 2, 3])
    b = frame([0.5, 1.0, 0.0], ["w", "u", "u"], event=[3, 1, 2])
    assert paired(a, b, "ndcg@10").difference == 0.0


def test_one_user_and_a_real_difference() -> None:
    assert interval([0.3], 0) == (0.3, 0.3)
    rng = np.random.default_rng(7)
    base = gains(rng, 400)
    found = paired(frame(base + 0.2 + 0.1 * rng.normal(size=400)), frame(base), "ndcg@10", permutations=999)
    assert found.p == pytest.approx(0.001)
    assert found.low > 0.15


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda: interval([], 0), DataError, "there is no user"),
        (lambda: interval([0.1, np.nan], 0), DataError, "1 of 2 values are not finite"),
        (lambda: interval([[0.1]], 0), ValueError, r"values \(n,\)"),
        (lambda: interval([0.1], 0, level=1.0), ValueError, "level between 0 and 1"),
        (lambda: interval([0.1], 0, users=["a", "b"]), ValueError, "users of 1 rows, got 2"),
        (lambda: paired(frame([0.1]), frame([0.1]), "ndcg@10", permutations=0), ValueError, "1 permutation"),
        (lambda: paired(frame([0.1]), frame([0.1]), "hr@10"), DataError, "run a has no column 'hr@10'"),
        (
            lambda: paired(frame([0.1]), frame([0.1], ["0"]), "ndcg@10"),
            DataError,
            "Int64 in run a and String in run b",
        ),
        (
            lambda: paired(frame([0.1, 0.2]), frame([0.1, 0.2], [0, 0]), "ndcg@10"),
            DataError,
            "1 users of run b have several targets",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(ask: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ask()


def test_other_users_are_refused_with_both_sides_named() -> None:
    with pytest.raises(DataError) as caught:
        paired(frame([0.1, 0.2, 0.3], ["a", "b", "c"]), frame([0.1, 0.2], ["b", "d"]), "ndcg@10")
    why = "(runs are compared over the same users only: same data, same split)"
    assert str(caught.value).splitlines() == [
        f"run b lacks 2 of 3 users of the other run, for example of user 'a', 'c' {why}",
        f"run a lacks 1 of 2 users of the other run, for example of user 'd' {why}",
    ]
