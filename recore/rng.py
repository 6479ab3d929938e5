"""Random numbers: every stream is derived from (seed, purpose), so that streams never disturb each other.

torch's default generator is used inside a step only (dropout has no other); `default_generator` sets it for
the step and puts back what was there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed from a run's seed and what it is for; unrelated for unlike purposes."""
    text = "\x1f".join(f"{type(piece).__name__}:{piece}" for piece in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator derived from (seed, purpose)."""
    made = torch.Generator()
    made.manual_seed(derive(seed, *purpose))
    return made


@contextmanager
def default_generator(seed: int, *purpose: str | int) -> Iterator[None]:
    """Within the block torch's default generators are those of (seed, purpose); after it, as before."""
    if _accelerated():
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, *purpose))
            yield
        return
    # `torch.manual_seed` takes a stack trace for devices that are not there: a millisecond a step.
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(derive(seed, *purpose))
    try:
        yield
    finally:
        torch.set_rng_state(before)


@cache
def _accelerated() -> bool:
    """Whether a device other than the CPU has a default generator here."""
    return torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
