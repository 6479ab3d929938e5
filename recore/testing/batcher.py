"""Checks of batchers: `docs/reference/contracts/batcher.md` in executable form.

A batcher that cuts whole histories itself (`Facts.whole_histories`) is tried under several bounds of the model
(`Facts.reach`), with histories of one event, of two, of the bound, of one more and of 2,277.

Legend: `E` entries of a plan, `R` events that the model reads, targets included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from hypothesis import strategies as st
from torch import Tensor

from recore.claims import BatcherClaims
from recore.component import Facts, Part
from recore.contracts.learning import Batcher, Plan
from recore.ragged import offsets_of
from recore.testing.cases import Case
from recore.testing.checks import Evidence, broken, for_all, require, states

Counts = list[int]
BOUNDS = (2, 5, 33, None)  # values of `Facts.reach`; None: the model reads whole histories
LONG = 2_277  # the longest history of MovieLens-1M
SURE = 1e-9  # how unlikely it is that chance alone fails a sound batcher


def _adversarial(reach: int | None) -> st.SearchStrategy[Counts]:
    """Lengths of histories that batchers trip over: one, all alike, all of one event, one very long one,
    no multiple of any batch size, and those around the bound."""
    usual = st.lists(st.integers(1, 40), min_size=1, max_size=40)
    alike = st.builds(lambda n, length: [length] * n, st.integers(1, 300), st.integers(1, 9))
    giant = st.builds(lambda rest, long: [*rest, long, *rest], usual, st.integers(500, 5_000))
    many = st.builds(
        lambda n, step: [1 + (i * step) % 57 for i in range(n)], st.integers(100, 700), st.integers(1, 50)
    )
    edges = st.lists(st.sampled_from(_edges(reach)), min_size=1, max_size=9)
    return usual | alike | giant | many | edges


def _edges(reach: int | None) -> Counts:
    bound = reach or 8
    return sorted({1, 2, bound - 1, bound, bound + 1, 2 * bound - 1, 2 * bound, LONG})


@frozen(eq=False)
class Tried:
    """A batcher as built, and the bound under which it was."""

    batcher: Batcher
    reach: int | None
    words: str

    def plan(self, case: Case, lengths: Counts, seed: int = 0, rank: int = 0, world: int = 1) -> Plan:
        return self.batcher.epoch(torch.tensor(lengths), case.generator("batches", seed), rank, world)


def _claims(part: Part[Any]) -> BatcherClaims:
    claims = part.claims
    return claims if isinstance(claims, BatcherClaims) else BatcherClaims()


def _bounds(part: Part[Any], case: Case) -> list[Facts]:
    """What the model may say of its bound that the part does not refuse."""
    given = part.provides()
    if not given.whole_histories:
        return [case.facts]
    tried = [
        evolve(case.facts, reach=reach, history="all" if reach is None else max(2, reach - 1))
        for reach in (*BOUNDS, 129)
    ]
    suits = [facts for facts in tried if not part.problems(facts)]
    return suits[:-1] or suits or [case.facts]


def _built(part: Part[Any], case: Case, facts: Facts) -> Tried:
    words = (
        ""
        if not part.provides().whole_histories
        else f", of a model that reads {facts.reach or 'all'} events"
    )
    return Tried(case.build(part, facts=facts), facts.reach, words)


def _on_all(part: Part[Any], case: Case, holds: Callable[[Tried, Counts], None]) -> str:
    """`holds` under every bound, on lengths at the edges and on what hypothesis finds. In words: which bounds."""
    bounds = _bounds(part, case)
    for facts in bounds:
        tried = _built(part, case, facts)
        share = evolve(case.profile, examples=max(2, case.profile.examples // len(bounds)))
        for lengths in ([1], [2], [1, 1], _edges(facts.reach)):
            holds(tried, lengths)
        for_all(
            evolve(case, profile=share),
            _adversarial(facts.reach),
            lambda lengths, tried=tried: holds(tried, lengths),  # type: ignore[misc]  # bound in the loop
        )
    if not part.provides().whole_histories:
        return ""
    return f"; models that read {', '.join(str(facts.reach or 'all') for facts in bounds)} events"


# ---- entries ---------------------------------------------------------------------------------------------------


@frozen(eq=False)
class Entries:
    """The entries of a plan as columns `(E,)`, with every default filled in."""

    index: Tensor
    start: Tensor
    stop: Tensor
    since: Tensor
    weight: Tensor

    @property
    def first(self) -> Tensor:
        """The first event of the history that is a target: the first of an entry has nothing before it."""
        return self.start + self.since.clamp(min=1)

    def rows(self) -> np.ndarray[Any, Any]:
        """`(E, 5)` in ascending order: history, start, stop, first target, weight."""
        columns = (self.index, self.start, self.stop, self.first, self.weight)
        table = torch.stack([column.double() for column in columns], 1).numpy()
        return table[np.lexsort(table.T[::-1])]

    def of(self, history: int) -> list[tuple[int, int, int]]:
        """(first target, start, stop) of the entries of one history, in order."""
        mine = self.index == history
        columns = (column[mine].tolist() for column in (self.start + self.since, self.start, self.stop))
        return sorted(zip(*columns, strict=True))


def _entries(plan: Plan, lengths: Counts) -> Entries:
    held = torch.tensor(lengths)[plan.index]

    def filled(value: Tensor | None, otherwise: Tensor) -> Tensor:
        return otherwise if value is None else value.expand(plan.index.shape)

    nothing = torch.zeros_like(plan.index)
    return Entries(
        plan.index,
        filled(plan.start, nothing),
        filled(plan.stop, held),
        filled(plan.target_from, nothing),
        filled(plan.weight, torch.ones(len(plan.index))).double(),
    )


def _seen(entries: Entries, lengths: Counts, history: int) -> str:
    return (
        f"history {history} of {lengths[history]} events stands in batches as {entries.of(history)[:9]} (first "
        "target, start, stop)"
    )


def _within(entries: Entries, lengths: Counts, words: str) -> None:
    """Every entry is a piece of its history."""
    held = torch.tensor(lengths)[entries.index]
    bad = (entries.start < 0) | (entries.start >= entries.stop) | (entries.stop > held) | (entries.since < 0)
    if bool(bad.any()):
        broken(_seen(entries, lengths, int(entries.index[bad][0])) + words)
    bare = (entries.start > 0) & (entries.since < 1)
    if bool(bare.any()):
        event = int(entries.start[bare][0])
        broken(
            f"{_seen(entries, lengths, int(entries.index[bare][0]))}{words}: event {event} may be a target "
            "though it has nothing before it in its entry"
        )


def _weights(entries: Entries, lengths: Counts) -> Tensor:
    """How much each event of each history weighs as a target, `(T,)`, histories end to end."""
    base = offsets_of(torch.tensor(lengths))
    steps = torch.zeros(int(base[-1]) + 1, dtype=torch.float64)
    first = torch.minimum(entries.first, entries.stop)
    steps.index_add_(0, base[entries.index] + first, entries.weight)
    steps.index_add_(0, base[entries.index] + entries.stop, -entries.weight)
    return steps.cumsum(0)[:-1]


def _same(one: Plan, other: Plan) -> bool:
    names = ("index", "groups", "start", "stop", "target_from", "weight")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return one.layout == other.layout and all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs
    )


# ---- the sentences ---------------------------------------------------------------------------------------------


@states(
    "batcher",
    1,
    "In an epoch every history stands exactly once, in one piece (`once`); or every event with one before it is a "
    "target exactly once (`target`); or entries are drawn and weighed, so that every such event weighs one on "
    "average (`drawn`).",
)
def check_each_history(part: Part[Any], case: Case) -> Evidence:
    each = _claims(part).each

    def once(tried: Tried, lengths: Counts) -> None:
        entries = _entries(tried.plan(case, lengths), lengths)
        times = torch.bincount(entries.index, minlength=len(lengths))
        lost = (times == 0).nonzero().squeeze(-1).tolist()
        require(
            not lost,
            f"of {len(lengths)} histories {len(lost)} stand in no batch, the first being number {lost[:1]} of "
            f"{lengths[lost[0]] if lost else 0} events{tried.words}",
        )
        _within(entries, lengths, tried.words)
        for history in (times > 1).nonzero().squeeze(-1).tolist():
            spans, reached = entries.of(history), 0
            for first, _, stop in spans:
                twice = f"event {first} is a target twice" if first < reached else ""
                require(not twice, f"{_seen(entries, lengths, history)}{tried.words}: {twice}")
                reached = stop
            broken(f"{_seen(entries, lengths, history)}{tried.words}: in {len(spans)} pieces")
        whole = (entries.stop - entries.start == torch.tensor(lengths)[entries.index]) & (entries.since <= 1)
        if not bool(whole.all()):
            history = int(entries.index[~whole][0])
            broken(
                f"{_seen(entries, lengths, history)}{tried.words}: not the whole of it, all events targets"
            )

    def target(tried: Tried, lengths: Counts) -> None:
        entries = _entries(tried.plan(case, lengths), lengths)
        _within(entries, lengths, tried.words)
        times = _weights(evolve(entries, weight=torch.ones_like(entries.weight)), lengths)
        history, place = _places(lengths)
        for wrong, words in ((times < 0.5) & (place > 0), "in none"), (times > 1.5, "a target twice"):
            if bool(wrong.any()):
                at = int(wrong.nonzero()[0])
                broken(
                    f"{_seen(entries, lengths, int(history[at]))}{tried.words}: event {int(place[at])} is {words}"
                )
        odd = entries.weight[entries.weight != 1]
        require(not len(odd), f"an entry weighs {odd[:1].tolist()}{tried.words}, and nothing is drawn")

    if each == "drawn":
        bounds = _bounds(part, case)  # two of them: each costs hundreds of plans
        some = bounds if len(bounds) < 3 else [bounds[1], bounds[-1]]
        found = [_drawn(part, case, facts) for facts in some]
        return Evidence(f"drawn; average weights {'; '.join(found)}")
    words = _on_all(part, case, once if each == "once" else target)
    return Evidence(("each history in one piece" if each == "once" else "each event a target once") + words)


def _places(lengths: Counts) -> tuple[Tensor, Tensor]:
    """Of all events end to end `(T,)`: their history, and how many events of it stand before them."""
    offsets = offsets_of(torch.tensor(lengths))
    history = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return history, torch.arange(len(history)) - offsets[history]


def _drawn(part: Part[Any], case: Case, facts: Facts) -> str:
    """Mean weights over many epochs: of each target, within a bound that its largest weight w gives (its variance
    is at most w where it is w with probability 1 / w: Bernstein), and, within five standard errors, of all targets
    of a history, of all at one place, and of all at one distance from the end."""
    lengths = [1 + (7 * n) % 9 for n in range(30)]
    history, place = _places(lengths)
    targets = place > 0
    tried, rounds = _built(part, case, facts), max(300, case.profile.draws // 4)
    sums = torch.zeros(rounds, int(targets.sum()), dtype=torch.float64)
    heaviest = torch.ones(len(lengths), dtype=torch.float64)
    for seed in range(rounds):
        entries = _entries(tried.plan(case, lengths, seed), lengths)
        _within(entries, lengths, tried.words)
        sums[seed] = _weights(entries, lengths)[targets]
        heaviest = heaviest.scatter_reduce(0, entries.index, entries.weight, "amax")
    history, place = history[targets], place[targets]
    mean, held = sums.mean(0), torch.tensor(lengths)[history]

    largest = heaviest[history]
    doubt = math.log(2 * len(mean) / SURE) / rounds
    gap = (mean - 1).abs()
    over = gap - (largest * doubt / 3 + (largest * doubt * (largest * doubt / 9 + 2)).sqrt())
    if bool((over > 0).any()):
        at = int(over.argmax())
        broken(
            f"over {rounds} epochs event {int(place[at])} of history {int(history[at])} of {int(held[at])} events "
            f"weighs {float(mean[at]):.3f} on average, and should weigh 1{tried.words}"
        )
    for words, group in (
        ("the targets of histories of {} events", held),
        ("the events with {} before them", place),
        ("the events with {} after them", held - 1 - place),
    ):
        size = torch.bincount(group).double()
        together = torch.zeros(rounds, len(size), dtype=torch.float64).index_add_(1, group, sums)
        middle, error = together.mean(0) / size, together.std(0) / size / rounds**0.5
        over = torch.where(size > 0, (middle - 1).abs() - 5 * error - 1e-5, -1.0)
        if bool((over > 0).any()):
            at = int(over.argmax())
            broken(
                f"over {rounds} epochs {words.format(at)} weigh {float(middle[at]):.3f} each on average, and should "
                f"weigh 1{tried.words}"
            )
    return f"{float(mean.mean()):.3f} over {rounds} epochs{tried.words}"


@states(
    "batcher", 2, "The same lengths and the same generator give the same plan, and torch's own is left alone."
)
def check_same_generator(part: Part[Any], case: Case) -> Evidence:
    others = {facts.reach: case.build(part, facts=facts) for facts in _bounds(part, case)}

    def holds(tried: Tried, lengths: Counts) -> None:
        before = torch.get_rng_state()
        plan = tried.plan(case, lengths)
        require(torch.equal(before, torch.get_rng_state()), "torch's default generator was advanced")
        require(
            _same(plan, tried.plan(case, lengths)),
            f"lengths {lengths[:9]}: asked twice, it planned otherwise{tried.words}",
        )
        require(
            _same(plan, evolve(tried, batcher=others[tried.reach]).plan(case, lengths)),
            f"lengths {lengths[:9]}: another object planned otherwise{tried.words}",
        )

    return Evidence(_on_all(part, case, holds).strip("; "))


@states(
    "batcher",
    3,
    "A plan is a value: it does not depend on the plans drawn before it and leaves the lengths as they are, "
    "so that the number of batches done is the place in an epoch.",
)
def check_plan_is_value(part: Part[Any], case: Case) -> Evidence:
    bounds = {facts.reach: facts for facts in _bounds(part, case)}

    def holds(tried: Tried, lengths: Counts) -> None:
        used, given = case.build(part, facts=bounds[tried.reach]), torch.tensor(lengths)
        fresh = case.build(part, facts=bounds[tried.reach])
        for seed in (0, 1, 2):
            used.epoch(given, case.generator("batches", seed))
        require(given.tolist() == lengths, f"the lengths {lengths[:9]} became {given.tolist()[:9]}")
        late = evolve(tried, batcher=used).plan(case, lengths, 3)
        require(
            _same(late, evolve(tried, batcher=fresh).plan(case, lengths, 3)),
            f"epoch 3 of {len(lengths)} histories was planned otherwise by an object that had planned three "
            f"epochs than by a fresh one{tried.words}",
        )

    return Evidence(_on_all(part, case, holds).strip("; "))


@states(
    "batcher",
    4,
    "All ranks have equally many batches, and together they hold what one rank alone would hold.",
)
def check_ranks(part: Part[Any], case: Case) -> Evidence:
    def holds(tried: Tried, lengths: Counts) -> None:
        alone = _entries(tried.plan(case, lengths), lengths)
        for world in (2, 3, 4):
            plans = [tried.plan(case, lengths, 0, rank, world) for rank in range(world)]
            steps = [len(plan) for plan in plans]
            require(len(set(steps)) == 1, f"{len(lengths)} histories on {world} ranks make {steps} batches")
            shares = [_entries(plan, lengths) for plan in plans]
            names = ("index", "start", "stop", "since", "weight")
            together = Entries(*(torch.cat([getattr(one, name) for one in shares]) for name in names))
            mine, theirs = alone.rows(), together.rows()
            if mine.shape == theirs.shape and np.array_equal(mine, theirs):
                continue
            short = min(len(mine), len(theirs))
            apart = (mine[:short] != theirs[:short]).any(1).nonzero()[0]
            longer = mine if len(mine) > len(theirs) else theirs
            at = int(apart[0]) if len(apart) else short
            history = int(min(rows[at][0] for rows in (mine, theirs, longer) if at < len(rows)))
            weighed = alone.of(history) == together.of(history)
            broken(
                f"history {history} of {len(lengths)} stands as {alone.of(history)[:9]} on one rank and as "
                f"{together.of(history)[:9]} on {world} ranks together (first target, start, stop)"
                f"{', of other weights' if weighed else ''}{tried.words}"
            )

    return Evidence("2 to 4 ranks" + _on_all(part, case, holds))


@states(
    "batcher",
    5,
    "A plan is whole: its groups cut all its entries, in order, into batches that its layout can hold; no entry is "
    "longer than what the model reads, or, where one prediction for each row is stated, has another number of "
    "targets than one; weights are positive.",
)
def check_plan_whole(part: Part[Any], case: Case) -> Evidence:
    single = bool(part.provides().one_prediction_per_row)

    def holds(tried: Tried, lengths: Counts) -> None:
        plan = tried.plan(case, lengths)
        groups = plan.groups.tolist()
        require(
            groups[0] == 0 and groups[-1] == len(plan.index) and groups == sorted(groups),
            f"the groups {groups[:5]} … {groups[-2:]} do not cut {len(plan.index)} entries",
        )
        require(
            bool(((plan.index >= 0) & (plan.index < len(lengths))).all()),
            f"entries {plan.index.tolist()[:9]} of {len(lengths)} histories",
        )
        entries = _entries(plan, lengths)
        size = entries.stop - entries.start
        try:
            plan.layout.columns(offsets_of(size))
        except ValueError as error:
            require(False, str(error))
        if tried.reach is not None and bool((size > tried.reach).any()):
            broken(
                f"{_seen(entries, lengths, int(entries.index[size > tried.reach][0]))}{tried.words}: an entry holds "
                f"{int(size.max())} events"
            )
        targets = entries.stop - entries.first
        if single and bool((targets != 1).any()):
            at = int((targets != 1).nonzero()[0])
            broken(
                f"{_seen(entries, lengths, int(entries.index[at]))}{tried.words}: an entry has {int(targets[at])} "
                "targets, and one prediction for each row is stated"
            )
        require(
            plan.weight is None or bool((plan.weight > 0).all() and plan.weight.isfinite().all()),
            "some weights are not positive",
        )

    return Evidence(_on_all(part, case, holds).strip("; "))


@states(
    "batcher",
    6,
    "The order is drawn anew with each generator where `random` is claimed, and fixed where not.",
)
def check_random(part: Part[Any], case: Case) -> Evidence:
    random = _claims(part).random
    lengths = [1 + (7 * n) % 23 for n in range(200)]
    for facts in _bounds(part, case):
        tried = _built(part, case, facts)
        plans = [tried.plan(case, lengths, seed) for seed in range(3)]
        same = _same(plans[0], plans[1]) or _same(plans[1], plans[2])
        if not random:
            require(
                same and _same(plans[0], plans[1]),
                f"two generators planned otherwise{tried.words}, and `random` is not claimed",
            )
            continue
        require(
            not same,
            f"200 histories were planned alike with two generators{tried.words}, and `random` is claimed",
        )
        # Batches may hold like lengths together; which entries meet must still change, where more than one batch
        # could hold them.
        meet = [_meetings(plan, lengths) for plan in plans]
        require(
            meet[0][1] or meet[0][0] != meet[1][0],
            f"the same {len(meet[0][0])} batches came with two generators, in another order{tried.words}",
        )
    return Evidence("random" if random else "fixed order")


def _meetings(plan: Plan, lengths: Counts) -> tuple[set[frozenset[tuple[int, int]]], bool]:
    """The batches as sets of entries; and whether no other batches are possible: one batch for everything, or one
    for all entries of each length."""
    entries = _entries(plan, lengths)
    each = list(zip(entries.index.tolist(), entries.stop.tolist(), strict=True))
    size = (entries.stop - entries.start).tolist()
    cuts = list(zip(plan.groups[:-1].tolist(), plan.groups[1:].tolist(), strict=True))
    by_size = all(len(set(size[a:b])) == 1 for a, b in cuts) and len(cuts) == len(set(size))
    return {frozenset(each[a:b]) for a, b in cuts}, len(cuts) == 1 or by_size
