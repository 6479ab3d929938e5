"""What encoders and positions are checked with alike: states of histories, and how far they move.

Legend: `T` events, `B` sequences, `d` width. In float64, `EXACT` of the largest state unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from recore.attention import Term
from recore.claims import Side
from recore.component import Facts
from recore.contracts.model import Encoder, Placed, Position
from recore.errors import RecoreError
from recore.ragged import Batch, Layout, View, count_rectangles, offsets_of
from recore.rng import default_generator
from recore.testing.cases import Case, fewer, largest, moved
from recore.testing.causes import why_padding
from recore.testing.checks import Evidence, broken, for_all, require
from recore.testing.strategies import MOST_EXTRA, NAN, histories, targets_of
from recore.testing.tiny.data import SPECIALS
from recore.testing.tiny.model import Blocks, TinyEncoder

EXACT = 1e-9
NARROW = 1e-4  # of the largest state, in float32


@frozen(eq=False)
class Stack:
    """Vectors of tokens, a position and an encoder: states of a view.

    `vectors (tokens, d)` are random; `under_test` is the module whose parameters are compared. Terms of layer
    `layer` go to an encoder of one block where given.
    """

    vectors: Tensor
    encoder: Encoder
    position: Position | None
    under_test: Any
    items: int
    layer: int | None = None
    dtype: torch.dtype = field(default=torch.float64)

    def batch(self, view: View) -> Batch:
        """The view, and a target for each row an hour later."""
        return Batch({"user": view}, targets_of(view, self.items, torch.Generator().manual_seed(0)))

    def inputs(self, view: View) -> Tensor:
        """`(T, d)`."""
        return self.vectors[view["token"]].detach().clone()

    def placed(self, x: Tensor, batch: Batch, view: View, extra: tuple[Term, ...] = ()) -> Placed:
        """What the position contributes, with `extra` terms in every layer."""
        made = Placed(x) if self.position is None else self.position.place(x, batch, view)
        layers = made.terms if self.layer is None else [made.layer(self.layer)]
        return Placed(made.inputs, [(*terms, *extra) for terms in layers])

    def states(
        self, view: View, rows: Tensor | None = None, extra: tuple[Term, ...] = (), x: Tensor | None = None
    ) -> Tensor:
        """`(T, d)`, or `(R, d)`."""
        batch = self.batch(view)
        x = self.inputs(view) if x is None else x
        placed = self.placed(x, batch, view, extra)
        if rows is None:
            return self.encoder.encode(placed.inputs, batch, view, placed)
        return self.encoder.encode(placed.inputs, batch, view, placed, rows=rows)

    def gradients(self, view: View, way: Tensor) -> list[Tensor]:
        """Of Σ states · way: for the inputs, and for each parameter under test."""
        x = self.inputs(view).requires_grad_()
        held = self.under_test
        leaves = (
            [x, *(p for p in held.parameters() if p.requires_grad)] if isinstance(held, nn.Module) else [x]
        )
        total = (self.states(view, x=x) * way).sum()
        found = torch.autograd.grad(total, leaves, allow_unused=True)
        return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def token_vectors(case: Case, dtype: torch.dtype = torch.float64) -> Tensor:
    """`(tokens, d)`, zero for special rows that do not train."""
    random = case.generator("vectors")
    made = torch.randn(len(SPECIALS) + case.items, case.width, generator=random, dtype=torch.float64)
    made[[special.id for special in SPECIALS if not special.trainable]] = 0
    return made.to(dtype)


def reference_encoder(case: Case, layers: int, dtype: torch.dtype = torch.float64) -> TinyEncoder:
    """The kit's own encoder, by which positions are checked."""
    with default_generator(case.seed, "kit", "reference"):
        made = TinyEncoder(Blocks(layers=layers, heads=case.facts.heads or 1), case.context())
    return made.to(dtype).eval()


def views(case: Case, longest: int | None = None, most: int = 3, fewest: int = 1) -> Any:
    """Histories of the case, unknown items among them."""
    return histories(
        items=case.items,
        longest=longest or case.profile.longest,
        most=most,
        fewest=fewest,
        columns=case.columns,
        unknown=True,
    )


def base_layout(stack: Stack, facts: Facts) -> Layout:
    """No rectangle where the part does without; else one of the model's width on the recipe's side."""
    try:
        stack.states(_one_event(facts.columns or {"time"}))
    except (ValueError, RecoreError):
        side = facts.padding if facts.padding in ("left", "right") else "right"
        return Layout(side, facts.history if isinstance(facts.history, int) else None)
    return Layout()


def _one_event(columns: Collection[str]) -> View:
    one = torch.ones(1, dtype=torch.int64)
    made = {
        **dict.fromkeys(columns, one * 0),
        "token": one * len(SPECIALS),
        "item": one * 0,
        "event": one * 0,
    }
    return View(made, torch.tensor([0, 1]), index=one * 0)


def replaced(view: View, row: int, items: int) -> View:
    """The view with another item at one row."""
    item, token = view["item"].clone(), view["token"].clone()
    item[row] = (int(item[row]) + 1) % items
    token[row] = item[row] + len(SPECIALS)
    return view.with_columns(item=item, token=token)


def before(view: View, row: int) -> Tensor:
    """Rows of all other sequences, and those before `row` in its own."""
    rows = torch.arange(view.events)
    return rows[(view.sequence != view.sequence[row]) | (rows < row)]


@frozen
class Move:
    """How far states moved, at most, relative to the largest of them, and after what."""

    far: float = 0.0
    what: str = ""

    def worse(self, other: Move) -> Move:
        """The farther of the two."""
        return other if other.far > self.far else self


def relative(one: Tensor, other: Tensor) -> float:
    """How far apart, relative to the largest of the first."""
    return moved(one, other) / max(largest(one), 1e-12)


def after_replacing(stack: Stack, view: View) -> Move:
    """Replace every event in turn; states before it, and of other histories, should stay."""
    states = stack.states(view)
    worst = Move()
    for row in range(view.events):
        rows = before(view, row)
        gap = (
            relative(states[rows], stack.states(replaced(view, row, stack.items))[rows]) if len(rows) else 0.0
        )
        place = int(view.place[row])
        worst = worst.worse(
            Move(
                gap, f"states before place {place} moved by {gap:.2g} when the item at place {place} changed"
            )
        )
    return worst


def after_cutting(stack: Stack, view: View) -> Move:
    """Remove the last events, one after the other; the states of those that stay should stay."""
    states = stack.states(view)
    worst = Move()
    for count in range(1, int(view.lengths.max())):
        stop = torch.minimum(view.offsets[:-1] + count, view.offsets[1:])
        rows = (view.place < count).nonzero().squeeze(-1)
        cut = view.cut(view.offsets[:-1], stop, view.index)
        short = stack.states(cut)
        gap = relative(states[rows], short)
        rest = torch.ones(len(rows), dtype=torch.bool).index_fill(0, cut.last, False)
        edge = gap > EXACT and bool(rest.any()) and relative(states[rows][rest], short[rest]) <= EXACT
        alone = ", those of the events that became last and no others," if edge else ""
        worst = worst.worse(
            Move(gap, f"states moved by {gap:.2g}{alone} when all events from place {count} on were removed")
        )
    return worst


def after_padding(stack: Stack, view: View, side: Side, base: Layout, gradients: bool) -> tuple[Move, int]:
    """Force rectangles on one side, of several widths and fills; nothing should move. And how many
    rectangles the part made."""
    start = base if base.padding in ("none", side) else Layout(side, base.width)
    room = base.width or int(view.lengths.max()) + MOST_EXTRA
    tight = int(view.lengths.max())
    if start.padding != "none":  # no padding at all is not to be had: compare with the least
        start = Layout(side, tight)
    plain = view.laid_out(start)
    way = torch.randn(
        view.events, stack.vectors.shape[1], generator=torch.Generator().manual_seed(1), dtype=stack.dtype
    )
    states = stack.states(plain).detach()
    wanted = stack.gradients(plain, way) if gradients else []
    worst = Move()
    with count_rectangles() as made:
        for extra, fill in ((0, NAN), (1, NAN), (2, 1e9), (MOST_EXTRA, NAN)):
            width = min(tight + extra, max(room, tight))
            forced = view.laid_out(Layout(side, width, fill))
            what = f"with {width - tight} columns of padding on the {side}, filled with {fill:g},"
            gap = relative(states, stack.states(forced))
            worst = worst.worse(Move(gap, f"{what} states moved by {gap:.2g}"))
            if gradients:
                found = stack.gradients(forced, way)
                gap = max(map(moved, wanted, found)) / max(largest(*wanted), 1e-12)
                worst = worst.worse(Move(gap, f"{what} gradients moved by {gap:.2g}"))
    return worst, made[0]


def check_padding(case: Case, stack: Stack, claimed: frozenset[Side], gradients: bool) -> Evidence:
    """The sides that are claimed hold; the others are measured."""
    base = base_layout(stack, case.facts)
    rectangles = [0]
    measured: dict[Side, Move] = {}
    causes: dict[Side, str] = {}

    def holds(view: View) -> None:
        for side in sorted(claimed):
            move, made = after_padding(stack, view, side, base, gradients)
            rectangles[0] += made
            if move.far > EXACT:
                if side not in causes:
                    causes[side] = why_padding(stack, replaced_view(case), side)
                broken(f"{move.what}, and padding on the {side} is claimed{causes[side]}")

    for_all(fewer(case), views(case), holds)

    def measure(view: View) -> None:
        for side in ("left", "right"):
            if side not in claimed:
                try:
                    move, _ = after_padding(stack, view, side, base, gradients)
                except (ValueError, RecoreError) as error:
                    move = Move(float("inf"), f"padding on the {side} is refused: {error}")
                measured[side] = measured.get(side, Move()).worse(move)

    if len(claimed) < 2:
        for_all(fewer(case), views(case, fewest=2), measure)
    words = [f"invariant on {' and '.join(sorted(claimed))}"] if claimed else []
    words += [
        f"not claimed on the {side}: measured {measured.get(side, Move()).far:.2g}"
        + ("" if measured.get(side, Move()).far > EXACT else ", so it could be claimed")
        for side in ("left", "right")
        if side not in claimed
    ]
    if claimed and not rectangles[0]:
        words.append("no rectangle was made, so no padding could do anything")
    elif claimed:
        words.append(f"{rectangles[0]} rectangles were made")
    return Evidence("; ".join(words), claimed=bool(claimed))


def alone(view: View, sequence: int) -> View:
    """One history of a batch, by itself."""
    return view.cut(
        view.offsets[sequence : sequence + 1],
        view.offsets[sequence + 1 : sequence + 2],
        _index(view, [sequence]),
    )


def replaced_view(case: Case) -> View:
    """Three histories of 5, 1 and 7 events, with the columns of the case."""
    count = 13
    item = torch.arange(count) % case.items
    made = {"token": item + 3, "item": item, "event": torch.arange(count)}
    made |= {name: 100 * torch.arange(count) ** 2 for name in case.columns if name not in made}
    return View(made, torch.tensor([0, 5, 6, 13]), index=torch.arange(3))


def _index(view: View, order: Sequence[int]) -> Tensor | None:
    return None if view.index is None else view.index[list(order)]


def reordered(view: View, order: Sequence[int]) -> View:
    """The histories of a batch in another order."""
    chosen = torch.tensor(order, dtype=torch.int64)
    return view.cut(view.offsets[chosen], view.offsets[chosen + 1], _index(view, order))


def with_empty(view: View, at: int) -> View:
    """The batch with a history of no events put in."""
    lengths = view.lengths.tolist()
    lengths.insert(at, 0)
    return View(view.columns, offsets_of(torch.tensor(lengths)), view.layout)


def after_neighbours(stack: Stack, view: View) -> Move:
    """Each history alone, the batch in reverse order, the batch with an empty history: all alike."""
    states = stack.states(view)
    pieces = [states[int(a) : int(b)] for a, b in zip(view.offsets[:-1], view.offsets[1:], strict=True)]
    worst, scale = Move(), max(largest(states), 1e-12)
    for sequence, piece in enumerate(pieces):
        gap = moved(piece, stack.states(alone(view, sequence))) / scale
        worst = worst.worse(
            Move(
                gap,
                f"the states of a history of {len(piece)} events moved by {gap:.2g} in a batch of {len(view)}: "
                "a neighbour reaches them",
            )
        )
    order = list(reversed(range(len(view))))
    gap = moved(torch.cat([pieces[i] for i in order]), stack.states(reordered(view, order))) / scale
    worst = worst.worse(
        Move(
            gap,
            f"states moved by {gap:.2g} when {len(view)} histories came in reverse order: a neighbour reaches them",
        )
    )
    for at in (0, len(view)):
        gap = moved(states, stack.states(with_empty(view, at))) / scale
        worst = worst.worse(
            Move(gap, f"states moved by {gap:.2g} when a history of no events was put at {at}")
        )
    return worst


def finite_at_length_one(case: Case, stack: Stack, sides: frozenset[Side]) -> Evidence:
    """Histories of one event, alone and beside longer ones, in evaluation and in training mode."""
    base = base_layout(stack, case.facts)
    layouts = [base, *(Layout(side, 3, NAN) for side in sorted(sides))]

    def holds(view: View) -> None:
        only = view.cut(view.offsets[:1], view.offsets[:1] + 1, _index(view, [0]))
        stop = torch.cat([view.offsets[:1] + 1, view.offsets[2:]])
        mixed = view.cut(view.offsets[:-1], stop, view.index)
        for short, layout in ((v, one) for v in (only, mixed) for one in layouts):
            if layout.width is not None and layout.width < int(short.lengths.max()):
                layout = evolve(layout, width=int(short.lengths.max()) + 2)
            laid = short.laid_out(layout)
            where = f"lengths {short.lengths.tolist()}, padding {layout.padding}"
            states = stack.states(laid)
            require(bool(states.isfinite().all()), f"{where}: some states are not finite")
            for mode in modes(stack.under_test):
                with default_generator(case.seed, "dropout"):
                    found = stack.gradients(
                        laid, torch.ones(laid.events, stack.vectors.shape[1], dtype=stack.dtype)
                    )
                bad = [g for g in found if not bool(g.isfinite().all())]
                require(
                    not bad, f"{where}: {len(bad)} of {len(found)} gradients are not finite in {mode} mode"
                )

    for_all(fewer(case), views(case, longest=4, most=3, fewest=2), holds)
    return Evidence("evaluation and training mode")


def modes(module: Any) -> Iterator[str]:
    """Evaluation mode, then training mode; evaluation mode afterwards."""
    yield "evaluation"
    if isinstance(module, nn.Module):
        module.train()
        try:
            yield "training"
        finally:
            module.eval()


def deterministic(case: Case, stack: Stack) -> Evidence:
    """In evaluation mode twice the same to the last bit; no generator and no setting of torch changes."""
    base = base_layout(stack, case.facts)

    def holds(view: View) -> None:
        view = view.laid_out(base)
        state, kept = torch.get_rng_state(), torch.is_grad_enabled()
        one = stack.states(view)
        require(
            torch.equal(state, torch.get_rng_state()),
            "torch's default generator was advanced, as by a dropout that is left on",
        )
        require(kept == torch.is_grad_enabled(), "torch's gradient mode was left changed")
        with default_generator(case.seed + 1, "other"):
            two = stack.states(view.laid_out(base))
        require(
            torch.equal(one, two),
            f"the same batch gave states that differ by {relative(one, two):.2g} when it came again, as when "
            "something is kept from one batch to the next",
        )

    for_all(fewer(case, 2), views(case), holds)
    return Evidence()


def float32_near(case: Case, make: Callable[[torch.dtype], Stack]) -> Evidence:
    """float32 against float64, within a scaled bound."""
    wide, narrow = make(torch.float64), make(torch.float32)
    base = base_layout(wide, case.facts)
    worst = [0.0]

    def holds(view: View) -> None:
        laid = view.laid_out(base)
        gap = relative(wide.states(laid), narrow.states(view.laid_out(base)))
        worst[0] = max(worst[0], gap)
        require(gap <= NARROW, f"states in float32 are {gap:.2g} of the largest from those in float64")

    for_all(fewer(case, 2), views(case), holds)
    return Evidence(f"at most {worst[0]:.1e} of the largest state")
