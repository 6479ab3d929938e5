"""How torch's threads wait for each other, settled before torch is imported. Free of torch.

A small step asks for its threads some thousand times. Threads that sleep at once have to be woken each time: on two
idle cores a step of ml-1m/sasrec-bce then takes twice as long. Threads that spin for long burn what other processes
need, and what the threads themselves need where a core is shared: seconds a step. So they spin briefly, then
sleep (`benchmarks/waiting.py` measures it). The variables are those of GNU's OpenMP, which torch's own builds use.
"""

from __future__ import annotations

import os

WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}


def wait_briefly() -> None:
    """Unless the environment says how threads wait. Too late once torch is imported."""
    if not any(name in os.environ for name in WAITING):
        os.environ.update(WAITING)
