"""When a row asks: the time of the event that each row of a batch predicts, for schemes that read it."""

from __future__ import annotations

import torch
from torch import Tensor

from recore.ragged import Batch, View


def asking_time(batch: Batch, view: View) -> Tensor:
    """The time of the event that each row of the view predicts, `(T,)`, int64 or float64 as times are.

    Where a row has a target, its time; else that of the next event of the same sequence, which is what such a
    row predicts wherever it does; else (a last row that predicts nothing) its own. In training the targets come
    from the log, in a query from `Queries.time`: a row's answer is the same in both.

    Raises ValueError where the batch has targets that do not say when: a query without a time.
    """
    own = view["time"]
    asking = own.clone()
    if view.events:
        same = view.sequence[1:] == view.sequence[:-1]
        asking[:-1] = own[1:].where(same, own[:-1])
    targets = batch.targets
    if targets is not None and len(targets):
        if targets.time is None:
            raise ValueError(
                "the time of the event to be predicted is not given: expected one for each query (`Query.time`) "
                "or event, got none (use `query_time: last-event`, which asks at the time of the last event)"
            )
        asking = asking.to(torch.promote_types(asking.dtype, targets.time.dtype))
        asking[targets.where] = targets.time.to(asking.dtype)
    return asking
