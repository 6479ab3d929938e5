"""What is strictly earlier: for each group of an ordered log, the events before a time. Ties are not earlier.

Legend: `T` rows of the log, `G` groups (users, or items of a transposed log), `n` questions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Times = npt.NDArray[Any]


class Timeline:
    """Looks up times in a log of `offsets (G + 1,)` whose `time (T,)` never falls within a group."""

    def __init__(self, offsets: Ids, time: Times) -> None:
        self.offsets = offsets
        self.distinct, rank = np.unique(time, return_inverse=True)
        # One ascending key for all groups: a search in one array then answers for all of them at once.
        self._width = len(self.distinct) + 1
        group = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self._keys: Ids = group * self._width + rank

    def stop(self, group: Ids, time: Times) -> Ids:
        """The first row `(n,)` of each group that is not strictly earlier than `time (n,)`: its events before
        are the rows `offsets[group]` to there."""
        earlier = np.searchsorted(self.distinct, time, side="left")
        found: Ids = np.searchsorted(self._keys, group * self._width + earlier, side="left").astype(np.int64)
        return found

    def last(self, group: Ids, time: Times) -> Ids:
        """The last row `(n,)` of each group that is strictly earlier than `time (n,)`, or −1."""
        stop = self.stop(group, time)
        return np.where(stop > self.offsets[group], stop - 1, -1)
