"""Files: found, opened, decoded; every failure says which file and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from recore import DataError, Problem

Encoding = Literal["utf-8", "latin-1"]


def read_text(path: Path, encoding: Encoding = "utf-8") -> str:
    """A whole text file, without a byte order mark; line ends are `\\n`."""
    return decode(read_bytes(path), str(path), encoding)


def decode(data: bytes, what: str, encoding: Encoding = "utf-8") -> str:
    """Text of bytes that came from `what`."""
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            Problem(
                f"{what} is not {encoding}: byte {error.start} is {data[error.start]:#04x}", hint="convert it"
            )
        ) from error
    return text.replace("\r\n", "\n")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises DataError when it is not there, is a folder, or cannot be read."""
    require(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def require(path: Path) -> None:
    """Raises DataError when there is no such file, naming its nearest neighbour."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a file")
    if not path.exists():
        raise DataError(Problem(f"{path} is not there", hint=_neighbour(path)))


def _neighbour(path: Path) -> str:
    from recore.errors import nearest

    if "$RECORE_DATA" in str(path):
        return "set RECORE_DATA to the folder of your data sets"
    if not path.parent.is_dir():
        return (
            f"nor is its folder; {Path.cwd()} is the working directory"
            if not path.is_absolute()
            else "nor its folder"
        )
    return nearest(path.name, [entry.name for entry in path.parent.iterdir()][:50])
