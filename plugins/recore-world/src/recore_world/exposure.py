"""The exposure policy: what a slate offers, drawn, and how likely, exactly.

A slot holds item i with probability

    q(i) = raw(i) · 1{i can be offered} / Σ_{i' can be offered} raw(i')
    raw(i) = explore / A + popular · c_i / C
             + 1/w · Σ_{j ≤ w} [ personal · 1{topic of i = topic of h_j} · c_i / C_topic + sequels · 1{i is the sequel of h_j} ]

with A the number of items alive today, c_i the whole-numbered popularity, C its sum over the items alive today
(C_topic: of that topic), h_j the item met j events ago and w = min(`window`, events so far). Alive items can be
offered, but without `repeats` only those that the user has not had. Nothing in it depends on items of the future.

The slate is drawn by redrawing what cannot be offered, so no probability is ever divided out in the drawing;
`probability` states it in closed form. Each slot is independent of the others.

Legend: `n` states, `m` events behind each, `S` slots, `D` days, `K` topics.
"""  # noqa: E501  (a formula)

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from attrs import frozen

from recore_world.draws import Bits, Bools, Floats, Ints, below, fold, key, uniform
from recore_world.had import Had
from recore_world.items import Catalogue
from recore_world.options import WorldOptions
from recore_world.state import State

_ROUND = 1 << 20  # how far apart the counters of redraws stand; slates are shorter


@frozen(eq=False)
class Exposure:
    """The policy of a world, with its tables. `by_birth` and `by_topic` hold each item as often as its
    `copies`, in order of id, and of topic and id: a place in them, drawn evenly, is an item drawn by popularity.

    `items_born (D,)`, `copies_born (D,)` and `topic_born (D, K)` say how much of the tables is born on a day;
    `items_alive`, `copies_alive` and `topic_alive` leave out what has retired.
    """

    options: WorldOptions
    catalogue: Catalogue
    by_birth: npt.NDArray[np.int32]
    by_topic: npt.NDArray[np.int32]
    topic_start: Ints
    items_born: Ints
    copies_born: Ints
    topic_born: Ints
    items_alive: Ints
    copies_alive: Ints
    topic_alive: Ints

    # ---- probabilities ------------------------------------------------------------------------------------

    def shares(self, m: int) -> tuple[float, float, float, float]:
        """What `explore`, `popular`, `personal`, `sequels` are with `m` events behind."""
        o = self.options
        if m == 0:
            return o.explore, o.popular + o.personal + o.sequels, 0.0, 0.0
        return o.explore, o.popular, o.personal, o.sequels

    def probability(self, state: State, items: Ints) -> Floats:
        """q of `items (n, s)`: `(n, s)`, the probability that a slot of the slate holds them."""
        raw = np.where(self.available(state, items), self._raw(state, items), 0.0)
        return raw / self._offerable(state)[:, None]

    def available(self, state: State, items: Ints) -> Bools:
        """Which of `items (n, s)` can be offered at all: alive, and not had where nothing repeats."""
        able = self.catalogue.alive(items, state.day[:, None])
        if self.options.repeats or not state.m:
            return able
        return able & ~self._had(state)(np.arange(len(state))[:, None], items)

    def _had(self, state: State) -> Had:
        return Had(state.history, len(self.catalogue))

    def _raw(self, state: State, items: Ints) -> Floats:
        catalogue, day, m = self.catalogue, state.day, state.m
        explore, popular, personal, sequels = self.shares(m)
        copies = catalogue.copies[items]
        raw: Floats = (explore / self.items_alive[day])[:, None] + copies * (
            popular / self.copies_alive[day]
        )[:, None]
        anchors = self._anchors(state)
        for anchor in anchors:
            topic = catalogue.topic[anchor]
            inside = np.maximum(self.topic_alive[day, topic], 1) * len(anchors)
            raw += (catalogue.topic[items] == topic[:, None]) * copies * (personal / inside)[:, None]
            raw += (items == catalogue.sequel[anchor][:, None]) * (sequels / len(anchors))
        raw[~catalogue.alive(items, day[:, None])] = 0
        return raw

    def _anchors(self, state: State) -> list[Ints]:
        """The last items that `personal` and `sequels` look at, each `(n,)`."""
        return [state.history[:, state.m - 1 - lag] for lag in range(min(self.options.window, state.m))]

    def _offerable(self, state: State) -> Floats:
        """The sum of raw(i) over all items that can be offered `(n,)`, from what cannot."""
        _, _, personal, sequels = self.shares(state.m)
        left = np.ones(len(state))
        anchors = self._anchors(state)
        for anchor in anchors:
            topic, sequel = self.catalogue.topic[anchor], self.catalogue.sequel[anchor]
            left -= personal / len(anchors) * (self.topic_alive[state.day, topic] == 0)
            left -= sequels / len(anchors) * ~((sequel >= 0) & self.catalogue.alive(sequel, state.day))
        if not self.options.repeats and state.m:
            # A running sum goes from left to right in any block; a plain sum need not.
            left -= np.cumsum(self._raw(state, state.history), axis=1)[:, -1]
        return left

    # ---- drawing ------------------------------------------------------------------------------------------

    def draw(self, state: State, slots: int, purpose: str | int = "slate") -> Ints:
        """Items `(n, slots)`, each an independent draw from q. The same purpose, user, event and slot give
        the same item."""
        seed, replica = self.options.seed, self.options.replica
        bits = fold(fold(key(seed, replica, "exposure", purpose), state.user), state.m)
        had = None if self.options.repeats or not state.m else self._had(state)
        row = np.repeat(np.arange(len(state)), slots)
        counter = np.tile(np.arange(slots), len(state))
        slate = np.empty(len(row), dtype=np.int64)
        source = np.zeros(len(row), dtype=np.int8)
        anchor = np.zeros(len(row), dtype=np.int64)
        where, fresh = np.arange(len(row)), np.ones(len(row), dtype=np.bool_)
        while len(where):
            users, now = row[where], fold(bits[row[where]], counter[where])
            again = where[fresh]
            source[again], anchor[again] = self._source(state, users[fresh], now[fresh])
            item, dead, fresh = self._item(state.day[users], source[where], anchor[where], fold(now, 2))
            slate[where] = item
            if had is not None:
                seen = had(users, item)
                dead |= seen
                fresh |= seen
            where, fresh = where[dead], fresh[dead]
            counter[where] += _ROUND
        return slate.reshape(len(state), slots)

    def _source(self, state: State, row: Ints, now: Bits) -> tuple[npt.NDArray[np.int8], Ints]:
        """Which share each slot comes from (0 to 3), and the item that it looks at; both `(p,)`."""
        if not state.m:
            explore, _, _, _ = self.shares(0)
            return (uniform(fold(now, 0)) >= explore).astype(np.int8), np.zeros(len(row), dtype=np.int64)
        drawn = uniform(fold(now, 0))
        source = np.zeros(len(row), dtype=np.int8)
        for bound in np.cumsum(self.shares(state.m)[:3]):
            source += drawn >= bound
        lag = below(fold(now, 1), min(self.options.window, state.m))
        return source, state.history[row, state.m - 1 - lag]

    def _item(
        self, day: Ints, source: npt.NDArray[np.int8], anchor: Ints, bits: Bits
    ) -> tuple[Ints, Bools, Bools]:
        """An item `(p,)` for each slot, which of them cannot be offered, and which of those must choose their
        source again. What has retired is drawn again from the same source, so that shares are shares of what
        is alive."""
        catalogue, item, fresh = (
            self.catalogue,
            np.empty(len(day), dtype=np.int64),
            np.zeros(len(day), np.bool_),
        )
        here = np.flatnonzero(source == 0)
        item[here] = below(bits[here], self.items_born[day[here]])
        here = np.flatnonzero(source == 1)
        item[here] = self.by_birth[below(bits[here], self.copies_born[day[here]])]
        here = np.flatnonzero(source == 2)
        topic, today = catalogue.topic[anchor[here]], day[here]
        place = below(bits[here], self.topic_born[today, topic])
        item[here] = self.by_topic[self.topic_start[topic] + place]
        fresh[here] = self.topic_alive[today, topic] == 0
        here = np.flatnonzero(source == 3)
        item[here] = catalogue.sequel[anchor[here]]
        fresh[here] = True
        dead = (item < 0) | ~catalogue.alive(item, day)
        return item, dead, fresh & dead


def make(options: WorldOptions, catalogue: Catalogue) -> Exposure:
    """The policy's tables."""
    ids = np.arange(len(catalogue))
    order = np.lexsort((ids, catalogue.topic))
    per_topic = np.bincount(catalogue.topic, weights=catalogue.copies, minlength=options.topics)
    one = np.ones(len(catalogue), dtype=np.int64)
    nothing = np.zeros(len(catalogue), dtype=np.int64)

    def born_and_alive(group: Ints, weight: Ints, groups: int) -> tuple[Ints, Ints]:
        born = _by_day(catalogue.born, group, weight, options.days, groups)
        return born, born - _by_day(catalogue.retired, group, weight, options.days, groups)

    items_born, items_alive = born_and_alive(nothing, one, 1)
    copies_born, copies_alive = born_and_alive(nothing, catalogue.copies, 1)
    topic_born, topic_alive = born_and_alive(catalogue.topic, catalogue.copies, options.topics)
    return Exposure(
        options,
        catalogue,
        np.repeat(ids, catalogue.copies).astype(np.int32),
        np.repeat(order, catalogue.copies[order]).astype(np.int32),
        np.concatenate([[0], np.cumsum(per_topic)[:-1]]).astype(np.int64),
        items_born[:, 0],
        copies_born[:, 0],
        topic_born,
        items_alive[:, 0],
        copies_alive[:, 0],
        topic_alive,
    )


def _by_day(day: Ints, group: Ints, weight: Ints, days: int, groups: int) -> Ints:
    """Sums `(D, groups)` of the weights whose day has come by each day."""
    cell = np.minimum(day, days) * groups + group
    sums = np.bincount(cell, weights=weight, minlength=(days + 1) * groups)
    made: Ints = np.cumsum(sums.reshape(days + 1, groups)[:days], axis=0).astype(np.int64)
    return made
