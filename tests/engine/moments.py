"""What a SIGKILL would leave at every moment of a run, and a file system that refuses.

`Moments` copies a folder before every call that changes the file system. Each copy is what a process that is
killed at that call leaves on the disk; several are alike but for hidden files that are under way. `Refusing` lets
every such call fail from the n-th one on, as a full or a read-only disk does.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate", "os.link")
REMOVES = ("os.remove", "os.rmdir")
Copy = dict[str, bytes | str | None]  # path → content of a file, target of a link, None of a folder

_listeners: list[Callable[[str, str], None]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook cannot be taken away; without a listener it does nothing."""
    if not _listeners:
        return
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str | bytes | os.PathLike) or not (flags or 0) & WRITES:
            return
    elif event not in EVENTS:
        return
    else:
        path = arguments[1] if event in ("os.symlink", "os.rename", "os.link") else arguments[0]
    for listener in list(_listeners):
        listener(event, os.fsdecode(path))


_installed = False


class Listening:
    """Hears every call that changes the file system under `root`, before it is made."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def __enter__(self) -> Any:
        global _installed
        if not _installed:
            sys.addaudithook(_hook)
            _installed = True
        _listeners.append(self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _listeners.remove(self._hear)

    def _hear(self, event: str, path: str) -> None:
        # Removing a tree names its entries relative to a folder that is open.
        if path.startswith(self.root) or (event in REMOVES and not os.path.isabs(path)):
            self.heard(event, path)

    def heard(self, event: str, path: str) -> None:
        """One call."""
        raise NotImplementedError


class Moments(Listening):
    """Copies of `root`, one before each call, in order."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.copies: list[Copy] = []
        self.calls: list[str] = []

    def heard(self, event: str, path: str) -> None:
        self.copies.append(copy_of(Path(self.root)))
        self.calls.append(f"{event} {path}")

    def distinct(self) -> list[tuple[int, Copy]]:
        """For each state of what has a name of its own, the last moment of it, when most is under way; numbered.
        Files that are under way are cut in half, since the system may have written only so much of them."""
        found: dict[tuple[Any, ...], tuple[int, Copy]] = {}
        for number, copy in enumerate(self.copies):
            named = {path: content for path, content in copy.items() if not hidden(path)}
            found[tuple(sorted(named.items(), key=lambda entry: entry[0]))] = (number, torn(copy))
        return list(found.values())


def hidden(path: str) -> bool:
    """Whether a path is that of something under way."""
    return any(piece.endswith(".partial") for piece in path.split("/"))


def torn(copy: Copy) -> Copy:
    """What is under way, cut in half."""
    return {
        path: content[: len(content) // 2] if isinstance(content, bytes) and hidden(path) else content
        for path, content in copy.items()
    }


def copy_of(root: Path) -> Copy:
    """All that is in a folder."""
    copy: Copy = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            inside = os.path.relpath(path, root)
            if os.path.islink(path):
                copy[inside] = os.readlink(path)
            elif name in folders:
                copy[inside] = None
            else:
                with open(path, "rb") as stream:
                    copy[inside] = stream.read()
    return copy


def put_back(copy: Copy, root: Path) -> Path:
    """Write a copy into a folder that is not there yet; gives it."""
    root.mkdir(parents=True)
    for inside, content in sorted(copy.items()):
        path = root / inside
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return root


class Refusing(Listening):
    """From call number `first` on, every call that would write fails; removing still works, as on a full disk."""

    def __init__(self, root: Path, first: int, number: int = errno.ENOSPC) -> None:
        super().__init__(root)
        self.first, self.number = first, number
        self.calls = 0

    def heard(self, event: str, path: str) -> None:
        if event in REMOVES or (event == "os.rename" and path.endswith(".partial")):
            return
        self.calls += 1
        if self.calls > self.first:
            raise OSError(self.number, os.strerror(self.number), path)
