"""Tastes over topics: normal at first, then a stationary walk (Ornstein and Uhlenbeck 1930) in time."""

from __future__ import annotations

import numpy as np

from recore_world.activity import DAY
from recore_world.draws import Floats, Ints, fold, key, normal
from recore_world.options import WorldOptions


def first(options: WorldOptions, users: Ints) -> Floats:
    """Tastes `(n, K)` of users `(n,)` at their first event."""
    return options.tastes * _noise(options, users, 0)


def later(options: WorldOptions, taste: Floats, users: Ints, m: int, seconds: Ints) -> Floats:
    """Tastes `(n, K)` at event number `m`, `seconds (n,)` after the one before:
    ρ·θ + √(1 − ρ²)·tastes·ξ, ρ = exp(−drift·days)."""
    if options.drift == 0:
        return taste
    kept = np.exp(-options.drift * seconds / DAY)[:, None]
    moved: Floats = kept * taste + np.sqrt(1 - kept**2) * options.tastes * _noise(options, users, m)
    return moved


def _noise(options: WorldOptions, users: Ints, m: int) -> Floats:
    bits = fold(fold(key(options.seed, options.replica, "tastes"), users), m)
    return normal(fold(bits[:, None], np.arange(options.topics)))
