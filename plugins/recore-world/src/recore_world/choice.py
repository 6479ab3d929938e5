"""The choice within a slate: softmax over slots of the utility that `WorldOptions` writes out.

Legend: `n` states, `m` events behind each, `s` items of each.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from recore_world.activity import DAY
from recore_world.draws import Floats, Ints, fold, gumbel, key
from recore_world.items import Catalogue
from recore_world.options import WorldOptions
from recore_world.state import State


@frozen(eq=False)
class Choice:
    """How users of a world choose."""

    options: WorldOptions
    catalogue: Catalogue

    def utility(self, state: State, items: Ints) -> Floats:
        """U of `items (n, s)`: `(n, s)`, without the noise of the choice."""
        o, catalogue = self.options, self.catalogue
        topic = catalogue.topic[items]
        made = np.take_along_axis(state.taste, topic, axis=1) + o.appeal * catalogue.appeal[items]
        if o.recency == 0:
            return made
        for lag in range(1, min(o.memory, state.m) + 1):
            met = state.history[:, state.m - lag, None]
            weight = o.recency * self.weight(state, lag)[:, None]
            made += (topic == catalogue.topic[met]) * (o.continuation * weight - o.recency * o.fatigue)
            made += (items == catalogue.sequel[met]) * (o.succession * weight)
            if o.repeats:
                made -= (items == met) * (o.boredom * weight)
        return made

    def weight(self, state: State, lag: int) -> Floats:
        """w `(n,)` of the event `lag` ago."""
        if self.options.clock == "events":
            return np.full(len(state), self.options.decay ** (lag - 1))
        days: Floats = (state.time - state.past[:, state.m - lag]) / DAY
        made: Floats = self.options.decay**days
        return made

    def draw(self, state: State, utility: Floats) -> Ints:
        """The slot `(n,)` that each user chooses, given utilities `(n, S)`."""
        seed, replica = self.options.seed, self.options.replica
        bits = fold(fold(key(seed, replica, "choice"), state.user), state.m)
        noise = gumbel(fold(bits[:, None], np.arange(utility.shape[1])))
        chosen: Ints = np.argmax(utility + noise, axis=1)
        return chosen


def probabilities(utility: Floats) -> Floats:
    """The softmax `(n, S)` over slots."""
    made: Floats = np.exp(utility - utility.max(1, keepdims=True))
    made /= made.sum(1, keepdims=True)
    return made
