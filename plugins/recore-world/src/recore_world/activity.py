"""How many events each user has, and when: sessions of minutes, days apart, within the world's days.

Legend: `U` users, `T` events of some users, end to end.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from recore_world.draws import Floats, Ints, below, fold, key, normal, uniform
from recore_world.options import WorldOptions

BEGINNING = 1_704_067_200  # 2024-01-01 00:00 UTC, in seconds since 1970
DAY = 86_400
SPREAD = 0.9  # deviation of the log of the number of events
IN_SESSION = 0.7  # share of gaps within a session: 1 to 30 minutes
PAUSE_DAYS = 1.5  # mean of the exponential gaps between sessions, beyond four hours


def counts(options: WorldOptions) -> Ints:
    """Events of each user `(U,)`: shortest + ⌊scale·exp(SPREAD·z)⌋, cut to `longest`, z standard normal."""
    users = np.arange(options.users)
    bits = fold(key(options.seed, options.replica, "activity"), users)
    room = options.longest - options.shortest
    return options.shortest + _excess(_scale(options.events - options.shortest, room), normal(bits), room)


def times(options: WorldOptions, users: Ints, counts: Ints) -> Ints:
    """Seconds since 1970 `(T,)` of the events of these users, `counts (n,)` each; they rise within a user."""
    stop = np.cumsum(counts)
    first = stop - counts
    place = np.arange(int(stop[-1])) - np.repeat(first, counts)
    bits = fold(fold(key(options.seed, options.replica, "gaps"), np.repeat(users, counts)), place)
    within = 60 + below(fold(bits, 0), 1740)
    pause = 4 * 3600 + (-np.log(uniform(fold(bits, 1))) * PAUSE_DAYS * DAY).astype(np.int64)
    gap = np.where(uniform(fold(bits, 2)) < IN_SESSION, within, pause)
    gap[first] = 0
    # Whole seconds: sums are exact, hence the same in any block.
    since = np.cumsum(gap)
    since -= np.repeat(since[first], counts)
    total = since[stop - 1]
    horizon = options.days * DAY
    begin = below(fold(key(options.seed, options.replica, "begin"), users), np.maximum(horizon - total, 1))
    # Who would outlast the world is squeezed into it, at least a second from event to event.
    long = np.repeat(total >= horizon, counts)
    room, whole = np.repeat(horizon - counts, counts), np.repeat(np.maximum(total, 1), counts)
    squeezed = place + (since * (room / whole)).astype(np.int64)
    return BEGINNING + np.where(long, squeezed, since + np.repeat(begin, counts))


def _excess(scale: float, z: Floats, room: int) -> Ints:
    return np.minimum(np.exp(SPREAD * z) * scale, room).astype(np.int64)


def _scale(mean: float, room: int) -> float:
    """The scale at which the excess has this mean, by bisection over 4,000 quantiles."""
    if mean <= 0 or room <= 0:
        return 0.0
    if mean >= room:
        return float("inf")
    inverse = NormalDist().inv_cdf
    z = np.array([inverse((i + 0.5) / 4000) for i in range(4000)])
    low, high = 0.0, 1e3 * (room + 1)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _excess(middle, z, room).mean() < mean else (low, middle)
    return high
