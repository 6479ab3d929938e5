"""Tastes and choices: the formula, what the past does to it, and what switches it off."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_world import State, World, WorldOptions
from recore_world.choice import Choice, probabilities

SMALL = WorldOptions(users=80, items=120, events=14.0, longest=40, slate=8, days=30, topics=5)


def slow_utility(world: World, state: State, row: int, item: int) -> float:
    """U of one item for one user, from the formula."""
    o, catalogue = world.options, world.catalogue
    made = state.taste[row, catalogue.topic[item]] + o.appeal * catalogue.appeal[item]
    past, times = state.history[row].tolist()[::-1], state.past[row].tolist()[::-1]
    for lag, (met, when) in enumerate(zip(past, times, strict=True), start=1):
        if lag > o.memory:
            break
        days = (state.time[row] - when) / 86_400
        weight = o.decay ** (lag - 1) if o.clock == "events" else o.decay**days
        if catalogue.topic[item] == catalogue.topic[met]:
            made += o.recency * (o.continuation * weight - o.fatigue)
        if catalogue.sequel[met] == item:
            made += o.recency * o.succession * weight
        if o.repeats and item == met:
            made -= o.recency * o.boredom * weight
    return float(made)


@settings(deadline=None, max_examples=20)
@given(
    m=st.integers(0, 15),
    recency=st.sampled_from([0.0, 0.5, 2.0]),
    decay=st.floats(0.1, 1),
    clock=st.sampled_from(["events", "days"]),
    memory=st.integers(1, 20),
    repeats=st.booleans(),
)
def test_utilities_follow_the_formula(
    m: int, recency: float, decay: float, clock: Literal["events", "days"], memory: int, repeats: bool
) -> None:
    options = evolve(SMALL, recency=recency, decay=decay, clock=clock, memory=memory, repeats=repeats)
    world = World(options)
    step = next(
        step for step in world.walk(range(6)) if step.state.m == min(m, int(world.counts[:6].max()) - 1)
    )
    for row in range(len(step.state)):
        for slot in range(SMALL.slate):
            expected = slow_utility(world, step.state, row, int(step.slate[row, slot]))
            assert step.utility[row, slot] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_choices_follow_the_softmax() -> None:
    """Over a log, slots of probability p are chosen p of the times: chi-square over twenty bins of p."""
    world = World(evolve(SMALL, users=600))
    chosen, expected, spread = np.zeros(20), np.zeros(20), np.zeros(20)
    for step in world.walk():
        p = probabilities(step.utility)
        bins = np.minimum((p * 20).astype(int), 19)
        hit = np.arange(SMALL.slate) == step.slot[:, None]
        np.add.at(chosen, bins, hit)
        np.add.at(expected, bins, p)
        np.add.at(spread, bins, p * (1 - p))
    z = (chosen - expected)[spread > 10] / np.sqrt(spread[spread > 10])
    assert len(z) >= 10
    assert np.abs(z).max() < 4


def uplift(options: WorldOptions, lag: int) -> float:
    """z of how often a sequel of the item `lag` ago is chosen, against what tastes and popularity alone say."""
    world = World(options)
    blind = Choice(evolve(options, recency=0.0), world.catalogue)
    gap = spread = 0.0
    for step in world.walk():
        if step.state.m < lag:
            continue
        p = probabilities(blind.utility(step.state, step.slate))
        met = step.state.history[:, step.state.m - lag, None]
        sequel = step.slate == world.catalogue.sequel[met]
        share = (p * sequel).sum(1)
        gap += (sequel[np.arange(len(p)), step.slot] - share).sum()
        spread += (share * (1 - share)).sum()
    return float(gap / np.sqrt(spread))


def test_recency_zero_switches_the_past_off_and_more_of_it_tells() -> None:
    options = evolve(SMALL, users=400, tastes=0.5)
    assert abs(uplift(evolve(options, recency=0.0), 1)) < 4
    weak, strong = uplift(evolve(options, recency=0.5), 1), uplift(evolve(options, recency=1.0), 1)
    assert 4 < weak < strong


def test_what_is_longer_ago_pulls_less() -> None:
    options = evolve(SMALL, users=400, tastes=0.5, decay=0.5, window=6, sequels=0.3, personal=0.15)
    by_lag = [uplift(options, lag) for lag in (1, 3, 6)]
    assert by_lag == sorted(by_lag, reverse=True)
    assert by_lag[0] > 2 * by_lag[2]


def test_recency_zero_makes_utilities_blind_to_the_order_and_content_of_the_past() -> None:
    world = World(evolve(SMALL, recency=0.0))
    step = next(step for step in world.walk() if step.state.m == 9)
    turned = evolve(step.state, history=step.state.history[:, ::-1] * 0)
    assert (world.choice.utility(turned, step.slate) == step.utility).all()
    mindful = Choice(evolve(SMALL, recency=1.0), world.catalogue)
    turned = evolve(step.state, history=step.state.history[:, ::-1])
    assert (mindful.utility(turned, step.slate) != mindful.utility(step.state, step.slate)).mean() > 0.1


def tastes(options: WorldOptions) -> list[np.ndarray]:
    """Per step the tastes of the users still there, who are a prefix of those of the step before."""
    return [step.state.taste for step in World(options).walk()]


def test_without_drift_tastes_stay_and_with_it_they_move_but_keep_their_spread() -> None:
    still = tastes(evolve(SMALL, drift=0.0))
    assert all((late == still[0][: len(late)]).all() for late in still)
    options = evolve(SMALL, users=3000, drift=0.2, shortest=14, events=14.0, longest=14, tastes=1.5)
    moving = tastes(options)
    gone = [1 - np.corrcoef(late.ravel(), moving[0].ravel())[0, 1] for late in moving]
    assert gone[1] < gone[6] < gone[13]
    assert gone[13] > 0.3
    # Standard error of a standard deviation of 15,000 values: 0.6%.
    assert all(abs(late.std() / 1.5 - 1) < 0.03 for late in moving)
