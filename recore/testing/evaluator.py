"""Checks of evaluators: `docs/reference/contracts/evaluator.md` in executable form.

The oracle knows `hr@k`, `recall@k`, `ndcg@k`, `mrr@k` and `mrr` of one target a row, in plain Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from attrs import evolve, frozen
from hypothesis import strategies as st
from torch import Tensor

from recore.component import Part
from recore.contracts.scoring import Block, Evaluation, Evaluator, Wants
from recore.testing.cases import Case
from recore.testing.checks import Evidence, for_all, require, states

Finished = tuple[Mapping[str, float], pl.DataFrame]
NAME = re.compile(r"(?P<metric>hr|recall|ndcg|mrr)(@(?P<k>\d+))?")


@frozen(eq=False)
class Ranked:
    """A made-up evaluation: `items` V, and a block with a row per query and target."""

    items: int
    block: Block


def oracle(name: str, rank: int, items: int) -> float | None:
    """A metric of one target at `rank` among at most `items` candidates; None for a name it does not know.
    Rank V + 1 says that the target was no candidate: a miss at every k."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    metric, k = found["metric"], int(found["k"] or items)
    if rank > min(k, items):
        return 1 / rank if found["k"] is None and metric == "mrr" else 0.0
    return {"hr": 1.0, "recall": 1.0, "ndcg": 1 / math.log2(1 + rank), "mrr": 1 / rank}[metric]


@st.composite
def ranked(draw: st.DrawFn, *, wants: Wants, longest: int = 20) -> Ranked:
    """Ranks, lists that agree with them, users in no order; impossible and cold targets among them, and
    catalogues that are smaller than k. Scores, where they are wanted, agree too: no two of a row are equal."""
    k = wants.k
    items = draw(st.integers(2, 40))
    count = draw(st.integers(1, longest))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    cold = random.random(count) < 0.1
    ranks = np.asarray(draw(st.lists(st.integers(1, items + 1), min_size=count, max_size=count)))
    ranks = np.where(cold, items + 1, ranks)
    top = np.stack([random.permutation(items) for _ in range(count)])
    possible = ranks <= items
    targets = np.where(possible, top[np.arange(count), np.minimum(ranks, items) - 1], top[:, 0])
    in_history = ~possible & ~cold
    lists = np.full((count, k), -1, dtype=np.int64)
    for row in range(count):
        left = [item for item in top[row] if possible[row] or item != targets[row]][:k]
        lists[row, : len(left)] = left
    candidates = np.where(possible, items, items - 1)
    names = random.permutation(1000)[:count]
    # The item in place p of a row scores −p.
    scores = torch.from_numpy(-np.argsort(top, axis=1).astype(np.float64)) if wants.scores else None
    block = Block(
        users=pl.Series("user", [f"u{n}" for n in names]),
        targets=np.where(cold, -1, targets).astype(np.int64),
        rank=ranks.astype(np.int64),
        candidates=candidates.astype(np.int64),
        top=lists,
        length=random.integers(1, 30, count).astype(np.int64),
        cold=cold,
        in_history=in_history,
        scores=scores,
    )
    return Ranked(items, block)


def _rows(block: Block, rows: Any) -> Block:
    return Block(
        users=block.users.gather(rows),
        targets=block.targets[rows],
        rank=block.rank[rows],
        candidates=block.candidates[rows],
        top=block.top[rows],
        length=block.length[rows],
        cold=block.cold[rows],
        in_history=block.in_history[rows],
        scores=None if block.scores is None else block.scores[torch.from_numpy(np.asarray(rows))],
    )


def _run(evaluator: Evaluator, example: Ranked, *blocks: Block) -> Finished:
    evaluator.start(Evaluation(items=example.items, users=len(example.block.rank)))
    for block in blocks or (example.block,):
        evaluator.update(block)
    return evaluator.finish()


def _build(part: Part[Any], case: Case) -> Evaluator:
    made: Evaluator = case.build(part)
    return made


def _same(one: Finished, other: Finished, what: str) -> None:
    require(sorted(one[0]) == sorted(other[0]), f"{what}: {sorted(one[0])} became {sorted(other[0])}")
    for name, value in one[0].items():
        theirs = other[0][name]
        require(
            (math.isnan(value) and math.isnan(theirs))
            or math.isclose(value, theirs, rel_tol=1e-9, abs_tol=1e-12),
            f"{what}: {name} was {value:.12g} and is {theirs:.12g}",
        )


def _columns(finished: Finished) -> list[str]:
    """Metrics of which the frame has a column."""
    return [name for name in finished[0] if name in finished[1].columns]


@states("evaluator", 1, "Each metric equals a slow oracle written from its formula, for every rank.")
def check_oracle(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)
    known: set[str] = set()

    def holds(example: Ranked) -> None:
        totals, frame = _run(evaluator, example)
        for name in totals:
            if oracle(name, 1, example.items) is None:
                continue
            known.add(name)
            values = [oracle(name, int(rank), example.items) or 0.0 for rank in example.block.rank]
            require(name in frame.columns, f"the frame has no column {name!r}: {frame.columns}")
            mine = dict(zip(example.block.users.to_list(), values, strict=True))
            for user, found in zip(frame["user"].to_list(), frame[name].to_list(), strict=True):
                require(
                    math.isclose(found, mine[user], rel_tol=1e-9, abs_tol=1e-12),
                    f"{name} of rank {_rank(example, user)} among {example.items} items is {found:.9g}, the "
                    f"oracle says {mine[user]:.9g}",
                )
            wanted = math.fsum(values) / len(values)
            require(
                math.isclose(totals[name], wanted, rel_tol=1e-9, abs_tol=1e-12),
                f"{name} is {totals[name]:.9g} in total, the oracle says {wanted:.9g}",
            )

    for_all(case, ranked(wants=evaluator.wants), holds)
    if not known:
        return Evidence("it names no metric that the kit knows", claimed=False)
    return Evidence(", ".join(sorted(known)))


def _rank(example: Ranked, user: Any) -> int:
    return int(example.block.rank[example.block.users.to_list().index(user)])


@states(
    "evaluator",
    2,
    "The frame has `user`, `length` and a column per metric, a row per query and target; each total is the "
    "mean of its column.",
)
def check_totals(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)
    means: set[str] = set()

    def holds(example: Ranked) -> None:
        totals, frame = finished = _run(evaluator, example)
        rows = len(example.block.rank)
        require({"user", "length"} <= set(frame.columns), f"the frame has the columns {frame.columns}")
        require(len(frame) == rows, f"{rows} queries gave {len(frame)} rows")
        means.update(_columns(finished))
        for name in _columns(finished):
            values = frame[name].drop_nulls().to_list()
            mean = math.fsum(values) / len(values) if values else math.nan
            require(
                (math.isnan(mean) and math.isnan(totals[name]))
                or math.isclose(totals[name], mean, rel_tol=1e-9, abs_tol=1e-12),
                f"{name} is {totals[name]:.9g} in total, and its column has the mean {mean:.9g}",
            )
        held = sorted(zip(frame["user"].to_list(), frame["length"].to_list(), strict=True))
        wanted = sorted(zip(example.block.users.to_list(), example.block.length.tolist(), strict=True))
        require(held == wanted, f"users and lengths {wanted[:3]} came back as {held[:3]}")

    for_all(case, ranked(wants=evaluator.wants), holds)
    return Evidence(f"{len(means)} metrics have a column")


@states("evaluator", 3, "Neither the order of the queries nor how they are cut into blocks changes a figure.")
def check_blocks(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)

    def holds(example: Ranked) -> None:
        count = len(example.block.rank)
        whole = _run(evaluator, example)
        order = np.random.default_rng(count).permutation(count)
        pieces = [_rows(example.block, order[at : at + 3]) for at in range(0, count, 3)]
        other = _run(evaluator, example, *pieces)
        _same(whole, other, f"{count} queries in another order, three a block")
        names = ["user", *_columns(whole)]
        require(
            whole[1].select(names).sort("user").equals(other[1].select(names).sort("user")),
            f"the rows of {count} queries differ in blocks of three",
        )

    for_all(case, ranked(wants=evaluator.wants), holds)
    return Evidence()


@states("evaluator", 4, "Relabelling items or users changes no figure.")
def check_relabelling(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)

    def holds(example: Ranked) -> None:
        before = _run(evaluator, example)
        names = np.append(np.random.default_rng(1).permutation(example.items), -1)  # −1 stays −1
        block = evolve(
            example.block,
            users=pl.Series("user", range(len(example.block.rank))),
            targets=names[example.block.targets],
            top=names[example.block.top],
            scores=_relabelled(example.block.scores, names[:-1]),
        )
        _same(before, _run(evaluator, evolve(example, block=block)), "after relabelling")

    for_all(case, ranked(wants=evaluator.wants), holds)
    return Evidence()


def _relabelled(scores: Tensor | None, names: Any) -> Tensor | None:
    """`(n, V)` with the column of item `i` at `names[i]`."""
    return None if scores is None else scores[:, torch.from_numpy(np.argsort(names))]


@states(
    "evaluator", 5, "A target that is no candidate (rank V + 1) is a miss at every k, also where k exceeds V."
)
def check_impossible(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)
    k = evaluator.wants.k
    known: list[str] = []
    for items in {2, max(2, k - 1), k, k + 30}:
        example = _impossible(items, evaluator.wants)
        totals, _ = _run(evaluator, example)
        known = [name for name in totals if (m := NAME.fullmatch(name)) and m["k"]]
        for name in known:
            require(
                totals[name] == 0,
                f"among {items} items a target of rank {items + 1} counts {totals[name]:.4g} in {name}",
            )
    return Evidence(claimed=bool(known))


def _impossible(items: int, wants: Wants) -> Ranked:
    k = wants.k
    left = np.arange(1, min(k, items - 1) + 1)
    top = np.append(left, np.full(k - len(left), -1))[None, :].astype(np.int64)
    one = np.ones(1, dtype=np.int64)
    block = Block(
        users=pl.Series("user", ["a"]),
        targets=one * 0,
        rank=one * (items + 1),
        candidates=one * (items - 1),
        top=top,
        length=one * 4,
        cold=np.zeros(1, dtype=np.bool_),
        in_history=np.ones(1, dtype=np.bool_),
        scores=-torch.arange(items, dtype=torch.float64)[None] if wants.scores else None,
    )
    return Ranked(items, block)


@states("evaluator", 6, "Every metric has a formula.")
def check_formulas(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)
    names: set[str] = set()

    def holds(example: Ranked) -> None:
        totals, _ = _run(evaluator, example)
        formulas = dict(evaluator.formulas)
        names.update(totals)
        bare = [name for name in totals if name not in formulas and name.split("[")[0] not in formulas]
        require(not bare, f"no formula is given of {', '.join(bare)}; of {', '.join(formulas)} one is")

    for_all(case, ranked(wants=evaluator.wants), holds)
    return Evidence(f"{len(names)} metrics")


@states("evaluator", 7, "`start` begins anew: what was evaluated before leaves no trace.")
def check_start(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)

    def holds(example: tuple[Ranked, Ranked]) -> None:
        first, second = example
        fresh = _run(_build(part, case), second)
        _run(evaluator, first)
        _same(fresh, _run(evaluator, second), f"after an evaluation of {len(first.block.rank)} queries")

    for_all(case, st.tuples(ranked(wants=evaluator.wants), ranked(wants=evaluator.wants)), holds)
    return Evidence()


@states("evaluator", 8, "A better rank never makes a figure of its query worse.")
def check_monotone(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)
    known: set[str] = set()
    for items in (3, 30):
        ranks = np.arange(1, items + 2)
        count = len(ranks)
        k = evaluator.wants.k
        rows = np.tile(np.arange(items), (count, 1))
        top = np.full((count, k), -1, dtype=np.int64)
        top[:, : min(k, items)] = rows[:, :k]
        block = Block(
            users=pl.Series("user", range(count)),
            targets=np.minimum(ranks - 1, items - 1).astype(np.int64),
            rank=ranks.astype(np.int64),
            candidates=np.full(count, items, dtype=np.int64),
            top=top,
            length=np.full(count, 5, dtype=np.int64),
            cold=np.zeros(count, dtype=np.bool_),
            in_history=ranks > items,
            scores=-torch.arange(items, dtype=torch.float64).expand(count, items)
            if evaluator.wants.scores
            else None,
        )
        _, frame = _run(evaluator, Ranked(items, block))
        frame = frame.sort("user")
        known = {name for name in frame.columns if NAME.fullmatch(name)}
        for name in known:
            values = frame[name].to_numpy()
            worse = np.flatnonzero(np.diff(values) > 1e-12)
            require(
                len(worse) == 0,
                f"{name} is {values[worse[:1]]} at rank {worse[:1] + 1}, one further {values[worse[:1] + 1]}",
            )
    return Evidence(claimed=bool(known))


@states(
    "evaluator",
    9,
    "Ties never go the model's way, also where scores are read: if all items score the same, the target is behind "
    "all others.",
)
def check_ties(part: Part[Any], case: Case) -> Evidence:
    evaluator = _build(part, case)
    wants = evaluator.wants
    if not wants.scores:
        return Evidence("it reads ranks only, which count ties against the model", claimed=False)
    items, count = wants.k + 30, 5
    block = Block(
        users=pl.Series("user", range(count)),
        targets=np.arange(count, dtype=np.int64),
        rank=np.full(count, items, dtype=np.int64),
        candidates=np.full(count, items, dtype=np.int64),
        top=np.tile(np.arange(items - wants.k, items, dtype=np.int64), (count, 1)),
        length=np.full(count, 5, dtype=np.int64),
        cold=np.zeros(count, dtype=np.bool_),
        in_history=np.zeros(count, dtype=np.bool_),
        scores=torch.zeros(count, items, dtype=torch.float64),
    )
    totals, _ = _run(evaluator, Ranked(items, block))
    known = [name for name in totals if NAME.fullmatch(name)]
    for name in known:
        wanted = oracle(name, items, items) or 0.0
        require(
            totals[name] <= wanted + 1e-12,
            f"with the same score for all {items} items {name} is {totals[name]:.4g}, and {wanted:.4g} where every "
            "target comes last: ties went the model's way",
        )
    return Evidence(claimed=bool(known))
