"""The table of contents: one hook per kind, and the notifications.

A component hook takes no arguments and yields `Component` records. It is consumed inside a guard: a hook that
raises half-way contributes nothing and is reported, it never takes the command line down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from recore.component import Component

if TYPE_CHECKING:
    import argparse

API = "v1"
GROUP = f"recore.{API}"

hookspec = pluggy.HookspecMarker("recore")
hookimpl = pluggy.HookimplMarker("recore")


@hookspec
def recore_datasets() -> Iterable[Component]:
    """Where events come from. Contract: `recore.contracts.Dataset`."""
    return ()


@hookspec
def recore_transforms() -> Iterable[Component]:
    """What is done to a log before it is split. Contract: `recore.contracts.Transform`."""
    return ()


@hookspec
def recore_splits() -> Iterable[Component]:
    """What is trained on, validated on and tested on. Contract: `recore.contracts.Split`."""
    return ()


@hookspec
def recore_tokenizers() -> Iterable[Component]:
    """Items to ids and back. Contract: `recore.contracts.Tokenizer`."""
    return ()


@hookspec
def recore_objectives() -> Iterable[Component]:
    """What is predicted from where. Contract: `recore.contracts.Objective`."""
    return ()


@hookspec
def recore_models() -> Iterable[Component]:
    """Whatever turns a log into a scorer. Contract: `recore.contracts.Model`."""
    return ()


@hookspec
def recore_embedders() -> Iterable[Component]:
    """Vectors of events, and the table that scores. Contract: `recore.contracts.Embedder`."""
    return ()


@hookspec
def recore_positions() -> Iterable[Component]:
    """Where events stand. Contract: `recore.contracts.Position`."""
    return ()


@hookspec
def recore_encoders() -> Iterable[Component]:
    """One hidden state per event. Contract: `recore.contracts.Encoder`."""
    return ()


@hookspec
def recore_batchers() -> Iterable[Component]:
    """Which histories stand together, in which layout. Contract: `recore.contracts.Batcher`."""
    return ()


@hookspec
def recore_samplers() -> Iterable[Component]:
    """Which negatives are drawn, and how likely. Contract: `recore.contracts.Sampler`."""
    return ()


@hookspec
def recore_losses() -> Iterable[Component]:
    """What is minimised. Contract: `recore.contracts.Loss`."""
    return ()


@hookspec
def recore_trainers() -> Iterable[Component]:
    """Optimiser, schedule, stopping. Contract: `recore.contracts.Trainer`."""
    return ()


@hookspec
def recore_evaluators() -> Iterable[Component]:
    """What is measured. Contract: `recore.contracts.Evaluator`."""
    return ()


@hookspec
def recore_commands(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add subcommands to the command line: parsers with a default `run` taking the parsed arguments."""


@hookspec
def recore_run_started(run: Path, card: Mapping[str, Any]) -> None:
    """A run folder was made, or taken up again."""


@hookspec
def recore_epoch_ended(run: Path, metrics: Mapping[str, Any]) -> None:
    """An epoch was trained and validated."""


@hookspec
def recore_run_ended(run: Path, record: Mapping[str, Any]) -> None:
    """A run reached its end, and its record was written."""
