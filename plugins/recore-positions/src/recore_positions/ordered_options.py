"""Options of the positions that follow from the order of events by a fixed rule: `alibi`, `rope`. Free of torch."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from recore import BOTH_SIDES, Costs, Facts, Load, PositionClaims, option
from recore_positions.checked import untaken


def _above_zero(instance: object, attribute: Any, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"`{attribute.name}`: expected a number above 0, got {value}")


def _above_one(instance: object, attribute: Any, value: float) -> None:
    if not 1 < value < float("inf"):
        raise ValueError(f"`{attribute.name}`: expected a number above 1, got {value}")


def _claims() -> PositionClaims:
    """Only the distance between two events enters."""
    return PositionClaims("prediction", prefix_consistent=True, shift_invariant=True, padding=BOTH_SIDES)


@frozen
class Alibi:
    """A penalty that grows with distance, added to the attention logit: asking event `i` (the prediction) and
    key `j` of head `h = 1 … H` give

        logit_ij = q_i · k_j · scale − m_h · |i − j|,    m_h = 2^(−exponent · h / H)

    with slopes `m_h` that no training changes: of eight heads, 1/2, 1/4, … 1/256. Where H is no power of two, of
    the next lower one, p, all slopes are taken, and every second one of 2p for the rest, as in the paper's code.
    Later events (an encoder that is not causal) are as far as earlier ones. Distances are exact up to the
    longest history of the batch, never clipped, so `history: all` is fit for it.

    What the slopes mean for a history: a head with slope `m` has forgotten half of what an event says against
    its neighbour after 0.7 / m events. *With one head there is one slope, 1/256*: over 50 events the logit
    falls by 0.2, which is next to nothing, and the scheme is nearly `none`. Use several heads, an `exponent` that
    makes the gentlest slope steeper (4: 1/16), or `slopes: learned`, which learns `log2 m_h`, starting there, one
    for each head and all layers.

    Claims: relative to the prediction, prefix consistent, shift invariant, padding of either side changes
    nothing. Cost: no products; one addition per logit, in tiles, whose memory grows with length times tile.
    Fixed slopes have no gradient to form; learned ones have that of a table of distances.

    Press et al. 2022, Train Short, Test Long, section 3, and its code (`get_slopes`).
    """

    slopes: Literal["fixed", "learned"] = option(
        "fixed", help="`fixed`, as published; `learned`: their logarithms train, one per head."
    )
    exponent: float = option(
        8.0, help="The gentlest slope is 2^-exponent (the paper: 8).", validator=_above_zero
    )

    def claims(self) -> PositionClaims:
        """Only the distance between two events enters."""
        return _claims()

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Numbers added to the logits: attention leaves the fused kernel for tiles."""
        return Costs(tiles=True, parameters=(facts.heads or 0) if self.slopes == "learned" else 0)

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes pair tables."""
        return untaken("alibi", "pair-table", facts)


@frozen
class Rope:
    """Queries and keys turned by angles that grow with their place, so that their product knows their distance:
    coordinates `2n` and `2n + 1` of the query or key of the event at place `t`, `e = d/H` of them per head, turn
    by (Su et al. 2021, eq. 34 and section 3.3)

        t · base^(−2n / e),    n = 0 … e/2 − 1

    and q_i · k_j then depends on `i − j` alone. Nothing is learned. Places are those of the events in the
    history that is read, whatever the padding; angles are made in float64, so that long histories lose nothing.
    Needs an even number of coordinates per head, and no bound of the history.

    *Which base suits item histories.* Pair `n` turns once in 2π · base^(2n/e) events: the first in 6, the last in
    2π · base^((e−2)/e). Of the published base, 10000, made for texts of thousands of tokens, the slowest pairs need
    more than 10,000 events for one turn (e ≥ 16): over a history of 200 events three pairs in five do not come
    round once, over one of 50 three in four (e = 64), and the slowest hardly move, so that they say what an item is
    and next to nothing of its place. That is no mistake (content needs coordinates, too), but it is a choice. A base
    at which the slowest pair turns about once in a history, base ≈ (history / 2π)^(e/(e−2)), 8 to 40 for 50 to 200
    events, spreads all pairs over the distances that occur; at lower ones every pair has come round, and far
    events look like near ones.

    Claims: relative to the prediction, prefix consistent, shift invariant, padding of either side changes
    nothing. Cost: three multiplications for each coordinate of queries and keys, forward and backward, in each
    layer; attention stays in its fused kernel.

    Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding, section 3.2.2.
    """

    base: float = option(
        10000.0,
        help="How much slower the last pair of coordinates turns than the first; see above what suits histories.",
        validator=_above_one,
    )

    def claims(self) -> PositionClaims:
        """Only the distance between two events enters."""
        return _claims()

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Queries and keys are read and written once more in every layer."""
        rows = load.events * (facts.width or 0) * (facts.layers or 0)
        trained = 1.0 + load.training
        return Costs(
            moved=rows * 2 * 4 * trained * load.number,
            calls=16.0 * (facts.layers or 0) * trained,
            parameters=0,
        )

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that turns queries and keys, and an even width per head."""
        found = untaken("rope", "rotate", facts)
        if facts.width is None or not facts.heads or facts.width % facts.heads:
            return found
        each = facts.width // facts.heads
        if each % 2:
            found.append(
                f"position 'rope' turns pairs of coordinates and needs an even width per head, got {each} (a width of "
                f"{facts.width} over {facts.heads} heads; make the embedder's width a multiple of {2 * facts.heads})"
            )
        return found
