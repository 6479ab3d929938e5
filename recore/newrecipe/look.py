"""The form of a file: table or lines, separator, header, encoding, and its first rows.

Text files are looked at as text; nothing is decided from a row that was not seen to fit.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import polars as pl
from attrs import evolve, field, frozen

from recore.errors import DataError, Problem
from recore.newrecipe import words
from recore.textfiles import Encoding, is_gzipped, read_head, require, require_text

Form = Literal["table", "pairs", "lines"]
Format = Literal["csv", "tsv", "parquet", "jsonl"]

HEAD: Final = 8 * 2**20  # bytes that are looked at
ROWS: Final = 200_000  # rows that are looked at
TRIED: Final = 2_000  # lines on which separators are tried
SHOWN: Final = 3
MARKS: Final = ("::", "\t", ";", "|", ",")  # besides spaces
IN_WORDS: Final = {"\t": "tab", " ": "space", "::": "`::`", ";": "semicolon", "|": "pipe", ",": "comma"}


@frozen
class Flags:
    """What the user settled: columns by name, or by number (from 1) where the file has no names."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    separator: str | None = None
    form: Form | None = None
    header: bool | None = None
    encoding: Encoding = "utf-8"
    time_format: str | None = None
    timed: bool = True

    def columns(self) -> dict[words.Role, str]:
        """The roles that were settled."""
        said: dict[words.Role, str | None] = {
            "user": self.user,
            "item": self.item,
            "time": self.time,
            "rating": self.rating,
        }
        return {role: name for role, name in said.items() if name is not None}


@frozen(eq=False)
class Look:
    """`names`: the columns as the file has them, or `column 1`, … where it names none (`header` false).
    `sample`: the first rows under these names, as text in text files. `quoted`: whether fields stand in quotation
    marks, as in CSV."""

    path: Path
    form: Form
    names: list[str]
    sample: pl.DataFrame
    format: Format | None = None
    separator: str | None = None
    header: bool = True
    quoted: bool = True
    encoding: Encoding = "utf-8"
    notes: list[str] = field(factory=list)

    def in_words(self) -> str:
        """The form in words."""
        if self.form == "pairs":
            return "lines of `user item`, no names"
        if self.form == "lines":
            return "a line per user, `user item item …`"
        if self.separator is None:
            return {"parquet": "Parquet", "jsonl": "JSON lines"}[str(self.format)]
        names = "a header" if self.header else "no header"
        return f"{IN_WORDS.get(self.separator, repr(self.separator))}-separated, {names}"


def look(path: Path, flags: Flags) -> Look:
    """Look at a file. Raises DataError where it is no readable log, or where two readings are equally good."""
    require(path)
    if read_head(path, 4) == b"PAR1":
        return _typed(path, "parquet", _parquet(path))
    require_text(path, flags.encoding)
    text, whole = _head_text(path, flags.encoding)
    notes = _notes(path)
    if text.lstrip()[:1] in ("{", "["):
        return evolve(_typed(path, "jsonl", _jsonl(path, text, whole)), notes=notes, encoding=flags.encoding)
    return evolve(_text(path, text, whole, flags), notes=notes, encoding=flags.encoding)


def _head_text(path: Path, encoding: Encoding) -> tuple[str, bool]:
    """The first lines, whole ones, and whether they are all of the file."""
    data = read_head(path, HEAD + 1)
    whole = len(data) <= HEAD
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
    try:
        text = decoder.decode(data, final=whole)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"{path} is not {encoding}: byte {error.start}, in line {line}, is {data[error.start]:#04x}"
        hint = "convert it to UTF-8, or say --encoding latin-1 where that is what it is"
        raise DataError(Problem(what, hint=hint)) from error
    text = text.replace("\r\n", "\n")
    return text if whole else text[: text.rfind("\n") + 1], whole


def _notes(path: Path) -> list[str]:
    head = read_head(path)
    told = {
        "gzipped": is_gzipped(path),
        "a byte order mark": head.startswith(codecs.BOM_UTF8),
        "lines end in CR LF": b"\r\n" in head,
    }
    return [what for what, there in told.items() if there]


# ---- files with types ------------------------------------------------------------------------------------


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.scan_parquet(path, glob=False).head(ROWS).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error


def _jsonl(path: Path, text: str, whole: bool) -> pl.DataFrame:
    try:
        return pl.read_ndjson(io.StringIO(text), infer_schema_length=None).head(ROWS)
    except pl.exceptions.PolarsError as error:
        what = f"{path} looks like JSON, but is none with one object a line: {str(error).splitlines()[0]}"
        raise DataError(Problem(what, hint="write one JSON object a line, or a CSV")) from error


def _typed(path: Path, format: Format, sample: pl.DataFrame) -> Look:
    if not sample.height:
        raise DataError(f"{path} holds column names but no rows")
    return Look(path, "table", sample.columns, sample, format)


# ---- text ------------------------------------------------------------------------------------------------


@frozen
class _Fit:
    """How a separator fits the first lines: fields a line, where all lines agree; else None."""

    mark: str
    quoted: bool
    fields: int | None
    rows: list[list[str]]


def _text(path: Path, text: str, whole: bool, flags: Flags) -> Look:
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty")
    start = "\n".join(text.split("\n")[:TRIED])
    if flags.form in ("pairs", "lines"):
        return _lines(path, lines, flags.form)
    marks = MARKS if flags.separator is None else (flags.separator,)
    fits = [fit for mark in marks for fit in (_fit(start, mark, whole and len(lines) < TRIED),)]
    even = [fit for fit in fits if fit.fields is not None]
    if flags.separator is None:
        even = _best(path, even)
        if not even:
            return _spaced(path, text, lines, fits, flags)
    if not even:
        raise DataError(_ragged(path, fits[0]))
    return _table(path, text, whole, even[0], lines, flags)


def _fit(text: str, mark: str, whole: bool) -> _Fit:
    """With quotation marks where that is even, else without; tab separated files quote nothing if they can."""
    tries = (False, True) if mark == "\t" else (True, False)
    first: _Fit | None = None
    for quoted in tries if len(mark) == 1 else (False,):
        rows = [row for row in _rows(text, mark, quoted) if row]
        rows = rows if whole or len(rows) < 3 else rows[:-1]
        counts = {len(row) for row in rows}
        even = len(counts) == 1 and counts != {1}
        fit = _Fit(mark, quoted, counts.pop() if even else None, rows)
        if even and not (mark == "\t" and not quoted and _wrapped(rows)):
            return fit
        first = first or fit
    assert first is not None
    return first


def _wrapped(rows: list[list[str]]) -> bool:
    """Whether a column stands in quotation marks throughout: then they are no part of it."""
    return any(
        all(len(value) > 1 and value[0] == value[-1] == '"' for value in column)
        for column in zip(*rows, strict=True)
    )


def _rows(text: str, mark: str, quoted: bool) -> list[list[str]]:
    """The records of a text; blank lines are empty ones."""
    if quoted:
        try:
            return list(csv.reader(io.StringIO(text, newline=""), delimiter=mark))
        except csv.Error:
            return []
    return [line.split(mark) if line.strip() else [] for line in text.removesuffix("\n").split("\n")]


def _best(path: Path, even: list[_Fit]) -> list[_Fit]:
    """The separator whose first line has the most names that mean something, then the most fields. Raises
    DataError where two are equally good."""

    def worth(fit: _Fit) -> tuple[int, int]:
        return sum(words.known(name) for name in fit.rows[0]), fit.fields or 0

    ordered = sorted(even, key=worth, reverse=True)
    if len(ordered) > 1 and worth(ordered[0]) == worth(ordered[1]):
        shown = "; ".join(f"by {IN_WORDS[fit.mark]} into {fit.rows[0]}" for fit in ordered[:2])
        raise DataError(
            Problem(f"{path}: two separators fit equally well: {shown}", hint="say --separator S")
        )
    return ordered[:1]


def _spaced(path: Path, text: str, lines: list[str], fits: Sequence[_Fit], flags: Flags) -> Look:
    """A file whose fields nothing but spaces (or nothing at all) divides."""
    split = [line.split() for line in lines[:TRIED]]
    lengths = Counter(len(row) for row in split)
    nearly = [fit for fit in fits if _mostly(fit)]
    if nearly and not (len(lengths) == 1 and 1 not in lengths):
        raise DataError(_ragged(path, nearly[0]))
    if set(lengths) == {1}:
        what = f"{path}: no separator is to be seen: line 1 is {lines[0][:60]!r}"
        raise DataError(Problem(what, hint="expected a comma, tab, semicolon, pipe, `::` or space"))
    if set(lengths) == {2} and not any(words.known(name) for name in split[0]):
        return _lines(path, lines, "pairs")
    if len(lengths) == 1:
        single = _fit(text if len(lines) < TRIED else "\n".join(lines[:TRIED]), " ", True)
        equal = _like_histories(split)
        if equal and flags.form != "table":
            what = f"{path}: every line has {len(split[0])} fields, the first of which never repeats"
            raise DataError(
                Problem(
                    f"{what}: a table of events, or a line per user (`user item item …`)?",
                    hint="say --form table or --form lines",
                )
            )
        if single.fields != len(split[0]):
            what = f"{path}: fields stand apart by several spaces, which no dataset reads as a table"
            raise DataError(Problem(what, hint="make one space of them: tr -s ' '"))
        return _table(path, text, True, single, lines, flags)
    first = [row[0] for row in split]
    if len(set(first)) < len(first) or min(lengths) < 2:
        shown = "; ".join(f"line {n + 1} has {len(row)}" for n, row in enumerate(split[:SHOWN]))
        what = f"{path}: lines have different numbers of fields ({shown})"
        why = (
            "a user stands alone" if min(lengths) < 2 else "the first field repeats, so it is no user's line"
        )
        raise DataError(
            Problem(f"{what}, and {why}", hint="expected a table, or a line per user `user item item …`")
        )
    return _lines(path, lines, "lines")


def _mostly(fit: _Fit) -> bool:
    """Whether most lines have one number of fields, above 1."""
    counts = Counter(len(row) for row in fit.rows)
    return (
        bool(counts) and counts.most_common(1)[0][0] > 1 and counts.most_common(1)[0][1] > len(fit.rows) / 2
    )


def _like_histories(split: list[list[str]]) -> bool:
    """Whether rows of equal length could as well be histories: the first field never repeats, and the others
    are of one kind, values of which stand in several columns."""
    first = [row[0] for row in split]
    if len(split[0]) < 3 or len(set(first)) < len(first):
        return False
    columns = [set(column) for column in zip(*(row[1:] for row in split), strict=True)]
    return len(columns[0] & columns[1]) > 0 or len(split) < 2


def _ragged(path: Path, fit: _Fit) -> Problem:
    counts = Counter(len(row) for row in fit.rows)
    usual = counts.most_common(1)[0][0] if counts else 0
    if usual < 2:
        shown = fit.rows[0][0][:60] if fit.rows else ""
        return Problem(f"{path}: the separator {fit.mark!r} is not in its first line, {shown!r}")
    wrong = [(n + 1, len(row)) for n, row in enumerate(fit.rows) if len(row) != usual]
    told = "; ".join(f"line {n} has {count}" for n, count in wrong[:SHOWN])
    return Problem(
        f"{path}: {len(wrong)} of the first {len(fit.rows)} lines do not have the {usual} fields of the others "
        f"({IN_WORDS.get(fit.mark, repr(fit.mark))} between them): {told}",
        hint="fields that hold the separator belong in quotation marks; is the file whole?",
    )


def _lines(path: Path, lines: list[str], form: Form) -> Look:
    """Sequences: the sample of `lines` holds user and item as its columns, too."""
    users: list[str] = []
    items: list[str] = []
    for line in lines:
        fields = line.split()
        users += [fields[0]] * (len(fields) - 1)
        items += fields[1:]
        if len(users) >= ROWS:
            break
    sample = pl.DataFrame({"column 1": users, "column 2": items}, schema_overrides={"column 2": pl.String})
    mark = None if form == "lines" else "\t" if "\t" in lines[0] else " "
    return Look(path, form, sample.columns, sample, separator=mark, header=False)


def _table(path: Path, text: str, whole: bool, fit: _Fit, lines: list[str], flags: Flags) -> Look:
    rows = [row for row in _rows(text, fit.mark, fit.quoted) if row]
    if fit.quoted and not whole and len(rows) > 2:
        rows = rows[:-1]  # a field that goes over lines may be cut off
    rows = [row for row in rows[: ROWS + 1] if len(row) == fit.fields]
    header = _has_header(path, rows, flags)
    names = _unique(rows[0]) if header else [f"column {n + 1}" for n in range(len(rows[0]))]
    data = rows[1:] if header else rows
    if not data:
        raise DataError(f"{path} holds column names but no rows")
    columns = list(zip(*data, strict=True))
    sample = pl.DataFrame(
        {name: pl.Series(column, dtype=pl.String) for name, column in zip(names, columns, strict=True)}
    )
    sample = sample.with_columns(pl.when(pl.all() != "").then(pl.all()))
    two = fit.fields == 2 and not header and all(len(line.split()) == 2 for line in lines[:TRIED])
    if two and fit.mark == "\t":
        return Look(path, "pairs", names, sample, separator=fit.mark, header=False)
    tsv = fit.mark == "\t" and not fit.quoted
    format: Format = "tsv" if tsv or (not fit.quoted and len(fit.mark) == 1) else "csv"
    return Look(path, "table", names, sample, format, fit.mark, header, fit.quoted)


def _unique(names: Sequence[str]) -> list[str]:
    """Names of which none is twice; the reader refuses those that are, where they are wanted."""
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name} (again, {seen[name]})")
    return made


def _has_header(path: Path, rows: list[list[str]], flags: Flags) -> bool:
    """Whether the first line holds names. Raises DataError where that cannot be told."""
    if flags.header is not None:
        return flags.header
    first = [name.strip() for name in rows[0]]
    if set(flags.columns().values()) & set(first) or words.typed_header(first):
        return True
    if any(_number(name) for name in first) or any(not name for name in first[1:]):
        return False
    if sum(words.known(name) for name in first) >= min(2, len(first)):
        return True
    below = rows[1:]
    columns = list(zip(*below, strict=True))
    if any(column and all(_number(value) for value in column if value) for column in columns):
        return True
    if any(name in set(column) for name, column in zip(first, columns, strict=True)):
        return False
    raise DataError(
        Problem(
            f"{path}: whether the first line holds names cannot be told: {first}",
            hint="say --user COL --item COL where it does, or --no-header",
        )
    )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
