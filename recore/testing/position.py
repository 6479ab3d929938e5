"""Checks of positions: `docs/reference/contracts/position.md` in executable form.

A position stands between random vectors and the kit's own causal encoder, and is judged by hidden states.
Legend: `T` events, `H` heads, `d` width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from recore.attention import KeyBias, Term
from recore.claims import BOTH_SIDES, PositionClaims, Side
from recore.component import Part
from recore.ragged import Layout, View
from recore.testing.cases import Case, fewer, largest
from recore.testing.checks import Evidence, for_all, require, states
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
    reference_encoder,
    relative,
    replaced_view,
    token_vectors,
    views,
)

SEEN = 1e-6  # a move beyond this is one that the scheme makes
HIDDEN = -1e30  # added to the logit of a key that is to count for nothing


def _claims(part: Part[Any]) -> PositionClaims:
    claims = part.claims
    return claims if isinstance(claims, PositionClaims) else PositionClaims()


def _stack(
    part: Part[Any], case: Case, dtype: torch.dtype = torch.float64, layer: int | None = None
) -> Stack:
    position = case.module(part, dtype)
    layers = (case.facts.layers or 1) if layer is None else 1
    encoder = reference_encoder(case, layers, dtype)
    return Stack(token_vectors(case, dtype), encoder, position, position, case.items, layer, dtype)


@states(
    "position",
    1,
    "Inputs are `(T, d)`, and there are terms for all layers alike or for each of them.",
)
def check_shape(part: Part[Any], case: Case) -> Evidence:
    stack = _stack(part, case)
    base, layers = base_layout(stack, case.facts), case.facts.layers
    names: set[str] = set()

    def holds(view: View) -> None:
        view = view.laid_out(base)
        x = stack.inputs(view)
        placed = stack.placed(x, stack.batch(view), view)
        require(
            placed.inputs.shape == x.shape,
            f"inputs of shape {tuple(x.shape)} became {tuple(placed.inputs.shape)}",
        )
        require(
            len(placed.terms) in (1, layers),
            f"there are terms for {len(placed.terms)} layers, the encoder has {layers}",
        )
        names.update(term.name for terms in placed.terms for term in terms)
        require(bool(torch.equal(x, stack.inputs(view))), "the inputs that were given were changed in place")

    for_all(fewer(case, 2), views(case), holds)
    return Evidence("terms: " + (", ".join(sorted(names)) or "none"))


@states("position", 2, "No state moves when a later event becomes another item.")
def check_causal(part: Part[Any], case: Case) -> Evidence:
    stack = _stack(part, case)
    base = base_layout(stack, case.facts)

    def holds(view: View) -> None:
        move = after_replacing(stack, view.laid_out(base))
        require(move.far <= EXACT, move.what)

    for_all(fewer(case, 2), views(case), holds)
    return Evidence()


@states(
    "position",
    3,
    "The state at an event is the same whether or not later events stand in the batch (`prefix_consistent`).",
)
def check_prefix_consistent(part: Part[Any], case: Case) -> Evidence:
    stack, claims = _stack(part, case), _claims(part)
    claimed, worst = claims.prefix_consistent, [Move()]
    tried = _layouts(stack, case, claims.padding if claimed else BOTH_SIDES)

    def holds(view: View) -> None:
        for layout in tried:
            move = after_cutting(stack, view.laid_out(layout))
            worst[0] = worst[0].worse(move)
            require(not claimed or move.far <= EXACT, f"{move.what}, and it claims to be prefix-consistent")

    for_all(fewer(case, 2), views(case), holds)
    return _measured(worst[0].far, claimed)


def _layouts(stack: Stack, case: Case, sides: frozenset[Side]) -> list[Layout]:
    """No rectangle, where that is accepted, and rectangles of the model's width on these sides."""
    width = case.facts.history if isinstance(case.facts.history, int) else 32
    return [base_layout(stack, case.facts), *(Layout(side, width) for side in sorted(sides))]


def _measured(far: float, claimed: bool) -> Evidence:
    could = "" if claimed or far > EXACT else ", so it could be claimed"
    return Evidence(f"measured {far:.1e}{could}", claimed=claimed)


def _shifted(stack: Stack, view: View, drop: int) -> tuple[Tensor, Tensor]:
    """States of the events that stay when the first `drop` of each history are dropped: before, with the
    dropped ones hidden as keys, and after. What is contributed to those that stay is all that can differ."""
    start = torch.minimum(view.offsets[:-1] + drop, view.offsets[1:] - 1)
    keep = view.place >= torch.minimum(view.lengths - 1, torch.full_like(view.lengths, drop))[view.sequence]
    heads = stack.encoder.blocks[0].heads  # type: ignore[attr-defined]  # it is the kit's own
    bias = torch.zeros(view.events, heads, dtype=stack.dtype).masked_fill(~keep[:, None], HIDDEN)
    extra: tuple[Term, ...] = (KeyBias(bias),)
    whole = stack.states(view, extra=extra)[keep]
    short = view.cut(start, view.offsets[1:], view.index)
    zero: tuple[Term, ...] = (KeyBias(torch.zeros(short.events, heads, dtype=stack.dtype)),)
    return whole, stack.states(short, extra=zero)


def _after_dropping(stack: Stack, view: View) -> Move:
    worst = Move()
    for drop in range(1, int(view.lengths.max())):
        whole, short = _shifted(stack, view, drop)
        gap = relative(whole, short)
        what = f"states moved by {gap:.2g} when the {drop} oldest events were dropped"
        worst = worst.worse(Move(gap, what))
    return worst


@states(
    "position",
    4,
    "Events dropped from the old end of a history do not change what is contributed to those that stay "
    "(`shift_invariant`).",
)
def check_shift_invariant(part: Part[Any], case: Case) -> Evidence:
    claims, worst = _claims(part), [Move()]
    claimed = claims.shift_invariant
    for layer in range(case.facts.layers or 1):
        stack = _stack(part, case, layer=layer)
        tried = _layouts(stack, case, claims.padding if claimed else BOTH_SIDES)

        def holds(view: View, stack: Stack = stack, tried: list[Layout] = tried) -> None:
            for layout in tried:
                move = _after_dropping(stack, view.laid_out(layout))
                worst[0] = worst[0].worse(move)
                require(not claimed or move.far <= EXACT, f"{move.what}, and it claims to be shift-invariant")

        for_all(fewer(case), views(case), holds)
    return _measured(worst[0].far, claimed)


def _reordered(view: View) -> View:
    """Every history's items in reverse order but the last, which stays; times stay in order."""
    rows = []
    for first, stop in zip(view.offsets[:-1].tolist(), view.offsets[1:].tolist(), strict=True):
        rows += [*reversed(range(first, stop - 1)), stop - 1]
    moved = view.take(torch.tensor(rows), view.offsets, view.index)
    return moved.with_columns(time=view["time"])


def _order_sensitivity(stack: Stack, view: View) -> float:
    last = view.offsets[1:] - 1
    return relative(stack.states(view)[last], stack.states(_reordered(view))[last])


@states(
    "position",
    5,
    "A position is counted from what `relative_to` says: from the `prediction` (dropping old events changes "
    "nothing, their order counts), the `start` (removing later events changes nothing, dropping old ones "
    "does), the `window` (only the column of the rectangle counts) or `nothing` (order does not count).",
)
def check_relative_to(part: Part[Any], case: Case) -> Evidence:
    said = _claims(part).relative_to
    stacks = [_stack(part, case, layer=layer) for layer in range(case.facts.layers or 1)]
    if said == "window":
        return _window(stacks, case)
    base = base_layout(stacks[0], case.facts)
    view = replaced_view(case).laid_out(base)
    tried = [(stack, times) for stack in stacks for times in (view, _timed(view, case, "times"))]
    order = max(_order_sensitivity(stack, times) for stack, times in tried)
    drop = _worst(_after_dropping(stack, times) for stack, times in tried)
    cut = _worst(after_cutting(stack, times) for stack, times in tried)
    seen = f"order {order:.1e}, dropping old events {drop.far:.1e}, removing later ones {cut.far:.1e}"
    if said == "nothing":
        require(
            order <= EXACT, f"the last state moved by {order:.2g} when the events before it changed order"
        )
    else:
        require(
            order > SEEN or drop.far > SEEN,
            f"neither the order of events nor dropping old ones moves any state ({seen}), so it is "
            f"relative to nothing, and `relative_to: {said}` is claimed",
        )
    if said == "prediction":
        require(drop.far <= EXACT, f"{drop.what}, and `relative_to: prediction` is claimed")
    if said == "start":
        require(cut.far <= EXACT, f"{cut.what}, and `relative_to: start` is claimed")
        require(
            drop.far > SEEN,
            f"dropping old events moved states by {drop.far:.2g} only, so nothing is counted from the start",
        )
    return Evidence(f"{said}: {seen}")


def _worst(moves: Any) -> Move:
    worst = Move()
    for move in moves:
        worst = worst.worse(move)
    return worst


def _window(stacks: list[Stack], case: Case) -> Evidence:
    """Left: the old end may be dropped; right: the new end; and under left a wider window is another."""
    width = case.facts.history if isinstance(case.facts.history, int) else 32
    view = replaced_view(case)
    left, right = (view.laid_out(Layout(side, width)) for side in ("left", "right"))
    drop = _worst(_after_dropping(stack, left) for stack in stacks)
    cut = _worst(after_cutting(stack, right) for stack in stacks)
    require(drop.far <= EXACT, f"with padding on the left {drop.what}, though its columns stay")
    require(cut.far <= EXACT, f"with padding on the right {cut.what}, though their columns stay")
    narrow = view.laid_out(Layout("left", int(view.lengths.max())))
    wider = max(relative(stack.states(narrow), stack.states(left)) for stack in stacks)
    require(
        wider > SEEN,
        f"a window wider on the left moved states by {wider:.2g} only: nothing is counted from it",
    )
    return Evidence(f"window: another width on the left moves states by {wider:.1e}")


@states(
    "position",
    6,
    "Padding of any width and any value, on the sides that are claimed, changes neither states nor gradients "
    "(`padding`).",
)
def check_padding_invariant(part: Part[Any], case: Case) -> Evidence:
    return check_padding(case, _stack(part, case), _claims(part).padding, gradients=True)


@states(
    "position",
    7,
    "A history is placed alike alone, among others in any order, and beside a history of no events.",
)
def check_batch_invariant(part: Part[Any], case: Case) -> Evidence:
    stack = _stack(part, case)
    base = base_layout(stack, case.facts)

    def holds(view: View) -> None:
        move = after_neighbours(stack, view.laid_out(base))
        require(move.far <= EXACT, move.what)

    for_all(fewer(case, 2), views(case, fewest=2), holds)
    return Evidence()


@states("position", 8, "States and gradients are finite for histories of one event, padded or not.")
def check_length_one(part: Part[Any], case: Case) -> Evidence:
    return finite_at_length_one(case, _stack(part, case), _claims(part).padding)


@states(
    "position",
    9,
    "In evaluation mode the same batch gives the same states to the last bit; torch's own generator and "
    "settings stay as they are.",
)
def check_deterministic(part: Part[Any], case: Case) -> Evidence:
    return deterministic(case, _stack(part, case))


@states(
    "position",
    10,
    "Times are read as `query_time` says: not at all with `none`, those of the asking event and earlier ones with "
    "`last-event`, and with `target` that of the event to be predicted, too.",
)
def check_query_time(part: Part[Any], case: Case) -> Evidence:
    said, stack = _claims(part).query_time, _stack(part, case)
    view = _timed(replaced_view(case), case, "times").laid_out(base_layout(stack, case.facts))
    asked = view["time"] + 3600
    plain = _asked(stack, view, asked)
    log = relative(plain, _asked(stack, _timed(view, case, "other times"), asked))
    target = relative(plain, _asked(stack, view, asked + 77_777))
    if said == "none":
        require(log <= EXACT, f"states moved by {log:.2g} when the times of the log changed")
    if said != "target":
        require(target <= EXACT, f"states moved by {target:.2g} when the time of the target changed")
    later = _after_postponing(stack, view, asked)
    require(later.far <= EXACT, later.what)
    require(
        said != "last-event" or log > SEEN,
        f"states moved by {log:.2g} only when all times of the log changed, so none is read, and `query_time: "
        "last-event` is claimed",
    )
    require(
        said != "target" or target > SEEN,
        f"states moved by {target:.2g} only when the time of the target changed, so it is not read, and "
        "`query_time: target` is claimed",
    )
    return Evidence(f"{said}: the log's times move states by {log:.1e}, the target's by {target:.1e}")


def _timed(view: View, case: Case, purpose: str) -> View:
    """The view with gaps of a second to ten years between events, whatever scale a scheme reads them by."""
    years = torch.rand(view.events, generator=case.generator("times", purpose), dtype=torch.float64)
    gaps = (years * math.log(3e8)).exp().long()
    total = gaps.cumsum(0)
    return view.with_columns(time=total - (total - gaps)[view.offsets[:-1]][view.sequence]).laid_out(
        view.layout
    )


def _asked(stack: Stack, view: View, time: Tensor) -> Tensor:
    """States `(T, d)` where each row's target has its time of `(T,)`."""
    batch, x = stack.batch(view), stack.inputs(view)
    assert batch.targets is not None
    batch = evolve(batch, targets=evolve(batch.targets, time=time))
    placed = stack.placed(x, batch, view)
    return stack.encoder.encode(placed.inputs, batch, view, placed)


def _after_postponing(stack: Stack, view: View, asked: Tensor) -> Move:
    """Move all events from a place on to another time, place by place; states before, whose targets keep their
    times, should stay."""
    plain, worst = _asked(stack, view, asked), Move()
    for count in range(1, int(view.lengths.max())):
        rows = (view.place < count).nonzero().squeeze(-1)
        # Nearer together, too: a scale that is the shortest gap's moves only then.
        later = view["time"] + 1000 * torch.arange(view.events)
        nearer = torch.where(view.place < count, view["time"], view["time"].min() + view.place)
        for time in (torch.where(view.place < count, view["time"], later), nearer):
            gap = relative(plain[rows], _asked(stack, view.with_columns(time=time), asked)[rows])
            what = f"states before place {count} moved by {gap:.2g} when the times of events from there on changed"
            worst = worst.worse(Move(gap, what))
    return worst


@states("position", 11, "In float32 the states are those of float64, within a scaled bound.")
def check_float32(part: Part[Any], case: Case) -> Evidence:
    return float32_near(case, lambda dtype: _stack(part, case, dtype))


@states(
    "position",
    12,
    "What trains gets a gradient, in every layer that has parameters of its own.",
)
def check_gradients_reach(part: Part[Any], case: Case) -> Evidence:
    stack = _stack(part, case)
    if not isinstance(stack.under_test, nn.Module) or not list(stack.under_test.parameters()):
        return Evidence("nothing trains", claimed=False)
    base = base_layout(stack, case.facts)
    view = replaced_view(case).laid_out(base)
    way = torch.randn(view.events, case.width, generator=case.generator("way"), dtype=torch.float64)
    found = stack.gradients(view, way)[1:]
    names = [name for name, p in stack.under_test.named_parameters() if p.requires_grad]
    for name, gradient in zip(names, found, strict=True):
        require(largest(gradient) > 0, f"`{name}` gets no gradient from 13 events in 3 histories")
    return Evidence(f"{len(names)} parameters")
