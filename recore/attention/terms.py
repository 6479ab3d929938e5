"""What a position scheme may add to attention: a short closed list, so that a faster kernel is one file.

Legend: `T` events, `R` rows that ask, `H` heads, `d` width, `b, r, c` sequences, rows and keys of one tile.
The logit of row `i` for key `j` of head `h` is

    scale · q_i · (k_j + Σ key tables) + Σ logit tables + Σ key biases + Σ pair functions

and what row `i` receives is Σ_j weight_ij (v_j + Σ value tables). `Rotate` turns q and k first. An encoder
passes terms on to `attend` and never looks into one; it declares the names that it takes
(`EncoderClaims.terms`), and `PROJECT` beside them where it passes its own key and value maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, Literal

from attrs import field, frozen
from torch import Tensor

PROJECT: Final = "project"
"""What an encoder declares beside term names when it passes `key_map` and `value_map` to `attend`."""


@frozen(eq=False)
class Rotate:
    """Rotary positions (Su et al. 2021, RoFormer, eq. 34): `cos, sin (T, d / 2H)`, one row per event, shared by
    heads and layers. Coordinates `2n` and `2n + 1` of a query or key turn by the angle of column `n`:

        x'_2n = x_2n cos − x_2n+1 sin,   x'_2n+1 = x_2n sin + x_2n+1 cos

    Gradients go to `cos` and `sin` where they ask for them."""

    name: ClassVar[str] = "rotate"
    cos: Tensor
    sin: Tensor


@frozen(eq=False)
class Buckets:
    """Which table row a pair of events reads: `f(row, key)`, given `row_column (T,)` at the rows that ask as
    `(b, r, 1)` and `key_column (T,)` at the keys as `(b, 1, c)`, gives integers `(b, r, c)`.

    `f` is total: it is called on invisible pairs and on padding too (which repeats an event of the sequence)
    and always gives a bucket in range. Columns may differ (a time of the target on the row side); times are
    int64 or float64, and only differences become float32. It is called anew in the backward pass."""

    f: Callable[[Tensor, Tensor], Tensor]
    row_column: Tensor
    key_column: Tensor


@frozen(eq=False)
class PairTable:
    """A table read by pairs of events, added to the logit, to the key or to the value.

    `table`: `(buckets, H)` into `logit`; `(buckets, H, d/H)` into `key` or `value`; with `project` it is
    `(buckets, d)` in the encoder's input space, and the encoder's own linear key or value map makes the
    other form of it (that map's bias must not count twice: pass the map without it).
    `index`: `distance` reads row `clip(i − j, low, high) − low`, where `i − j` counts events from key to row
    (0: itself, 1: the one before, negative: a later one); or a `Buckets`.
    `low`, `high`: the stated range of distances, ends included. `high` left out is `low + buckets − 1`; given,
    it must be that.

    Shaw et al. 2018, eqs. 3 and 4 (`key`, `value`); T5's and HSTU's biases (`logit`)."""

    name: ClassVar[str] = "pair-table"
    into: Literal["logit", "key", "value"]
    table: Tensor
    index: Literal["distance"] | Buckets = "distance"
    low: int = field(default=0, kw_only=True)
    high: int | None = field(default=None, kw_only=True)
    project: bool = field(default=False, kw_only=True)

    @property
    def buckets(self) -> int:
        """Rows of the table."""
        return int(self.table.shape[0])


@frozen(eq=False)
class KeyBias:
    """`bias (T, H)`, added to the logit of every row that sees the key."""

    name: ClassVar[str] = "key-bias"
    bias: Tensor


@frozen(eq=False)
class PairFunction:
    """Any function of pairs, added to the logit: `f(rows (b, r), keys (b, c), *inputs) → (b or 1, H or 1, r, c)`.

    `rows` and `keys` are rows of the view (events), so that `f` reads columns by them. It is computed anew in
    the backward pass: gradients go to `inputs` only, so `f` closes over no tensor that trains, and it draws no
    random numbers. It is called on invisible pairs too, and must be finite and have a finite gradient there."""

    name: ClassVar[str] = "pair-function"
    f: Callable[..., Tensor]
    inputs: tuple[Tensor, ...] = ()


Term = Rotate | PairTable | KeyBias | PairFunction


@frozen
class Silu:
    """Attention without softmax (Zhai et al. 2024, HSTU, eq. 2): weight = silu(logit) / n, where n is the
    number of keys that the row sees (`visible`) or a `constant`; never the width of a rectangle or the longest
    history of the batch, which would let neighbours in."""

    divide: Literal["visible", "constant"] = "visible"
    constant: float = field(default=1.0)

    @constant.validator
    def _positive(self, _: object, value: float) -> None:
        if not value > 0:
            raise ValueError(f"Silu divides by a constant > 0, got {value}")


Normalise = Literal["softmax"] | Silu
