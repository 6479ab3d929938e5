"""The split `leave-last`: each user's last event tests, the one before it validates, the rest trains.

Legend: `u` users, `n` users with targets.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from recore import Context
from recore.contracts import Holdout, SplitParts
from recore.data import Interactions
from recore_data.options import LeaveLast

Ids = npt.NDArray[np.int64]

SHORTEST: Final = 3  # events of a user with targets: one to train on, one to validate, one to test
NAME: Final = (
    "leave-last: of each user with 3 events or more the last tests and the one before validates; other users' "
    "futures are in training"
)


def build(options: LeaveLast, context: Context) -> LeaveLastSplit:
    """The split; nothing to set."""
    return LeaveLastSplit()


class LeaveLastSplit:
    """Keeps `recore.contracts.Split`."""

    def parts(self, interactions: Interactions) -> SplitParts:
        """Rows of training, and targets with their histories, which begin with the user's first event."""
        offsets = interactions.offsets()
        long = np.diff(offsets) >= SHORTEST
        start, end = offsets[:-1][long], offsets[1:][long]
        validation, test = Holdout(end - 2, start, end - 2), Holdout(end - 1, start, end - 1)
        held = np.zeros(len(interactions), dtype=np.bool_)
        held[validation.target] = held[test.target] = True
        train = np.flatnonzero(~held).astype(np.int64)
        counts = {
            "users with fewer than 3 events, all of which train": int((~long).sum()),
            **_targets("validation", interactions.events, train, validation),
            **_targets("test", interactions.events, train, test),
        }
        return SplitParts(train=train, validation=validation, test=test, name=NAME, counts=counts)


def _targets(part: str, events: pl.DataFrame, train: Ids, held: Holdout) -> dict[str, int]:
    """How many targets are cold, repeated, or tied with the last event of their history."""
    rows = events.select("user", "item", row=pl.int_range(pl.len()))
    targets = rows[held.target]
    cold = targets.join(rows[train].select("item").unique(), on="item", how="anti").height
    # A history begins with the user's first event, so an item is in it if it came before at all.
    before = rows.join(targets, on=["user", "item"], suffix="_target")
    repeated = before.filter(pl.col("row") < pl.col("row_target"))["row_target"].n_unique()
    counts = {
        f"{part} targets not in training (cold)": cold,
        f"{part} targets already in their history": repeated,
    }
    if "time" in events.columns:
        time = events["time"]
        tied = time.gather(held.target) == time.gather(held.target - 1)
        counts[f"{part} targets at the time of an event of their history"] = int(tied.sum())
    return counts
