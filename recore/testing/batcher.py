"""Checks of batchers: `docs/reference/contracts/batcher.md` in executable form."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from recore.claims import BatcherClaims
from recore.component import Part
from recore.contracts.learning import Batcher, Plan
from recore.ragged import offsets_of
from recore.testing.cases import Case
from recore.testing.checks import Evidence, for_all, require, states

Counts = list[int]


def _adversarial() -> st.SearchStrategy[Counts]:
    """Lengths of histories that batchers trip over: one, all alike, all of one event, one very long one,
    and no multiple of any batch size."""
    usual = st.lists(st.integers(1, 40), min_size=1, max_size=40)
    alike = st.builds(lambda n, length: [length] * n, st.integers(1, 300), st.integers(1, 9))
    giant = st.builds(lambda rest, long: [*rest, long, *rest], usual, st.integers(500, 5_000))
    many = st.builds(
        lambda n, step: [1 + (i * step) % 57 for i in range(n)], st.integers(100, 700), st.integers(1, 50)
    )
    return usual | alike | giant | many


def _claims(part: Part[Any]) -> BatcherClaims:
    claims = part.claims
    return claims if isinstance(claims, BatcherClaims) else BatcherClaims()


def _plan(
    batcher: Batcher, case: Case, lengths: Counts, seed: int = 0, rank: int = 0, world: int = 1
) -> Plan:
    return batcher.epoch(torch.tensor(lengths), case.generator("batches", seed), rank, world)


def _column(value: Tensor | None, plan: Plan, otherwise: Tensor) -> list[int]:
    given = otherwise if value is None else value
    return [int(n) for n in given.expand(plan.index.shape).tolist()]


def _spans(plan: Plan, lengths: Counts) -> dict[int, list[tuple[int, int, int]]]:
    """Per history the entries' (first target, start, stop), in events of the history."""
    held = torch.tensor(lengths)[plan.index]
    start = _column(plan.start, plan, torch.zeros_like(plan.index))
    stop = _column(plan.stop, plan, held)
    since = _column(plan.target_from, plan, torch.zeros_like(plan.index))
    spans: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for history, a, b, first in zip(plan.index.tolist(), start, stop, since, strict=True):
        spans[history].append((a + first, a, b))
    return spans


def _same(one: Plan, other: Plan) -> bool:
    names = ("index", "groups", "start", "stop", "target_from", "weight")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return one.layout == other.layout and all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs
    )


@states(
    "batcher",
    1,
    "In an epoch every history stands exactly once, or in windows that together hold it with no event a "
    "target twice; where entries are drawn, their weights make every history count alike on average.",
)
def check_each_history(part: Part[Any], case: Case) -> Evidence:
    claims, batcher = _claims(part), case.build(part)
    windows = [False]

    def once(lengths: Counts) -> None:
        plan = _plan(batcher, case, lengths)
        spans = _spans(plan, lengths)
        lost = sorted(set(range(len(lengths))) - set(spans))
        require(
            not lost,
            f"of {len(lengths)} histories {len(lost)} stand in no batch, the first being number "
            f"{lost[:1]} of {lengths[lost[0]] if lost else 0} events",
        )
        for history, entries in spans.items():
            entries.sort()
            windows[0] |= len(entries) > 1
            reached = entries[0][0]
            for first, start, stop in entries:
                where = f"history {history} of {lengths[history]} events stands in batches as {entries}"
                require(0 <= start < stop <= lengths[history], where + " (first target, start, stop)")
                require(
                    first >= reached, where + f": event {first} is a target twice (first target, start, stop)"
                )
                require(first <= reached, where + f": event {reached} is in none (first target, start, stop)")
                reached = stop
            require(reached == lengths[history], f"history {history} ends at event {reached}")

    if claims.each == "once":
        for_all(case, _adversarial(), once)
        return Evidence("in windows" if windows[0] else "each history in one piece")
    lengths = [1 + (7 * n) % 23 for n in range(30)]
    rounds = max(50, case.profile.draws // 20)
    sums = torch.zeros(rounds, len(lengths), dtype=torch.float64)
    for seed in range(rounds):
        plan = _plan(batcher, case, lengths, seed)
        weight = torch.ones(len(plan.index)) if plan.weight is None else plan.weight
        sums[seed].index_add_(0, plan.index, weight.double())
    mean, error = sums.mean(0), sums.std(0) / rounds**0.5
    gap = (mean - mean.mean()).abs()
    require(
        bool((gap <= 5 * error + 1e-9).all()),
        f"over {rounds} epochs history {int(gap.argmax())} weighs {float(mean[gap.argmax()]):.3f} on average "
        f"and all together {float(mean.mean()):.3f}",
    )
    return Evidence(f"drawn; average weight {float(mean.mean()):.3f} over {rounds} epochs")


@states(
    "batcher", 2, "The same lengths and the same generator give the same plan, and torch's own is left alone."
)
def check_same_generator(part: Part[Any], case: Case) -> Evidence:
    one, other = case.build(part), case.build(part)

    def holds(lengths: Counts) -> None:
        before = torch.get_rng_state()
        plan = _plan(one, case, lengths)
        require(torch.equal(before, torch.get_rng_state()), "torch's default generator was advanced")
        require(
            _same(plan, _plan(one, case, lengths)),
            f"lengths {lengths[:9]}: asked twice, it planned otherwise",
        )
        require(
            _same(plan, _plan(other, case, lengths)),
            f"lengths {lengths[:9]}: another object planned otherwise",
        )

    for_all(case, _adversarial(), holds)
    return Evidence()


@states(
    "batcher",
    3,
    "A plan is a value: it does not depend on the plans drawn before it and leaves the lengths as they are, "
    "so that the number of batches done is the place in an epoch.",
)
def check_plan_is_value(part: Part[Any], case: Case) -> Evidence:
    def holds(lengths: Counts) -> None:
        used, fresh, given = case.build(part), case.build(part), torch.tensor(lengths)
        for seed in (0, 1, 2):
            used.epoch(given, case.generator("batches", seed))
        require(given.tolist() == lengths, f"the lengths {lengths[:9]} became {given.tolist()[:9]}")
        late = _plan(used, case, lengths, 3)
        require(
            _same(late, _plan(fresh, case, lengths, 3)),
            f"epoch 3 of {len(lengths)} histories was planned otherwise by an object that had planned three "
            "epochs than by a fresh one",
        )

    for_all(case, _adversarial(), holds)
    return Evidence()


@states(
    "batcher",
    4,
    "All ranks have equally many batches, and together they hold what one rank alone would hold.",
)
def check_ranks(part: Part[Any], case: Case) -> Evidence:
    claims, batcher = _claims(part), case.build(part)

    def holds(example: tuple[Counts, int]) -> None:
        lengths, world = example
        plans = [_plan(batcher, case, lengths, 0, rank, world) for rank in range(world)]
        steps = [len(plan) for plan in plans]
        require(len(set(steps)) == 1, f"{len(lengths)} histories on {world} ranks make {steps} batches")
        if claims.each != "once":
            return
        alone = _spans(_plan(batcher, case, lengths), lengths)
        together: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for plan in plans:
            for history, entries in _spans(plan, lengths).items():
                together[history] += entries
        for history in range(len(lengths)):
            mine, theirs = sorted(alone[history]), sorted(together[history])
            require(
                mine == theirs,
                f"history {history} of {len(lengths)} stands as {mine} on one rank and as {theirs} on "
                f"{world} ranks together (first target, start, stop)",
            )

    for_all(case, st.tuples(_adversarial(), st.integers(2, 4)), holds)
    return Evidence("2 to 4 ranks")


@states(
    "batcher",
    5,
    "A plan is whole: its groups cut all its entries, in order, into batches that its layout can hold; "
    "weights are positive.",
)
def check_plan_whole(part: Part[Any], case: Case) -> Evidence:
    batcher = case.build(part)

    def holds(lengths: Counts) -> None:
        plan = _plan(batcher, case, lengths)
        groups = plan.groups.tolist()
        require(
            groups[0] == 0 and groups[-1] == len(plan.index) and groups == sorted(groups),
            f"the groups {groups[:5]} … {groups[-2:]} do not cut {len(plan.index)} entries",
        )
        require(
            bool(((plan.index >= 0) & (plan.index < len(lengths))).all()),
            f"entries {plan.index.tolist()[:9]} of {len(lengths)} histories",
        )
        entries = [stop - start for spans in _spans(plan, lengths).values() for _, start, stop in spans]
        try:
            plan.layout.columns(offsets_of(torch.tensor(entries)))
        except ValueError as error:
            require(False, str(error))
        require(
            plan.weight is None or bool((plan.weight > 0).all() and plan.weight.isfinite().all()),
            "some weights are not positive",
        )

    for_all(case, _adversarial(), holds)
    return Evidence()


@states(
    "batcher",
    6,
    "The order is drawn anew with each generator where `random` is claimed, and fixed where not.",
)
def check_random(part: Part[Any], case: Case) -> Evidence:
    batcher, random = case.build(part), _claims(part).random
    lengths = [1 + (7 * n) % 23 for n in range(200)]
    plans = [_plan(batcher, case, lengths, seed) for seed in range(3)]
    same = _same(plans[0], plans[1]) or _same(plans[1], plans[2])
    if random:
        require(not same, "200 histories were planned alike with two generators, and `random` is claimed")
        # Batches may hold like lengths together; which histories meet must still change.
        meet = [
            {frozenset(p.index[a:b].tolist()) for a, b in zip(p.groups[:-1], p.groups[1:], strict=True)}
            for p in plans
        ]
        require(
            len(meet[0]) == 1 or meet[0] != meet[1],
            f"the same {len(meet[0])} batches came with two generators, in another order",
        )
        return Evidence("random")
    require(
        same and _same(plans[0], plans[1]), "two generators planned otherwise, and `random` is not claimed"
    )
    return Evidence("fixed order")
