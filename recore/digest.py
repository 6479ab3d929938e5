"""Digests of frames: the same on every machine, in every process and with every version of every library.

Two of them. `digest_frame` feeds a whole frame, order included, to sha256: the fingerprint of a log.
`hash_rows` gives each row 64 bits that depend on its content only: what equal times are broken by.

Legend: `n` rows. Neither holds more than a block of rows as Python objects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from recore.errors import DataError

if TYPE_CHECKING:
    from hashlib import _Hash

Words = npt.NDArray[np.uint64]

BLOCK = 65_536  # rows of text that are held at once; part of the format, since blocks are digested in turn
NULL = np.uint64(0x9E3779B97F4A7C15)


def digest_frame(digest: _Hash, label: str, frame: pl.DataFrame) -> None:
    """Feed a frame: its label, height, the names and kinds of its columns, then every value in order. The
    order of the columns does not count; integers of all widths are alike."""
    head = [label, frame.height, sorted(frame.columns)]
    digest.update(json.dumps(head).encode())
    for name in sorted(frame.columns):
        _feed(digest, frame[name])


def hash_rows(frame: pl.DataFrame, columns: Sequence[str]) -> Words:
    """A hash `(n,)` of each row's values in these columns, by splitmix64 over the columns' own hashes."""
    mixed = np.zeros(frame.height, dtype=np.uint64)
    for name in sorted(columns):
        mixed = _mix(mixed + _word(name)) ^ _hash_column(frame[name])
    return _mix(mixed)


def _plain(column: pl.Series) -> tuple[str, pl.Series]:
    """The kind of a column, and the column as Int64, UInt64, Float64, String or a nested type."""
    dtype = column.dtype
    if dtype == pl.UInt64 and (column > 2**63 - 1).any():
        return "unsigned", column
    if dtype.is_integer():
        return "integer", column.cast(pl.Int64)
    if dtype == pl.Boolean:
        return "boolean", column.cast(pl.Int64)
    if dtype.is_float():
        return "float", column.cast(pl.Float64)
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Decimal):
        return "string", column.cast(pl.String)
    if isinstance(dtype, pl.Null):
        return "null", column.cast(pl.Int64)
    if isinstance(dtype, pl.Datetime | pl.Duration | pl.Date | pl.Time):
        return str(dtype), column.to_physical().cast(pl.Int64)
    if isinstance(dtype, pl.Binary):
        return "binary", column.bin.encode("hex")
    if isinstance(dtype, pl.List):
        return "list", column
    if isinstance(dtype, pl.Array):
        return "list", column.arr.to_list()
    if isinstance(dtype, pl.Struct):
        return "struct", column
    raise DataError(
        f"column {column.name!r} holds {dtype}, expected numbers, text, times, lists or structs of them"
    )


def _lengths(column: pl.Series) -> npt.NDArray[np.int64]:
    """Lengths `(n,)` of the lists of a column, −1 where null."""
    return column.list.len().cast(pl.Int64).fill_null(-1).to_numpy()


def _bits(column: pl.Series) -> Words:
    """Numbers as 64 bits `(n,)`: one zero and one NaN; nulls are the caller's."""
    if column.dtype == pl.Float64:
        values = column.fill_null(0.0).to_numpy() + 0.0
        return np.where(np.isnan(values), np.nan, values).view(np.uint64)
    return (
        column.fill_null(0)
        .to_numpy()
        .astype(np.int64 if column.dtype == pl.Int64 else np.uint64)
        .view(np.uint64)
    )


# ---- the fingerprint -------------------------------------------------------------------------------------


def _feed(digest: _Hash, column: pl.Series) -> None:
    kind, column = _plain(column)
    nulls = column.is_null()
    digest.update(json.dumps([kind, len(column), int(nulls.sum())]).encode())
    if nulls.any():
        digest.update(np.packbits(nulls.to_numpy()).tobytes())
    if kind in ("string", "binary"):
        for start in range(0, len(column), BLOCK):
            block = column.slice(start, BLOCK).fill_null("")
            digest.update(block.str.len_bytes().cast(pl.Int64).to_numpy().astype("<i8").tobytes())
            digest.update(str(block.str.join("").item()).encode())
    elif kind == "list":
        digest.update(_lengths(column).astype("<i8").tobytes())
        _feed(digest, column.filter(column.list.len() > 0).explode())
    elif kind == "struct":
        for name in sorted(column.struct.fields):
            digest.update(json.dumps(name).encode())
            _feed(digest, column.struct.field(name))
    else:
        digest.update(_bits(column).astype("<u8").tobytes())


# ---- hashes of rows --------------------------------------------------------------------------------------


def _mix(words: Words) -> Words:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014, figure 2): a bijection of 64-bit words."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _word(text: str) -> np.uint64:
    """64 bits of a text."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _hash_column(column: pl.Series) -> Words:
    """A hash `(n,)` of each value."""
    kind, column = _plain(column)
    if kind in ("string", "binary"):
        hashes = _hash_text(column.fill_null(""))
    elif kind == "list":
        hashes = _hash_lists(column)
    elif kind == "struct":
        hashes = hash_rows(pl.DataFrame(column.struct.unnest()), column.struct.fields)
    else:
        hashes = _mix(_bits(column) ^ _word(kind))
    return np.where(column.is_null().to_numpy(), NULL, hashes)


def _hash_text(column: pl.Series) -> Words:
    """blake2b once per distinct text, then looked up."""
    texts = column.rename("text").unique()
    words = np.empty(len(texts), dtype=np.uint64)
    for start in range(0, len(texts), BLOCK):
        block = texts.slice(start, BLOCK)
        words[start : start + BLOCK] = [_word(text) for text in block.to_list()]
    table = pl.DataFrame({"text": texts, "word": words})
    asked = pl.DataFrame({"text": column})
    return asked.join(table, on="text", how="left", maintain_order="left")["word"].to_numpy()


def _hash_lists(column: pl.Series) -> Words:
    """Each list's values with their places, summed modulo 2⁶⁴."""
    lengths = np.maximum(_lengths(column), 0)
    inner = _hash_column(column.filter(column.list.len() > 0).explode())
    first = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(len(inner), dtype=np.int64) - np.repeat(first[:-1], lengths)
    total = np.zeros(len(inner) + 1, dtype=np.uint64)
    np.cumsum(_mix(inner + _mix(place.astype(np.uint64))), out=total[1:])
    return _mix(total[first[1:]] - total[first[:-1]] + lengths.astype(np.uint64))
