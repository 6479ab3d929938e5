"""Random numbers by counting: each is a hash of a key and of what it is for (user, event, slot, …).

No stream has a place that must be kept, so a number is the same whether users are simulated alone, in blocks
or all together, and whether or not anything after it is drawn at all.

The hash folds one counter at a time, `x ← mix(x + (c + 1)·φ)`, with the finaliser of SplitMix64 (Steele, Lea,
Flood 2014, Fast Splittable Pseudorandom Number Generators, figure 16; constants of Stafford's variant 13) and
φ = ⌊2⁶⁴/golden ratio⌋.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint64]

_PHI = np.uint64(0x9E3779B97F4A7C15)


def key(seed: int, *purpose: str | int) -> Bits:
    """The beginning `(1,)` of all numbers for a seed and a purpose; unrelated for unlike purposes."""
    text = "\x1f".join(f"{type(piece).__name__}:{piece}" for piece in ("recore-world", seed, *purpose))
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), dtype="<u8").astype(
        np.uint64
    )


def fold(bits: Bits, counter: npt.ArrayLike) -> Bits:
    """New bits from these and a counter ≥ 0; shapes broadcast."""
    x = np.atleast_1d(np.asarray(counter)).astype(np.uint64)
    x = (x + np.uint64(1)) * _PHI + bits
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def uniform(bits: Bits) -> Floats:
    """In the open interval (0, 1), from the upper 52 bits."""
    made: Floats = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return made


def below(bits: Bits, count: npt.ArrayLike) -> Ints:
    """An integer in 0 … count − 1, each as likely up to 2⁻⁵²·count."""
    made: Ints = (uniform(bits) * np.asarray(count)).astype(np.int64)
    return made


def gumbel(bits: Bits) -> Floats:
    """Standard Gumbel: the largest of `utility + gumbel` is a draw from the softmax of the utilities."""
    made: Floats = -np.log(-np.log(uniform(bits)))
    return made


def normal(bits: Bits) -> Floats:
    """Standard normal (Box and Muller 1958), one from two numbers folded from these."""
    radius = np.sqrt(-2.0 * np.log(uniform(fold(bits, 0))))
    made: Floats = radius * np.cos(2.0 * np.pi * uniform(fold(bits, 1)))
    return made
