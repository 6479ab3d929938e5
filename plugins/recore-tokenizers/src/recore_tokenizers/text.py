"""Items as the words of a WordLevel vocabulary, and back.

An item's word is its id as text. Words that mean something else (special rows, the tombstone of an item that
was removed and added again, the empty word, which the tokenizers library cannot look up) are kept from items
by a backslash in front: `word` is injective, and no item's word is a reserved one.
"""

from __future__ import annotations

import re

import polars as pl

WORDS = {"pad": "[PAD]", "unknown": "[UNK]", "mask": "[MASK]"}
_RESERVED = r"(?:\[PAD\]|\[UNK\]|\[MASK\]|\[RETIRED [0-9]+\])?"
_ESCAPED = re.compile(rf"\\+{_RESERVED}")
# An id that is reserved, or that is a reserved one behind backslashes, takes one backslash more.
_TO_ESCAPE = rf"^(\\*{_RESERVED})\z"


def tombstone(item_id: int) -> str:
    """The word of a retired item whose own word was given to its successor."""
    return f"[RETIRED {item_id}]"


def words(items: pl.Series) -> pl.Series:
    """The words `(n,)` of items, strings."""
    return items.cast(pl.String).str.replace(_TO_ESCAPE, r"\${1}")


def word(item: int | str) -> str:
    """The word of one item."""
    return str(words(pl.Series([str(item)]))[0])


def plain(word: str) -> str:
    """The item's id as text, from its word."""
    return word[1:] if _ESCAPED.fullmatch(word) else word
