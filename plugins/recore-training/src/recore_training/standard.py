"""The trainer `standard`: a generator of optimiser steps whose state is whole at every report.

Epochs count from 0 and batches within an epoch from 0, as `Training.draw` takes them; steps count from 1.
The place in the state is that of the next batch to be drawn: after the last batch of an epoch it is the first
of the next, so a state saved before or after `judge` goes on alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from recore import Context, DataError
from recore.contracts import RowMap, StepReport, Training, Verdict
from recore.errors import DivergenceError, Problem, RunFolderError
from recore.resize import follow
from recore_training.gradients import clip, gradients, norm, spoiled
from recore_training.moments import Moments, make_optimiser, moments_of, put_moments
from recore_training.options import Standard
from recore_training.schedule import learning_rate

NAMED = 5  # parameters named in an error
PLACE = ("epoch", "batch", "step", "best", "best_epoch", "waited", "stopped")


def build(options: Standard, context: Context) -> StandardTrainer:
    """A trainer without parameters yet; `steps` is given them."""
    return StandardTrainer(options)


class StandardTrainer:
    """Implements `recore.contracts.Trainer`."""

    def __init__(self, options: Standard) -> None:
        self.options = options
        self._epoch = 0
        self._batch = 0
        self._steps = 0
        self._best: float | None = None
        self._best_epoch = 0
        self._waited = 0
        self._stopped = False
        self._moments: Moments = {}  # of a loaded state, until an optimiser has taken them over
        # The parameters that the optimiser holds: the model's own may have been replaced since.
        self._live: tuple[torch.optim.Optimizer, dict[str, torch.nn.Parameter]] | None = None
        self._within = False

    @property
    def metric(self) -> str:
        """The validation metric that chooses the epoch."""
        return self.options.metric

    @property
    def last_epoch(self) -> int:
        """The most epochs."""
        return self.options.epochs

    def steps(self, training: Training) -> Iterator[StepReport]:
        """Steps from where the state stands to the end, or to `judge`'s stop.

        Raises DivergenceError for a gradient that is not finite, before it touches a parameter; DataError for
        an epoch without batches; RunFolderError when a loaded state is of other parameters.
        """
        parameters = dict(training.parameters)
        optimiser = make_optimiser(self.options, parameters)
        if self._moments:
            put_moments(optimiser, parameters, self._moments)
        self._moments = {}
        self._live = live = (optimiser, parameters)
        while not self._stopped and self._epoch < self.options.epochs:
            self._within = True
            report = self._step(optimiser, training)
            self._within = False
            yield report
            if self._live is not live:
                raise RuntimeError(
                    "the optimiser was replaced (`resize`, or `steps` again): call `steps` anew"
                )

    def _step(self, optimiser: torch.optim.Optimizer, training: Training) -> StepReport:
        options, epoch, first = self.options, self._epoch, self._batch
        count = training.batches(epoch)
        if count < 1:
            raise DataError(
                f"trainer 'standard': epoch {epoch + 1} has no batch, expected at least one (are all training "
                "histories too short to have a target?)"
            )
        last = min(first + options.accumulate, count)
        # Micro-batches go to one call, which numbers them: each has its own random numbers, and one weight.
        batches = [batch for number in range(first, last) for batch in training.draw(epoch, number)]
        step = self._steps + 1
        rate = learning_rate(options, step, (epoch + first / count) / options.epochs)
        optimiser.zero_grad(set_to_none=True)
        losses = training.backward(batches, training.weights(batches), step)
        length = self._checked_norm(training, step, rate)
        if options.clip is not None:
            clip(gradients(training.parameters.values()), length, options.clip)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        training.stepped(batches, step)
        ended = last == count
        self._steps = step
        self._epoch, self._batch = (epoch + 1, 0) if ended else (epoch, last)
        return StepReport(
            step=step,
            epoch=epoch,
            losses={name: total / weight if weight else 0.0 for name, (total, weight) in losses.items()},
            events=sum(view.events for batch in batches for view in batch.views.values()),
            learning_rate=rate,
            gradient_norm=length,
            epoch_ended=ended,
        )

    def _checked_norm(self, training: Training, step: int, rate: float) -> float:
        length = norm(gradients(training.parameters.values()))
        if math.isfinite(length):
            return length
        names = spoiled(training.parameters)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        where = ", ".join(names[:NAMED]) + more if names else "none alone; their squares overflow together"
        raise DivergenceError(
            Problem(
                f"trainer 'standard': at step {step} (epoch {self._epoch + 1}) the norm of the gradient is "
                f"{length}, expected a finite number; not finite in: {where}",
                hint=f"lower learning_rate, now {rate:g}, lengthen warm_up, or set clip; the parameters are "
                "those of before the step",
            )
        )

    def judge(self, value: float) -> Verdict:
        """Hear the validation figure of the epoch that ended; ties and NaN are not better."""
        best = value > (-math.inf if self._best is None else self._best)
        if best:
            self._best, self._best_epoch, self._waited = float(value), self._epoch, 0
        else:
            self._waited += 1
        patience = self.options.patience
        self._stopped = patience is not None and self._waited >= patience
        if not self._stopped:
            return Verdict(best, stop=False)
        held = (
            "was never a number" if self._best is None else f"is {self._best:.4f} of epoch {self._best_epoch}"
        )
        epochs = "epoch" if self._waited == 1 else "epochs"
        return Verdict(
            best, stop=True, reason=f"no better {self.metric} for {self._waited} {epochs}: the best {held}"
        )

    def state_dict(self) -> dict[str, Any]:
        """The place, what was best, and a copy of the optimiser's state by parameter name.

        Raises RuntimeError within a step, when the state is not whole.
        """
        if self._within:
            raise RuntimeError("the trainer's state was asked for within a step, or after one that failed")
        moments = moments_of(*self._live) if self._live else self._moments
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "step": self._steps,
            "best": self._best,
            "best_epoch": self._best_epoch,
            "waited": self._waited,
            "stopped": self._stopped,
            "optimiser": {name: dict(held) for name, held in moments.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state, before `steps`. Raises RunFolderError when it is not one of this trainer."""
        if self._live is not None:
            raise RuntimeError("a state must be loaded before `steps`")
        missing = [key for key in (*PLACE, "optimiser") if key not in state]
        if missing:
            raise RunFolderError(
                f"trainer 'standard': the checkpoint's trainer state has no {', '.join(missing)} (it may be of "
                "another trainer)"
            )
        self._epoch, self._batch, self._steps = state["epoch"], state["batch"], state["step"]
        self._best, self._best_epoch = state["best"], state["best_epoch"]
        self._waited, self._stopped = state["waited"], state["stopped"]
        self._moments = {
            name: {key: value.detach().clone() for key, value in held.items()}
            for name, held in state["optimiser"].items()
        }

    def restart(self) -> None:
        """Go on with the optimiser's state as it is, its count of steps included, from the first epoch, with
        nothing judged yet: schedule and warm-up begin anew. Before `steps`."""
        if self._live is not None:
            raise RuntimeError("a trainer must be restarted before `steps`")
        self._epoch = self._batch = self._steps = 0
        self._best, self._best_epoch, self._waited, self._stopped = None, 0, 0, False

    def resize(self, name: str, rows: RowMap) -> None:
        """Parameter `name` was replaced by one whose rows moved: its state follows (fresh rows start at zero).
        The next call of `steps` takes it up; a generator still running ends with an error.

        Raises ValueError for a name without state, once there is any.
        """
        if self._live is not None:
            self._moments = moments_of(*self._live)
            self._live = None
        if not self._moments:
            return
        if name not in self._moments:
            raise ValueError(
                f"trainer 'standard' holds no state of {name!r}; it does of {', '.join(sorted(self._moments))}"
            )
        self._moments[name] = follow(self._moments[name], rows)
