"""Text files: found, opened, decoded; every failure says which file and what to do. For datasets, and for whatever
looks at a file before one does.

Text may be gzipped, whatever its name. What is no text at all (an archive, a picture, UTF-16) is told by its first
bytes, before anything tries to read columns in it.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

from recore.errors import DataError, Problem, nearest

Encoding = Literal["utf-8", "latin-1"]

CONVERT = "convert it to UTF-8"
GZIP = b"\x1f\x8b"
HEAD = 65_536  # bytes that are looked at to tell whether a file is text
# First bytes → what begins so, and what to do.
KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", "unpack it, or save it as CSV"),
    (b"PAR1", "a Parquet file", "set `format: parquet`"),
    (b"ARROW1", "an Arrow file", "write it as Parquet or CSV"),
    (b"SQLite format 3", "an SQLite database", "write the table as CSV"),
    (b"%PDF", "a PDF", "expected a text file"),
    (b"\x89PNG", "a picture", "expected a text file"),
    (b"\xff\xd8\xff", "a picture", "expected a text file"),
    (b"BZh", "compressed with bzip2", "unpack it; gzip is read as it is"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it; gzip is read as it is"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it; gzip is read as it is"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\xff\xfe", "UTF-16, not UTF-8", "convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16, not UTF-8", "convert it to UTF-8"),
)


def read_text(path: Path, encoding: Encoding = "utf-8", remedy: str = CONVERT) -> str:
    """A whole text file, gzipped or not, without a byte order mark; line ends are `\\n`. `remedy`: what to do where
    it is of another encoding."""
    require_text(path, encoding)
    text = decode(read_bytes(path), str(path), encoding, remedy)
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise DataError(Problem(f"{path} is no text: line {line} holds a zero byte", hint="is it whole?"))
    return text


def decode(data: bytes, what: str, encoding: Encoding = "utf-8", remedy: str = CONVERT) -> str:
    """Text of bytes that came from `what`."""
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            Problem(
                f"{what} is not {encoding}: byte {error.start}, in line {line}, is {data[error.start]:#04x}",
                hint=remedy,
            )
        ) from error
    return text.replace("\r\n", "\n")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is gzipped. Raises DataError when it is not there, is a folder, or
    cannot be read."""
    require(path)
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == GZIP else data
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def require(path: Path, pattern: bool = False) -> None:
    """Raises DataError when there is no such file, naming its nearest neighbour. `pattern`: whether a pattern could
    stand there, too."""
    if path.is_dir():
        hint = f"for all files in it: {path / '*'}" if pattern else ""
        raise DataError(Problem(f"{path} is a folder, expected a file", hint=hint))
    if not path.exists():
        raise DataError(Problem(f"{path} is not there", hint=_neighbour(path)))


def require_text(path: Path, encoding: Encoding = "utf-8") -> None:
    """Raises DataError when a file is missing, empty, or plainly no text of that encoding."""
    require(path)
    head = read_head(path)
    if not head.strip():
        raise DataError(f"{path} is empty")
    for begins, what, remedy in KINDS:
        if head.startswith(begins) and not (encoding == "latin-1" and begins[0] >= 0xFE):
            raise DataError(Problem(f"{path} is {what}", hint=remedy))
    if (at := head.find(b"\0")) >= 0:
        raise DataError(
            Problem(f"{path} is no text: byte {at} is 0x00", hint="is this the right file, and is it whole?")
        )
    if b"\r" in head and b"\n" not in head:
        raise DataError(
            Problem(f"{path} ends its lines with a bare carriage return", hint="convert them to newlines")
        )


def read_head(path: Path, size: int = HEAD) -> bytes:
    """The first bytes of a file, unpacked where it is gzipped. Raises DataError."""
    try:
        with gzip.open(path) if is_gzipped(path) else path.open("rb") as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def is_gzipped(path: Path) -> bool:
    """Whether a file begins as gzip does. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(2) == GZIP
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        return DataError(Problem(f"{path} is no whole gzip file: {error}", hint="copy or download it again"))
    return DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


def _neighbour(path: Path) -> str:
    if "$RECORE_DATA" in str(path):
        return "set RECORE_DATA to the folder of your data sets"
    if not path.parent.is_dir():
        return (
            f"nor is its folder; {Path.cwd()} is the working directory"
            if not path.is_absolute()
            else "nor its folder"
        )
    return nearest(path.name, [entry.name for entry in path.parent.iterdir()][:50])
