"""The evaluator `ranking` against a slow oracle and against ranx, from scores to totals."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_evaluation.options import Ranking
from recore_evaluation.plugin import recore_evaluators
from recore_evaluation.ranking import RankingEvaluator, build, quartiles
from torch import Tensor

from recore import Context, DataError
from recore.contracts import Block, Counted, Evaluation, Evaluator, Grouped
from recore.engine.ranks import TIE_BOUND, rank_block, tie_order

ALL = Ranking(k=(1, 5, 10, 20), metrics=("ndcg", "hr", "mrr", "recall"))


Evaluated = tuple[RankingEvaluator, dict[str, float], pl.DataFrame]


@frozen(eq=False)
class Asked:
    """`scores (n, V)`, `targets (n,)` (−1: cold), the items of each history, and names of users."""

    scores: Tensor
    targets: Tensor
    seen: list[list[int]]
    users: list[str]

    def block(self, rows: slice, options: Ranking) -> Block:
        """What the engine would hand on of these rows."""
        scores, targets, seen = self.scores[rows], self.targets[rows], self.seen[rows]
        pairs = [(row, item) for row, items in enumerate(seen) for item in items]
        index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        hidden = (index[0], index[1]) if options.seen == "history" else None
        order = tie_order(pl.Series(range(scores.shape[1])), 0)
        ranked = rank_block(scores, targets, hidden, order, max(options.k))
        held = [int(target) in items for target, items in zip(targets, seen, strict=True)]
        return Block(
            users=pl.Series(self.users[rows]),
            targets=targets.numpy(),
            rank=ranked.rank.numpy(),
            candidates=ranked.candidates.numpy(),
            top=ranked.top.numpy(),
            length=np.asarray([len(items) for items in seen], dtype=np.int64),
            cold=(targets < 0).numpy(),
            in_history=np.asarray(held, dtype=np.bool_),
        )

    def evaluated(self, options: Ranking, size: int | None = None) -> Evaluated:
        """An evaluator that has seen all rows, `size` at a time, and what it gave."""
        evaluator = build(options, Context())
        evaluator.start(Evaluation(self.scores.shape[1], len(self.users)))
        step = size or len(self.users)
        for at in range(0, len(self.users), step):
            evaluator.update(self.block(slice(at, at + step), options))
        totals, frame = evaluator.finish()
        return evaluator, dict(totals), frame


def totals_of(asked: Asked, options: Ranking, size: int | None = None) -> dict[str, float]:
    return asked.evaluated(options, size)[1]


@st.composite
def questions(draw: st.DrawFn, rows: int = 12, items: int = 25) -> Asked:
    n, catalogue = draw(st.integers(1, rows)), draw(st.integers(1, items))
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    scores = random.choice([-1.0, 0.0, 0.5, 2.0], (n, catalogue))
    if draw(st.booleans()):
        scores = random.normal(size=(n, catalogue))
    seen = [random.integers(0, catalogue, random.integers(0, 9)).tolist() for _ in range(n)]
    targets = torch.from_numpy(random.integers(-1, catalogue, n))
    return Asked(torch.from_numpy(scores).float(), targets, seen, [f"u{row}" for row in range(n)])


def oracle(asked: Asked, options: Ranking) -> dict[str, float]:
    """Totals by the definition over lists: sort the candidates, worst case first, and look for the target."""
    sums: dict[str, float] = {}
    for scores, target, seen in zip(asked.scores.tolist(), asked.targets.tolist(), asked.seen, strict=True):
        gone = set(seen) if options.seen == "history" else set()
        slack = TIE_BOUND * max(abs(score) for score in scores)
        listed = [i for i in range(len(scores)) if i not in gone]
        # The target loses to whatever lies within the bound: its own score is lowered by it, ties go ahead.
        listed.sort(key=lambda i: (-(scores[i] - (slack if i == target else 0.0)), i == target))
        for metric in options.metrics:
            for k in options.k:
                gain = 0.0
                for place, item in enumerate(listed[:k], start=1):
                    if item == target:
                        gain = {"hr": 1.0, "recall": 1.0, "ndcg": 1 / math.log2(place + 1), "mrr": 1 / place}[
                            metric
                        ]
                sums[f"{metric}@{k}"] = sums.get(f"{metric}@{k}", 0.0) + gain
            if metric == "mrr":
                place = listed.index(target) + 1 if target in listed else len(scores) + 1
                sums["mrr"] = sums.get("mrr", 0.0) + 1 / place
    return {name: value / len(asked.users) for name, value in sums.items()}


@settings(deadline=None, max_examples=150)
@given(questions(), st.sampled_from(["history", "none"]))
def test_totals_equal_a_slow_oracle(asked: Asked, seen: Any) -> None:
    options = Ranking(k=(1, 3, 10, 40), metrics=("mrr", "recall", "ndcg", "hr"), seen=seen)
    assert totals_of(asked, options) == pytest.approx(oracle(asked, options), rel=1e-12, abs=1e-15)


def test_totals_equal_those_of_ranx(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its functions as plain Python: compiling them takes most of a minute, calling them no time.
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    ranx = pytest.importorskip("ranx")
    random = np.random.default_rng(0)
    scores = torch.from_numpy(random.normal(size=(40, 60))).float()
    users = [f"u{row}" for row in range(40)]
    seen = [random.integers(0, 60, 12).tolist() for _ in users]
    targets = torch.from_numpy(random.integers(0, 60, 40))
    asked = Asked(scores, targets, seen, users)
    found = totals_of(asked, ALL)
    lists = {
        user: {f"i{i}": float(row[i]) for i in range(60) if i not in set(gone)}
        for user, row, gone in zip(users, scores.double(), seen, strict=True)
    }
    truth = {user: {f"i{int(target)}": 1} for user, target in zip(users, targets, strict=True)}
    theirs = {"hit_rate": "hr", "ndcg": "ndcg", "mrr": "mrr", "recall": "recall"}
    wanted = [f"{name}@{k}" for name in theirs for k in ALL.k]
    measured = ranx.evaluate(ranx.Qrels(truth), ranx.Run(lists), wanted, make_comparable=True)
    for name, value in measured.items():
        metric, _, k = name.partition("@")
        assert found[f"{theirs[metric]}@{k}"] == pytest.approx(value, abs=1e-12), name
    assert 0.05 < found["hr@10"] < 0.95


@settings(deadline=None, max_examples=60)
@given(questions(), st.integers(1, 5), st.randoms())
def test_neither_blocks_nor_the_order_of_users_change_a_bit(asked: Asked, size: int, random: Any) -> None:
    whole = totals_of(asked, ALL)
    assert totals_of(asked, ALL, size) == whole
    order = random.sample(range(len(asked.users)), len(asked.users))
    shuffled = Asked(
        asked.scores[order],
        asked.targets[order],
        [asked.seen[i] for i in order],
        [asked.users[i] for i in order],
    )
    assert totals_of(shuffled, ALL, size) == whole


@settings(deadline=None, max_examples=60)
@given(questions(), st.integers(0, 2**20))
def test_relabelling_items_changes_no_total(asked: Asked, seed: int) -> None:
    new = torch.from_numpy(np.random.default_rng(seed).permutation(asked.scores.shape[1]))
    renamed = Asked(
        asked.scores[:, new.argsort()],
        torch.where(asked.targets >= 0, new[asked.targets], -1),
        [new[torch.tensor(items, dtype=torch.int64)].tolist() for items in asked.seen],
        asked.users,
    )
    assert totals_of(renamed, ALL) == totals_of(asked, ALL)


def test_equal_scores_are_worth_nothing() -> None:
    asked = Asked(torch.zeros(5, 30), torch.arange(5), [[]] * 5, list("abcde"))
    found = totals_of(asked, ALL)
    assert found["hr@20"] == found["ndcg@20"] == 0
    assert found["mrr"] == pytest.approx(1 / 30)


def test_targets_that_are_no_candidates_are_misses_and_are_counted() -> None:
    scores = torch.tensor([[5.0, 1.0, 0.0]]).repeat(3, 1)
    asked = Asked(scores, torch.tensor([-1, 0, 1]), [[2], [0, 2, 2], [2]], ["cold", "seen", "fine"])
    hidden, totals, frame = asked.evaluated(ALL)
    assert frame["rank"].to_list() == [4, 4, 2]
    assert frame["hr@20"].to_list() == [0, 0, 1]  # k exceeds V + 1: still a miss
    assert frame["ndcg@20"].to_list() == pytest.approx([0, 0, 1 / math.log2(3)])
    assert totals["mrr"] == pytest.approx((1 / 4 + 1 / 4 + 1 / 2) / 3)
    assert hidden.counts() == {
        "targets": 3,
        "cold targets (never seen in training)": 1,
        "targets in their own history (made impossible by the seen filter)": 1,
        "targets that are no candidates (rank V + 1)": 2,
    }
    shown, _, frame = asked.evaluated(Ranking(seen="none"))
    assert frame["rank"].to_list() == [4, 1, 2]
    assert shown.counts()["targets in their own history (candidates)"] == 1
    assert shown.counts()["targets that are no candidates (rank V + 1)"] == 1


def test_the_frame_has_a_row_per_query_and_target() -> None:
    block = Block(
        users=pl.Series(["u", "u", "w"]),
        targets=np.asarray([3, 1, 2]),
        rank=np.asarray([1, 2, 30]),
        candidates=np.asarray([30, 30, 30]),
        top=np.zeros((3, 20), dtype=np.int64),
        length=np.asarray([4, 4, 9]),
        cold=np.zeros(3, dtype=np.bool_),
        in_history=np.zeros(3, dtype=np.bool_),
        event=np.asarray([7, 8, 9]),
    )
    evaluator = build(Ranking(k=(5,), metrics=("ndcg",)), Context())
    evaluator.start(Evaluation(30, 2))
    evaluator.update(block)
    totals, frame = evaluator.finish()
    assert frame.columns == ["user", "length", "rank", "candidates", "event", "ndcg@5"]
    assert frame["event"].to_list() == [7, 8, 9]
    assert totals == {"ndcg@5": pytest.approx((1 + 1 / math.log2(3)) / 3)}
    assert evaluator.groups()["q1"] == {
        "ndcg@5": pytest.approx((1 + 1 / math.log2(3)) / 2),
        "users": 1,
        "range": [4, 4],
    }


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60))
def test_quartiles_keep_equal_lengths_together_in_order(lengths: list[int]) -> None:
    held = np.asarray(lengths)
    found = quartiles(held)
    assert all(len(set(found[held == length].tolist())) == 1 for length in lengths)
    ordered = found[held.argsort(kind="stable")]
    assert bool((np.diff(ordered) >= 0).all())
    for quartile in range(4):  # no group below q holds more than it must: (q + 1) / 4 of all, ties aside
        below = held[found < quartile]
        if len(below):
            assert (held < below.max()).mean() < quartile / 4


def test_quartiles_of_unlike_lengths_are_even() -> None:
    lengths = np.random.default_rng(0).permutation(100)
    assert np.bincount(quartiles(lengths)).tolist() == [25, 25, 25, 25]


def test_groups_partition_the_rows() -> None:
    random = np.random.default_rng(1)
    n = 80
    seen = [random.integers(0, 50, random.integers(1, 30)).tolist() for _ in range(n)]
    asked = Asked(
        torch.from_numpy(random.normal(size=(n, 50))).float(),
        torch.from_numpy(random.integers(0, 50, n)),
        seen,
        [f"u{row}" for row in range(n)],
    )
    evaluator, totals, frame = asked.evaluated(ALL)
    groups = evaluator.groups()
    assert list(groups) == ["q1", "q2", "q3", "q4"]
    assert sum(group["users"] for group in groups.values()) == n
    for name, total in totals.items():
        assert sum(group[name] * group["users"] for group in groups.values()) / n == pytest.approx(total)
    ranges = [group["range"] for group in groups.values()]
    assert all(low <= high for low, high in ranges)
    assert all(one[1] < two[0] for one, two in pairwise(ranges))
    assert (ranges[0][0], ranges[-1][1]) == (frame["length"].min(), frame["length"].max())
    assert asked.evaluated(Ranking(quartiles=False))[0].groups() == {}


def test_it_keeps_the_contract_and_says_what_is_wrong() -> None:
    evaluator = build(Ranking(), Context())
    assert isinstance(evaluator, Evaluator)
    assert isinstance(evaluator, Grouped)
    assert isinstance(evaluator, Counted)
    assert (evaluator.wants.k, evaluator.wants.seen) == (20, "history")
    with pytest.raises(RuntimeError, match="before `start`"):
        evaluator.finish()
    evaluator.start(Evaluation(5, 0, part="validation"))
    with pytest.raises(RuntimeError, match="after `finish`"):
        evaluator.groups()
    with pytest.raises(DataError, match="evaluator 'ranking': the validation part holds no target"):
        evaluator.finish()


def test_every_metric_has_a_formula_with_its_cut_off() -> None:
    formulas = build(ALL, Context()).formulas
    assert list(formulas) == [
        *(f"{metric}@{k}" for metric in ("ndcg", "hr", "mrr") for k in (1, 5, 10, 20)),
        "mrr",
        *(f"recall@{k}" for k in (1, 5, 10, 20)),
    ]
    assert formulas["ndcg@10"].startswith(
        "[r ≤ min(10, V)] / log2(1 + r), one relevant item a row; r: pessimistic"
    )
    assert formulas["mrr"].startswith("1 / r; ")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"k": ()}, r"different whole numbers from 1, got \[\]"),
        ({"k": (0, 5)}, r"got \[0, 5\]"),
        ({"k": (5, 5)}, r"got \[5, 5\]"),
        ({"metrics": ()}, "different metrics"),
        ({"metrics": ("hr", "hr")}, "different metrics"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Ranking(**wrong)


def test_it_is_offered() -> None:
    (component,) = recore_evaluators()
    assert (component.name, component.options, component.factory) == (
        "ranking",
        Ranking,
        "recore_evaluation.ranking:build",
    )
