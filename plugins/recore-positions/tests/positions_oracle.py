"""A slow oracle: attention pair by pair from its formula, and how far rows move when histories change.

Legend: `T` events, `H` heads, `e` = d/H.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from attrs import evolve
from hypothesis import strategies as st
from recore_positions.plugin import recore_positions
from torch import Tensor

from recore import Context, Facts
from recore.attention import KeyBias, Term, attend
from recore.contracts import Position
from recore.ragged import Batch, Layout, Targets, View, offsets_of

HEADS, SIZE, LAYERS = 2, 4, 2
TERMS = frozenset({"rotate", "pair-table", "key-bias", "pair-function"})
FACTS = Facts(width=HEADS * SIZE, heads=HEADS, layers=LAYERS, causal=True, history="all", terms=TERMS)
HIDDEN = -1e30
COMPONENTS = {component.name: component for component in recore_positions()}

lengths = st.lists(st.integers(1, 7), min_size=1, max_size=3)
# Gaps of nothing, of seconds, of years; of each history one gap per event.
gaps = st.one_of(st.sampled_from([0, 1, 2, 60, 86_400]), st.integers(0, 400_000_000))
rhythms = st.lists(st.lists(gaps, min_size=1, max_size=6), min_size=1, max_size=3)

Pair = Callable[[int, int], Tensor]


def built(name: str, facts: Facts = FACTS, seed: int = 0, noise: float = 0.3, **options: Any) -> Any:
    """The position in float64, with noise on what trains, so that tables that start at zero count."""
    component = COMPONENTS[name]
    module, _, factory = component.factory.partition(":")
    build = getattr(import_module(module), factory)
    made = build(component.options(**options), Context(seed, "model.position", facts)).double()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    return made


def view_of(held: Sequence[int], time: Tensor | None = None, layout: Layout | None = None) -> View:
    """Histories of so many events."""
    columns = {"token": torch.zeros(sum(held), dtype=torch.int64)}
    if time is not None:
        columns["time"] = time
    return View(columns, offsets_of(torch.tensor(list(held))), layout or Layout())


def timed(rhythm: Sequence[Sequence[int]], start: int = 1_600_000_000, layout: Layout | None = None) -> View:
    """Histories whose events are so far apart; the first gap is from `start`."""
    time = [moment for history in rhythm for moment in _moments(history, start)]
    return view_of([len(history) for history in rhythm], torch.tensor(time, dtype=torch.int64), layout)


def _moments(history: Sequence[int], start: int) -> list[int]:
    found = [start + history[0]]
    for gap in history[1:]:
        found.append(found[-1] + gap)
    return found


def qkv(events: int, seed: int = 0) -> list[Tensor]:
    """Queries, keys and values `(T, H, e)`."""
    random = torch.Generator().manual_seed(seed)
    return [
        torch.randn(events, HEADS, SIZE, dtype=torch.float64, generator=random).requires_grad_()
        for _ in range(3)
    ]


def asked_at(view: View, time: Tensor) -> Batch:
    """The view, and a target of each row at its time `(T,)`."""
    rows = torch.arange(view.events)
    return Batch({"user": view}, Targets(rows, rows, torch.ones(view.events), time=time))


def attended(
    position: Position,
    tensors: Sequence[Tensor],
    view: View,
    batch: Batch | None = None,
    layer: int = 0,
    causal: bool = True,
    extra: tuple[Term, ...] = (),
) -> Tensor:
    """What the rows receive, `(T, H, e)`, by recore's own attention."""
    x = torch.zeros(view.events, 1, dtype=torch.float64)
    placed = position.place(x, batch or Batch({"user": view}), view)
    assert placed.inputs is x
    assert len(placed.terms) in (1, LAYERS)
    q, k, v = tensors
    return attend(q, k, v, view, (*placed.layer(layer), *extra), causal=causal)


def slow(
    tensors: Sequence[Tensor],
    view: View,
    logit: Pair | None = None,
    key: Pair | None = None,
    value: Pair | None = None,
    turn: Callable[[int, Tensor], Tensor] | None = None,
    causal: bool = True,
) -> Tensor:
    """What the rows receive, `(T, H, e)`: row by row, key by key. `logit(i, j)` gives what is added to the logit
    `(H,)`, `key` and `value` `(H, e)`; `turn(i, x)` the query or key of event `i` as it is to be."""
    q, k, v = tensors
    rows = []
    for first, stop in zip(view.offsets[:-1].tolist(), view.offsets[1:].tolist(), strict=True):
        for i in range(first, stop):
            logits, values = [], []
            for j in range(first, i + 1 if causal else stop):
                asking, held = (q[i], k[j]) if turn is None else (turn(i, q[i]), turn(j, k[j]))
                held = held if key is None else held + key(i, j)
                found = (asking * held).sum(-1) / math.sqrt(SIZE)
                logits.append(found if logit is None else found + logit(i, j))
                values.append(v[j] if value is None else v[j] + value(i, j))
            weights = torch.stack(logits).softmax(0)
            rows.append((weights[..., None] * torch.stack(values)).sum(0))
    return torch.stack(rows)


def apart(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected."""
    largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
    return float((got - expected).detach().abs().max()) / max(largest, 1e-12) if got.numel() else 0.0


def assert_equal(got: Tensor, expected: Tensor, leaves: Sequence[Tensor], far: float = 1e-9) -> None:
    """Values, and gradients of the leaves compared together."""
    assert apart(got, expected) <= far
    way = torch.arange(got.numel(), dtype=got.dtype).view_as(got).cos()
    ours, theirs = (
        torch.cat([grad.flatten() for grad in torch.autograd.grad((out * way).sum(), list(leaves))])
        for out in (got, expected)
    )
    assert apart(ours, theirs) <= far


def trained(position: Any) -> list[Tensor]:
    """Its parameters."""
    return list(position.parameters())


def _cut(tensors: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    return [tensor.detach()[rows] for tensor in tensors]


def after_cutting(position: Any, view: View, count: int, ahead: int | None = None) -> float:
    """How far rows before place `count` move when the events from there on are removed. `ahead`: each row asks for
    an event so much later than its own."""
    tensors = qkv(view.events)
    rows = (view.place < count).nonzero()[:, 0]
    short = view.cut(view.offsets[:-1], torch.minimum(view.offsets[:-1] + count, view.offsets[1:]))
    before, after = (None if ahead is None else asked_at(one, one["time"] + ahead) for one in (view, short))
    worst = 0.0
    for layer in range(LAYERS):
        whole = attended(position, tensors, view, before, layer)[rows]
        worst = max(worst, apart(attended(position, _cut(tensors, rows), short, after, layer), whole))
    return worst


def after_dropping(position: Any, view: View, count: int, ahead: int | None = None) -> float:
    """How far the other rows move when the oldest `count` events are dropped that no row sees either before or
    after: of each history one event stays."""
    tensors = qkv(view.events)
    gone = torch.minimum(torch.full_like(view.lengths, count), view.lengths - 1)
    seen = view.place >= gone[view.sequence]
    rows = seen.nonzero()[:, 0]
    short = view.cut(view.offsets[:-1] + gone, view.offsets[1:])
    hide = KeyBias(torch.zeros(view.events, HEADS, dtype=torch.float64).masked_fill(~seen[:, None], HIDDEN))
    before, after = (None if ahead is None else asked_at(one, one["time"] + ahead) for one in (view, short))
    worst = 0.0
    for layer in range(LAYERS):
        whole = attended(position, tensors, view, before, layer, extra=(hide,))[rows]
        worst = max(worst, apart(attended(position, _cut(tensors, rows), short, after, layer), whole))
    return worst


def after_padding(position: Any, view: View, side: str, extra: int, ahead: int | None = None) -> float:
    """How far rows and gradients move in a rectangle with `extra` more columns than needed, filled with NaN."""
    padding: Any = side
    wide = view.laid_out(Layout(padding, int(view.lengths.max()) + extra, float("nan")))
    tensors = qkv(view.events)
    leaves = [*tensors, *trained(position)]
    found = []
    for one in (view, wide):
        batch = None if ahead is None else asked_at(one, one["time"] + ahead)
        out = attended(position, tensors, one, batch)
        way = torch.arange(out.numel(), dtype=out.dtype).view_as(out).cos()
        grads = torch.autograd.grad((out * way).sum(), leaves, allow_unused=True)
        together = torch.cat([grad.flatten() for grad in grads if grad is not None])
        found.append((out, together))
    return max(apart(found[1][0], found[0][0]), apart(found[1][1], found[0][1]))


def without(facts: Facts = FACTS, **changes: Any) -> Facts:
    """The facts with some changed."""
    return evolve(facts, **changes)
