"""What a run will need: parameters, memory and time, by a stated formula (docs/reference/estimate.md).

Sizes come from the data, which is really read, and from batches really drawn; speeds from `calibrate`; what a batch
costs from the parts, each of which may state its `costs`. No step is taken and nothing is written.

Legend: `T` events of a batch, `N` predictions, `V` items, `d` width, `P` parameters.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from attrs import frozen

from recore.costs import Load
from recore.engine.advice import advice, size_of
from recore.engine.calibrate import Speed
from recore.engine.machine import (
    Machine,
    give_back_freed_memory,
    peak_memory_mib,
    processor,
    reset_peak_memory,
)
from recore.engine.prepare import Prepared, prepare
from recore.engine.rundir import RunFolder
from recore.engine.tally import MIB, PASSING, Row, Tally, number_of, told_parts
from recore.engine.trial import trial
from recore.errors import RecoreError, RunFolderError
from recore.recipe import Recipe


@frozen
class Estimate:
    """An estimate. `seconds`: of an epoch, by group; `once`: seconds that a run takes whatever its epochs are;
    `memory`: MiB, the first three always, of the `passing` ones the largest, which is `at_peak`; `evaluating`:
    seconds of an epoch's evaluation by what they are spent on, as those of the rows on an idle machine; `busy`:
    by how much all other seconds are longer because others have the cores; `sizes`: what was counted with."""

    passing: ClassVar[tuple[str, ...]] = PASSING

    recipe: str
    cell: str
    seed: int
    machine: Mapping[str, Any]
    data: Mapping[str, Any]
    sizes: Mapping[str, Any]
    parameters: Mapping[str, int]
    rows: Sequence[Row]
    seconds: Mapping[str, float]
    once: Mapping[str, float]
    epochs: int
    memory: Mapping[str, float]
    at_peak: str
    evaluating: Mapping[str, float]
    advice: Sequence[str]
    notes: Sequence[str]
    busy: float
    took: float

    @property
    def epoch(self) -> float:
        """Seconds of an epoch, validation included."""
        return sum(self.seconds.values())

    @property
    def total(self) -> float:
        """Seconds of the run, if it goes on to its last epoch."""
        return self.epoch * self.epochs + sum(self.once.values())

    @property
    def peak(self) -> float:
        """MiB."""
        return self.memory["peak"]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = attrs.asdict(self)
        plain |= {"epoch": self.epoch, "total": self.total, "peak_memory_mib": self.peak}
        return plain


def used(folder: RunFolder) -> dict[str, Any]:
    """What a run measured so far: mean seconds of its epochs, peak memory, epochs; and its machine, if it is not
    this one."""
    lines = folder.metrics()
    if not lines:
        raise RunFolderError(f"{folder.path} has measured nothing yet: its first epoch has not ended")
    about = folder.json("run.json")["machine"]
    peak = max(line["peak_memory_mib"] for line in lines)
    if folder.finished:
        peak = max(peak, folder.json("record.json")["peak_memory_mib"])
    mean = {key: float(np.mean([line[key] for line in lines])) for key in ("seconds", "validation_seconds")}
    return {
        **mean,
        "epoch": sum(mean.values()),
        "epochs": len(lines),
        "peak_memory_mib": peak,
        "other machine": "" if about["processor"] == processor() else about["processor"],
    }


def resident_mib() -> float:
    """What this process holds now, in MiB; its peak where the system does not tell."""
    try:
        return int(Path("/proc/self/status").read_text().split("VmRSS:", 1)[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return peak_memory_mib()


def estimate(recipe: Recipe, seed: int, machine: Machine) -> Estimate:
    """Estimate a run of a recipe on this machine. Raises what `prepare` raises, and RecoreError where the
    parameters alone would not fit into memory."""
    begun = time.perf_counter()
    reset_peak_memory()
    _warm(machine)
    start = min(10.0, time.process_time())  # of interpreter, torch and plugins: a run starts alike
    base = resident_mib()
    started = time.perf_counter()
    prepared = prepare(recipe, seed, machine)
    reading = time.perf_counter() - started
    reading_peak = peak_memory_mib()
    _fits(prepared)
    made = trial(prepared)
    # A run keeps what reading freed, and trains in it.
    give_back_freed_memory()
    held = resident_mib()
    tally = Tally(prepared, made, Speed(machine))
    seconds, once = tally.times()
    busy = tally.speed.busy
    seconds = {name: value * busy for name, value in seconds.items()}
    once = {name: value * busy for name, value in {"start": start, **once}.items()}
    once["reading"] = reading
    memory, at_peak = tally.memory(base, held, reading_peak)
    lines = advice(tally, seconds, memory, at_peak)
    return Estimate(
        recipe.name,
        recipe.cell,
        seed,
        machine.describe(),
        prepared.log.summary(),
        tally.sizes(),
        tally.parameters,
        tally.rows,
        seconds,
        once,
        prepared.trainer.last_epoch if prepared.trainer is not None else 0,
        memory,
        at_peak,
        tally.evaluating,
        lines,
        tally.notes,
        busy,
        time.perf_counter() - begun,
    )


def _warm(machine: Machine) -> None:
    """Let torch import and set up what it only does at a first step, so that it counts as torch."""
    machine.prepare()
    weight = torch.nn.Parameter(
        torch.zeros(64, 64, dtype=getattr(torch, machine.precision), device=machine.device)
    )
    optimiser = torch.optim.Adam([weight])
    torch.autograd.backward((weight @ weight).sum())
    optimiser.step()


def _fits(prepared: Prepared) -> None:
    """Raises RecoreError where what the parts state of their parameters cannot be held, before it is built."""
    available = _available_mib()
    stated = []
    for part, facts in told_parts(prepared):
        costs = part.costs(facts, Load(number=number_of(prepared.machine)))
        if costs is not None and costs.parameters:
            stated.append((costs.parameters * number_of(prepared.machine) * 4 / MIB, part))
    need = sum(size for size, _ in stated)
    if available is not None and need > available:
        size, part = max(stated, key=lambda one: one[0])
        raise RecoreError(
            f"{prepared.recipe.name}: weights, gradients and moments take {size_of(need)}, of which "
            f"{size_of(size)} are {part.kind} {part.name!r} ({part.path}), and {size_of(available)} are free here: "
            "expected a recipe that fits (a smaller width, fewer items, or another machine)"
        )


def _available_mib() -> float | None:
    try:
        return int(Path("/proc/meminfo").read_text().split("MemAvailable:", 1)[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return None
