"""The training loop, written once: progress, validation, checkpoints, signals that stop it, and resume.

A trainer is a generator of steps; between two steps its state is whole, so that is where the engine saves.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from attrs import define, field

from recore.claims import LossClaims
from recore.component import Context, Facts, Part
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
from recore.engine.rundir import REMEDY, RunFolder, check_seal, damaged, remove, write_sealed
from recore.errors import DivergenceError, Problem, RecoreError, RunFolderError
from recore.recipe import Recipe

SAVE_EVERY = 300.0  # seconds between checkpoints within an epoch
TRAINER = "trainer"  # folder with the trainer's state, beside the weights that it belongs to


class Stateful(Protocol):
    """What belongs in a checkpoint."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any: ...


class Interrupted(RecoreError):
    """Ctrl-C, or a signal that asks to stop: the run can go on. `exit_status` is 128 and the signal's number, as
    shells have it."""

    def __init__(self, message: str, signum: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_status = 128 + signum


class Stop(KeyboardInterrupt):
    """What Ctrl-C is, for another signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


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
    epochs: int | None = None  # stop after exactly so many, whatever the trainer's schedule is made for

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

    def _build(self, part: Part[Any] | None, key: str, facts: Facts | None = None) -> Any:
        if part is None:
            raise RecoreError(f"the model asks for `{key}:`, but the recipe sets none")
        return self.context.build(part, facts)

    def build_objective(self) -> Objective:
        """The recipe's objective."""
        built: Objective = self._build(self.recipe.objective, "objective")
        return built

    def build_batcher(self, reach: int | None = None) -> Batcher:
        """The recipe's batcher; `reach`: most events of a history that an entry of its plans may hold."""
        built: Batcher = self._build(self.recipe.batcher, "batcher", Facts(reach=reach))
        return built

    def build_losses(
        self, views: Mapping[str, Context] | None = None
    ) -> list[tuple[str, str, Loss, float, Sampler | None, bool]]:
        """The recipe's losses: name, view, loss, weight, sampler, whether it claims `agreement`. `views`: the
        contexts in which those of other views than `user` are built, with that view's log and ids."""
        found = []
        for entry in self.recipe.losses:
            context = (views or {}).get(entry.view, self.context)
            sampler = context.build(entry.sampler) if entry.sampler else None
            claims = entry.part.claims
            compares = isinstance(claims, LossClaims) and claims.agreement
            loss = context.build(entry.part)
            found.append((entry.name, entry.view, loss, entry.weight, sampler, compares))
        return found

    def validate(self, scorer: Scorer, final: bool = True) -> dict[str, float]:
        """Validation figures of the scorer as it stands; empty without a validation part. Before the end, of
        the evaluators that are measured each epoch."""
        if self.validation is None or not len(self.validation.queries):
            return {}
        asked = [evaluator for evaluator in self.evaluators if final or evaluator.wants.each_epoch]
        return dict(self.validation.ask(scorer, asked).totals)

    def notify(self, hook: str, **facts: Any) -> None:
        """Tell plugins that listen. One that fails is reported, and the run goes on."""
        for problem in self.recipe.plugins.notify(hook, facts):
            self.reporter.note(str(problem))

    def drive(self, training: Training, states: Mapping[str, Stateful], scorer: Scorer, model: Model) -> Path:
        """Train from where the run's folder stands to the end; gives the folder of the best weights.

        `states` are saved and restored by name, besides the trainer. Raises Interrupted after Ctrl-C and other
        signals that ask to stop, DivergenceError when a loss or a parameter stops being finite.
        """
        if self.folder is None or self.trainer is None:
            raise RecoreError("training needs a run folder and a trainer")
        loop = _Loop(self, self.folder, self.trainer, training, states, model)
        loop.restore()
        if loop.done():
            return loop.best_weights()
        with interrupts() as asked:
            for report in self.trainer.steps(training):
                loop.heard(report)
                if report.epoch_ended:
                    loop.end_epoch(report, scorer)
                elif asked or time.monotonic() - loop.saved > SAVE_EVERY:
                    loop.save(report.step)
                if asked:
                    raise Interrupted(
                        f"stopped after step {report.step} of epoch {report.epoch + 1}; "
                        f"go on with: recore resume {self.folder.path}",
                        asked[0],
                    )
                if loop.done():
                    break
        return loop.best_weights()


@define
class _Loop:
    """What the loop itself remembers between steps, and saves."""

    fit: Fit
    folder: RunFolder
    trainer: Trainer
    training: Training
    states: Mapping[str, Stateful]
    model: Model
    best: str = ""
    tally: dict[str, list[float]] = field(factory=dict)  # per loss: sum over steps, steps
    events: int = 0
    spent: float = 0.0  # seconds of this epoch before the process was started
    clock: float = field(factory=time.monotonic)
    saved: float = field(factory=time.monotonic)
    lines: list[dict[str, Any]] = field(factory=list)

    def done(self) -> bool:
        """Whether the epochs that were asked for are over."""
        return self.fit.epochs is not None and len(self.lines) >= self.fit.epochs

    def restore(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        state = checkpoint.load(self.folder.path)
        if state is None:
            # A run killed before its first checkpoint starts over; figures of that try are not its own.
            self.folder.write_metrics([])
            self._forget_weights()
            return
        loop = state["loop"]
        self._take_up(state)
        self.best, self.tally = loop["best"], loop["tally"]
        self.events, self.spent = loop["events"], loop["spent"]
        self.lines = self.folder.metrics()[: loop["epochs"]]
        if checkpoint.digest(self.lines) != loop["metrics"]:
            raise RunFolderError(damaged(self.folder.path / "metrics.jsonl"))
        if self.best:
            if not (self.folder.path / self.best).is_dir():
                raise RunFolderError(
                    Problem(f"{self.folder.path / self.best}, the best weights, are gone", hint=REMEDY)
                )
            check_seal(self.folder.path / self.best)
        self.folder.write_metrics(self.lines)
        self._forget_weights()  # those that were written after this checkpoint
        self.fit.reporter.note(f"resumed after {len(self.lines)} epochs, at step {loop['step']}")
        self.clock = time.monotonic()

    def _take_up(self, state: Mapping[str, Any]) -> None:
        """Give every part its own state. Raises RunFolderError with all parts whose state it is not."""
        held = state["parts"]
        problems = [
            f"the checkpoint has no state of {name!r}"
            if name in self.states
            else f"{name!r} is not of this run"
            for name in sorted(set(held) ^ set(self.states))
        ]
        parts = {name: (part, held[name]) for name, part in self.states.items() if name in held}
        for name, (part, own) in {**parts, "trainer": (self.trainer, state["trainer"])}.items():
            try:
                part.load_state_dict(own)
            except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, RunFolderError) as error:
                # torch lists every tensor that is missing, strange or of another shape.
                problems.append(f"{name!r} cannot take up its state: {' '.join(str(error).split())}")
        if not problems and (spoiled := self._spoiled()):
            problems.append(f"parameters that are not finite: {spoiled}")
        if problems:
            folder = self.folder.path / "checkpoints"
            raise RunFolderError([Problem(problem, str(folder), hint=REMEDY) for problem in problems])

    def heard(self, report: StepReport) -> None:
        """Add up a step. Raises DivergenceError for a loss that is not finite, if the model has not yet."""
        for name, value in report.losses.items():
            if not math.isfinite(value):
                raise DivergenceError(
                    f"step {report.step}: loss {name!r} is {value}, expected a finite number (lower "
                    "trainer.learning_rate, or set trainer.clip)"
                )
            entry = self.tally.setdefault(name, [0.0, 0.0])
            entry[0] += value
            entry[1] += 1
        self.events += report.events

    def end_epoch(self, report: StepReport, scorer: Scorer) -> None:
        """Validate, let the trainer judge, log, save."""
        seconds = self.spent + time.monotonic() - self.clock
        started = time.monotonic()
        try:
            validation = self.fit.validate(scorer, final=False)
        except DivergenceError as error:
            raise DivergenceError(
                f"validation after step {report.step}, the last of epoch {report.epoch + 1}: {error} "
                "(lower trainer.learning_rate, or set trainer.clip)"
            ) from error
        self._finite(report.step)
        validating = time.monotonic() - started
        verdict = self.trainer.judge(validation[self.trainer.metric]) if validation else Verdict(True, False)
        if verdict.best:
            self.best = f"models/epoch-{report.epoch + 1:04d}"
            write_sealed(self.folder.path / self.best, self._weights)
        line = {
            "epoch": report.epoch + 1,
            "of": self.fit.epochs or self.trainer.last_epoch,
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

    def _weights(self, folder: Path) -> None:
        """The weights, and the trainer's state of that moment: an update goes on from both."""
        self.model.save(folder)
        checkpoint.write(folder / TRAINER, self.trainer.state_dict())

    def save(self, step: int) -> None:
        """A checkpoint of this moment; weights that are the best no more go after it is written."""
        self._finite(step)
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
                    "metrics": checkpoint.digest(self.lines),
                    "step": step,
                },
            },
        )
        self._forget_weights()
        self.saved = time.monotonic()

    def _finite(self, step: int) -> None:
        """Nothing that is not finite is ever saved. Raises DivergenceError."""
        if spoiled := self._spoiled():
            raise DivergenceError(
                f"step {step}: parameters that are not finite: {spoiled} (lower trainer.learning_rate, or set "
                "trainer.clip)"
            )

    def _spoiled(self) -> str:
        """The parameters that are not finite, in words."""
        found = [
            name
            for name, value in self.training.parameters.items()
            if not torch.isfinite(value.detach()).all()
        ]
        return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")

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
def interrupts() -> Iterator[list[int]]:
    """Within the block the first signal that asks to stop (Ctrl-C; SIGTERM, of schedulers; SIGHUP, of a
    terminal that is closed) is remembered in the list, so that the step in progress ends well; the second one
    interrupts as usual. Only the main thread can listen."""
    asked: list[int] = []

    def remember(signum: int, frame: FrameType | None) -> None:
        if asked:
            raise Stop(signum)
        asked.append(signum)

    with _handled(remember):
        yield asked


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block those signals raise Stop, as Ctrl-C raises KeyboardInterrupt."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stop(signum)

    with _handled(stop):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # under nohup
        del before[signal.SIGHUP]
    for signum in before:
        signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
