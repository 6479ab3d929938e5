"""`uniform`: frequencies against `log_q`, own items, retired items; the kit's checks of samplers."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_samplers.options import Uniform
from recore_samplers.plugin import recore_samplers
from recore_samplers.uniform import UniformSampler, build
from torch import Tensor

from recore import Context, DataError, Facts, SamplerClaims
from recore.ragged import Batch, Ragged, Targets, View, offsets_of
from recore.rng import generator
from recore.testing import load_checks, make_case, parametrize_with_checks, part_of

(COMPONENT,) = recore_samplers()
MODES = [Uniform(count=3, exclude=e, shared=s) for e in ("none", "target", "history") for s in (False, True)]
NAMES = [f"{mode.exclude}{'-shared' if mode.shared else ''}" for mode in MODES]
PARTS = [part_of("sampler", COMPONENT, name, mode) for name, mode in zip(NAMES, MODES, strict=True)]


class NoModel:
    """A sampler that does not need the model does not ask it."""

    def score(self, ids: Tensor) -> Tensor:
        raise AssertionError("asked for scores")

    def top_k(self, k: int) -> Tensor:
        raise AssertionError("asked for the best items")


@parametrize_with_checks(PARTS)
def test_uniform_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_checks() -> None:
    assert len(load_checks()["sampler"]) >= 10


def ragged(lists: list[list[int]]) -> Ragged:
    """Sorted and distinct, as `Context.seen`."""
    sets = [sorted(set(items)) for items in lists]
    values = torch.tensor([item for items in sets for item in items], dtype=torch.int64)
    return Ragged(values, offsets_of(torch.tensor([len(items) for items in sets], dtype=torch.int64)))


def batch_of(index: list[int], targets: list[list[int]]) -> Batch:
    """Sequence `b` comes from training history `index[b]` and predicts `targets[b]` from its rows."""
    lengths = torch.tensor([len(rows) for rows in targets], dtype=torch.int64)
    ids = torch.tensor([item for rows in targets for item in rows], dtype=torch.int64)
    rows = torch.arange(len(ids))
    view = View(
        {"token": ids, "item": ids, "event": rows},
        offsets_of(lengths),
        index=torch.tensor(index, dtype=torch.int64),
    )
    return Batch({"user": view}, Targets(rows, ids, torch.ones(len(ids))))


def forbidden(mode: Uniform, seen: list[list[int]], history: int, target: int) -> set[int]:
    """What may not be a negative of a prediction, from the words of the options."""
    own = set(seen[history]) if mode.exclude == "history" and history >= 0 else set()
    return own | ({target} if mode.exclude != "none" else set())


# A user with no history, with few own items, with all but one; V = 12 of which 2 are retired.
ITEMS, RETIRED = 12, [0, 7]
SEEN = [[1, 4], [1, 2, 3, 4, 5, 6, 8, 9, 10, 0], [11], []]
INDEX = [0, 1, -1, 3]
TARGETS = [[4, 1], [2], [5], [9]]
ROWS = [(0, 4), (0, 1), (1, 2), (-1, 5), (3, 9)]


@pytest.mark.parametrize("mode", MODES, ids=NAMES)
def test_frequencies_match_log_q(mode: Uniform) -> None:
    """In at least 120,000 draws a row (40,000 independent calls with K = 3, or 2,500 shared ones with 50), for a
    user with no own items, with few and with all but one: the chi-square of the counts of each row stays below
    its 1 − 10⁻⁵ quantile (by Wilson & Hilferty), and what has log_q = −inf never comes, or is never kept."""
    calls, draws = (2_500, 50) if mode.shared else (40_000, 3)
    sampler = UniformSampler(evolve(mode, count=draws), ITEMS, ragged(SEEN), torch.tensor(RETIRED))
    batch, counts = batch_of(INDEX, TARGETS), torch.zeros(len(ROWS), ITEMS)
    random = generator(11, mode.exclude, int(mode.shared))
    # Where rows are independent of each other, many copies of the batch in one call are many calls.
    copies = 1 if mode.shared else 1_000
    many, row = batch_of(INDEX * copies, TARGETS * copies), torch.arange(len(ROWS)).repeat(copies)[:, None]
    for _ in range(calls // copies):
        drawn = sampler.draw(many, NoModel(), random)
        cells = row * ITEMS + drawn.items
        kept = cells if drawn.keep is None else cells[drawn.keep]
        counts += torch.bincount(kept.flatten(), minlength=counts.numel()).view_as(counts)
    log_q = sampler.log_q(batch, torch.arange(ITEMS))
    expected = log_q.double().exp() * calls
    for n, (history, target) in enumerate(ROWS):
        never = forbidden(mode, SEEN, history, target) | set(RETIRED)
        assert [item for item in range(ITEMS) if log_q[n, item] == -math.inf] == sorted(never)
        assert counts[n][sorted(never)].sum() == 0
        live = [item for item in range(ITEMS) if item not in never]
        if (
            mode.shared
        ):  # the calls that draw the item at all are not multinomial over kept ones: add the rest
            lost = torch.tensor([calls * draws - float(expected[n][live].sum())])
            found = torch.cat([counts[n][live], torch.tensor([calls * draws - float(counts[n].sum())])])
            wanted = torch.cat([expected[n][live], lost])
            found, wanted = found[wanted > 1e-3], wanted[wanted > 1e-3]
        else:
            found, wanted = counts[n][live], expected[n][live]
        assert float(found.sum()) == pytest.approx(calls * draws)
        statistic, free = float(((found - wanted) ** 2 / wanted).sum()), len(wanted) - 1
        if free:
            bound = free * (1 - 2 / (9 * free) + 4.265 * math.sqrt(2 / (9 * free))) ** 3
            assert statistic < bound, f"{ROWS[n]}: chi-square {statistic:.1f} with {free} degrees of freedom"


@st.composite
def cases(draw: st.DrawFn) -> tuple[Uniform, int, list[list[int]], list[int], list[int], list[list[int]]]:
    """A mode, the number of items, own items, retired items, and a batch; something is left for every row."""
    items = draw(st.integers(4, 9))
    item = st.integers(0, items - 2)  # the last item is nobody's, so that something is left
    seen = draw(st.lists(st.lists(item, max_size=8), min_size=1, max_size=4))
    retired = draw(st.lists(item, max_size=2, unique=True))
    index = draw(st.lists(st.integers(-1, len(seen) - 1), max_size=4))
    targets = [draw(st.lists(item, max_size=3)) for _ in index]
    exclude = draw(st.sampled_from(("none", "target", "history")))
    mode = Uniform(draw(st.integers(1, 5)), exclude, draw(st.booleans()))  # type: ignore[arg-type]  # its values
    return mode, items, [sorted(set(own)) for own in seen], retired, index, targets


@given(cases(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=150)
def test_what_is_drawn_and_what_is_said_of_it(
    case: tuple[Uniform, int, list[list[int]], list[int], list[int], list[list[int]]], seed: int
) -> None:
    mode, items, seen, retired, index, targets = case
    sampler = UniformSampler(mode, items, ragged(seen), torch.tensor(retired, dtype=torch.int64))
    batch = batch_of(index, targets)
    drawn = sampler.draw(batch, NoModel(), torch.Generator().manual_seed(seed))
    again = sampler.draw(batch, NoModel(), torch.Generator().manual_seed(seed))
    assert torch.equal(drawn.items, again.items)
    rows = [(h, t) for h, history in zip(index, targets, strict=True) for t in history]
    assert drawn.items.shape == ((mode.count,) if mode.shared else (len(rows), mode.count))
    assert drawn.log_q is not None
    assert drawn.log_q_target is not None
    assert drawn.log_q.isfinite().all()
    said = sampler.log_q(batch, drawn.items)
    every = sampler.log_q(batch, torch.arange(items))
    wide = sampler.log_q(batch, torch.arange(items).expand(len(rows), -1))
    assert torch.equal(every, wide)
    live = items - len(retired)
    for n, (history, target) in enumerate(rows):
        never = forbidden(mode, seen, history, target) | set(retired)
        share = mode.count / (live if mode.shared else items - len(never))
        expected = [0.0 if item in never else share for item in range(items)]
        assert every[n].exp().tolist() == pytest.approx(expected, rel=1e-6)
        if not mode.shared:  # the expected number of draws is K
            assert float(every[n].exp().sum()) == pytest.approx(mode.count, rel=1e-6)
        assert float(drawn.log_q_target[n]) == pytest.approx(float(every[n, target]))
        for k in range(mode.count):
            item = int(drawn.items[k] if mode.shared else drawn.items[n, k])
            kept = drawn.keep is None or bool(drawn.keep[n, k])
            assert item not in retired
            assert kept == (item not in never)
            if kept:
                assert float(said[n, k]) == pytest.approx(float(drawn.log_q.expand(said.shape)[n, k]))


def test_draws_come_from_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    batch, sampler = batch_of(INDEX, TARGETS), UniformSampler(Uniform(count=9), ITEMS, ragged(SEEN))
    one, other = (sampler.draw(batch, NoModel(), generator(seed)).items for seed in (1, 2))
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())
    sampler.observe(batch, NoModel())
    assert sampler.state_dict() == {}
    sampler.load_state_dict({})


def test_a_history_that_holds_every_item_is_refused_when_built() -> None:
    seen = ragged([[0, 1], [0, 1, 2], [2, 1, 0]])
    with pytest.raises(DataError) as caught:
        UniformSampler(Uniform(), 3, seen)
    assert str(caught.value) == (
        "sampler 'uniform': 2 of 3 training histories hold all 3 items that can be drawn (the first is history "
        "1), expected at least one item left (set exclude: target or none, or shared: true, or drop these users)"
    )
    assert UniformSampler(Uniform(exclude="target"), 3, seen).count == 3
    batch = batch_of([0, 1], [[0], [1]])
    drawn = UniformSampler(Uniform(count=20, shared=True), 3, seen).draw(batch, NoModel(), generator(0))
    assert drawn.keep is not None
    assert drawn.keep[0].any()
    assert not drawn.keep[1].any()


def test_a_target_outside_the_history_that_leaves_nothing_is_refused() -> None:
    sampler = UniformSampler(Uniform(), 3, ragged([[0, 1]]))
    with pytest.raises(DataError) as caught:
        sampler.draw(batch_of([0], [[2, 0]]), NoModel(), generator(0))
    assert str(caught.value) == (
        "sampler 'uniform': nothing is left to draw for 1 of 2 predictions, expected an item that is neither the "
        "target nor one of the user's own (set exclude: target or none, or shared: true)"
    )


def test_too_few_items_are_refused() -> None:
    with pytest.raises(DataError, match="1 items can be drawn, expected at least 2 with"):
        UniformSampler(Uniform(exclude="target"), 1)
    with pytest.raises(DataError, match="0 items can be drawn, expected at least 1 with"):
        UniformSampler(Uniform(exclude="none"), 2, retired=torch.tensor([0, 1]))


def test_what_does_not_fit_is_refused() -> None:
    sampler = UniformSampler(Uniform(), ITEMS, ragged(SEEN))
    with pytest.raises(ValueError, match="training history 9, but own items are known of 4 histories"):
        sampler.draw(batch_of([9], [[1]]), NoModel(), generator(0))
    batch = batch_of([0], [[1]])
    with pytest.raises(ValueError, match="this batch has no targets"):
        sampler.draw(evolve(batch, targets=None), NoModel(), generator(0))
    double = Targets(torch.tensor([0]), torch.tensor([[1, 2]]), torch.ones(1))
    with pytest.raises(ValueError, match=r"expected \(N,\), got \(1, 2\)"):
        sampler.draw(evolve(batch, targets=double), NoModel(), generator(0))
    with pytest.raises(ValueError, match="must be >= 1: 0"):
        Uniform(count=0)


def test_the_factory_takes_items_own_items_and_retired_ones_from_the_context() -> None:
    case = make_case()
    made = build(Uniform(), case.context())
    assert made.count == case.items - len(np.asarray(case.tokenizer.retired))
    with pytest.raises(ValueError, match=r"needs context\.seen"):
        build(Uniform(), evolve(case.context(), seen=None))
    bare = Context(facts=Facts(items=5))
    assert build(Uniform(exclude="none"), bare).count == 5
    with pytest.raises(ValueError, match="number of items is known"):
        build(Uniform(exclude="none"), Context())


def test_claims_and_facts() -> None:
    for mode in MODES:
        assert mode.claims() == SamplerClaims(log_q="exact", exclude=mode.exclude)
        assert mode.provides() == Facts(negatives=True, log_q="exact", exclude=mode.exclude)


def test_listing_does_not_import_torch() -> None:
    code = (
        "import sys, recore_samplers.plugin as p; list(p.recore_samplers()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
