"""Which items users have had, fast: a table of marks, checked against the history where two items share a mark.

Legend: `n` users with `m` items behind each, `p` questions.
"""

from __future__ import annotations

import numpy as np

from recore_world.draws import Bools, Ints

COLUMNS = 1024


class Had:
    """Answers for histories `(n, m)`. Up to `COLUMNS` items in the world each has a mark of its own."""

    def __init__(self, history: Ints, items: int) -> None:
        self.history = history
        self.columns = min(items, COLUMNS)
        self.exact = items <= COLUMNS
        self.marks = np.zeros((len(history), self.columns), dtype=np.bool_)
        np.put_along_axis(self.marks, history % self.columns, True, axis=1)

    def __call__(self, row: Ints, item: Ints) -> Bools:
        """Whether user `row` has had `item`; shapes broadcast. −1 is an item nobody has had."""
        row, item = np.broadcast_arrays(row, item)
        found: Bools = self.marks[row, item % self.columns] & (item >= 0)
        if not self.exact and found.any():
            at = np.nonzero(found)
            found[at] = self._surely(row[at], item[at])
        return found

    def _surely(self, row: Ints, item: Ints) -> Bools:
        """By comparing with every place of the history `(p,)`."""
        found = np.zeros(len(row), dtype=np.bool_)
        for place in range(self.history.shape[1]):
            found |= item == self.history[row, place]
        return found
