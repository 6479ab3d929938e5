"""Contracts of what stands before the model: dataset, transform, split, tokenizer. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from recore.component import Context
    from recore.data import Interactions

    Ids = npt.NDArray[np.int64]


@runtime_checkable
class Dataset(Protocol):
    """Reads a log. Time order within a user; equal times broken by a stated policy, never by an unstable
    sort; what was dropped is counted. Raises DataError."""

    def load(self, context: Context) -> Interactions: ...


@frozen
class Dropped:
    """What a transform took away: counts by reason, as in `{"items under 5 users": 12}`."""

    counts: Mapping[str, int] = field(factory=dict)


@runtime_checkable
class Transform(Protocol):
    """Interactions → Interactions. Event ids stay; the order within a user stays."""

    def apply(self, interactions: Interactions) -> tuple[Interactions, Dropped]: ...


@frozen(eq=False)
class Holdout:
    """Targets to be predicted, each with the history that it may see.

    Target `n` is row `target[n]` of `Interactions.events`; its history is the rows `start[n]` to `stop[n]`
    (contiguous, since events are grouped by user). All `(n,)` int64.
    """

    target: Ids
    start: Ids
    stop: Ids

    def __len__(self) -> int:
        return len(self.target)


@frozen(eq=False)
class SplitParts:
    """A split of one log. `train` are rows of `Interactions.events`, ascending. Counts say what is cold,
    too short or dropped, by reason. `name` says how it was split, for the protocol card."""

    train: Ids
    validation: Holdout
    test: Holdout
    name: str
    counts: Mapping[str, int] = field(factory=dict)


@runtime_checkable
class Split(Protocol):
    """Nothing at or after a target's time is in its history; parts are disjoint and together whole."""

    def parts(self, interactions: Interactions) -> SplitParts: ...


@frozen
class Special:
    """A row of the embedder that is no item. Not trainable: exactly zero, always."""

    name: str
    id: int
    trainable: bool = False


@frozen
class Changes:
    """Items to add, and to retire, in the data's own ids."""

    added: Sequence[int | str] = ()
    removed: Sequence[int | str] = ()


@frozen(eq=False)
class RowMap:
    """How rows moved: new row `r` is old row `old[r]`, or a fresh one where that is −1. `retired` are all rows
    retired so far: they stay readable in histories and never score again; their ids are never reused."""

    old: Ids
    retired: Ids


@runtime_checkable
class Tokenizer(Protocol):
    """Items ⇄ ids. `decode(encode(x)) == x` for known items; save → load is identical.

    Two numberings: *tokens* are rows of the embedder, special rows included; *item ids* are rows of the
    table that scores, `0 … items − 1`, without special rows. A tokenizer with several tokens per item gives
    tokens `(n, k)` and still one item id per item.

    Its factory fits on `context.interactions`, the training events; where `context.folder` is set it gives
    what was saved there instead.
    """

    @property
    def items(self) -> int:
        """V: rows that score, retired ones included."""
        ...

    @property
    def tokens(self) -> int:
        """Rows of the embedder, special rows included."""
        ...

    @property
    def specials(self) -> Sequence[Special]:
        """The special rows, with ids below `tokens`; `pad` and `unknown` are not trainable."""
        ...

    @property
    def unknown(self) -> str:
        """What becomes of an unknown item in a history: `keep` (its place, as the unknown row) or `drop`."""
        ...

    @property
    def retired(self) -> Ids:
        """Item ids that never score again, ascending."""
        ...

    def encode(self, items: pl.Series) -> Ids:
        """Tokens `(n,)` or `(n, k)` of the data's own ids; unknown and missing ones become the `unknown` row."""
        ...

    def decode(self, ids: Ids) -> pl.Series:
        """The data's own ids of tokens, null for special rows."""
        ...

    def item_ids(self, items: pl.Series) -> Ids:
        """Item ids `(n,)` of the data's own ids; −1 for unknown ones."""
        ...

    def items_of(self, item_ids: Ids) -> pl.Series:
        """The data's own ids of item ids."""
        ...

    def resize(self, changes: Changes) -> RowMap:
        """Add and retire items; every other item keeps its ids. The map is over tokens."""
        ...

    def save_pretrained(self, folder: Path | str) -> None: ...

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Tokenizer: ...
