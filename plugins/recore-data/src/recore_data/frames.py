"""Frames: named columns of text files, Parquet, JSON lines, and polars or pandas frames, as one polars frame.

Text files are read as text throughout; what a column means is decided later, on all of it, never from its first
rows. A `Read` knows which row came from which file, so that errors can say so.
"""

from __future__ import annotations

import glob
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from attrs import frozen

from recore import DataError, Problem
from recore.errors import nearest
from recore.frames import as_polars
from recore.textfiles import CONVERT, Encoding, is_gzipped, read_text, require, require_text
from recore_data.options import Format
from recore_data.ragged_lines import count_fields, require_even

SHOWN = 3  # bad rows that an error shows
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
TEXT: dict[Format, str] = {"csv": ",", "tsv": "\t"}


OR_LATIN = f"{CONVERT}, or set `encoding: latin-1` where that is what it is"


class Source(Protocol):
    """What the options of a dataset and of a table have in common."""

    @property
    def frame(self) -> Any | None: ...
    @property
    def format(self) -> Format | None: ...
    @property
    def separator(self) -> str | None: ...
    @property
    def encoding(self) -> Encoding: ...
    @property
    def header(self) -> list[str] | None: ...


@frozen(eq=False)
class Read:
    """What was read: `frame`; `origins`, a name and a height for each piece it was put together from; `text`,
    whether all of it is text whose types are yet to be told; `blank`, lines without any field that were skipped;
    `problems`, columns that are missing (`frame` has the others, so that what is wrong in those can be told in the
    same breath)."""

    frame: pl.DataFrame
    origins: Sequence[tuple[str, int]]
    text: bool
    blank: int = 0
    problems: Sequence[Problem] = ()

    @property
    def name(self) -> str:
        """All of it in words."""
        first = self.origins[0][0]
        return first if len(self.origins) == 1 else f"{first} and {len(self.origins) - 1} more files"

    def bad(self, column: str, wrong: pl.Series, what: str, hint: str = "") -> list[Problem]:
        """No problem, or one that counts the rows `wrong (n,)` and shows the first."""
        rows = wrong.arg_true()
        if not len(rows):
            return []
        shown = "; ".join(f"{self._place(row)}: {self.frame[column][row]!r}" for row in rows.head(SHOWN))
        return [
            Problem(f"{self.name}: column {column!r}: {len(rows)} of {len(wrong)} {what}: {shown}", hint=hint)
        ]

    def _place(self, row: int) -> str:
        """Where a row came from; data rows are counted from 1, the line with the names is none."""
        for name, height in self.origins:
            if row < height:
                return f"row {row + 1}" + (f" of {name}" if len(self.origins) > 1 else "")
            row -= height
        raise IndexError(row)


def read(source: Source, paths: Path | Sequence[Path] | None, columns: Iterable[str]) -> Read:
    """The named columns of a frame or of files, one after another; `paths` may be patterns, and a frame may be
    a Parquet file. Columns that are missing are told by `problems`. Raises DataError, with all problems of all
    files, for what is missing, empty, or not of the format."""
    wanted = list(dict.fromkeys(columns))
    if source.frame is not None and not isinstance(source.frame, Path):
        frame = as_polars(source.frame)
        missing = _missing(wanted, frame.columns, "the frame")
        there = [name for name in wanted if name in frame.columns]
        held = _some(frame.select(there), "the frame") if there or not missing else None
        if held is None:
            raise DataError(missing)
        return Read(held, [("the frame", frame.height)], text=False, problems=missing)
    files = _found(paths if source.frame is None else source.frame)
    problems: list[Problem] = []
    pieces: list[_Piece] = []
    for path in files:
        try:
            pieces.append(_read_file(source, path, wanted))
            problems += pieces[-1].missing
        except DataError as error:
            problems += error.problems
    together = [name for name in wanted if all(name in piece.frame.columns for piece in pieces)]
    if len(pieces) < len(files) or not together:
        raise DataError(problems)
    if len({piece.text for piece in pieces}) > 1:
        raise DataError([*problems, Problem("expected files of one kind, got text files among others")])
    frame = _concat(files, [piece.frame.select(together) for piece in pieces])
    origins = [(str(path), piece.frame.height) for path, piece in zip(files, pieces, strict=True)]
    blank = sum(piece.blank for piece in pieces)
    return Read(_some(frame, origins[0][0]), origins, pieces[0].text, blank, problems)


def _concat(files: Sequence[Path], frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The frames one after another. Integers of two widths go together, numbers and text do not: polars would
    make text of both, and of the id 7 the id `7`. Raises DataError."""
    first, problems = frames[0].schema, []
    for path, frame in zip(files, frames, strict=True):
        for name, dtype in frame.schema.items():
            alike = dtype.is_numeric() and first[name].is_numeric()
            if not (alike or dtype == first[name] or pl.Null in (dtype, first[name])):
                what = f"column {name!r} is {first[name]} in {files[0]}, but {dtype} in {path}"
                problems.append(Problem(what, hint="give them one type"))
    if problems:
        raise DataError(problems)
    return pl.concat(frames, how="vertical_relaxed")


def _found(paths: Path | Sequence[Path] | None) -> list[Path]:
    """The files meant: a file, the files that fit a pattern in the order of their names, or each of a list.
    Raises DataError when a pattern fits none, or a file is meant twice."""
    meant: list[Path] = []
    for path in [paths] if isinstance(paths, Path) else paths or []:
        if path.exists() or not glob.has_magic(str(path)):
            meant.append(path)
            continue
        fitting = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        if not fitting:
            raise DataError(f"no file fits {path}")
        meant += fitting
    if not meant:
        raise DataError("expected a file or several, got an empty list")
    if twice := sorted({str(path) for path in meant if meant.count(path) > 1}):
        raise DataError(f"{', '.join(twice)} would be read twice")
    return meant


# ---- one file --------------------------------------------------------------------------------------------


@frozen(eq=False)
class _Piece:
    """The wanted columns that one file has, whether they are text, its blank lines, and which are missing."""

    frame: pl.DataFrame
    text: bool
    blank: int = 0
    missing: Sequence[Problem] = ()


def format_of(path: Path) -> Format | None:
    """What a file's ending says that it is; `.gz` behind it does not count."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return ENDINGS.get(name.suffix.lower())


def _read_file(source: Source, path: Path, wanted: list[str]) -> _Piece:
    require(path, pattern=True)
    kind = source.format or (format_of(path) if source.frame is None else "parquet")
    if kind is None:
        raise DataError(
            Problem(
                f"{path}: its ending does not say what it is",
                hint=f"set `format:` to one of {', '.join(dict.fromkeys(ENDINGS.values()))}",
            )
        )
    if kind != "parquet":
        require_text(path, source.encoding)
    elif not path.stat().st_size:
        raise DataError(f"{path} is empty")
    try:
        if kind in TEXT:
            return _read_text(source, path, kind, wanted)
        if kind == "parquet":
            names = pl.read_parquet_schema(path)
            frame = pl.scan_parquet(path, glob=False)
        else:
            # Through text where it is gzipped, or of another encoding; polars reads neither.
            plain = source.encoding == "utf-8" and not is_gzipped(path)
            data = path if plain else io.BytesIO(read_text(path, source.encoding, OR_LATIN).encode())
            frame = pl.read_ndjson(data, infer_schema_length=None).lazy()
            names = frame.collect_schema()
        missing = _missing(wanted, list(names), str(path))
        there = [name for name in wanted if name in names]
        return _Piece(frame.select(there).collect(), text=False, missing=missing)
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path} is empty") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        text = str(error).split("\n")[0]
        raise DataError(f"{path} cannot be read as {kind}: {text}") from error


def _read_text(source: Source, path: Path, kind: Format, wanted: list[str]) -> _Piece:
    separator = source.separator or TEXT[kind]
    # A tab separated file quotes nothing: a quotation mark in it is a character like any other.
    several = len(separator.encode()) > 1
    quote = '"' if kind == "csv" and not several else None
    data: Path | io.BytesIO = path
    mark = separator
    if several or source.encoding != "utf-8":
        text = read_text(path, source.encoding, OR_LATIN)
        if several:
            mark = "\x1f"  # the unit separator; polars takes a single byte
            if mark in text:
                raise DataError(f"{path} holds the control character 0x1f, which cannot be read here")
            text = text.replace(separator, mark)
        data = io.BytesIO(text.encode())
    has_header = source.header is None
    frame = pl.scan_csv(
        data, separator=mark, quote_char=quote, has_header=has_header, infer_schema=False, glob=False
    )
    names = list(frame.collect_schema())
    if quote is not None and any(quote * 2 in name for name in names):  # polars unquotes data, but not names
        plain = {name: name.replace(quote * 2, quote) for name in names}
        frame, names = frame.rename(plain), list(plain.values())
    last = names[-1]
    if source.header is not None:
        if len(names) != len(source.header):
            raise DataError(
                f"{path}: `header` names {len(source.header)} columns, but the file has {len(names)}"
            )
        frame = frame.rename(dict(zip(names, source.header, strict=True)))
        names = source.header
        last = names[-1]
    missing = _missing(wanted, names, str(path))
    there = [name for name in wanted if name in names]
    if not there:
        raise DataError(missing)
    try:
        got = frame.select(*there, pl.col(last).is_null().alias(SHORT)).collect()
        # A line too short, like one whose last field is empty, is null at its end.
        doubtful = bool(got[SHORT].any())
    except pl.exceptions.PolarsError as error:
        _explain(path, source, separator, quote, error)
        raise
    got = got.drop(SHORT)
    blank = 0
    if doubtful:
        counted = count_fields(read_text(path, source.encoding, OR_LATIN), separator, quote, has_header)
        require_even(str(path), counted)
        if len(counted.fields) == got.height and (blank := int(counted.blank().sum())):
            got = got.filter(~counted.blank())
    return _Piece(got, text=True, blank=blank, missing=missing)


SHORT = "\x1fshort"  # a name that no column has


def _explain(path: Path, source: Source, separator: str, quote: str | None, error: Exception) -> None:
    """Why polars could not read a text file, where that can be told: raises DataError."""
    text = read_text(path, source.encoding, OR_LATIN)  # bytes that are no text are told here
    counted = count_fields(text, separator, quote, source.header is None)
    even = not counted.wrong().any()
    if quote is not None and quote in text:
        plain = count_fields(text, separator, None, source.header is None)
        if not plain.wrong().any():
            raise DataError(
                Problem(
                    f"{path} cannot be read as csv: quotation marks do not pair ({str(error).splitlines()[0]})",
                    hint=f"where they are characters like any other, set `format: tsv` and "
                    f"`separator: '{separator}'`, which quotes nothing",
                )
            ) from error
    if not even:
        require_even(str(path), counted)


def _missing(wanted: list[str], names: list[str], what: str) -> list[Problem]:
    """A problem per column that is missing, or stands twice."""
    problems = [
        Problem(f"{what} has no column {name!r}", hint=nearest(name, names))
        for name in wanted
        if name not in names
    ]
    if problems and len(names) == 1:
        other = next((mark for mark in (",", "\t", ";", "|", "::", " ") if mark in names[0]), None)
        hint = f"the separator may be {other!r}: set `separator:`" if other else "is this the right file?"
        return [Problem(f"{what} has only one column, {names[0]!r}", hint=hint)]
    problems += [
        Problem(f"{what} has several columns {name!r}", hint="give them names of their own")
        for name in wanted
        if f"{name}_duplicated_0" in names
    ]
    return problems


def _some(frame: pl.DataFrame, what: str) -> pl.DataFrame:
    if not frame.height:
        raise DataError(f"{what} holds column names but no rows")
    return frame


# ---- frames from Python ----------------------------------------------------------------------------------
