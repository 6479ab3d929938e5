"""The split `leave-last`: each user's last event tests, the one before it validates, the rest trains.

Legend: `u` users, `n` users with targets.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from attrs import frozen

from recore import Context
from recore.contracts import Holdout, SplitParts
from recore.data import Interactions
from recore.digest import hash_rows
from recore_data.options import LeaveLast

Ids = npt.NDArray[np.int64]

SHORTEST: Final = 3  # events of a user with targets: one to train on, one to validate, one to test
LEAKS: Final = "other users' futures are in training"
NAME: Final = (
    f"leave-last: of each user with 3 events or more the last tests and the one before validates; {LEAKS}"
)


def build(options: LeaveLast, context: Context) -> LeaveLastSplit:
    """The split."""
    return LeaveLastSplit(options.validate)


@frozen
class LeaveLastSplit:
    """Keeps `recore.contracts.Split`. `validate`: how many users have a validation target; None: all."""

    validate: int | None = None

    @property
    def name(self) -> str:
        """What was done, for the protocol card."""
        if self.validate is None:
            return NAME
        return (
            "leave-last: of each user with 3 events or more the last tests, and of the "
            f"{self.validate:,} of them whose ids hash lowest the one before validates; {LEAKS}"
        )

    def parts(self, interactions: Interactions) -> SplitParts:
        """Rows of training, and targets with their histories, which begin with the user's first event."""
        offsets = interactions.offsets()
        long = np.diff(offsets) >= SHORTEST
        start, end = offsets[:-1][long], offsets[1:][long]
        drawn = self._drawn(interactions.user_ids().filter(pl.Series(long)))
        validation = Holdout(end[drawn] - 2, start[drawn], end[drawn] - 2)
        test = Holdout(end - 1, start, end - 1)
        held = np.zeros(len(interactions), dtype=np.bool_)
        held[validation.target] = held[test.target] = True
        train = np.flatnonzero(~held).astype(np.int64)
        counts = {
            "users with fewer than 3 events, all of which train": int((~long).sum()),
            **_targets("validation", interactions.events, train, validation),
            **_targets("test", interactions.events, train, test),
        }
        return SplitParts(train=train, validation=validation, test=test, name=self.name, counts=counts)

    def _drawn(self, users: pl.Series) -> Ids:
        """The places, ascending, of those who validate among `users (n,)`: which they are does not depend on the
        order of the log."""
        if self.validate is None or self.validate >= len(users):
            return np.arange(len(users))
        table = pl.DataFrame({"user": users})
        order = table.select(pl.arg_sort_by(pl.Series(hash_rows(table, ["user"])), "user")).to_series()
        return np.sort(order.head(self.validate).to_numpy().astype(np.int64))


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
