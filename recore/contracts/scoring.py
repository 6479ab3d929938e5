"""Contracts of what is asked of a fitted model: scorer, model, evaluator. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl
    from torch import Tensor

    from recore.contracts.data import SplitParts, Tokenizer
    from recore.data import Interactions
    from recore.engine.drive import Fit

    Ids = npt.NDArray[np.int64]


@frozen
class Query:
    """One question: what comes after this history? In the data's own ids. `time`: the time of the event to
    be predicted, for schemes that use it; `times`: those of the history."""

    history: Sequence[int | str]
    user: int | str | None = None
    time: float | None = None
    times: Sequence[float] | None = None


@frozen(eq=False)
class Queries:
    """Many questions. `events` has a row per event with at least `item`, the histories end to end, cut at
    `offsets (B+1,)`; `users (B,)` and `time (B,)` where known. All in the data's own ids."""

    events: pl.DataFrame
    offsets: Ids
    users: pl.Series | None = None
    time: Ids | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def block(self, start: int, stop: int) -> Queries:
        """The questions `start` to `stop`."""
        low, high = int(self.offsets[start]), int(self.offsets[min(stop, len(self))])
        return Queries(
            self.events.slice(low, high - low),
            self.offsets[start : stop + 1] - low,
            None if self.users is None else self.users.slice(start, stop - start),
            None if self.time is None else self.time[start:stop],
        )


@runtime_checkable
class Scorer(Protocol):
    """What evaluation, recommendation and comparison need of a fitted model, and nothing more.

    Unknown users are legal; an unknown item in a history keeps its place or is dropped, as the tokenizer
    states. An empty history is legal.
    """

    @property
    def tokenizer(self) -> Tokenizer:
        """Numbers the candidates: column `i` of all scores is item id `i`."""
        ...

    def encode(self, queries: Queries) -> Tensor:
        """A state per query, `(B, …)`, without gradient."""
        ...

    def score(self, state: Tensor, items: Tensor | None = None) -> Tensor:
        """Scores `(B, V)`, or `(B, n)` of item ids `items (n,)`; −inf for retired items."""
        ...


@runtime_checkable
class ListScorer(Protocol):
    """What stands in a `Scorer`'s place where not every item can be scored (beam search over semantic ids).

    `complete` is False when lists may lack items that belong there: rank metrics then count what lies beyond
    the list as a miss, and their names say so.
    """

    @property
    def tokenizer(self) -> Tokenizer:
        """Numbers the items of the lists."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the lists are those of scoring every item."""
        ...

    def top_k(
        self, queries: Queries, k: int, exclude: Sequence[Ids] | None = None, allow: Ids | None = None
    ) -> tuple[Tensor, Tensor]:
        """Item ids `(B, k)`, best first, −1 where fewer are left, and their scores `(B, k)`. `exclude`: per
        query, items that are no candidates; `allow`: the only candidates."""
        ...


@runtime_checkable
class Dual(Protocol):
    """A `Scorer` that answers the transposed question too: who is next for an item?"""

    def audience(self, log: Interactions) -> Scorer:
        """The scorer of users. `log` is what may be known; a question with a time is answered from the events
        strictly earlier than it, one without from all. Its queries are those of the transposed log: `users`
        are the items that ask, `events["item"]` the users they met; its `tokenizer` numbers the users."""
        ...


@runtime_checkable
class Model(Protocol):
    """Whatever turns a log into a scorer."""

    def fit(self, interactions: Interactions, parts: SplitParts, fit: Fit) -> Scorer:
        """Learn from `interactions.rows(parts.train)`; `fit` drives training and validation."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load` needs: safetensors and JSON only."""
        ...

    def load(self, folder: Path, fit: Fit) -> Scorer:
        """The scorer of a saved model; nothing that can execute on load."""
        ...


@frozen
class Wants:
    """What an evaluator asks of the engine: the longest list, which of the user's items are no candidates
    (`history`: all of the query's, none: they stay), whether it reads full rows of scores, and whether it is
    measured on validation after each epoch or only in the end. `view`: `user` asks for the item of each target
    after its user's history; `item` asks for its user after the item's earlier users, of a scorer that is
    `Dual`, and everything said of items and users here changes places."""

    k: int = 10
    seen: Literal["history", "none"] = "history"
    scores: bool = False
    view: Literal["user", "item"] = "user"
    each_epoch: bool = True


@frozen
class Evaluation:
    """What an evaluator is told at its start: how many rows can be targets, how many queries there are; for
    the view `item`, the `log` of what may be known and the `tokenizer` of its targets, the users."""

    items: int
    users: int
    seed: int = 0
    part: Literal["validation", "test"] = "test"
    log: Interactions | None = None
    tokenizer: Tokenizer | None = None


@frozen(eq=False)
class Block:
    """A row per query and target: `users (n,)` in the data's own ids; `targets (n,)` item ids (−1: cold);
    `rank (n,)` from 1, pessimistic, V + 1 where the target is no candidate; `candidates (n,)`; `top (n, k)`
    item ids, −1 where fewer are left, k at least what was wanted; `length (n,)` of the history; `cold (n,)`
    never seen in training;
    `in_history (n,)`: the target is among the items of its history; `event (n,)`: the log's row id of the
    target, where known (it tells the targets of one user apart); `time (n,)` of the question, where times are
    known; `scores (n, V)` before the seen filter, for evaluators that want them, not to be written to."""

    users: pl.Series
    targets: Ids
    rank: Ids
    candidates: Ids
    top: Ids
    length: Ids
    cold: npt.NDArray[np.bool_] = field(kw_only=True)
    in_history: npt.NDArray[np.bool_] = field(kw_only=True)
    event: Ids | None = field(default=None, kw_only=True)
    time: npt.NDArray[Any] | None = field(default=None, kw_only=True)
    scores: Tensor | None = field(default=None, kw_only=True)


@runtime_checkable
class Evaluator(Protocol):
    """Equals a slow oracle; ties never go the model's way; relabelling items changes nothing.

    It may also have `groups()` and `counts()`, called after `finish`: see `Grouped` and `Counted`.
    """

    @property
    def wants(self) -> Wants: ...

    @property
    def formulas(self) -> Mapping[str, str]:
        """Metric name → its formula, for the protocol card."""
        ...

    def start(self, context: Evaluation) -> None: ...

    def update(self, block: Block) -> None: ...

    def finish(self) -> tuple[Mapping[str, float], pl.DataFrame]:
        """Totals by metric name, and a frame with `user`, `length` and a column per metric, a row per query
        and target."""
        ...


@runtime_checkable
class Compared(Protocol):
    """An evaluator that ranks rivals beside the model: the same questions, candidates and rule for ties."""

    def rivals(self) -> Mapping[str, Scorer]:
        """Scorers by name; asked for after `start`."""
        ...

    def update_rival(self, name: str, block: Block) -> None:
        """What `update` hears of the model, of a rival."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """An evaluator that also gives the totals of groups of rows, for the record."""

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Group → totals by metric name, and whatever says which rows these are (`users`: how many;
        `range`: lowest and highest value of what groups them). Plain JSON values."""
        ...


@runtime_checkable
class Counted(Protocol):
    """An evaluator that also counts the rows that needed a policy, for the record."""

    def counts(self) -> Mapping[str, int]:
        """Rows by reason: cold targets, targets that the filter made impossible, …"""
        ...
