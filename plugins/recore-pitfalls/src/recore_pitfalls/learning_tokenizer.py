"""The tokenizer `first-item-is-padding`. Legend: `n` items asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from recore import Context
from recore.contracts import Changes, RowMap, Special, Tokenizer
from recore_pitfalls.learning_options import FirstItemIsPadding

Ids = npt.NDArray[np.int64]


class FirstIsPadding:
    """`inner`: the sound tokenizer. The item with id 0 is encoded as padding; everything else is as it was."""

    kind: type[Tokenizer]

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner

    def encode(self, items: pl.Series) -> Ids:
        """Tokens `(n,)` or `(n, k)`."""
        tokens, first = self.inner.encode(items), self.inner.item_ids(items) == 0
        pad = next(special.id for special in self.specials if special.name == "pad")
        return np.where(first.reshape(-1, *[1] * (tokens.ndim - 1)), pad, tokens)

    @property
    def items(self) -> int:
        """V."""
        return self.inner.items

    @property
    def tokens(self) -> int:
        """Rows of the embedder."""
        return self.inner.tokens

    @property
    def specials(self) -> Sequence[Special]:
        """The special rows."""
        return self.inner.specials

    @property
    def unknown(self) -> str:
        """`keep` or `drop`."""
        return self.inner.unknown

    @property
    def retired(self) -> Ids:
        """Item ids that never score again."""
        return self.inner.retired

    def decode(self, ids: Ids) -> pl.Series:
        """The data's own ids of tokens."""
        return self.inner.decode(ids)

    def item_ids(self, items: pl.Series) -> Ids:
        """Item ids `(n,)`."""
        return self.inner.item_ids(items)

    def items_of(self, item_ids: Ids) -> pl.Series:
        """The data's own ids of item ids."""
        return self.inner.items_of(item_ids)

    def resize(self, changes: Changes) -> RowMap:
        """As the sound tokenizer does."""
        return self.inner.resize(changes)

    def save_pretrained(self, folder: Path | str) -> None:
        """As the sound tokenizer does."""
        self.inner.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """As saved."""
        return cls(cls.kind.from_pretrained(folder))


def build(options: FirstItemIsPadding, context: Context) -> FirstIsPadding:
    """Factory: a class of its own, which knows what kind of tokenizer to load."""
    inner = context.build(options.tokenizer)
    made = type("FirstIsPadding", (FirstIsPadding,), {"kind": type(inner)})
    built: FirstIsPadding = made(inner)
    return built
