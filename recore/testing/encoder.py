"""Checks of encoders: `docs/reference/contracts/encoder.md` in executable form.

Legend: `T` events, `R` rows that ask, `H` heads, `d` width. An encoder stands behind random vectors and the
kit's own position (places from the start, and distances where it takes pair tables).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from recore.attention import Buckets, KeyBias, PairFunction, PairTable, Rotate, Term
from recore.claims import EncoderClaims
from recore.component import Part
from recore.contracts.model import Placed
from recore.ragged import Batch, View
from recore.testing.cases import Case, fewer, largest, moved
from recore.testing.causes import why_later
from recore.testing.checks import Evidence, broken, for_all, require, states
from recore.testing.sequences import (
    EXACT,
    Move,
    Stack,
    after_cutting,
    after_neighbours,
    after_replacing,
    base_layout,
    check_padding,
    deterministic,
    finite_at_length_one,
    float32_near,
    relative,
    replaced_view,
    token_vectors,
    views,
)
from recore.testing.tiny import model as tiny

NEAR = 1e-6  # of the largest state: more is a jump where a vector passes through zero


def _claims(part: Part[Any]) -> EncoderClaims:
    claims = part.claims
    return claims if isinstance(claims, EncoderClaims) else EncoderClaims()


class _Places(nn.Module):
    """The kit's positions before an encoder: places from the start, and distances where they are taken."""

    def __init__(self, first: tiny.TinyStart, second: tiny.TinyDistance | None) -> None:
        super().__init__()
        self.first, self.second = first, second

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        placed = self.first.place(x, batch, view)
        if self.second is None:
            return placed
        return Placed(placed.inputs, self.second.place(x, batch, view).terms)


def _stack(part: Part[Any], case: Case, dtype: torch.dtype = torch.float64) -> Stack:
    encoder = case.module(part, dtype)
    context = case.context()
    takes = PairTable.name in _claims(part).terms
    second = tiny.distance(tiny.Distance(), context) if takes else None
    position = _Places(tiny.start(tiny.Start(), context), second).to(dtype)
    return Stack(token_vectors(case, dtype), encoder, position, encoder, case.items, dtype=dtype)


@states("encoder", 1, "There is one hidden state of width d for each event, and the encoder is a module.")
def check_shape(part: Part[Any], case: Case) -> Evidence:
    stack = _stack(part, case)
    require(
        isinstance(stack.encoder, nn.Module), f"it is a {type(stack.encoder).__name__}, no torch.nn.Module"
    )
    base = base_layout(stack, case.facts)

    def holds(view: View) -> None:
        found, wanted = tuple(stack.states(view.laid_out(base)).shape), (view.events, case.width)
        require(found == wanted, f"{view.events} events of width {case.width} gave states of shape {found}")

    for_all(fewer(case, 2), views(case), holds)
    return Evidence()


@states("encoder", 2, "The state at an event does not move when a later event becomes another (`causal`).")
def check_causal_replaced(part: Part[Any], case: Case) -> Evidence:
    return _causal(part, case, after_replacing)


@states(
    "encoder", 3, "The state at an event does not move when later events are removed or appended (`causal`)."
)
def check_causal_removed(part: Part[Any], case: Case) -> Evidence:
    return _causal(part, case, after_cutting)


def _causal(part: Part[Any], case: Case, after: Any) -> Evidence:
    stack, claimed = _stack(part, case), _claims(part).causal
    base = base_layout(stack, case.facts)
    worst = [Move()]
    cause: list[str] = []

    def holds(view: View) -> None:
        move = after(stack, view.laid_out(base))
        worst[0] = worst[0].worse(move)
        if claimed and move.far > EXACT:
            if not cause:
                cause.append(why_later(stack, replaced_view(case).laid_out(base), case.facts.layers or 1))
            broken(f"{move.what}, and it claims to be causal{cause[0]}")

    for_all(fewer(case, 2), views(case), holds)
    if claimed:
        return Evidence(f"at most {worst[0].far:.1e} of the largest state")
    could = ", so it could be claimed" if worst[0].far <= EXACT else ""
    return Evidence(f"measured {worst[0].far:.2g}{could}", claimed=False)


@states(
    "encoder",
    4,
    "Padding of any width and any value, on the sides that are claimed, changes neither states nor gradients "
    "(`padding`).",
)
def check_padding_invariant(part: Part[Any], case: Case) -> Evidence:
    return check_padding(case, _stack(part, case), _claims(part).padding, gradients=True)


@states(
    "encoder",
    5,
    "A history has the same states alone, among others in any order, and beside a history of no events "
    "(`batch_invariant`).",
)
def check_batch_invariant(part: Part[Any], case: Case) -> Evidence:
    stack, claimed = _stack(part, case), _claims(part).batch_invariant
    base = base_layout(stack, case.facts)
    worst = [Move()]

    def holds(view: View) -> None:
        move = after_neighbours(stack, view.laid_out(base))
        worst[0] = worst[0].worse(move)
        require(not claimed or move.far <= EXACT, f"{move.what}, and it claims to be batch-invariant")

    for_all(fewer(case, 2), views(case, fewest=2), holds)
    could = "" if claimed or worst[0].far > EXACT else ", so it could be claimed"
    return Evidence(f"measured {worst[0].far:.1e}{could}", claimed=claimed)


@states("encoder", 6, "States and gradients are finite for histories of one event, padded or not.")
def check_length_one(part: Part[Any], case: Case) -> Evidence:
    return finite_at_length_one(case, _stack(part, case), _claims(part).padding)


@states(
    "encoder",
    7,
    "With `rows` the states are those of these rows, in their order, and so are the gradients (`rows`).",
)
def check_rows(part: Part[Any], case: Case) -> Evidence:
    if not _claims(part).rows:
        return Evidence(claimed=False)
    stack = _stack(part, case)
    base = base_layout(stack, case.facts)

    def holds(example: tuple[View, int, bool]) -> None:
        view, seed, several = example
        view = view.laid_out(base)
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(view.events, generator=random)
        rows = order[: max(1, view.events // 2)] if several else view.offsets[1:] - 1
        full, x, other = stack.states(view), stack.inputs(view), stack.inputs(view)
        some = stack.states(view, rows, x=x.requires_grad_())
        require(some.shape == full[rows].shape, f"{len(rows)} rows gave states of shape {tuple(some.shape)}")
        gap = moved(full[rows], some) / max(largest(full), 1e-12)
        require(gap <= EXACT, f"asked for rows {rows.tolist()} of {view.events}, states moved by {gap:.2g}")
        way = torch.randn(some.shape, generator=random, dtype=some.dtype)
        mine = torch.autograd.grad((some * way).sum(), x)[0]
        theirs = torch.autograd.grad((stack.states(view, x=other.requires_grad_())[rows] * way).sum(), other)[
            0
        ]
        gap = moved(theirs, mine) / max(largest(theirs), 1e-12)
        require(
            gap <= EXACT, f"asked for rows {rows.tolist()} of {view.events}, gradients moved by {gap:.2g}"
        )

    for_all(fewer(case, 2), st.tuples(views(case), st.integers(0, 99), st.booleans()), holds)
    return Evidence()


@states(
    "encoder",
    8,
    "In evaluation mode the same batch gives the same states to the last bit; torch's own generator and "
    "settings stay as they are.",
)
def check_deterministic(part: Part[Any], case: Case) -> Evidence:
    return deterministic(case, _stack(part, case))


def _terms(
    view: View, heads: int, width: int, claimed: frozenset[str], random: torch.Generator
) -> Iterator[tuple[str, Term]]:
    """One of every form of every term that is claimed, with random content."""
    count, each = view.events, width // heads

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    if Rotate.name in claimed and each % 2 == 0:
        angle = normal(count, each // 2)
        yield "rotate", Rotate(angle.cos(), angle.sin())
    if PairTable.name in claimed:
        yield "pair-table into logit", PairTable("logit", normal(9, heads), low=-4)
        yield "pair-table into key", PairTable("key", normal(9, heads, each), low=-4)
        yield "pair-table into value", PairTable("value", normal(9, heads, each), low=-4)
        place = view.place
        buckets = Buckets(lambda row, key: (row - key).abs().clamp(max=2), place, place)
        yield "pair-table by buckets", PairTable("logit", normal(3, heads), buckets)
        if "project" in claimed:
            yield "projected pair-table into key", PairTable("key", normal(9, width), low=-4, project=True)
            yield (
                "projected pair-table into value",
                PairTable("value", normal(9, width), low=-4, project=True),
            )
    if KeyBias.name in claimed:
        yield "key-bias", KeyBias(normal(count, heads))
    if PairFunction.name in claimed:
        weight = normal(count)
        yield "pair-function", PairFunction(_product, (weight,))


def _product(rows: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """`(b, 1, r, c)`."""
    return (weight[rows][:, :, None] * weight[keys][:, None, :])[:, None]


@states(
    "encoder",
    9,
    "Every attention term that is claimed changes the states, in each layer that it is given for (`terms`).",
)
def check_terms(part: Part[Any], case: Case) -> Evidence:
    claims, stack = _claims(part), _stack(part, case)
    if not claims.terms:
        return Evidence("inputs only", claimed=False)
    base = base_layout(stack, case.facts)
    random = case.generator("terms")
    layers = case.facts.layers or 1
    tried: list[str] = []
    view = replaced_view(case).laid_out(base)
    batch, x = stack.batch(view), stack.inputs(view)

    def found(terms: list[tuple[Term, ...]]) -> Tensor:
        states: Tensor = stack.encoder.encode(x, batch, view, Placed(x, terms))
        return states

    bare = found([() for _ in range(layers)])
    for name, term in _terms(view, case.facts.heads or 1, case.width, claims.terms, random):
        tried.append(name)
        shared = found([(term,)])
        each = found([(term,) for _ in range(layers)])
        gap = moved(shared, each) / max(largest(shared), 1e-12)
        require(gap <= EXACT, f"a {name} for all layers and the same layer by layer differ by {gap:.2g}")
        for layer in range(layers):
            gap = moved(bare, found([(term,) if at == layer else () for at in range(layers)]))
            require(gap > 1e-9, f"a {name} in layer {layer} of {layers} changes no state")
    return Evidence(", ".join(tried))


@states("encoder", 10, "In float32 the states are those of float64, within a scaled bound.")
def check_float32(part: Part[Any], case: Case) -> Evidence:
    return float32_near(case, lambda dtype: _stack(part, case, dtype))


@states(
    "encoder",
    11,
    "Which events there are is read from the view, never from vectors: an event whose vector is zero, or sums to "
    "zero, is an event as one beside it is.",
)
def check_zero_is_an_event(part: Part[Any], case: Case) -> Evidence:
    stack = _stack(part, case)
    base = base_layout(stack, case.facts)
    worst = [0.0]

    def states_of(view: View, x: Tensor) -> Tensor:
        found: Tensor = stack.encoder.encode(x, stack.batch(view), view, Placed(x))
        return found

    def holds(example: tuple[View, int]) -> None:
        view, seed = example[0].laid_out(base), example[1]
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(view.events, case.width, generator=random, dtype=torch.float64)
        row = int(torch.randint(view.events, (1,), generator=random))
        balanced = torch.zeros(case.width, dtype=torch.float64)
        balanced[0], balanced[-1] = 1.0, -1.0
        for what, vector, step in (("zero", 0 * balanced, 1e-20), ("sums to zero", balanced, 1e-12)):
            x[row] = vector
            at = states_of(view, x.clone())
            gap = relative(states_of(view, x.clone()), at)
            require(
                gap <= NEAR, f"the same batch gives states that differ by {gap:.2g}, so nothing can be told"
            )
            x[row, 0] += step
            gap = relative(states_of(view, x.clone()), at)
            worst[0] = max(worst[0], gap)
            require(
                gap <= NEAR,
                f"states moved by {gap:.2g} when a vector that {'is ' if what == 'zero' else ''}{what} moved by "
                f"{step:g}: the event is taken for padding because of its vector",
            )

    for_all(fewer(case, 2), st.tuples(views(case), st.integers(0, 99)), holds)
    return Evidence(f"states moved by at most {worst[0]:.1e}")
