"""Ranks and lists against a slow oracle written from the sentences of `recore.engine.ranks`."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recore.engine import ranks
from recore.engine.ranks import BOUNDS, TIE_BOUND, Ranked, list_block, rank_block, tie_order
from recore.errors import DataError, DivergenceError
from recore.ragged import Ragged, offsets_of

NOTHING = torch.zeros(0, dtype=torch.int64)
NO_PAIRS = (NOTHING, NOTHING)


@frozen(eq=False)
class Example:
    """A block: `scores (n, V)` of few different values, so that ties abound; targets, seen items, order, k."""

    scores: Tensor
    targets: Tensor
    seen: tuple[Tensor, Tensor]
    order: Tensor
    k: int


@st.composite
def examples(draw: st.DrawFn, dtype: torch.dtype = torch.float32, most: int = 12) -> Example:
    n, items = draw(st.integers(1, 7)), draw(st.integers(1, most))
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    values = draw(st.sampled_from([[0.0], [0.0, 1.0], [-2.0, -0.0, 0.0, 0.5, 3.0]]))
    scores = torch.from_numpy(random.choice(values, size=(n, items))).to(dtype)
    if draw(st.booleans()):
        scores += torch.from_numpy(random.normal(size=(n, items))).to(dtype)
    scores[:, torch.from_numpy(random.random(items) < draw(st.sampled_from([0.0, 0.3])))] = -math.inf
    targets = torch.from_numpy(random.integers(-1, items, n))
    pairs = draw(st.integers(0, 20))
    seen = torch.from_numpy(random.integers(0, n, pairs)), torch.from_numpy(random.integers(-1, items, pairs))
    order = torch.from_numpy(random.permutation(items))
    return Example(scores, targets, seen, order, draw(st.integers(0, 15)))


def oracle(example: Example) -> tuple[list[int], list[int], list[list[int]]]:
    """Ranks, numbers of candidates and lists, row by row and item by item."""
    rank, counts, top = [], [], []
    gone = set(zip(*(column.tolist() for column in example.seen), strict=True))
    for row, scores in enumerate(example.scores.tolist()):
        items = range(len(scores))
        candidates = [i for i in items if scores[i] > -math.inf and (row, i) not in gone]
        bound = BOUNDS[example.scores.dtype] * max((abs(s) for s in scores if math.isfinite(s)), default=0.0)
        target = int(example.targets[row])
        if target in candidates:
            rank.append(1 + sum(scores[i] >= scores[target] - bound for i in candidates if i != target))
        else:
            rank.append(len(scores) + 1)
        counts.append(len(candidates))
        best = sorted(candidates, key=lambda i: (-scores[i], int(example.order[i])))[: example.k]
        top.append(best + [-1] * (example.k - len(best)))
    return rank, counts, top


def asked(example: Example, **changes: Any) -> Ranked:
    given_ = {"seen": example.seen, "order": example.order, "k": example.k, **changes}
    return rank_block(example.scores, example.targets, **given_)


@settings(deadline=None, max_examples=250)
@given(examples())
def test_ranks_and_lists_equal_a_slow_oracle(example: Example) -> None:
    kept = example.scores.clone()
    found = asked(example)
    rank, counts, top = oracle(example)
    assert found.rank.tolist() == rank
    assert found.candidates.tolist() == counts
    assert found.top.tolist() == top
    assert found.top.shape == (len(rank), example.k)
    assert torch.equal(example.scores, kept), "the caller's scores were written to"


@settings(deadline=None, max_examples=60)
@given(examples())
def test_lists_alone_are_those_of_the_ranks(example: Example) -> None:
    kept = example.scores.clone()
    found = list_block(example.scores, example.seen, example.order, example.k)
    assert torch.equal(found, asked(example).top)
    assert torch.equal(example.scores, kept), "the caller's scores were written to"


def test_lists_of_a_wide_catalogue_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    by_groups: list[bool] = []
    best = ranks._best

    def watched(block: Tensor, count: int) -> tuple[Tensor, Tensor]:
        values, ids = best(block, count)
        by_groups.append(block.shape[1] // ranks.GROUP >= 2 * count)
        assert torch.equal(values, block.topk(count, dim=1).values)
        assert torch.equal(values, block.gather(1, ids))
        assert all(len(set(row)) == count for row in ids.tolist())
        return values, ids

    monkeypatch.setattr(ranks, "_best", watched)
    monkeypatch.setattr(ranks, "WIDE", 1)

    @settings(deadline=None, max_examples=250)
    @given(examples(most=60), st.integers(2, 4))
    def holds(example: Example, group: int) -> None:
        ranks.GROUP, example = group, evolve(example, k=example.k % 5)
        found = list_block(example.scores, example.seen, example.order, example.k)
        assert found.tolist() == oracle(example)[2]

    monkeypatch.setattr(ranks, "GROUP", 2)
    holds()
    assert by_groups.count(True) > 50
    assert by_groups.count(False) > 50


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**20), st.sampled_from([1, 10, 64]))
def test_the_lists_of_many_items_are_those_of_sorting(seed: int, k: int) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 3_000, (3, 2 * ranks.WIDE + 17), generator=random).float()
    order = torch.randperm(scores.shape[1], generator=random)
    seen = torch.arange(3).repeat(50), torch.randint(0, scores.shape[1], (150,), generator=random)
    hidden = scores.clone()
    hidden[seen] = -math.inf
    by_order = order.argsort()
    sorted_ = hidden[:, by_order].sort(dim=1, descending=True, stable=True).indices
    assert torch.equal(list_block(scores, seen, order, k), by_order[sorted_[:, :k]])


@settings(deadline=None, max_examples=60)
@given(examples(dtype=torch.float64))
def test_float64_scores_have_their_own_bound(example: Example) -> None:
    found = asked(example)
    rank, _, top = oracle(example)
    assert (found.rank.tolist(), found.top.tolist()) == (rank, top)


@settings(deadline=None, max_examples=60)
@given(examples(), st.integers(1, 40))
def test_how_rows_are_looked_at_together_changes_nothing(example: Example, cells: int) -> None:
    whole = asked(example)
    before = ranks.CELLS_CPU
    ranks.CELLS_CPU = cells
    try:
        pieces = asked(example)
    finally:
        ranks.CELLS_CPU = before
    for name in ("rank", "candidates", "top", "filtered"):
        assert torch.equal(getattr(whole, name), getattr(pieces, name)), name


@settings(deadline=None, max_examples=60)
@given(examples())
def test_seen_items_as_a_ragged_are_the_same(example: Example) -> None:
    rows, items = example.seen
    by_row = rows.argsort(stable=True)
    lengths = torch.bincount(rows, minlength=len(example.targets))
    found = asked(example, seen=Ragged(items[by_row], offsets_of(lengths)))
    expected = asked(example)
    assert torch.equal(found.rank, expected.rank)
    assert torch.equal(found.top, expected.top)
    assert torch.equal(found.filtered, expected.filtered)


@settings(deadline=None, max_examples=60)
@given(examples(), st.integers(0, 2**20))
def test_relabelling_items_changes_no_rank_and_no_list(example: Example, seed: int) -> None:
    names = pl.Series([f"item {i}" for i in range(example.scores.shape[1])])
    new = torch.from_numpy(np.random.default_rng(seed).permutation(len(names)))  # old item i is item new[i]
    old = new.argsort()
    before = asked(example, order=tie_order(names, 3))
    renamed = Example(
        example.scores[:, old],
        torch.where(example.targets >= 0, new[example.targets], -1),
        (example.seen[0], torch.where(example.seen[1] >= 0, new[example.seen[1]], -1)),
        tie_order(names.gather(old.numpy()), 3),
        example.k,
    )
    after = asked(renamed)
    assert torch.equal(before.rank, after.rank)
    assert torch.equal(before.candidates, after.candidates)
    assert torch.equal(torch.where(before.top >= 0, new[before.top], -1), after.top)


def test_equal_scores_give_the_target_the_worst_rank() -> None:
    found = rank_block(torch.zeros(3, 7), torch.tensor([0, 3, 6]), None, torch.arange(7), 4)
    assert found.rank.tolist() == [7, 7, 7]
    assert found.top.tolist() == [[0, 1, 2, 3]] * 3


def test_an_item_within_the_bound_of_the_target_is_ahead_of_it() -> None:
    just_below = 1.0 - 10.0 * TIE_BOUND / 2
    far_below = 1.0 - 10.0 * TIE_BOUND * 2
    scores = torch.tensor([[10.0, 1.0, just_below, far_below], [-10.0, 1.0, just_below, far_below]])
    targets = torch.tensor([1, 1])
    assert rank_block(scores, targets, None, torch.arange(4)).rank.tolist() == [3, 2]
    # The bound counts the scores of seen items too: the filter does not move it.
    seen = torch.tensor([0]), torch.tensor([0])
    assert rank_block(scores, targets, seen, torch.arange(4)).rank.tolist() == [2, 2]


def test_the_bound_forgives_what_the_order_of_summation_does() -> None:
    torch.manual_seed(0)
    hidden, table = torch.randn(64, 96), torch.randn(300, 96)
    table[150:] = table[:150]  # every item has a twin, which must never be behind it
    scores = hidden @ table.T
    scores[:, 150:] = torch.stack([(hidden * row.flip(0)).sum(1) for row in table[150:].flip(1)], dim=1)
    assert (scores[:, :150] != scores[:, 150:]).any()
    targets = scores[:, :150].argmax(1)
    assert bool((rank_block(scores, targets, None, torch.arange(300)).rank >= 2).all())


def test_targets_that_are_no_candidates_rank_behind_all() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0, -math.inf]]).repeat(4, 1)
    targets = torch.tensor([-1, 0, 3, 1])  # cold, seen, retired, fine
    seen = torch.tensor([1, 3]), torch.tensor([0, 0])
    found = rank_block(scores, targets, seen, torch.arange(4), 3)
    assert found.rank.tolist() == [5, 5, 5, 1]
    assert found.filtered.tolist() == [False, True, False, False]
    assert found.candidates.tolist() == [3, 2, 3, 2]
    assert found.top.tolist() == [[0, 1, 2], [1, 2, -1], [0, 1, 2], [1, 2, -1]]


def test_one_item_no_rows_and_lists_longer_than_the_catalogue() -> None:
    one = rank_block(torch.tensor([[0.5]]), torch.tensor([0]), None, torch.arange(1), 3)
    assert (one.rank.tolist(), one.top.tolist()) == ([1], [[0, -1, -1]])
    none = rank_block(torch.zeros(0, 5), NOTHING, NO_PAIRS, torch.arange(5), 2)
    assert (len(none.rank), none.top.shape) == (0, (0, 2))
    all_gone = torch.zeros(2, dtype=torch.int64), torch.arange(2)
    gone = rank_block(torch.zeros(1, 2), torch.tensor([0]), all_gone, torch.arange(2), 2)
    assert (gone.rank.tolist(), gone.candidates.tolist(), gone.top.tolist()) == ([3], [0], [[-1, -1]])


def test_scores_without_storage_of_their_own_are_left_alone() -> None:
    popularity = torch.tensor([2.0, 1.0, 3.0]).expand(2, 3)
    found = rank_block(
        popularity, torch.tensor([0, 0]), (torch.tensor([1]), torch.tensor([2])), torch.arange(3), 1
    )
    assert found.rank.tolist() == [2, 1]
    assert popularity[1].tolist() == [2.0, 1.0, 3.0]
    assert list_block(popularity, None, torch.arange(3), 1).tolist() == [[2], [2]]
    assert popularity[1].tolist() == [2.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (
            lambda o: rank_block(torch.tensor([[0.0, 1.0], [2.0, math.nan]]), torch.tensor([0, 1]), None, o),
            DivergenceError,
            "item id 1 in row 1 of the block is NaN",
        ),
        (
            lambda o: list_block(
                torch.tensor([[math.nan, 1.0]]), (torch.tensor([0]), torch.tensor([0])), o, 1
            ),
            DivergenceError,
            "item id 0 in row 0 of the block is NaN",
        ),
        (
            lambda o: rank_block(torch.zeros(1, 2).half(), torch.tensor([0]), None, o),
            TypeError,
            "float32 or float64",
        ),
        (
            lambda o: rank_block(torch.zeros(1, 2), torch.tensor([2]), None, o),
            ValueError,
            r"from −1 \(cold\) to 1",
        ),
        (lambda o: rank_block(torch.zeros(1, 3), torch.tensor([0]), None, o), ValueError, r"order \(V,\)"),
        (lambda o: rank_block(torch.zeros(1, 2), torch.tensor([0]), None, o, -1), ValueError, "at least 0"),
        (
            lambda o: rank_block(
                torch.zeros(1, 2), torch.tensor([0]), (torch.tensor([0]), torch.tensor([2])), o
            ),
            ValueError,
            "ids below 2",
        ),
        (
            lambda o: rank_block(
                torch.zeros(1, 2), torch.tensor([0]), Ragged(NOTHING, torch.zeros(3).long()), o
            ),
            ValueError,
            "seen items of 1 rows, got those of 2",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    ask: Callable[[Tensor], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ask(torch.arange(2))


def test_tie_order_is_a_permutation_of_its_own_for_each_seed() -> None:
    ids = pl.Series(range(200))
    assert sorted(tie_order(ids, 0).tolist()) == list(range(200))
    assert not torch.equal(tie_order(ids, 0), tie_order(ids, 1))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=4), unique=True, min_size=1, max_size=20), st.randoms())
def test_tie_order_depends_on_the_ids_only(ids: list[str], random: Any) -> None:
    shuffled = random.sample(ids, len(ids))
    place = dict(zip(ids, tie_order(pl.Series(ids), 5).tolist(), strict=True))
    assert [place[i] for i in shuffled] == tie_order(pl.Series(shuffled), 5).tolist()
    if len(set(ids)) > 1:
        assert torch.equal(tie_order(pl.Series(ids), 5), tie_order(pl.Series(ids, dtype=pl.Categorical), 5))


def test_tie_order_is_the_same_on_every_machine_and_for_every_width_of_integer() -> None:
    ids, place = [12, 5, 3, 40, 7, 8, 1, 90], [4, 5, 7, 3, 0, 2, 1, 6]
    assert tie_order(pl.Series(ids), 0).tolist() == place
    assert tie_order(pl.Series(ids, dtype=pl.UInt8), 0).tolist() == place
    assert tie_order(pl.Series([str(i) for i in ids]), 0).tolist() != place
    program = (
        "import polars as pl; from recore.engine.ranks import tie_order; "
        f"print(tie_order(pl.Series({ids}), 0).tolist())"
    )
    fresh = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == str(place)


@pytest.mark.parametrize(
    ("ids", "words"),
    [(pl.Series([0.5, 1.5]), "got Float64"), (pl.Series([1, None]), "1 of 2 items have no id")],
)
def test_ids_that_break_no_ties_are_refused(ids: pl.Series, words: str) -> None:
    with pytest.raises(DataError, match=words):
        tie_order(ids, 0)
