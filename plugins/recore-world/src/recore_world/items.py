"""The catalogue: topics, popularity, creators, births and retirements, chains of sequels.

Legend: `V` items in order of birth, `K` topics, `D` days.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from recore_world.draws import Bits, Bools, Floats, Ints, below, fold, key, uniform
from recore_world.options import WorldOptions

# How often an item of mean weight stands in the tables that are drawn from; weights are rounded to this grain.
GRAIN = 16
HOME = 0.8  # share of a creator's items in the creator's own topic


@frozen(eq=False)
class Catalogue:
    """All items `(V,)`. An item is alive on days `born` ≤ day < `retired`; ids rise with birth.

    `copies` is popularity in whole numbers (the policy draws by it), `appeal` its logarithm, standardised.
    `sequel` is the next item of the topic, −1 at a chain's end; `number` the place in the chain from 1.
    `creator` are user numbers.
    """

    topic: Ints
    copies: Ints
    appeal: Floats
    creator: Ints
    born: Ints
    retired: Ints
    sequel: Ints
    number: Ints

    def __len__(self) -> int:
        return len(self.topic)

    def alive(self, items: Ints, day: Ints) -> Bools:
        """Which items are alive; shapes broadcast."""
        living: Bools = (self.born[items] <= day) & (day < self.retired[items])
        return living


def make(options: WorldOptions) -> Catalogue:
    """The catalogue of a world; it depends on `seed` and not on `replica`."""
    count, days = options.items, options.days
    ids = np.arange(count)

    def bits(purpose: str) -> Bits:
        return fold(key(options.seed, "items", purpose), ids)

    later = 1 + below(bits("born")[: int(count * options.births)], max(days - 1, 1))
    born = np.sort(np.concatenate([np.zeros(count - len(later), dtype=np.int64), later]))
    retired = _retirements(options, born, bits("retires"), bits("retired"))
    ranks = np.argsort(np.argsort(bits("popularity"), kind="stable"), kind="stable") + 1.0
    weights = ranks**-options.popularity
    copies = np.maximum(1, np.rint(weights / weights.mean() * GRAIN)).astype(np.int64)
    logs = np.log(weights)
    appeal = (logs - logs.mean()) / max(float(logs.std()), 1e-12)
    creator, topic = _makers(options, ids)
    sequel, number = _chains(topic)
    return Catalogue(topic, copies, appeal, creator, born, retired, sequel, number)


def _retirements(
    options: WorldOptions,
    born: Ints,
    who: Bits,
    when: Bits,
) -> Ints:
    """Days of retirement `(V,)`, `days` for never: a lifetime of a tenth of the world, then any day."""
    retired = np.full(len(born), options.days)
    chosen = np.argsort(who, kind="stable")[: int(len(born) * options.retirements)]
    first = born[chosen] + max(1, options.days // 10)
    room = options.days - first
    day = first + below(when[chosen], np.maximum(room, 1))
    retired[chosen] = np.where(room > 0, day, options.days)
    return retired


def _makers(options: WorldOptions, ids: Ints) -> tuple[Ints, Ints]:
    """Who made each item, and its topic: a few creators make most, mostly in their home topic."""
    everybody = np.argsort(fold(key(options.seed, "creators"), np.arange(options.users)), kind="stable")
    makers = everybody[: max(1, round(options.users * options.creators))]
    # The square skews: a tenth of the creators make about a third of the items.
    rank = (uniform(fold(key(options.seed, "maker"), ids)) ** 2 * len(makers)).astype(np.int64)
    creator = makers[rank]
    cumulative = np.cumsum((1.0 + np.arange(options.topics)) ** -0.5)
    cumulative /= cumulative[-1]

    def topics(purpose: str, of: Ints) -> Ints:
        drawn = np.searchsorted(cumulative, uniform(fold(key(options.seed, purpose), of)))
        return np.minimum(drawn, options.topics - 1)

    at_home = uniform(fold(key(options.seed, "at-home"), ids)) < HOME
    return creator, np.where(at_home, topics("home", creator), topics("topic", ids))


def _chains(topic: Ints) -> tuple[Ints, Ints]:
    """The sequel of each item (−1: none) and its number in its topic's chain, from 1; both `(V,)`."""
    order = np.argsort(topic, kind="stable")
    same = topic[order][1:] == topic[order][:-1]
    sequel = np.full(len(topic), -1)
    sequel[order[:-1][same]] = order[1:][same]
    begins = np.flatnonzero(np.concatenate([[True], ~same]))
    number = np.empty(len(topic), dtype=np.int64)
    lengths = np.diff(np.append(begins, len(topic)))
    number[order] = np.arange(len(topic)) - np.repeat(begins, lengths) + 1
    return sequel, number
