"""What both losses do: look at the targets, and report sums.

Legend: `N` predictions, `V` items.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from recore.contracts import LossValue, Table
from recore.errors import DataError
from recore.ragged import Targets


def scaled(ctx: Any, grad: Tensor, others: int) -> tuple[Tensor | None, ...]:
    """The backward pass of a loss whose gradients to hidden states, table and bias were formed in the forward
    pass and saved: they are only scaled. None for its `others` inputs."""
    to_hidden, to_weight, to_bias = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        to_hidden * grad if wanted[0] else None,
        to_weight * grad if wanted[1] else None,
        to_bias * grad if wanted[2] and to_bias is not None else None,
        *(None,) * others,
    )


class Summed:
    """The half of `recore.contracts.Loss` that is alike: the weight is `Σ_n w_n`."""

    name = ""

    def weight(self, targets: Targets) -> Tensor:
        """`Σ_n w_n`, a scalar."""
        return targets.weight.sum()

    def value(self, total: Tensor, targets: Targets) -> LossValue:
        """`total` with its weight, and both for the log."""
        weight = self.weight(targets)
        return LossValue(total, weight, {self.name: (total.detach(), weight)})


def target_ids(name: str, targets: Targets, table: Table) -> Tensor:
    """The item ids of the targets `(N,)`.

    Raises ValueError for several ids a target, DataError for retired targets: their loss would be infinite.
    """
    if targets.id.dim() != 1:
        raise ValueError(
            f"loss {name!r} takes one item id for each prediction, expected (N,), got {tuple(targets.id.shape)}"
        )
    if table.retired is not None and bool((gone := table.retired[targets.id]).any()):
        raise DataError(
            f"loss {name!r}: {int(gone.sum())} of {len(targets)} targets are retired items, the first with id "
            f"{int(targets.id[gone][0])}, expected items that can still be recommended (a retired item may "
            "stay in histories but is no target)"
        )
    return targets.id
