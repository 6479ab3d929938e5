"""What is true of some users just before a choice.

Legend: `n` users who all have `m` events behind them, `K` topics.
"""

from __future__ import annotations

from attrs import frozen

from recore_world.draws import Bools, Floats, Ints


@frozen(eq=False)
class State:
    """Users `(n,)` by number before event number `m` (from 0), at `time (n,)` in seconds, on `day (n,)` of the
    world. `history (n, m)` are item numbers, oldest first, `past (n, m)` their times. A recommender may look
    at these. `taste (n, K)` is latent."""

    user: Ints
    time: Ints
    day: Ints
    history: Ints
    past: Ints
    taste: Floats

    def __len__(self) -> int:
        return len(self.user)

    @property
    def m(self) -> int:
        """How many events the users have behind them."""
        return int(self.history.shape[1])

    def take(self, rows: Ints | Bools) -> State:
        """The state of some of these users."""
        return State(
            self.user[rows],
            self.time[rows],
            self.day[rows],
            self.history[rows],
            self.past[rows],
            self.taste[rows],
        )
