"""Models and optimisers that follow items which come and go: what `recore update` asks of a run's parts.

ResizableModel, ResizableTrainer   what a model and a trainer offer to be updated
follow                             optimiser state that follows a table whose rows moved
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from recore.contracts.data import RowMap


@runtime_checkable
class ResizableModel(Protocol):
    """A `Model` whose tables can follow the tokenizer. Its `load` fills the model itself."""

    def resize(self, rows: RowMap, users: RowMap | None = None) -> Mapping[str, RowMap]:
        """Follow the tokenizer's map of tokens, and that of the users where the model numbers them. Gives, per
        parameter that was replaced (its name as in `Training.parameters`), how its rows moved. All other rows keep
        their bits."""
        ...


@runtime_checkable
class ResizableTrainer(Protocol):
    """A `Trainer` whose optimiser's state can follow a model into another run."""

    def resize(self, name: str, rows: RowMap) -> None:
        """Parameter `name` was replaced by one whose rows moved: its state follows (`follow`)."""
        ...

    def restart(self) -> None:
        """Go on with the optimiser's state as it is, from the first epoch, with nothing judged yet."""
        ...


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
