"""The learning rate as a function of the step and of the share of training done."""

from __future__ import annotations

import math
from collections.abc import Callable

from recore_training.options import Standard

DECAY: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1.0 + math.cos(math.pi * done)) / 2,
}


def learning_rate(options: Standard, step: int, done: float) -> float:
    """`learning_rate · min(1, step / warm_up) · decay(done)`: `step` from 1, `done` in [0, 1)."""
    warm = min(1.0, step / options.warm_up) if options.warm_up else 1.0
    return options.learning_rate * warm * DECAY[options.schedule](done)
