"""Policies whose value can be asked: what one would put on a slot of the slate, given a state.

A policy is anything with `offer(state) → Offer`. One that stands for a recommender looks at `state.user`,
`state.time`, `state.history` and `state.past` only; the latent rest is for oracles.

Legend: `n` states, `s` items of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from attrs import frozen

from recore_world.draws import Floats, Ints
from recore_world.state import State

if TYPE_CHECKING:
    from recore_world.world import World


@frozen(eq=False)
class Offer:
    """A distribution over items for each state: `items (n, s)` by number, none twice in a row of the table, and
    `probabilities (n, s)`, which sum to at most 1 (what is missing offers nothing)."""

    items: Ints
    probabilities: Floats


@runtime_checkable
class Policy(Protocol):
    """What a policy would put on one slot."""

    def offer(self, state: State) -> Offer: ...


@frozen(eq=False)
class Logged:
    """The exposure policy itself. Its value is 1/S exactly."""

    world: World

    def offer(self, state: State) -> Offer:
        """Every item, with its q."""
        everything = _everything(self.world, state)
        return Offer(everything, self.world.exposure.probability(state, everything))


@frozen(eq=False)
class Popular:
    """One of the `count` most popular items of those alive, each as likely."""

    world: World
    count: int = 1

    def offer(self, state: State) -> Offer:
        """The first `count`, by popularity among those alive."""
        everything = _everything(self.world, state)
        alive = self.world.catalogue.alive(everything, state.day[:, None])
        scores = np.where(alive, self.world.catalogue.appeal[everything], -np.inf)
        return _best(scores, self.count)


@frozen(eq=False)
class Clairvoyant:
    """One of the `count` items of largest true utility that can be offered, each as likely: it sees tastes. No
    other policy that fills a slot from `count` items evenly has a larger value."""

    world: World
    count: int = 1

    def offer(self, state: State) -> Offer:
        """The first `count`, by utility."""
        everything = _everything(self.world, state)
        scores = self.world.choice.utility(state, everything)
        scores[~self.world.exposure.available(state, everything)] = -np.inf
        return _best(scores, self.count)


def _everything(world: World, state: State) -> Ints:
    return np.tile(np.arange(len(world.catalogue)), (len(state), 1))


def _best(scores: Floats, count: int) -> Offer:
    top = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return Offer(top, np.full(top.shape, 1 / count))
