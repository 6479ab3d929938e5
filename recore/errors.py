"""Errors: each says who, where, what was expected, what came and what to do.

Problems are collected as values (`Problem`) and raised together at the edge, so that a user with five
mistakes sees five lines, once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from attrs import frozen


@frozen
class Problem:
    """One mistake. `where` is `file:line`, `path` the place inside the recipe, `hint` what to do."""

    message: str
    where: str = ""
    path: str = ""
    hint: str = ""

    def __str__(self) -> str:
        head = ": ".join(piece for piece in (self.where, self.path, self.message) if piece)
        return f"{head} ({self.hint})" if self.hint else head


class RecoreError(Exception):
    """Any error that recore explains. `exit_status` is what the command line ends with."""

    exit_status = 1

    def __init__(self, message: str | Problem | Iterable[Problem]) -> None:
        if isinstance(message, str):
            message = Problem(message)
        self.problems: tuple[Problem, ...] = (message,) if isinstance(message, Problem) else tuple(message)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(RecoreError):
    """A recipe, or what was laid over it, cannot be composed. Nothing was read or written."""

    exit_status = 2


class PluginError(RecoreError):
    """A plugin is broken, incompatible or ambiguous, and a recipe needs it."""

    exit_status = 2


class DataError(RecoreError):
    """The data is not what the recipe says it is."""

    exit_status = 2


class RunFolderError(RecoreError):
    """A run folder or a checkpoint is missing, half there, corrupt or of another version."""

    exit_status = 2


class StorageError(RunFolderError):
    """The file system refused to write: it is full, read-only or closed to us. What was there before stays."""

    exit_status = 1


class DivergenceError(RecoreError):
    """A loss or a gradient stopped being finite. Says at which step and in which part."""

    exit_status = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest known name, or with all of them when none is near. Empty if none is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else ""
