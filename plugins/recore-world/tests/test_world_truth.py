"""The truth: the value of policies, and a bound that no ranking beats."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_world import Clairvoyant, Logged, Offer, Policy, Popular, State, World, WorldOptions
from recore_world.choice import probabilities
from recore_world.truth import item_probabilities, oracle_ndcg

from recore import DataError

SMALL = WorldOptions(users=300, items=90, events=12.0, longest=30, slate=6, days=30, topics=5)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


@frozen(eq=False)
class Uneven:
    """A policy that looks at histories: two items after the last one met, most often the second."""

    def offer(self, state: State) -> Offer:
        last = state.history[:, -1] if state.m else np.zeros(len(state), dtype=np.int64)
        items = np.stack([(last + 1) % SMALL.items, (last + 2) % SMALL.items], axis=1)
        return Offer(items, np.tile([0.3, 0.6], (len(state), 1)))


def by_simulation(world: World, policy: Policy, seed: int) -> tuple[float, float]:
    """The share of events at which a slot filled by the policy is the one chosen, with its standard error:
    the first slot is replaced, and the user chooses once more."""
    generator = np.random.default_rng(seed)
    hits, total = np.zeros(world.options.users), np.zeros(world.options.users)
    for step in world.walk():
        for _ in range(20):
            offer = policy.offer(step.state)
            at = (np.cumsum(offer.probabilities, axis=1) < generator.random((len(step.slot), 1))).sum(1)
            none = at == offer.items.shape[1]
            item = np.take_along_axis(offer.items, np.minimum(at, offer.items.shape[1] - 1)[:, None], axis=1)
            none |= ~world.exposure.available(step.state, item)[:, 0]
            utility = np.concatenate([world.choice.utility(step.state, item), step.utility[:, 1:]], axis=1)
            chosen = (utility + generator.gumbel(size=utility.shape)).argmax(1)
            hits[step.state.user] += (chosen == 0) & ~none
            total[step.state.user] += 1
    mean = hits.sum() / total.sum()
    return mean, np.sqrt(((hits - mean * total) ** 2).sum()) / total.sum()


@pytest.mark.parametrize("name", ["uneven", "popular", "clairvoyant"])
def test_the_true_value_is_what_a_long_simulation_finds(name: str, world: World) -> None:
    policies: dict[str, Policy] = {
        "uneven": Uneven(),
        "popular": Popular(world, 3),
        "clairvoyant": Clairvoyant(world, 2),
    }
    policy = policies[name]
    value = world.true_value(policy)
    mean, error = by_simulation(world, policy, 5)
    # Both go over the same users, so their own spread is in neither difference: this is generous.
    assert value.mean == pytest.approx(mean, abs=4 * error)
    assert 0 < value.standard_error < 0.1 * value.mean
    assert value.events == len(world)


def test_the_value_of_the_logged_policy_is_one_slot_of_the_slate(world: World) -> None:
    value = world.true_value(Logged(world), draws=4)
    assert value.mean == pytest.approx(1 / SMALL.slate, abs=4 * value.standard_error)
    assert value.standard_error < 0.002


def test_policies_stand_in_the_order_they_should(world: World) -> None:
    users = range(100)
    best = world.true_value(Clairvoyant(world, 1), users=users).mean
    assert best > world.true_value(Clairvoyant(world, 5), users=users).mean
    assert (
        world.true_value(Clairvoyant(world, 5), users=users).mean
        > world.true_value(Popular(world, 5), users=users).mean
    )


def test_inverse_propensities_estimate_the_true_value_and_the_naive_rate_does_not() -> None:
    """With the propensities of the log alone: π(chosen) / q(chosen) / S, in 12 independent logs (replicas)."""
    inside = naive = 0
    truth = World(evolve(SMALL, replica=100)).true_value(Popular(World(SMALL), 10), draws=2, replicas=12)
    assert truth.users == 12 * SMALL.users
    value = truth.mean
    for replica in range(12):
        world = World(evolve(SMALL, replica=replica))
        ratio, hits = np.zeros(SMALL.users), np.zeros(SMALL.users)
        for step in world.walk():
            offer = Popular(world, 10).offer(step.state)
            item = step.item[:, None]
            pi = (offer.probabilities * (offer.items == item)).sum(1)
            ratio[step.state.user] += pi / world.exposure.probability(step.state, item)[:, 0]
            hits[step.state.user] += pi > 0
        ratio /= SMALL.slate
        total = len(world)
        estimate = ratio.sum() / total
        error = np.sqrt(((ratio - estimate * world.counts) ** 2).sum()) / total
        inside += abs(estimate - value) < 1.96 * error
        naive += abs(hits.sum() / total / 10 - value) < 1.96 * error
    assert inside >= 9  # of 12 at 95%: fewer once in 2,000 times
    assert naive <= 2


@settings(deadline=None, max_examples=60)
@given(
    data=st.lists(st.tuples(st.integers(0, 5), st.integers(-40, 40)), min_size=1, max_size=9),
    k=st.integers(1, 10),
    order=st.randoms(use_true_random=False),
)
def test_no_ranking_of_a_slate_beats_the_oracle(data: list[tuple[int, int]], k: int, order: object) -> None:
    """Against every chosen item weighed by its probability, in float64, for any ranking of the items."""
    levels = {item: level / 10 for item, level in data}
    slate = np.array([[item for item, _ in data]])
    utility = np.array([[levels[item] for item, _ in data]])
    weights = dict.fromkeys(levels, 0.0)
    total = sum(np.exp(levels[item]) for item, _ in data)
    for item, _ in data:
        weights[item] += np.exp(levels[item]) / total
    summed = item_probabilities(slate, utility)[0]
    assert summed.sum() == pytest.approx(1)
    assert sorted(p for p in summed if p > 0) == pytest.approx(sorted(weights.values()))
    best, _ = oracle_ndcg(slate, utility, np.zeros(1, dtype=np.int64), k)
    ranking = list(weights)
    order.shuffle(ranking)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    reached = sum(weights[item] / np.log2(2 + place) for place, item in enumerate(ranking[:k]))
    assert reached <= best[0] + 1e-12
    ideal = sorted(weights.values(), reverse=True)
    assert best[0] == pytest.approx(sum(p / np.log2(2 + place) for place, p in enumerate(ideal[:k])))


def test_the_oracle_bounds_a_scorer_of_the_same_slates_and_agrees_with_what_happened(world: World) -> None:
    oracle = world.latent_oracle(3, events="all")
    assert oracle.name == "ndcg@3[latent-oracle]"
    assert oracle.events == len(world)
    assert oracle.realised == pytest.approx(oracle.expected, abs=4 * oracle.standard_error)
    hand_made = 0.0
    for step in world.walk():
        p = item_probabilities(step.slate, step.utility)
        # Knows tastes and slates, and forgets the past.
        scores = np.take_along_axis(step.state.taste, world.catalogue.topic[step.slate], axis=1)
        scores[p == 0] = -np.inf
        top = np.take_along_axis(p, np.argsort(-scores, axis=1)[:, :3], axis=1)
        hand_made += (top / np.log2([2, 3, 4])).sum()
    assert 0.5 * oracle.expected < hand_made / len(world) < oracle.expected


def test_the_oracle_of_some_events_is_that_of_the_same_events_among_all(world: World) -> None:
    last = world.latent_oracle(5)
    assert last.events == SMALL.users
    assert world.latent_oracle(5, events=world.offsets[1:] - 1) == last
    two = world.latent_oracle(5, events=np.array([3, 40]))
    expected = []
    for step in world.walk():
        rows = np.isin(world.offsets[step.state.user] + step.state.m, [3, 40])
        p = np.sort(item_probabilities(step.slate[rows], step.utility[rows]), axis=1)[:, ::-1]
        expected += list((p[:, :5] / np.log2(np.arange(2, 7))).sum(1))
    assert two.expected == pytest.approx(np.mean(expected))


def test_one_slot_is_chosen_whatever_it_holds() -> None:
    alone = World(evolve(SMALL, slate=1, users=20))
    assert alone.true_value(Logged(alone)).mean == pytest.approx(1)
    assert alone.latent_oracle(10, events="all").expected == pytest.approx(1)


def test_a_policy_that_the_log_hardly_overlaps_has_a_value_all_the_same() -> None:
    """Where almost only the most popular items are offered, the least popular one is worth something still."""
    options = evolve(SMALL, users=50, explore=0.0, popular=1.0, personal=0.0, sequels=0.0, popularity=1.5)
    world = World(evolve(options, births=0.0, retirements=0.0))
    last = int(world.catalogue.copies.argmin())

    @frozen
    class Rarest:
        def offer(self, state: State) -> Offer:
            return Offer(np.full((len(state), 1), last), np.ones((len(state), 1)))

    assert world.true_value(Rarest()).mean > 0.01


def test_offers_that_are_none_are_refused(world: World) -> None:
    @frozen
    class Wrong:
        items: list[int]
        share: float

        def offer(self, state: State) -> Offer:
            items = np.tile(np.array(self.items), (len(state), 1))
            return Offer(items, np.full(items.shape, self.share))

    with pytest.raises(DataError) as error:
        world.true_value(Wrong([90, 3], 0.7), users=[0])
    assert str(error.value).splitlines() == [
        "policy Wrong: expected items from 0 to 89, got others",
        "policy Wrong: expected probabilities ≥ 0 that sum to at most 1 per state",
    ]
    with pytest.raises(
        DataError, match=r"expected `draws` of at least 1, got 0\n.*`replicas` of at least 1, got 0"
    ):
        world.true_value(Uneven(), draws=0, replicas=0)
    with pytest.raises(DataError, match="expected k of at least 1, got 0"):
        world.latent_oracle(0)
    with pytest.raises(DataError, match="expected events 'last', 'all' or event ids, got 'first'"):
        world.latent_oracle(5, events="first")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(DataError, match=r"expected event ids from 0 to \d+, got none or others"):
        world.latent_oracle(5, events=np.array([len(world)]))


def test_choice_probabilities_are_a_softmax() -> None:
    p = probabilities(np.array([[0.0, np.log(3.0), 800.0 - 800.0]]))
    assert p[0] == pytest.approx([0.2, 0.6, 0.2])
