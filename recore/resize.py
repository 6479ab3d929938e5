"""Optimiser state that follows a table whose rows moved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from recore.contracts.data import RowMap


def follow(state: Mapping[str, Tensor], rows: RowMap) -> dict[str, Tensor]:
    """The state of one parameter, by name of the quantity, after its rows moved: row `r` of each tensor is
    its old row `rows.old[r]`, and zero where that is −1. Scalars, such as a count of steps, stay as they are.

    A fresh row thus starts with the moments of a row that was never updated, but with the step count of the
    table, so that Adam does not correct its first moments for their bias: with betas (0.9, 0.999) and a large
    count its first update is (1 − 0.9) / √(1 − 0.999) ≈ 3.2 learning rates long, where a new table's is one.

    Raises ValueError when a tensor has fewer rows than the map refers to.
    """
    old = torch.from_numpy(rows.old)
    kept = old >= 0
    needed = int(old.max()) + 1 if len(old) else 0
    moved = {}
    for name, tensor in state.items():
        if tensor.dim() == 0:
            moved[name] = tensor.clone()
            continue
        if tensor.shape[0] < needed:
            raise ValueError(
                f"the state {name!r} has {tensor.shape[0]} rows, but the map refers to row {needed - 1}"
            )
        made = tensor.new_zeros(len(old), *tensor.shape[1:])
        made[kept.to(tensor.device)] = tensor[old[kept].to(tensor.device)]
        moved[name] = made
    return moved
