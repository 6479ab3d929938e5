"""Rows of a table, with the backward pass that suits the device. Legend: `T` events, `V` rows, `d` width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]`, `(T, d)`. Deterministic on every device.

    On the CPU the backward pass of `index_select` is the fastest, and adds in the order of the rows; on
    other devices its additions race, and `embedding` sorts instead.
    """
    return table.index_select(0, index) if table.device.type == "cpu" else F.embedding(index, table)
