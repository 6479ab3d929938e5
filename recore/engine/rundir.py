"""A run's folder: every file is written aside and renamed, so that nothing in it is ever half-written.

recipe.yaml      the resolved recipe            card.json      what the figures mean
run.json         seed, cell, machine, plugins   metrics.jsonl  one line an epoch
tokenizer/       items.parquet  data/           what reading the data gave; data frames from Python
plugins/         loose plugins                  checkpoints/   the last state
models/          the best weights so far        model/         those of a finished run
record.json      users-test.parquet             final figures, and those of each user
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import frozen
from safetensors import SafetensorError

from recore.errors import RunFolderError

FORMAT = 1  # of run.json and of checkpoints; another number is refused, never guessed at


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """`write(beside)`, then rename `beside` to `path`. For a folder, `path` must not exist yet.

    What was at `path` is untouched until then, whatever `write` raises. Raises RunFolderError when the file
    system refuses.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(beside)
        write(beside)
        _sync(beside)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        remove(beside)
        why = getattr(error, "strerror", None) or error
        raise RunFolderError(
            f"{path} cannot be written: {why} (what was there before is untouched)"
        ) from error
    except BaseException:
        remove(beside)
        raise


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, or nothing where nothing is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


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
    except ValueError as error:  # UnicodeDecodeError, too
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
        about = read_json(real / "run.json")
        found = about.get("format") if isinstance(about, dict) else None
        if found != FORMAT:
            raise RunFolderError(f"{real} was written in format {found}, this recore reads format {FORMAT}")
        return cls(real)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block no other process can go on with this run. Raises RunFolderError where one does."""
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(f"{self.path} is being run by another process; wait for it") from None
            yield

    def publish(self, write: Callable[[Path], object]) -> None:
        """Make the folder with what `write` puts into it, at once, and point `latest` to it."""
        write_aside(self.path, write)
        latest = self.path.parent / "latest"
        beside = latest.with_name(f".latest.{os.getpid()}.partial")
        try:
            remove(beside)
            beside.symlink_to(self.path.name)
            beside.replace(latest)
        finally:
            remove(beside)

    def json(self, name: str) -> Any:
        """The content of one of its JSON files."""
        return read_json(self.path / name)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl. Raises RunFolderError when it is damaged."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error

    def write_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """All lines anew: they are few, and a line is then never half there."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_aside(self.path / "metrics.jsonl", lambda beside: beside.write_text(text, encoding="utf-8"))

    @property
    def finished(self) -> bool:
        """Whether the final record is there."""
        return (self.path / "record.json").exists()
