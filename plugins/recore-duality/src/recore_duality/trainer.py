"""The trainer `duality`: the standard one, and which losses a step drives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from recore_training.standard import StandardTrainer
from torch import Tensor

from recore import Context
from recore.contracts import StepReport, Training
from recore.ragged import Batch
from recore_duality.options import Duality


class Paced:
    """A `Training` of which each step drives some losses only. The step is known from the batches' epoch and
    from the count that `backward` is given, so nothing here has to be saved."""

    def __init__(self, training: Training, options: Duality, start: int) -> None:
        self.training, self.options = training, options
        self._epoch, self._step = 0, start

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """All of them."""
        return self.training.parameters

    def batches(self, epoch: int) -> int:
        """As many."""
        return self.training.batches(epoch)

    def draw(self, epoch: int, number: int) -> Sequence[Batch]:
        """The same."""
        self._epoch = epoch
        return self.training.draw(epoch, number)

    def weights(self, batches: Sequence[Batch]) -> Mapping[str, Tensor]:
        """Those of the losses that this step drives."""
        found, options, step = self.training.weights(batches), self.options, self._step
        turn = None if options.turns is None else options.turns[step % len(options.turns)]
        return {
            name: weight
            for name, weight in found.items()
            if (turn is None or name in turn) and self._epoch + 1 >= options.from_epoch.get(name, 1)
        }

    def backward(
        self, batches: Sequence[Batch], weights: Mapping[str, Tensor], step: int
    ) -> Mapping[str, tuple[float, float]]:
        """The same."""
        self._step = step
        return self.training.backward(batches, weights, step)

    def stepped(self, batches: Sequence[Batch], step: int) -> None:
        """The same."""
        self.training.stepped(batches, step)


class DualityTrainer(StandardTrainer):
    """Implements `recore.contracts.Trainer`; see `recore_duality.options.Duality`."""

    options: Duality

    def steps(self, training: Training) -> Iterator[StepReport]:
        """As the standard trainer's, over the losses of each step."""
        state: dict[str, Any] = self.state_dict()
        return super().steps(Paced(training, self.options, state["step"]))


def build(options: Duality, context: Context) -> DualityTrainer:
    """A trainer without parameters yet; `steps` is given them."""
    return DualityTrainer(options)
