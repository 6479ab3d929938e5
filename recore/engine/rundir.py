"""A run's folder: every file is written aside and renamed, so that nothing in it is ever half-written.

recipe.yaml      the resolved recipe            card.json      what the figures mean
run.json         seed, cell, machine, plugins   metrics.jsonl  one line an epoch
tokenizer/       items.parquet  data/           what reading the data gave; data frames from Python
plugins/         loose plugins                  checkpoints/   the last state
models/          the best weights so far        model/         those of a finished run
users/           ids of users, where numbered   trainer/       its state when model/ was the best
start/           trained.parquet                what an update began with
trainer/         the trainer's state with those weights, from which an update goes on
start/           trained.parquet                what an update began with: weights, trainer's state, events known
record.json      users-test.parquet             final figures, and those of each user
sha256.json      the checksums of what a run began with; weights have one of their own

What is promised, and what is not, is in docs/explanation/robustness.md.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from attrs import frozen
from safetensors import SafetensorError

from recore.errors import Problem, RunFolderError, StorageError

FORMAT = 2  # of run.json and of checkpoints; another number is refused, never guessed at
SEAL = "sha256.json"
PARTIAL = ".partial"
# How libraries in Rust, and those that collect several errors, write the system's own within their messages.
OS_ERROR = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
_numbers = itertools.count()


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """`write(beside)`, then rename `beside` to `path`. For a folder, `path` must not exist yet.

    What was at `path` is untouched until then, whatever `write` raises. When this returns, file, folder and
    name are on the disk, not only in the system's memory. Raises StorageError when the file system refuses.
    """
    beside = _beside(path)
    made: list[Path] = []
    try:
        made = _make_folder(path.parent)
        sweep(path.parent, f".{path.name}.", ours=False)
        write(beside)
        _sync(beside)
        beside.replace(path)
        _sync_entry(path.parent)
    except BaseException as error:
        remove(beside)
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        if why := refusal(error):
            raise unwritable(path, why) from error
        raise


def write_sealed(path: Path, write: Callable[[Path], object]) -> None:
    """`write_aside` for a folder, with the checksums of all that `write` puts into it."""

    def sealed(beside: Path) -> None:
        write(beside)
        seal(beside)

    write_aside(path, sealed)


def unwritable(path: Path, why: str) -> StorageError:
    """The file system refused to write `path`."""
    return StorageError(f"{path} cannot be written: {why} (what was there before is untouched)")


def refusal(error: BaseException) -> str:
    """Why the file system refused, where that is what the error says; else an empty text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if (found := OS_ERROR.search(str(error))) is not None:
        return os.strerror(int(found[1] or found[2]))
    return str(error) if isinstance(error, OSError | SafetensorError) else ""


def _beside(path: Path) -> Path:
    """A hidden name that no other process or thread has, and that tells whose it is."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{next(_numbers)}{PARTIAL}")


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def sweep(folder: Path, prefix: str = ".", ours: bool = True) -> None:
    """Remove what killed processes left half-written in a folder. `ours`: whoever calls this has locked the
    folder, so that all such names are left over; else those whose process is alive, or elsewhere, stay."""
    names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
    for name in names:
        if name.startswith(prefix) and name.endswith(PARTIAL) and (ours or _dead(name)):
            remove(folder / name)


def _dead(name: str) -> bool:
    """Whether a hidden name is that of a process of this machine that is no more."""
    host, _, rest = name.removesuffix(PARTIAL).rpartition(".")[2].partition("-")
    process = rest.partition("-")[0]
    if host != _host() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it, on the disk too; gives those that were not there."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
        _sync_entry(folder.parent)
    return made


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, or nothing where nothing is. A folder is gone at once: it is renamed
    before it is emptied, so that no half of it is ever found under its name."""
    if not path.is_dir() or path.is_symlink():
        with suppress(OSError):
            path.unlink()
        return
    if not path.name.endswith(PARTIAL):
        with suppress(OSError):
            path = path.replace(_beside(path))
    shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    """A file, or a folder with all in it, from the system's memory to the disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            _sync_entry(Path(folder) / name)
        _sync_entry(Path(folder))
    if path.is_file():
        _sync_entry(path)


def _sync_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot do it for folders, and do not need to.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


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
    except RecursionError as error:
        raise RunFolderError(f"{path} is not valid JSON here: it is nested too deep") from error


# ---- checksums -----------------------------------------------------------------------------------------------


def seal(folder: Path) -> None:
    """Write the sha256 of every file in a folder into its sha256.json."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SEAL)
    sums = {file.relative_to(folder).as_posix(): file_digest(file) for file in files}
    (folder / SEAL).write_text(json.dumps(sums, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def file_digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_seal(folder: Path) -> None:
    """Raises RunFolderError with every file that is not what was written. Files that came later do not count."""
    sums = read_json(folder / SEAL)
    if not isinstance(sums, dict) or not all(isinstance(held, str) for held in sums.values()) or not sums:
        raise RunFolderError(damaged(folder / SEAL))
    problems = []
    for name, held in sums.items():
        try:
            if file_digest(folder / name) != held:
                problems.append(damaged(folder / name))
        except OSError as error:
            why = error.strerror or str(error)
            problems.append(Problem(f"{folder / name} cannot be read: {why}", hint=REMEDY))
    if problems:
        raise RunFolderError(problems)


REMEDY = "put it back from a copy, or run anew"


def damaged(path: Path) -> Problem:
    """A file that is not what was written."""
    return Problem(f"{path} is damaged: its checksum is not that with which it was written", hint=REMEDY)


# ---- the folder ----------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Within the block no other process holds the lock file `path`: one that does is waited for, or is the
    error `busy`. Raises StorageError where the file system refuses."""
    with _lock_file(path, busy):
        yield


def _lock_file(path: Path, busy: str) -> IO[str]:
    while True:
        try:
            lock = path.open("a")
        except OSError as error:
            raise unwritable(path, error.strerror or str(error)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            lock.close()
            raise RunFolderError(busy) from None
        except OSError as error:
            lock.close()
            why = error.strerror or str(error)
            raise StorageError(f"{path} cannot be locked: {why} (use another file system)") from error
        if os.fstat(lock.fileno()).st_nlink:
            return lock
        lock.close()  # whoever held it has removed it: take the one that is there now


@frozen
class RunFolder:
    """The folder of one run: one recipe, one cell, one seed."""

    path: Path

    @classmethod
    def new(cls, root: Path, recipe: str, cell: str, digest: str) -> RunFolder:
        """A folder of the present time; `publish` makes it."""
        parent = root / recipe if cell == "base" else root / recipe / cell
        return cls(parent / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{digest}")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; `…/latest` is the newest one. Its checksums are checked, all of them at once.

        Raises RunFolderError for what is no run, of another format, or damaged.
        """
        try:
            real = path.resolve()
            inside = {entry.name for entry in os.scandir(real)} if real.is_dir() else set()
        except (OSError, RuntimeError) as error:  # links in a circle are a RuntimeError
            raise RunFolderError(
                f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}"
            ) from error
        if not inside & {"run.json", SEAL}:
            raise RunFolderError(f"{path} is no run folder: it has no run.json")
        found = _format(real / "run.json")
        if found not in (None, FORMAT):
            raise RunFolderError(f"{real} was written in format {found}, this recore reads format {FORMAT}")
        problems: list[Problem] = []
        for sealed in (real, real / "model"):
            if sealed == real or sealed.is_dir():
                try:
                    check_seal(sealed)
                except RunFolderError as error:
                    problems += error.problems
        if problems:
            raise RunFolderError(problems)
        return cls(real)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block no other process can go on with this run, and what killed ones left half-written is
        gone. Raises RunFolderError where another one goes on with it."""
        with locked(self.path / ".lock", busy=f"{self.path} is being run by another process; wait for it"):
            for folder in (self.path, *(self.path / name for name in ("checkpoints", "models"))):
                sweep(folder)
            yield

    def tidy(self) -> None:
        """Take away what a process left that was killed after the record was written; nothing, where nothing can
        be written."""
        with suppress(RunFolderError), self.held():
            remove(self.path / "models")

    def publish(self, write: Callable[[Path], object]) -> RunFolder:
        """Make the folder with what `write` puts into it, at once, and point `latest` to it. Gives the folder
        as it is called: of two that began within a second, the later one gets a number."""
        parent = self.path.parent
        made: list[Path] = []
        try:
            made = _make_folder(parent)
            with self._others_wait():
                sweep(parent)
                path, number = self.path, 1
                while path.exists():
                    number += 1
                    path = self.path.with_name(f"{self.path.name}-{number}")
                write_sealed(path, write)
                try:
                    self._point(path.name)
                except BaseException:
                    remove(path)
                    raise
                return RunFolder(path)
        except BaseException as error:
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()
            if isinstance(error, OSError):
                raise unwritable(parent, error.strerror or str(error)) from error
            raise

    @contextmanager
    def _others_wait(self) -> Iterator[None]:
        """Within the block no other process begins or withdraws a run of this recipe."""
        lock = self.path.with_name(".lock")
        with locked(lock):
            try:
                yield
            finally:
                remove(lock)

    def _point(self, name: str) -> None:
        """Let `latest` point to a run."""
        latest = self.path.with_name("latest")
        beside = _beside(latest)
        try:
            beside.symlink_to(name)
            beside.replace(latest)
        finally:
            remove(beside)
        _sync_entry(latest.parent)

    def withdraw(self) -> None:
        """Take back a run that failed before there was anything to go on with."""
        with self._others_wait():
            remove(self.path)
            parent, latest = self.path.parent, self.path.with_name("latest")
            others = [path for path in parent.iterdir() if (path / "run.json").is_file() and path != latest]
            if latest.is_symlink() and not latest.exists():
                if others:
                    self._point(max(others, key=lambda path: path.stat().st_mtime_ns).name)
                else:
                    remove(latest)
        with suppress(OSError):
            parent.rmdir()

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
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error

    def write_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """All lines anew: they are few, and a line is then never half there."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_aside(self.path / "metrics.jsonl", lambda beside: beside.write_text(text, encoding="utf-8"))

    @property
    def begun(self) -> bool:
        """Whether there is anything to go on with."""
        return (self.path / "checkpoints").exists() or (self.path / "model").exists()

    @property
    def finished(self) -> bool:
        """Whether the final record is there."""
        return (self.path / "record.json").exists()


def _format(path: Path) -> Any:
    """The format that a run.json states; None where that cannot be read: its checksum tells then."""
    try:
        about = read_json(path)
    except RunFolderError:
        return None
    return about.get("format") if isinstance(about, dict) else None
