"""The exposure policy: what it says it draws with is what it draws with."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_world import State, World, WorldOptions

SMALL = WorldOptions(users=60, items=90, events=12.0, longest=30, slate=6, days=30, topics=5)

shares = st.tuples(*[st.integers(0, 5)] * 4).filter(lambda s: s[0] + s[1] > 0)


def states(world: World, m: int) -> State:
    return next(step.state for step in world.walk() if step.state.m == m)


def everything(world: World, state: State) -> np.ndarray:
    return np.tile(np.arange(len(world.catalogue)), (len(state), 1))


def slow_probability(world: World, state: State, row: int) -> np.ndarray:
    """q of all items for one state, item by item, from the formula."""
    options, catalogue, day = world.options, world.catalogue, int(state.day[row])
    history = state.history[row].tolist()
    alive = [i for i in range(len(catalogue)) if catalogue.born[i] <= day < catalogue.retired[i]]
    copies = {i: int(catalogue.copies[i]) for i in alive}
    looked_at = history[::-1][: options.window]
    raw = dict.fromkeys(alive, 0.0)
    for i in alive:
        raw[i] += options.explore / len(alive)
        popular = options.popular if history else 1 - options.explore
        raw[i] += popular * copies[i] / sum(copies.values())
        for h in looked_at:
            alike = [other for other in alive if catalogue.topic[other] == catalogue.topic[h]]
            if i in alike:
                raw[i] += options.personal / len(looked_at) * copies[i] / sum(copies[o] for o in alike)
            later = [o for o in range(h + 1, len(catalogue)) if catalogue.topic[o] == catalogue.topic[h]]
            if later and i == later[0]:
                raw[i] += options.sequels / len(looked_at)
    if not options.repeats:
        raw = {i: p for i, p in raw.items() if i not in history}
    made = np.zeros(len(catalogue))
    for i, p in raw.items():
        made[i] = p / sum(raw.values())
    return made


@settings(deadline=None, max_examples=25)
@given(
    shares=shares,
    window=st.integers(1, 5),
    m=st.integers(0, 14),
    repeats=st.booleans(),
    seed=st.integers(0, 3),
)
def test_propensities_follow_the_formula(
    shares: tuple[int, ...], window: int, m: int, repeats: bool, seed: int
) -> None:
    explore, popular, personal, sequels = (share / sum(shares) for share in shares)
    options = evolve(
        SMALL,
        explore=explore,
        popular=popular,
        personal=personal,
        sequels=sequels,
        window=window,
        repeats=repeats,
        seed=seed,
    )
    world = World(options)
    state = states(world, m).take(np.arange(3))
    q = world.exposure.probability(state, everything(world, state))
    assert np.abs(q.sum(1) - 1).max() < 1e-9
    for row in range(len(state)):
        assert np.abs(q[row] - slow_probability(world, state, row)).max() < 1e-9


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's statistic as a standard normal (Wilson and Hilferty 1931); cells expected below 5 are pooled."""
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = len(counts) - 1
    ratio = float(((counts - expected) ** 2 / expected).sum() / freedom)
    return float((ratio ** (1 / 3) - 1 + 2 / (9 * freedom)) / np.sqrt(2 / (9 * freedom)))


@pytest.mark.parametrize("m", [0, 1, 2, 9])
@pytest.mark.parametrize("repeats", [False, True])
def test_frequencies_match_propensities(m: int, repeats: bool) -> None:
    """200,000 draws for each of three users; one false alarm in 30,000 per user (z < 4)."""
    world = World(evolve(SMALL, repeats=repeats))
    state = states(world, m).take(np.arange(3))
    drawn = world.exposure.draw(state, 200_000, "test")
    q = world.exposure.probability(state, everything(world, state))
    for row in range(3):
        counts = np.bincount(drawn[row], minlength=len(world.catalogue))
        assert (counts[q[row] == 0] == 0).all()
        assert chi_square(counts, 200_000 * q[row]) < 4
        wrong = q[row].copy()
        wrong[np.argsort(-wrong)[:2]] *= 1.05, 0.95
        assert chi_square(counts, 200_000 * wrong / wrong.sum()) > 4


def test_slots_are_independent_of_each_other() -> None:
    """How often two slots hold the same item is Σ q²."""
    world = World(SMALL)
    state = states(world, 5).take(np.arange(1))
    drawn = world.exposure.draw(state, 400_000, "test").reshape(-1, 2)
    q = world.exposure.probability(state, everything(world, state))[0]
    same, expected = (drawn[:, 0] == drawn[:, 1]).mean(), (q**2).sum()
    assert abs(same - expected) < 4 * np.sqrt(expected * (1 - expected) / len(drawn))


def test_slates_that_are_offered_are_the_draws_that_are_described() -> None:
    """Over a whole log, an item of probability q is offered q · slots times: z of the total, by popularity."""
    world = World(evolve(SMALL, users=400))
    score = world.catalogue.appeal
    gap = spread = 0.0
    for step in world.walk():
        q = world.exposure.probability(step.state, everything(world, step.state))
        mean = (q * score).sum(1)
        gap += (score[step.slate].sum(1) - SMALL.slate * mean).sum()
        spread += (SMALL.slate * ((q * score**2).sum(1) - mean**2)).sum()
    assert abs(gap) < 4 * np.sqrt(spread)


def test_what_cannot_be_offered_has_probability_zero() -> None:
    world = World(SMALL)
    for step in world.walk():
        q = world.exposure.probability(step.state, everything(world, step.state))
        able = world.exposure.available(step.state, everything(world, step.state))
        assert (q[~able] == 0).all()
        assert (q[able] > 0).all()
        assert np.take_along_axis(able, step.slate, axis=1).all()


def test_a_world_of_more_items_than_marks_forgets_nobodys_past() -> None:
    """Beyond 1,024 items two may share a mark; the history decides."""
    options = evolve(
        SMALL,
        items=1500,
        users=200,
        longest=60,
        events=30.0,
        explore=0.0,
        popular=0.3,
        sequels=0.7,
        personal=0.0,
    )
    log = World(options).log()
    assert log.select("user", "item").is_unique().all()
    world = World(options)
    for m in (20, 40):
        state = states(world, m).take(np.arange(2))
        q = world.exposure.probability(state, everything(world, state))
        assert np.abs(q.sum(1) - 1).max() < 1e-9
        assert (np.take_along_axis(q, state.history, axis=1) == 0).all()
