"""The one way to attention: what was asked is checked here, and the kernel chosen.

Legend: `T` events of the view, `R` rows that ask, `H` heads, `d` width, `e` = d/H.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from recore.attention.fused import fits, fused
from recore.attention.plan import plan_of
from recore.attention.rotate import rotated
from recore.attention.terms import PROJECT, Buckets, KeyBias, Normalise, PairFunction, PairTable, Rotate, Term
from recore.attention.tiles import tiled
from recore.ragged import View


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    view: View,
    terms: Sequence[Term] = (),
    *,
    rows: Tensor | None = None,
    causal: bool = True,
    normalise: Normalise = "softmax",
    dropout: float = 0.0,
    key_map: Callable[[Tensor], Tensor] | None = None,
    value_map: Callable[[Tensor], Tensor] | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention of events to events of their own sequence: `q (R, H, e)`, `k, v (T, H, e)` → `(R, H, e)`.

    Row `n` is event `rows[n]` of the view (None: all T, in order; otherwise any of them, in any order) and sees
    the keys of its own sequence, with `causal` those up to and including itself. With logits as `terms`
    says, weights are their softmax over the keys seen (Vaswani et al. 2017, eq. 1), or what `normalise`
    makes of each; `dropout` is the probability with which a weight becomes 0, others growing to match (0
    outside training). `scale` multiplies q kᵀ: 1/√e when None.

    `key_map`, `value_map`: the encoder's linear maps `(…, d) → (…, d)`, for tables with `project`.

    Softmax with nothing added to the logits and no dropout goes through torch's fused kernel, or `kept.py`; all
    else through tiles (`tiles.py`), whose weights are kept for the backward pass where they are few and made
    again otherwise: memory grows with T, never with the square of a length. Double backward is not defined
    there. A plan is kept on the view, for all layers. Dropout draws one seed from torch's default generator.

    Raises ValueError, naming all that is wrong, when shapes, ranges or maps do not fit.
    """
    problems = _problems(q, k, v, view, terms, rows, dropout, key_map, value_map)
    if problems:
        raise ValueError("attend: " + "; ".join(problems))
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1])
    turns = [term for term in terms if isinstance(term, Rotate)]
    others = [_projected(term, k, key_map, value_map) for term in terms if not isinstance(term, Rotate)]
    q, k = rotated(q, turns, rows), rotated(k, turns, None)
    if q.shape[0] == 0:
        return q
    fuse = not others and normalise == "softmax" and dropout == 0

    def kernel(q: Tensor, rows: Tensor | None) -> Tensor:
        if fuse and fits(view, rows, causal):
            return fused(q, k, v, view, rows, causal, scale)
        return tiled(q, k, v, view, others, rows, causal, normalise, dropout, scale)

    if rows is None or (fuse and fits(view, rows, causal)):
        return kernel(q, rows)
    if 2 * rows.numel() >= view.events and plan_of(view, rows).distinct:
        # Rows in any order have no diagonals to save work by: with half of them, all of them cost less.
        return kernel(q.new_zeros(k.shape).index_copy(0, rows, q), None)[rows]
    return kernel(q, rows)


def _projected(
    term: PairTable | KeyBias | PairFunction,
    k: Tensor,
    key_map: Callable[[Tensor], Tensor] | None,
    value_map: Callable[[Tensor], Tensor] | None,
) -> PairTable | KeyBias | PairFunction:
    """A table of the encoder's input space as one of its keys or values; other terms as they are."""
    if not (isinstance(term, PairTable) and term.project):
        return term
    linear = key_map if term.into == "key" else value_map
    assert linear is not None  # _problems has seen to it
    table = linear(term.table).view(-1, *k.shape[1:])
    return PairTable(term.into, table, term.index, low=term.low)


def _problems(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    view: View,
    terms: Sequence[Term],
    rows: Tensor | None,
    dropout: float,
    key_map: Callable[[Tensor], Tensor] | None,
    value_map: Callable[[Tensor], Tensor] | None,
) -> list[str]:
    found = []

    def expect(what: str, tensor: Tensor, *shape: int) -> None:
        if tuple(tensor.shape) != shape:
            found.append(f"expected {what} of shape {shape}, got {tuple(tensor.shape)}")

    if q.dim() != 3:
        return [f"expected q of shape (R, H, d/H), got {tuple(q.shape)}"]
    heads, width = int(q.shape[1]), int(q.shape[2])
    events = view.events
    expect("q", q, events if rows is None else int(rows.numel()), heads, width)
    expect("k", k, events, heads, width)
    expect("v", v, events, heads, width)
    if rows is not None and rows.numel() and not (int(rows.min()) >= 0 and int(rows.max()) < events):
        found.append(
            f"expected rows within 0 … {events - 1}, got {_signed(rows.min())} … {_signed(rows.max())}"
        )
    if not 0 <= dropout < 1:
        found.append(f"expected dropout in [0, 1), got {dropout}")
    for term in terms:
        match term:
            case Rotate(cos=cos, sin=sin):
                expect("Rotate.cos", cos, events, width // 2)
                expect("Rotate.sin", sin, events, width // 2)
                if width % 2:
                    found.append(f"Rotate turns pairs of coordinates: d/H must be even, got {width}")
            case KeyBias(bias=bias):
                expect("KeyBias.bias", bias, events, heads)
            case PairTable():
                form = {"logit": (heads,), "key": (heads, width), "value": (heads, width)}[term.into]
                expect(
                    f"PairTable({term.into!r}).table",
                    term.table,
                    term.buckets,
                    *((heads * width,) if term.project and term.into != "logit" else form),
                )
                found += _table_problems(term, events, key_map, value_map)
            case PairFunction():
                pass
    return found


def _table_problems(
    term: PairTable,
    events: int,
    key_map: Callable[[Tensor], Tensor] | None,
    value_map: Callable[[Tensor], Tensor] | None,
) -> list[str]:
    found = []
    if term.buckets == 0:
        found.append("expected PairTable.table to have a row at least")
    if term.high is not None and term.high - term.low + 1 != term.buckets:
        found.append(
            f"a PairTable of distances {term.low} to {term.high} needs {term.high - term.low + 1} rows, "
            f"got {term.buckets}"
        )
    if isinstance(term.index, Buckets):
        for side in ("row_column", "key_column"):
            got = getattr(term.index, side).shape[0]
            if got != events:
                found.append(f"expected Buckets.{side} to have {events} rows, one per event, got {got}")
    if term.project and term.into == "logit":
        found.append("a PairTable into 'logit' has no map to be projected by: use 'key' or 'value'")
    elif term.project and (key_map if term.into == "key" else value_map) is None:
        found.append(
            f"a PairTable into {term.into!r} with project=True needs the encoder's {term.into}_map, and this "
            f"encoder gave none: use an encoder that declares {PROJECT!r}, or another position scheme"
        )
    return found


def _signed(number: Tensor) -> str:
    return str(int(number)).replace("-", "−")
