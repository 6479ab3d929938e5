"""Contracts of what turns events into hidden states: embedder, position, encoder.

Built parts of these kinds are `torch.nn.Module`s, so that their parameters are found, saved and moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    from torch import Tensor

    from recore.attention import Term
    from recore.contracts.data import RowMap
    from recore.ragged import Batch, View


@frozen(eq=False)
class Table:
    """The rows that score, once per step: `weight (V, d)`, `bias (V,)` or None. Gradients flow into both.
    `retired (V,)` bool or None: rows that are no candidates any more."""

    weight: Tensor
    bias: Tensor | None = None
    retired: Tensor | None = None

    def score(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Scores `(N, K)` of hidden states `(N, d)` against items `(K,)`, shared, or `(N, K)`."""
        rows = self.weight[ids]
        if ids.dim() == 1:
            scores = hidden @ rows.T
        else:
            scores = (rows @ hidden.unsqueeze(-1)).squeeze(-1)
        return scores if self.bias is None else scores + self.bias[ids]


@runtime_checkable
class Embedder(Protocol):
    """Vectors of events, and the table that scores. Rows that are not trainable are exactly zero before and
    after any step of any optimiser."""

    def embed(self, batch: Batch, view: View) -> Tensor:
        """`(T, d)` for the events of the view."""
        ...

    def table(self) -> Table:
        """The rows that score: no special rows."""
        ...

    def resize(self, rows: RowMap) -> dict[str, RowMap]:
        """Follow the tokenizer. Gives, per parameter that was replaced (its name as in
        `named_parameters`), how its rows moved; the engine moves the optimiser's state likewise."""
        ...


@frozen(eq=False)
class Placed:
    """What positions contribute: `inputs (T, d)` of the encoder and attention `terms`, for all layers alike
    (one tuple) or layer by layer."""

    inputs: Tensor
    terms: Sequence[tuple[Term, ...]] = field(factory=lambda: ((),))

    def layer(self, number: int) -> tuple[Term, ...]:
        """The terms of one layer."""
        return self.terms[number] if len(self.terms) > 1 else self.terms[0]


@runtime_checkable
class Position(Protocol):
    """Where events stand. Called once per forward pass. Positions in a list fold: the inputs of one are the
    `x` of the next, terms are concatenated."""

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed: ...


@runtime_checkable
class Encoder(Protocol):
    """One hidden state per event, `(T, d)`.

    `rows (R,)`: the encoder may compute these rows only, `(R, d)`; it is passed only to an encoder that
    claims `rows`. Where it can be streamed it also has `step(state, x) → state, y`.
    """

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor: ...


@runtime_checkable
class Streaming(Protocol):
    """An encoder that can take one event at a time."""

    def step(self, state: Any, x: Tensor) -> tuple[Any, Tensor]: ...
