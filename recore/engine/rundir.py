"""A run's folder: every file is written aside and renamed, so that nothing in it is ever half-written.

recipe.yaml      the resolved recipe            card.json      what the figures mean
run.json         seed, cell, machine, plugins   metrics.jsonl  one line an epoch
tokenizer/       items.parquet                  checkpoints/   models/   the last state, the best weights
record.json      users-test.parquet             final figures, and those of each user
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from recore.errors import RunFolderError

FORMAT = 1  # of run.json and of checkpoints; another number is refused, never guessed at


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """`write(beside)`, then rename `beside` to `path`. For a folder, `path` must not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    if beside.is_dir():
        shutil.rmtree(beside)
    try:
        write(beside)
        _sync(beside)
        beside.replace(path)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        beside.unlink(missing_ok=True) if not beside.is_dir() else None
        raise RunFolderError(
            f"{path} cannot be written: {error.strerror or error} (what was there before is untouched)"
        ) from error


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def write_json(path: Path, value: Any) -> None:
    """JSON, indented, aside and renamed."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_aside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """JSON, or a RunFolderError that says which file and why."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RunFolderError(f"{path} is not valid JSON: {error}") from error


@frozen
class RunFolder:
    """The folder of one run: one recipe, one cell, one seed."""

    path: Path

    @classmethod
    def new(cls, root: Path, recipe: str, cell: str, digest: str) -> RunFolder:
        """A name that does not exist yet; the folder is made by `publish`."""
        parent = root / recipe if cell == "base" else root / recipe / cell
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        path = parent / f"{stamp}-{digest}"
        number = 1
        while path.exists():
            number += 1
            path = parent / f"{stamp}-{digest}-{number}"
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; `…/latest` is the newest one. Raises RunFolderError."""
        real = path.resolve()
        if not (real / "run.json").is_file():
            raise RunFolderError(f"{path} is no run folder: it has no run.json")
        found = read_json(real / "run.json").get("format")
        if found != FORMAT:
            raise RunFolderError(f"{real} was written in format {found}, this recore reads format {FORMAT}")
        return cls(real)

    def publish(self, write: Callable[[Path], object]) -> None:
        """Make the folder with what `write` puts into it, at once, and point `latest` to it."""
        write_aside(self.path, write)
        latest = self.path.parent / "latest"
        beside = latest.with_name(".latest.partial")
        beside.unlink(missing_ok=True)
        beside.symlink_to(self.path.name)
        beside.replace(latest)

    def json(self, name: str) -> Any:
        """The content of one of its JSON files."""
        return read_json(self.path / name)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """All lines anew: they are few, and a line is then never half there."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_aside(self.path / "metrics.jsonl", lambda beside: beside.write_text(text, encoding="utf-8"))

    @property
    def finished(self) -> bool:
        """Whether the final record is there."""
        return (self.path / "record.json").exists()
