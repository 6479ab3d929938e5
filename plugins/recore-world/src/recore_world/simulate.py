"""Users walk through the world, a block of them at a time, one event each at every step.

What happens at event m is drawn from the state before it: later events cannot reach earlier ones. Users do not
meet, so any block, of any size, gives each user the same events.

Legend: `n` users who have an event number `m`, `S` slots.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import frozen

from recore_world import activity, tastes
from recore_world.activity import BEGINNING, DAY
from recore_world.choice import Choice
from recore_world.draws import Floats, Ints
from recore_world.exposure import Exposure
from recore_world.state import State


@frozen(eq=False)
class Step:
    """Event number `state.m` of `n` users: the state before it, the `slate (n, S)` that was offered, its
    utilities `(n, S)`, the chosen slot `(n,)`; and `index (n,)`, the users' places in the walk's block."""

    state: State
    index: Ints
    slate: Ints
    utility: Floats
    slot: Ints

    @property
    def item(self) -> Ints:
        """The items chosen `(n,)`."""
        chosen: Ints = self.slate[np.arange(len(self.slot)), self.slot]
        return chosen


def walk(
    exposure: Exposure, choice: Choice, users: Ints, counts: Ints, steps: int | None = None
) -> Iterator[Step]:
    """The steps of `users (n,)`, who have `counts (n,)` events (all, or the first `steps`)."""
    options = exposure.options
    if not len(users):
        return
    # Those with most events first: who is still there is a prefix, and arrays shrink by slicing.
    order = np.argsort(-counts, kind="stable")
    user, left = users[order], counts[order]
    time = activity.times(options, user, left)
    first = np.cumsum(left) - left
    longest = int(left[0]) if steps is None else min(int(left[0]), steps)
    history = np.empty((len(user), longest), dtype=np.int64)
    past = np.empty_like(history)
    taste = tastes.first(options, user)
    for m in range(longest):
        n = int(np.searchsorted(-left, -m, side="left"))
        now = time[first[:n] + m]
        if m:
            taste = tastes.later(options, taste[:n], user[:n], m, now - past[:n, m - 1])
        state = State(user[:n], now, (now - BEGINNING) // DAY, history[:n, :m], past[:n, :m], taste)
        slate = exposure.draw(state, options.slate)
        utility = choice.utility(state, slate)
        step = Step(state, order[:n], slate, utility, choice.draw(state, utility))
        yield step
        history[:n, m] = step.item
        past[:n, m] = now
