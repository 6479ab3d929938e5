"""The times that schemes read: of keys, and of the rows that ask. Legend: `T` events."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recore.asking import asking_time
from recore.ragged import Batch, View


def key_times(view: View, name: str) -> Tensor:
    """When each event happened, `(T,)`, int64 or float64. Raises ValueError where nobody says, or no number."""
    if "time" not in view.columns:
        raise ValueError(
            f"position {name!r} reads the column 'time', and these events have none: give the time of each event, "
            "or use a position that reads no times"
        )
    return view.remember("checked times", lambda: _finite(view["time"], name))


def row_times(
    batch: Batch, view: View, query_time: Literal["none", "last-event", "target"], name: str
) -> Tensor:
    """When each row asks, `(T,)`: at its own event, or at the event to be predicted. Raises ValueError as
    `key_times` does, and where nobody says when the predicted event happens."""
    own = key_times(view, name)
    return _finite(asking_time(batch, view), name) if query_time == "target" else own


def _finite(time: Tensor, name: str) -> Tensor:
    if time.is_floating_point() and not bool(torch.isfinite(time).all()):
        raise ValueError(f"position {name!r} got times that are not finite numbers")
    return time
