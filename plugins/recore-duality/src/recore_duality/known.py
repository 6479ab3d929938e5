"""What is known of all users at a moment: their states after strictly earlier events, and how long ago that was.

Legend: `T` events of a log, `U` users in the numbering of the table that scores, `d` width.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recore.contracts import Tokenizer
from recore.data import Interactions
from recore.ragged import View, slices
from recore.timeline import Timeline

Ids = npt.NDArray[np.int64]


class Known:
    """Looks up users of a log whose times order events across users."""

    def __init__(self, log: Interactions, users: Tokenizer) -> None:
        self._log = log
        time: npt.NDArray[Any] = log.events["time"].to_numpy()
        self.timeline = Timeline(log.offsets(), time)
        self._sorted = np.sort(time)
        # How many events of the whole log are not later than each event.
        self._until: Ids = np.searchsorted(self._sorted, time, side="right")
        # The log's own place of each user of the table; −1: no event.
        ids = users.item_ids(log.user_ids())
        self._group: Ids = np.full(users.items, -1, dtype=np.int64)
        self._group[ids[ids >= 0]] = np.flatnonzero(ids >= 0)

    def _until_moment(self, moment: Any) -> tuple[Ids, Ids]:
        """For each user `(U,)` the rows of their events strictly before `moment` (None: the end of the log): the
        first, and the one after the last."""
        group = np.maximum(self._group, 0)
        begin, stop = self.timeline.offsets[:-1][group], self.timeline.offsets[1:][group]
        if moment is not None:
            stop = self.timeline.stop(group, np.full(len(group), moment))
        return begin, np.where(self._group >= 0, stop, begin)

    def rows(self, moment: Any) -> tuple[Ids, Ids]:
        """For each user `(U,)` the row of the last event strictly before `moment` (None: the end of the log),
        −1 without one, and how many events of the log are later than it and before `moment` (−1 without one)."""
        begin, stop = self._until_moment(moment)
        last = np.where(stop > begin, stop - 1, -1)
        before = (
            len(self._sorted) if moment is None else int(np.searchsorted(self._sorted, moment, side="left"))
        )
        return last, np.where(last >= 0, before - self._until[last], -1)

    def counts(self, moment: Any) -> Ids:
        """For each user `(U,)` how many events stand strictly before `moment` (None: the end of the log)."""
        begin, stop = self._until_moment(moment)
        return stop - begin

    def came(self, event: Tensor) -> Tensor:
        """For events of the log by their ids `(n,)` the row after which their user was in the state they came in,
        or −1."""
        ids, rows = self._came
        return rows[torch.searchsorted(ids, event)]

    @cached_property
    def _came(self) -> tuple[Tensor, Tensor]:
        """The log's event ids, ascending, and what `came` says of each."""
        ids, order = torch.from_numpy(self._log.events["event"].to_numpy().copy()).sort()
        return ids, torch.from_numpy(self.before(self._log))[order]

    def before(self, log: Interactions) -> Ids:
        """For each event of the log `(T,)` its user's last row strictly before it, or −1."""
        group = np.repeat(np.arange(len(self.timeline.offsets) - 1), np.diff(self.timeline.offsets))
        return self.timeline.last(group, log.events["time"].to_numpy())


def windows(view: View, width: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of at most `width` events that overlap by half, so that every event stands in one with at least
    half a window before it, or with all there is: `start`, `stop` `(W,)`, and the first row of each `(W,)` whose
    state is read."""
    first, stop = view.offsets[:-1], view.offsets[1:]
    if width is None or not len(view) or int(view.lengths.max()) <= width:
        return first, stop, first
    half = width // 2
    count = 1 + ((view.lengths - width).clamp(min=0) + half - 1) // half
    owner = torch.repeat_interleave(torch.arange(len(view)), count)
    place = torch.arange(len(owner)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    start = first[owner] + place * half
    end = torch.minimum(start + width, stop[owner])
    read = torch.where(place == 0, start, start + width - half)
    return start, end, read


def read_rows(start: Tensor, stop: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """Of windows laid end to end, the rows that are read, and the rows of the log that they are."""
    inside, offsets = slices(start, stop)
    owner = torch.repeat_interleave(torch.arange(len(start)), offsets.diff())
    keep = (inside >= read[owner]).nonzero().squeeze(-1)
    return keep, inside[keep]
