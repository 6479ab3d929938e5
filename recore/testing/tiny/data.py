"""The smallest sound dataset, split and tokenizer. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from attrs import frozen

from recore.component import Context, option
from recore.contracts.data import Changes, Holdout, RowMap, Special, SplitParts
from recore.data import Interactions
from recore.errors import DataError

Ids = npt.NDArray[np.int64]
SPECIALS = (Special("pad", 0), Special("unknown", 1), Special("mask", 2, trainable=True))


@frozen
class Log:
    """A log of `users` users over `items` items, with times: user `u` has 3 + u mod 5 events."""

    users: int = option(12, help="Users.")
    items: int = option(10, help="Items.")


class TinyDataset:
    """Implements `recore.contracts.Dataset`."""

    def __init__(self, options: Log) -> None:
        self.options = options

    def load(self, context: Context) -> Interactions:
        """Item `(u² + 3 p) mod items` at place `p` of user `u`: every item is there when users suffice."""
        rows = [(u, p) for u in range(self.options.users) for p in range(3 + u % 5)]
        frame = pl.DataFrame(
            {
                "user": [100 + u for u, _ in rows],
                "item": [7 + 10 * ((u * u + 3 * p) % self.options.items) for u, p in rows],
                "time": [1000 * u + 10 * p for u, p in rows],
            }
        )
        return Interactions.from_frame(frame, source="the kit's own log")


@frozen
class LeaveLast:
    """The last event of each user with at least three is the test target, the one before it that of
    validation; the rest is trained on."""


class TinySplit:
    """Implements `recore.contracts.Split`."""

    def parts(self, interactions: Interactions) -> SplitParts:
        """Test targets see the validation target, validation targets see training events only."""
        offsets = interactions.offsets()
        start, stop = offsets[:-1], offsets[1:]
        held = stop - start >= 3
        start, stop = start[held], stop[held]
        train = np.ones(len(interactions), dtype=bool)
        train[stop - 1] = train[stop - 2] = False
        return SplitParts(
            np.flatnonzero(train).astype(np.int64),
            Holdout(stop - 2, start, stop - 2),
            Holdout(stop - 1, start, stop - 1),
            "leave-last",
            {"users with fewer than 3 events, only trained on": int((~held).sum())},
        )


@frozen
class Items:
    """Items in ascending order get the tokens after `pad`, `unknown` and `mask`; unknown items keep their
    place."""


class TinyTokenizer:
    """Implements `recore.contracts.Tokenizer`: one token per item, item id = token − 3."""

    unknown = "keep"

    def __init__(self, items: Sequence[int | str], retired: Sequence[int] = ()) -> None:
        self._items = list(items)
        self._retired = sorted(retired)
        gone = set(self._retired)
        self._ids = {item: place for place, item in enumerate(self._items) if place not in gone}

    @property
    def items(self) -> int:
        """V."""
        return len(self._items)

    @property
    def tokens(self) -> int:
        """Special rows and items."""
        return len(SPECIALS) + len(self._items)

    @property
    def specials(self) -> Sequence[Special]:
        """`pad`, `unknown`, and the trainable `mask`."""
        return SPECIALS

    @property
    def retired(self) -> Ids:
        """Item ids that never score again."""
        return np.asarray(self._retired, dtype=np.int64)

    def encode(self, items: pl.Series) -> Ids:
        """Tokens `(n,)`. A retired item stays readable."""
        known = {item: place for place, item in enumerate(self._items)}
        found = [known.get(item, -1) for item in items.to_list()]
        return np.asarray([len(SPECIALS) + at if at >= 0 else 1 for at in found], dtype=np.int64)

    def decode(self, ids: Ids) -> pl.Series:
        """The data's own ids, null for special rows."""
        return self.items_of(np.asarray(ids) - len(SPECIALS))

    def item_ids(self, items: pl.Series) -> Ids:
        """Item ids `(n,)`, −1 for unknown ones."""
        tokens = self.encode(items)
        return np.where(tokens >= len(SPECIALS), tokens - len(SPECIALS), -1)

    def items_of(self, item_ids: Ids) -> pl.Series:
        """The data's own ids of item ids."""
        dtype = pl.Series(self._items).dtype
        return pl.Series([self._items[i] if i >= 0 else None for i in np.asarray(item_ids)], dtype=dtype)

    def resize(self, changes: Changes) -> RowMap:
        """New items come behind all others; retired ones keep their rows and lose their score."""
        known = set(self._items)
        unknown = [item for item in changes.removed if item not in self._ids]
        again = [item for item in changes.added if item in known]
        if unknown or again:
            raise DataError(f"cannot remove {unknown} (unknown) or add {again} (known)")
        old = self.tokens
        gone = [self._ids[item] for item in changes.removed]
        self.__init__([*self._items, *changes.added], [*self._retired, *gone])  # type: ignore[misc]
        rows = np.arange(self.tokens)
        return RowMap(np.where(rows < old, rows, -1), self.retired + len(SPECIALS))

    def save_pretrained(self, folder: Path | str) -> None:
        """One JSON file."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        held = {"items": self._items, "retired": self._retired}
        Path(folder, "tiny.json").write_text(json.dumps(held), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> TinyTokenizer:
        """As saved."""
        held = json.loads(Path(folder, "tiny.json").read_text(encoding="utf-8"))
        return cls(held["items"], held["retired"])


def dataset(options: Log, context: Context) -> TinyDataset:
    """Factory."""
    return TinyDataset(options)


def split(options: LeaveLast, context: Context) -> TinySplit:
    """Factory."""
    return TinySplit()


def tokenizer(options: Items, context: Context) -> TinyTokenizer:
    """Factory: the items of the training events."""
    if context.interactions is None:
        raise ValueError("a tokenizer is made from events, and there are none in this context")
    return TinyTokenizer(sorted(context.interactions.events["item"].unique().to_list()))
