"""The dataset `movielens-1m`: the publisher's zip or its folder, and how to fetch it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl
from attrs import frozen

from recore import Context, DataError, Problem
from recore.data import Interactions
from recore.textfiles import decode, read_bytes
from recore_data.options import MovieLens1M

URL: Final = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
MD5: Final = "c4d9eecfca2ab87c1945afe126590906"  # as the publisher gives it, in ml-1m.zip.md5
SHA256: Final = "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"  # of the same file
SHOWN: Final = 3

# The columns of each file, in its order.
RATINGS: Final = {"user": pl.Int64, "item": pl.Int64, "rating": pl.Int64, "time": pl.Int64}
MOVIES: Final = {"item": pl.Int64, "title": pl.String, "genres": pl.String}
USERS: Final = {
    "user": pl.Int64,
    "gender": pl.String,
    "age": pl.Int64,
    "occupation": pl.Int64,
    "zip": pl.String,
}


def build(options: MovieLens1M, context: Context) -> MovieLens1MDataset:
    """The dataset, unread."""
    return MovieLens1MDataset(options)


@frozen
class MovieLens1MDataset:
    """Keeps `recore.contracts.Dataset`."""

    options: MovieLens1M

    def load(self, context: Context) -> Interactions:
        """Read the three files, fetching them first where that was asked for and they are not there. Raises
        DataError."""
        path = self.options.path
        if not path.exists():
            if not self.options.fetch:
                raise DataError(
                    Problem(
                        f"{path} is not there", hint=f"set `fetch: true`, or download {URL} to that place"
                    )
                )
            fetch(path)
        files = _open(path)
        return Interactions.from_frame(
            _table(files, "ratings.dat", RATINGS),
            items=_table(files, "movies.dat", MOVIES),
            users=_table(files, "users.dat", USERS),
            ties=self.options.ties,
            order_across_users=True,
            source=f"MovieLens-1M, {path.name}",
        )


def fetch(path: Path, url: str = URL, sha256: str = SHA256) -> None:
    """Download the zip to `path`. It is put there whole, with the checksum right, or not at all. Raises
    DataError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=60) as answer:
            shutil.copyfileobj(answer, file)
        with part.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != sha256:
            raise DataError(f"{url}: expected a file with sha256 {sha256}, got {got}; nothing was kept")
        part.replace(path)
    except (urllib.error.URLError, OSError) as error:
        raise DataError(
            Problem(f"{url} could not be fetched: {error}", hint=f"download it by other means to {path}")
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _open(path: Path) -> Mapping[str, tuple[str, bytes]]:
    """The three files: name → (where it is, its bytes). Nothing is unpacked to disk."""
    wanted = ("ratings.dat", "movies.dat", "users.dat")
    if path.is_dir():
        folder = path / "ml-1m" if (path / "ml-1m").is_dir() else path
        found = {
            name: (str(folder / name), read_bytes(folder / name))
            for name in wanted
            if (folder / name).exists()
        }
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                members = {Path(name).name: name for name in archive.namelist()}
                found = {
                    name: (f"{path}/{members[name]}", archive.read(members[name]))
                    for name in wanted
                    if name in members
                }
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                Problem(f"{path} is not a whole zip: {error}", hint="remove it and download it again")
            ) from error
    if missing := [name for name in wanted if name not in found]:
        raise DataError(
            Problem(
                f"{path} has no {', '.join(missing)}: expected MovieLens-1M as its publisher packs it",
                hint="files of SASRec's own form are read by `sequences`, others by `events`",
            )
        )
    return found


def _table(
    files: Mapping[str, tuple[str, bytes]], name: str, columns: Mapping[str, type[pl.DataType]]
) -> pl.DataFrame:
    """One of the files: lines with `::` between fields."""
    where, data = files[name]
    lines = pl.Series("line", [decode(data, where, "latin-1").removesuffix("\n")]).str.split("\n").explode()
    split = lines.str.split("::")
    problems = _wrong(
        where, lines, split.list.len() != len(columns), f"lines do not have {len(columns)} fields"
    )
    if problems:
        raise DataError(problems)
    made = []
    for n, (column, kind) in enumerate(columns.items()):
        text = split.list.get(n).alias(column)
        value = text.cast(kind, strict=False)
        problems += _wrong(where, lines, value.is_null(), f"lines have a {column} that is no {kind.__name__}")
        made.append(value)
    if problems:
        raise DataError(problems)
    return pl.DataFrame(made)


def _wrong(where: str, lines: pl.Series, wrong: pl.Series, what: str) -> list[Problem]:
    rows = wrong.arg_true()
    if not len(rows):
        return []
    shown = "; ".join(f"line {row + 1}: {lines[row][:60]!r}" for row in rows.head(SHOWN))
    return [Problem(f"{where}: {len(rows)} of {len(lines)} {what}: {shown}")]
