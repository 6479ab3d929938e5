"""The machine of a run: device, precision, threads. It is in the record and no part of the experiment."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import frozen

from recore.errors import RecipeError

Precision = Literal["float32", "float64"]


@frozen
class Machine:
    """`device` is a torch device name, `precision` that of weights and states, `threads` those of torch (None:
    as torch chooses)."""

    device: str = "cpu"
    precision: Precision = "float32"
    threads: int | None = None

    def prepare(self) -> None:
        """Check the device and set the threads. Raises RecipeError when the device is not there."""
        if self.threads is not None and self.threads < 1:
            raise RecipeError(f"--threads: expected at least 1, got {self.threads}")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise RecipeError(
                f"--device {self.device}: not available here: {str(error).splitlines()[0]}"
            ) from error
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        keep_freed_memory()

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module on this device, in this precision."""
        return module.to(device=self.device, dtype=getattr(torch, self.precision))

    def describe(self) -> dict[str, Any]:
        """What ran, for the record."""
        return {
            "processor": processor(),
            "cores": torch.get_num_threads() if self.threads is None else self.threads,
            "device": self.device,
            "precision": self.precision,
            "system": f"{platform.system()} {platform.machine()}",
        }


# glibc's names of these two (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGE = 512 * 2**20, 64 * 2**20


def keep_freed_memory() -> None:
    """Let glibc keep up to 512 MiB of freed memory for what is allocated next, and take tensors under 64 MiB from
    it. A training step frees and allocates the same tensors again; by default their pages go back to the system
    and are cleared anew in every step (measured: a fifth of a step of short histories, 5% of one of long ones).
    Does nothing elsewhere; no number depends on it."""
    with suppress(OSError, AttributeError, ValueError):
        if platform.libc_ver()[0] == "glibc":
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, _LARGE)
            library.mallopt(_TRIM_THRESHOLD, _KEPT)


def give_back_freed_memory() -> None:
    """The opposite, once: what is held afterwards is in use."""
    with suppress(OSError, AttributeError, ValueError):
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def peak_memory_mib() -> float:
    """The most memory that this process has held since `reset_peak_memory`, in MiB; since its start where the
    system cannot reset it."""
    try:
        status = Path("/proc/self/status").read_text()
        return round(int(status.split("VmHWM:", 1)[1].split()[0]) / 1024, 1)
    except (OSError, IndexError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def reset_peak_memory() -> None:
    """Forget earlier peaks, and give back what earlier runs freed, so that each of several runs in one process
    states its own (Linux only)."""
    give_back_freed_memory()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, besides the plugins."""
    named = ("recore", "torch", "numpy", "polars", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in named}}
