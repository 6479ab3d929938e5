"""What only the world knows: the value of a policy, and the best figures that a ranking could reach.

**The value of a policy π.** Let π fill one slot of the slate, the logged policy q the other S − 1, while users go
on as logged. The value is the probability that π's slot is the one chosen, averaged over the events of users:

    value(π) = E[ Σ_i π(i | state) · e^U(i) / (e^U(i) + Σ_{others} e^U(other)) ]

An item that is not alive, or that the user has had where nothing repeats, is never chosen. The sum over π's items
is exact; the expectation over the others is a mean of `draws` slates drawn for the purpose, that over users and
their events a mean over the users asked for, and the standard error covers both (by users, as a ratio of sums).
Slots being alike, the value of q itself is 1/S, and from a log of chosen items with their propensities

    value(π) = 1/S · E[ π(chosen | state) / q(chosen | state) ]

which is what inverse propensity weighting estimates (Horvitz and Thompson 1952), where π offers nothing that q
never offers.

**The latent oracle.** Who knows tastes, the formula of the choice and the slate ranks the slate by its true
probabilities p, and everything else below. No ranking has a larger expected NDCG@k, since discounts and p then fall
together: Σ_r p_(r) / log2(1 + r), r = 1 … k. It is an upper bound, and not one that histories could reach: they
tell neither tastes nor slates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from attrs import frozen

from recore import DataError, Problem
from recore_world.choice import probabilities
from recore_world.draws import Bools, Floats, Ints
from recore_world.policies import Offer, Policy
from recore_world.simulate import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recore_world.world import World


@frozen
class Value:
    """A mean over `events` of `users`, with its standard error."""

    mean: float
    standard_error: float
    events: int
    users: int


@frozen
class Oracle:
    """`expected`: the mean over `events` of the oracle's expected NDCG@k given state and slate, exact.
    `realised`: its NDCG@k against what was then chosen, with its standard error over users."""

    k: int
    expected: float
    realised: float
    standard_error: float
    events: int

    @property
    def name(self) -> str:
        """As on records."""
        return f"ndcg@{self.k}[latent-oracle]"


def true_value(
    world: World,
    policy: Policy,
    users: Sequence[int] | Ints | None,
    draws: int,
    replicas: int,
    block: int,
) -> Value:
    """See the module; `draws` slates of others per event, `replicas` populations from the world's own on."""
    wrong = [
        f"`{name}` of at least 1, got {n}" for name, n in (("draws", draws), ("replicas", replicas)) if n < 1
    ]
    if wrong:
        raise DataError([Problem(f"true_value: expected {line}") for line in wrong])
    sums = np.zeros((2, replicas, world.options.users))  # values, events
    for number in range(replicas):
        other = world.replica(number)
        for step in other.walk(users, block=block):
            sums[0, number, step.state.user] += slot_value(other, policy, step, draws)
            sums[1, number, step.state.user] += 1
    total, count = sums[:, sums[1] > 0]
    mean, error = _ratio(total, count)
    return Value(mean, error, int(count.sum()), len(count))


def slot_value(world: World, policy: Policy, step: Step, draws: int) -> Floats:
    """How likely a slot filled by the policy is chosen, at the states of one step `(n,)`."""
    offer, state = policy.offer(step.state), step.state
    _check(offer, len(state), len(world.catalogue), policy)
    utility = world.choice.utility(state, offer.items)
    weight = offer.probabilities * world.exposure.available(state, offer.items)
    size = world.options.slate - 1
    others = world.exposure.draw(state, size * draws, "others")
    rest = world.choice.utility(state, others).reshape(len(state), draws, size)
    value = np.zeros(len(state))
    for draw in range(draws):
        value += (weight * _beats(utility, rest[:, draw])).sum(1) / draws
    return value


def _beats(utility: Floats, rest: Floats) -> Floats:
    """e^U / (e^U + Σ e^rest) for utilities `(n, s)` and the rest of the slate `(n, S − 1)`."""
    if not rest.shape[1]:
        return np.ones_like(utility)
    top = rest.max(1, keepdims=True)
    log_rest = top + np.log(np.exp(rest - top).sum(1, keepdims=True))
    chosen: Floats = 1 / (1 + np.exp(np.clip(log_rest - utility, -700, 700)))
    return chosen


def _check(offer: Offer, states: int, items: int, policy: Policy) -> None:
    """An offer is a distribution over items that exist."""
    who, problems = type(policy).__name__, []
    if offer.items.shape != offer.probabilities.shape or offer.items.ndim != 2 or len(offer.items) != states:
        raise DataError(
            f"policy {who}: expected items and probabilities of one shape ({states}, s), "
            f"got {offer.items.shape} and {offer.probabilities.shape}"
        )
    if offer.items.size and not (offer.items.min() >= 0 and offer.items.max() < items):
        problems.append(Problem(f"policy {who}: expected items from 0 to {items - 1}, got others"))
    if not (offer.probabilities >= 0).all() or (offer.probabilities.sum(1) > 1 + 1e-9).any():
        problems.append(Problem(f"policy {who}: expected probabilities ≥ 0 that sum to at most 1 per state"))
    if problems:
        raise DataError(problems)


def latent_oracle(
    world: World, k: int, events: Literal["last", "all"] | npt.NDArray[np.int64], block: int
) -> Oracle:
    """See the module."""
    if k < 1:
        raise DataError(f"latent_oracle: expected k of at least 1, got {k}")
    tally = Tally(world, k, events)
    for step in world.walk(tally.users, block=block):
        tally.add(step)
    return tally.oracle()


class Tally:
    """Adds up the oracle over the steps of a walk, which must reach the events asked for, those of `users`."""

    def __init__(self, world: World, k: int, events: Literal["last", "all"] | npt.NDArray[np.int64]) -> None:
        self.k = k
        self.offsets = world.offsets
        self.users, self.wanted = _wanted(world, events)
        self.sums = np.zeros((3, world.options.users))  # expected, realised, events

    def add(self, step: Step) -> None:
        """Count what is asked for in one step."""
        rows = np.flatnonzero(self.wanted[self.offsets[step.state.user] + step.state.m])
        if len(rows):
            best, met = oracle_ndcg(step.slate[rows], step.utility[rows], step.slot[rows], self.k)
            self.sums[:, step.state.user[rows]] += np.stack([best, met, np.ones(len(rows))])

    def oracle(self) -> Oracle:
        """The figures."""
        expected, realised, count = self.sums[:, self.sums[2] > 0]
        mean, _ = _ratio(expected, count)
        got, error = _ratio(realised, count)
        return Oracle(self.k, mean, got, error, int(count.sum()))


def oracle_ndcg(slate: Ints, utility: Floats, slot: Ints, k: int) -> tuple[Floats, Floats]:
    """Expected NDCG@k of the oracle, and its NDCG@k for the slot chosen, both `(n,)`, from slates `(n, S)` with
    their utilities and slots `(n,)`. An item in several slots counts once, with their summed probability."""
    p = item_probabilities(slate, utility)
    order = np.argsort(-p, axis=1, kind="stable")
    discounts = 1 / np.log2(2.0 + np.arange(slate.shape[1]))
    discounts[k:] = 0
    expected: Floats = (np.take_along_axis(p, order, axis=1) * discounts).sum(1)
    item = np.take_along_axis(slate, slot[:, None], axis=1)
    # The first slot of an item carries its probability, so it comes before the item's other slots.
    place = (np.take_along_axis(slate, order, axis=1) == item).argmax(1)
    return expected, discounts[place]


def item_probabilities(slate: Ints, utility: Floats) -> Floats:
    """How likely each item is chosen `(n, S)`, at its first slot; 0 at further slots of the same item."""
    same = slate[:, :, None] == slate[:, None, :]
    summed = (same * probabilities(utility)[:, None, :]).sum(2)
    again = (same & np.tri(slate.shape[1], k=-1, dtype=np.bool_)).any(2)
    return np.where(again, 0.0, summed)


def _wanted(world: World, events: str | npt.NDArray[np.int64]) -> tuple[Ints, Bools]:
    """The users to walk with, and which events `(T,)` count."""
    everybody = np.arange(world.options.users)
    wanted = np.zeros(len(world), dtype=np.bool_)
    if isinstance(events, str):
        if events not in ("last", "all"):
            raise DataError(f"latent_oracle: expected events 'last', 'all' or event ids, got {events!r}")
        wanted[slice(None) if events == "all" else world.offsets[1:] - 1] = True
        return everybody, wanted
    ids = np.asarray(events, dtype=np.int64)
    if not len(ids) or ids.min() < 0 or ids.max() >= len(world):
        raise DataError(f"latent_oracle: expected event ids from 0 to {len(world) - 1}, got none or others")
    wanted[ids] = True
    return np.unique(np.searchsorted(world.offsets, ids, side="right") - 1), wanted


def _ratio(total: Floats, count: Floats) -> tuple[float, float]:
    """Σ total / Σ count, and its standard error with users as the independent units (linearised)."""
    mean = total.sum() / count.sum()
    n = len(total)
    error = np.sqrt(n / max(n - 1, 1) * ((total - mean * count) ** 2).sum()) / count.sum()
    return float(mean), float(error)
