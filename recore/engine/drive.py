"""The training loop, written once: progress, validation, checkpoints, Ctrl-C and resume.

A trainer is a generator of steps; between two steps its state is whole, so that is where the engine saves.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field

from recore.component import Context, Part
from recore.contracts.data import Tokenizer
from recore.contracts.learning import (
    Batcher,
    Loss,
    Objective,
    Sampler,
    StepReport,
    Trainer,
    Training,
    Verdict,
)
from recore.contracts.scoring import Evaluator, Model, Scorer
from recore.data import Interactions
from recore.engine import checkpoint
from recore.engine.evaluate import Examination
from recore.engine.machine import Machine, peak_memory_mib
from recore.engine.report import Reporter, Silent
from recore.engine.rundir import RunFolder, remove, write_aside
from recore.errors import DivergenceError, RecoreError, RunFolderError
from recore.recipe import Recipe

SAVE_EVERY = 300.0  # seconds between checkpoints within an epoch


class Stateful(Protocol):
    """What belongs in a checkpoint."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any: ...


class Interrupted(RecoreError):
    """The user asked to stop; the run can go on."""

    exit_status = 130


@define
class Fit:
    """What a model is given to be fitted, or loaded: the recipe's parts, the data, the machine, the folder."""

    recipe: Recipe
    context: Context
    machine: Machine
    folder: RunFolder | None = None
    validation: Examination | None = None
    evaluators: Sequence[Evaluator] = ()
    trainer: Trainer | None = None
    reporter: Reporter = field(factory=Silent)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.context.seed

    @property
    def tokenizer(self) -> Tokenizer:
        """Items to ids."""
        assert self.context.tokenizer is not None
        return self.context.tokenizer

    @property
    def training(self) -> Interactions:
        """The training events."""
        assert self.context.interactions is not None
        return self.context.interactions

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the log that some part reads, without those that the model fills itself."""
        return self.recipe.columns - (self.recipe.facts.computed or frozenset())

    def _build(self, part: Part[Any] | None, key: str) -> Any:
        if part is None:
            raise RecoreError(f"the model asks for `{key}:`, but the recipe sets none")
        return self.context.build(part)

    def build_objective(self) -> Objective:
        """The recipe's objective."""
        built: Objective = self._build(self.recipe.objective, "objective")
        return built

    def build_batcher(self) -> Batcher:
        """The recipe's batcher."""
        built: Batcher = self._build(self.recipe.batcher, "batcher")
        return built

    def build_losses(self) -> list[tuple[str, Loss, float, Sampler | None]]:
        """The recipe's losses: name, loss, weight, sampler."""
        return [
            (
                e.name,
                self.context.build(e.part),
                e.weight,
                self.context.build(e.sampler) if e.sampler else None,
            )
            for e in self.recipe.losses
        ]

    def validate(self, scorer: Scorer) -> dict[str, float]:
        """Validation figures of the scorer as it stands; empty without a validation part."""
        if self.validation is None or not len(self.validation.queries):
            return {}
        return dict(self.validation.ask(scorer, self.evaluators).totals)

    def notify(self, hook: str, **facts: Any) -> None:
        """Tell plugins that listen. One that fails is reported, and the run goes on."""
        for problem in self.recipe.plugins.notify(hook, facts):
            self.reporter.note(str(problem))

    def drive(self, training: Training, states: Mapping[str, Stateful], scorer: Scorer, model: Model) -> Path:
        """Train from where the run's folder stands to the end; gives the folder of the best weights.

        `states` are saved and restored by name, besides the trainer. Raises Interrupted after Ctrl-C.
        """
        if self.folder is None or self.trainer is None:
            raise RecoreError("training needs a run folder and a trainer")
        loop = _Loop(self, self.folder, self.trainer, states, model)
        loop.restore()
        with interrupts() as asked:
            for report in self.trainer.steps(training):
                loop.heard(report)
                if report.epoch_ended:
                    loop.end_epoch(report, scorer)
                elif asked.is_set() or time.monotonic() - loop.saved > SAVE_EVERY:
                    loop.save(report.step)
                if asked.is_set():
                    raise Interrupted(
                        f"stopped after step {report.step} of epoch {report.epoch + 1}; "
                        f"go on with: recore resume {self.folder.path}"
                    )
        return loop.best_weights()


@define
class _Loop:
    """What the loop itself remembers between steps, and saves."""

    fit: Fit
    folder: RunFolder
    trainer: Trainer
    states: Mapping[str, Stateful]
    model: Model
    best: str = ""
    tally: dict[str, list[float]] = field(factory=dict)  # per loss: sum over steps, steps
    events: int = 0
    spent: float = 0.0  # seconds of this epoch before the process was started
    clock: float = field(factory=time.monotonic)
    saved: float = field(factory=time.monotonic)
    lines: list[dict[str, Any]] = field(factory=list)

    def restore(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        state = checkpoint.load(self.folder.path)
        if state is None:
            # A run killed before its first checkpoint starts over; figures of that try are not its own.
            self.folder.write_metrics([])
            self._forget_weights()
            return
        for name, part in self.states.items():
            part.load_state_dict(state["parts"].get(name, {}))
        self.trainer.load_state_dict(state["trainer"])
        loop = state["loop"]
        self.best, self.tally = loop["best"], loop["tally"]
        self.events, self.spent = loop["events"], loop["spent"]
        self.lines = self.folder.metrics()[: loop["epochs"]]
        if len(self.lines) < loop["epochs"]:
            raise RunFolderError(
                f"{self.folder.path / 'metrics.jsonl'} has {len(self.lines)} lines, but the checkpoint is of "
                f"{loop['epochs']} epochs (run anew)"
            )
        if self.best and not (self.folder.path / self.best).is_dir():
            raise RunFolderError(f"{self.folder.path / self.best}, the best weights, are gone (run anew)")
        self.folder.write_metrics(self.lines)
        self._forget_weights()  # those that were written after this checkpoint
        self.fit.reporter.note(f"resumed after {len(self.lines)} epochs, at step {loop['step']}")
        self.clock = time.monotonic()

    def heard(self, report: StepReport) -> None:
        """Add up a step."""
        for name, value in report.losses.items():
            entry = self.tally.setdefault(name, [0.0, 0.0])
            entry[0] += value
            entry[1] += 1
        self.events += report.events

    def end_epoch(self, report: StepReport, scorer: Scorer) -> None:
        """Validate, let the trainer judge, log, save."""
        seconds = self.spent + time.monotonic() - self.clock
        started = time.monotonic()
        try:
            validation = self.fit.validate(scorer)
        except DivergenceError as error:
            raise DivergenceError(
                f"validation after step {report.step}, the last of epoch {report.epoch + 1}: {error} "
                "(lower trainer.learning_rate, or set trainer.clip)"
            ) from error
        validating = time.monotonic() - started
        verdict = self.trainer.judge(validation[self.trainer.metric]) if validation else Verdict(True, False)
        if verdict.best:
            self.best = f"models/epoch-{report.epoch + 1:04d}"
            write_aside(self.folder.path / self.best, self.model.save)
        line = {
            "epoch": report.epoch + 1,
            "of": self.trainer.last_epoch,
            "step": report.step,
            "losses": {name: total / max(count, 1) for name, (total, count) in self.tally.items()},
            "validation": validation,
            "best": verdict.best,
            "stop": verdict.reason if verdict.stop else "",
            "learning_rate": report.learning_rate,
            "events_per_second": round(self.events / max(seconds, 1e-9)),
            "seconds": round(seconds, 3),
            "validation_seconds": round(validating, 3),
            "peak_memory_mib": peak_memory_mib(),
        }
        self.lines.append(line)
        self.tally, self.events, self.spent, self.clock = {}, 0, 0.0, time.monotonic()
        self.folder.write_metrics(self.lines)
        self.save(report.step)
        self.fit.reporter.epoch(line)
        self.fit.notify("recore_epoch_ended", run=self.folder.path, metrics=line)

    def save(self, step: int) -> None:
        """A checkpoint of this moment; weights that are the best no more go after it is written."""
        now = time.monotonic()
        checkpoint.save(
            self.folder.path,
            step,
            {
                "parts": {name: part.state_dict() for name, part in self.states.items()},
                "trainer": self.trainer.state_dict(),
                "loop": {
                    "best": self.best,
                    "tally": self.tally,
                    "events": self.events,
                    "spent": self.spent + now - self.clock,
                    "epochs": len(self.lines),
                    "step": step,
                },
            },
        )
        self._forget_weights()
        self.saved = time.monotonic()

    def _forget_weights(self) -> None:
        """Remove all weights but the best."""
        for old in (self.folder.path / "models").glob("epoch-*"):
            if f"models/{old.name}" != self.best:
                remove(old)

    def best_weights(self) -> Path:
        """The folder of the best weights."""
        if not self.best:
            raise RecoreError("training ended without an epoch whose weights were the best")
        return self.folder.path / self.best


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Within the block the first Ctrl-C is remembered, so that the step in progress ends well; the second
    one interrupts as usual. Only the main thread can listen for it."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def remember(signum: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
