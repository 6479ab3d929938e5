"""The tokenizer `items`: a table of items, looked up in bulk by polars joins, kept as a `tokenizer.json`.

Legend: `V` items ever numbered, `S` special rows, `n` items asked for. Token = item id + S. What is on disk
is in `recore_tokenizers.files`; the words of the vocabulary are in `recore_tokenizers.text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from recore import Context, DataError, Problem
from recore.contracts import Changes, RowMap, Special
from recore_tokenizers.options import Items
from recore_tokenizers.text import WORDS, tombstone, words

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

Ids = npt.NDArray[np.int64]
Asked = pl.Series | npt.NDArray[np.generic] | Sequence[int] | Sequence[str]


def build(options: Items, context: Context) -> ItemTokenizer:
    """Read from the context's folder, or else fitted on its training events."""
    if context.folder is not None:
        return ItemTokenizer.from_pretrained(context.folder)
    if context.interactions is None:
        raise DataError("tokenizer 'items' is fitted on training events, but this context has none")
    return ItemTokenizer.fit(context.interactions.events["item"], unknown=options.unknown, mask=options.mask)


class ItemTokenizer:
    """One token per item; keeps `recore.contracts.Tokenizer`.

    Args:
        items: the data's own ids `(V,)`, integers or strings, by item id. An id may stand twice where it was
            retired and added again: the last one is meant.
        retired: item ids that never score again.
        unknown: what histories do with an unknown item, `keep` or `drop`.
        mask: whether there is a trainable special row `mask`.
    """

    def __init__(
        self,
        items: pl.Series,
        *,
        retired: Iterable[int] = (),
        unknown: Literal["keep", "drop"] = "keep",
        mask: bool = False,
    ) -> None:
        self._items = _typed(items)
        self._retired = np.unique(np.asarray(list(retired), dtype=np.int64))
        self._unknown: Literal["keep", "drop"] = unknown
        self._specials: tuple[Special, ...] = (
            Special("pad", 0),
            Special("unknown", 1),
            *((Special("mask", 2, trainable=True),) if mask else ()),
        )
        self._lookup = self._latest()
        self._backend: Backend | None = None

    @classmethod
    def fit(
        cls, items: pl.Series, *, unknown: Literal["keep", "drop"] = "keep", mask: bool = False
    ) -> ItemTokenizer:
        """The tokenizer of the distinct items of a log, numbered in the order of their ids.

        Raises DataError when there are none, when one is missing, or when they are neither integers nor
        strings.
        """
        if missing := items.null_count():
            raise DataError(f"{missing} of {len(items)} items to be tokenized are missing")
        if not len(items):
            raise DataError("there are no items to make a tokenizer of")
        return cls(_typed(items).unique().sort(), unknown=unknown, mask=mask)

    # ---- what it is ---------------------------------------------------------------------------------------

    @property
    def items(self) -> int:
        """V: rows that score, retired ones included."""
        return len(self._items)

    @property
    def tokens(self) -> int:
        """V + S: rows of the embedder."""
        return len(self._items) + len(self._specials)

    def __len__(self) -> int:
        return self.tokens

    @property
    def specials(self) -> Sequence[Special]:
        """The special rows, from token 0."""
        return self._specials

    @property
    def unknown(self) -> str:
        """What histories do with an unknown item: `keep` its place or `drop` it."""
        return self._unknown

    @property
    def retired(self) -> Ids:
        """Item ids that never score again, ascending."""
        return self._retired.copy()

    @property
    def item_type(self) -> Literal["integer", "string"]:
        """What the data's own ids are."""
        return "integer" if self._items.dtype.is_integer() else "string"

    def __repr__(self) -> str:
        return (
            f"ItemTokenizer({self.items} {self.item_type} items, {len(self._retired)} retired, special rows "
            f"{', '.join(special.name for special in self._specials)}, unknown items: {self._unknown})"
        )

    # ---- items to ids and back ----------------------------------------------------------------------------

    def item_ids(self, items: Asked) -> Ids:
        """Item ids `(n,)`; −1 for unknown and missing ones. A retired item has its old id still.

        Raises DataError when strings are asked of integer ids, or the other way about.
        """
        asked = self._series(items)
        found = pl.DataFrame({"item": asked}).join(self._lookup, on="item", how="left", maintain_order="left")
        return found["id"].fill_null(-1).to_numpy().astype(np.int64)

    def encode(self, items: Asked) -> Ids:
        """Tokens `(n,)`, place by place; unknown and missing items become the row `unknown`, whatever the
        policy: it is histories that drop."""
        ids = self.item_ids(items)
        return np.where(ids < 0, self._special("unknown"), ids + len(self._specials))

    def decode(self, ids: npt.ArrayLike) -> pl.Series:
        """The data's own ids of tokens `(n,)`, null for special rows. Raises DataError for a token that is
        no row."""
        tokens = np.asarray(ids, dtype=np.int64)
        self._require(tokens, self.tokens, "token")
        return self._take(tokens - len(self._specials))

    def items_of(self, item_ids: npt.ArrayLike) -> pl.Series:
        """The data's own ids of item ids `(n,)`, null for −1. Raises DataError for one that is no row."""
        ids = np.asarray(item_ids, dtype=np.int64)
        self._require(ids + 1, self.items + 1, "item id", shift=1)
        return self._take(ids)

    def encode_batch(self, histories: Sequence[Asked]) -> list[Ids]:
        """The tokens of each history, under the policy: with `drop` unknown items leave no trace."""
        asked = [self._series(history) for history in histories]
        if not asked:
            return []
        tokens = self.encode(pl.concat(asked))
        cut = np.split(tokens, np.cumsum([len(history) for history in asked])[:-1])
        if self._unknown == "drop":
            cut = [history[history != self._special("unknown")] for history in cut]
        return cut

    def decode_batch(self, batch: Sequence[npt.ArrayLike]) -> list[pl.Series]:
        """The items of each row of tokens."""
        return [self.decode(ids) for ids in batch]

    def __call__(self, histories: Asked | Sequence[Asked]) -> dict[str, list[int] | list[list[int]]]:
        """As tokenizers of language are called: `{"input_ids": …}` for one history or for several."""
        if _is_history(histories):
            return {"input_ids": self.encode_batch([histories])[0].tolist()}  # type: ignore[list-item]  # told apart above
        rows = self.encode_batch(list(histories))  # type: ignore[arg-type]  # a sequence of histories
        return {"input_ids": [row.tolist() for row in rows]}

    # ---- changes ------------------------------------------------------------------------------------------

    def resize(self, changes: Changes) -> RowMap:
        """Retire items, then add items; every other item keeps its ids. An item removed before, or in the
        same changes, gets a new id when it is added.

        Gives the map over tokens: all old rows where they were, then fresh ones; `retired` are the tokens of
        all retired items so far. Raises DataError, changing nothing, for items that are already there, that
        are to be removed but unknown or retired, that stand twice, or that are of another type.
        """
        added = self._changed(changes.added, "added")
        removed = self._changed(changes.removed, "removed")
        leaving = self.item_ids(removed)
        gone = np.isin(leaving, self._retired)
        present = self.item_ids(added)
        stays = (present >= 0) & ~np.isin(present, np.concatenate([self._retired, leaving]))
        problems = [
            *_about(removed.filter(leaving < 0), "to be removed are unknown"),
            *_about(removed.filter(gone), "to be removed were removed before"),
            *_about(added.filter(stays), "to be added are there already"),
        ]
        if problems:
            raise DataError(problems)
        old = np.concatenate([np.arange(self.tokens), np.full(len(added), -1)]).astype(np.int64)
        self._retired = np.union1d(self._retired, leaving).astype(np.int64)
        self._items = pl.concat([self._items, added])
        self._lookup, self._backend = self._latest(), None
        return RowMap(old, self._retired + len(self._specials))

    # ---- the tokenizers library ---------------------------------------------------------------------------

    def vocabulary(self) -> list[str]:
        """The words of all tokens, by token: those of the special rows, then of the items. A retired item
        that was added again leaves its word to its successor."""
        texts = words(self._items).to_list()
        superseded = np.setdiff1d(np.arange(self.items), self._lookup["id"].to_numpy())
        for item_id in superseded.tolist():
            texts[item_id] = tombstone(item_id)
        return [*(WORDS[special.name] for special in self._specials), *texts]

    @property
    def backend(self) -> Backend:
        """The same vocabulary as a `tokenizers.Tokenizer` with a WordLevel model, made when first asked for.
        It takes words (`recore_tokenizers.text.words`) that are split already:
        `encode(words, is_pretokenized=True)`."""
        if self._backend is None:
            from tokenizers import Tokenizer
            from tokenizers.models import WordLevel

            vocabulary = {word: token for token, word in enumerate(self.vocabulary())}
            self._backend = Tokenizer(WordLevel(vocabulary, unk_token=WORDS["unknown"]))
        return self._backend

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `tokenizer.json`, which `tokenizers.Tokenizer.from_file` loads, and a configuration beside
        it, `tokenizer_config.json`."""
        from recore_tokenizers.files import save

        save(self, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> ItemTokenizer:
        """Read what `save_pretrained` wrote. Raises RunFolderError when it is not there or not whole."""
        from recore_tokenizers.files import load

        return load(Path(folder))

    # ---- inside -------------------------------------------------------------------------------------------

    def _latest(self) -> pl.DataFrame:
        """Each distinct item with its last id."""
        table = pl.DataFrame({"item": self._items, "id": np.arange(len(self._items), dtype=np.int64)})
        return table.unique("item", keep="last", maintain_order=True)

    def _special(self, name: str) -> int:
        return {special.name: special.id for special in self._specials}[name]

    def _take(self, item_ids: Ids) -> pl.Series:
        """Items by id, null where that is negative."""
        known = np.where(item_ids < 0, 0, item_ids)
        found = self._items.gather(known)
        nothing = pl.Series(item_ids < 0)
        return pl.select(pl.when(~nothing).then(found)).to_series().rename("item")

    def _require(self, ids: Ids, limit: int, what: str, shift: int = 0) -> None:
        wrong = ids[(ids < 0) | (ids >= limit)]
        if len(wrong):
            low, high = -shift, limit - 1 - shift
            raise DataError(f"expected {what}s from {low} to {high}, got {int(wrong[0]) - shift}")

    def _series(self, items: Asked) -> pl.Series:
        """What was asked for, as a series of this tokenizer's type."""
        series = items if isinstance(items, pl.Series) else _from_values(items)
        dtype = series.dtype
        if isinstance(dtype, pl.Null):
            return series.cast(self._items.dtype).rename("item")
        text = isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
        if (dtype.is_integer() and self.item_type == "integer") or (text and self.item_type == "string"):
            return series.cast(self._items.dtype, strict=False).rename("item")
        raise DataError(
            Problem(
                f"expected {self.item_type} item ids, as those of the training events, got {dtype}",
                hint="ids are looked up as they are: 7 and '7' are not the same item",
            )
        )

    def _changed(self, items: Sequence[int | str], what: str) -> pl.Series:
        series = self._series(list(items))  # type: ignore[arg-type]  # mixed lists are refused inside
        if missing := series.null_count():
            raise DataError(f"{missing} of {len(series)} items to be {what} are missing or out of range")
        if problems := _about(series.filter(series.is_duplicated()).unique(), f"to be {what} stand twice"):
            raise DataError(problems)
        return series


def _typed(items: pl.Series) -> pl.Series:
    """Items as Int64 or String."""
    dtype = items.dtype
    if dtype.is_integer():
        return items.cast(pl.Int64).rename("item")
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return items.cast(pl.String).rename("item")
    raise DataError(f"expected item ids that are integers or strings, got {dtype}")


def _from_values(items: npt.NDArray[np.generic] | Sequence[int] | Sequence[str]) -> pl.Series:
    """A series of plain values. Raises DataError for integers and strings in one."""
    values = items.tolist() if isinstance(items, np.ndarray) else list(items)
    kinds = sorted({type(value).__name__ for value in values if value is not None})
    if len(kinds) > 1 and not all(isinstance(value, int | np.integer) for value in values):
        raise DataError(f"expected item ids of one type, got {' and '.join(kinds)}")
    if "bool" in kinds:
        raise DataError("expected item ids that are integers or strings, got bool")
    return pl.Series("item", values)


def _is_history(asked: object) -> bool:
    """One history, rather than several: a series or array of ids, or a list that does not begin with one."""
    if isinstance(asked, pl.Series):
        return not isinstance(asked.dtype, pl.List)
    if isinstance(asked, np.ndarray):
        return asked.ndim == 1
    first = next(iter(asked), None)  # type: ignore[call-overload]  # a sequence
    return first is None or isinstance(first, str | int | np.integer)


def _about(items: pl.Series, what: str) -> list[Problem]:
    if not len(items):
        return []
    first = ", ".join(repr(item) for item in items.head(3))
    return [Problem(f"{len(items)} items {what}: {first}{', …' if len(items) > 3 else ''}")]
