"""Options of the positions: what each counts from and claims, what stands against it. Free of torch."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from recore import BOTH_SIDES, Costs, Facts, Load, PositionClaims, option


def _at_least_one(instance: object, attribute: Any, value: int) -> None:
    if value < 1:
        raise ValueError(f"`{attribute.name}`: expected at least 1, got {value}")


def _not_negative(instance: object, attribute: Any, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"`{attribute.name}`: expected 0 or more, got {value}")


def _unbounded(name: str, facts: Facts) -> list[str]:
    """A table of one row per place needs a bound on places."""
    if facts.history != "all":
        return []
    problem = (
        f"position {name!r} learns one vector per place and needs a bounded history, got `all` "
        "(set model.history.last to a number, or use positions that are relative)"
    )
    return [problem]


def _added(facts: Facts, load: Load) -> Costs:
    """A learned vector added to each event."""
    width = facts.width or 0
    places = 0 if facts.history in (None, "all") else int(facts.history or 0)
    rows, trained = load.events * width, 1.0 + load.training
    return Costs(
        gathered=rows * trained * load.number,
        moved=rows * 3 * trained * load.number,
        calls=8.0 * trained,
        kept=rows * load.number,
        parameters=places * width,
    )


@frozen
class NoPosition:
    """Contributes nothing: the inputs pass unchanged and attention gets no term. To an encoder that is not
    causal a history is then a set; a causal one still knows how many events came before."""

    def claims(self) -> PositionClaims:
        """Nothing contributed, so nothing can break."""
        return PositionClaims("nothing", prefix_consistent=True, shift_invariant=True, padding=BOTH_SIDES)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Nothing."""
        return Costs(parameters=0)


@frozen
class WindowAbsolute:
    """SASRec's own: a learned vector for each *column* of a rectangle as wide as the model's history, counted
    from its left edge: `x_t + P[column(t)]`.

    What a column means is hence decided by the side of the padding. Padded on the left (the published code)
    the last event always stands in the last column, and every other one moves when an event is added; padded
    on the right the columns count from the start of the history, which is `start-absolute`. It is invariant
    to padding on the right and *not* to padding on the left; the tests measure by how much. There is no
    column without a rectangle: `padding: none` is refused. An unknown item keeps its column and its vector.

    Kang & McAuley 2018, section III-A, equation 2.
    """

    std: float = option(0.02, help="Vectors are drawn from normal(0, std).", validator=_not_negative)

    def claims(self) -> PositionClaims:
        """Counted from the window; only padding on the right leaves columns where they are."""
        return PositionClaims("window", padding=frozenset({"right"}))

    def costs(self, facts: Facts, load: Load) -> Costs:
        """A learned vector added to each event."""
        return _added(facts, load)

    def problems(self, facts: Facts) -> list[str]:
        """Needs a rectangle of bounded width."""
        found = _unbounded("window-absolute", facts)
        if facts.padding == "none":
            found.append(
                "position 'window-absolute' counts columns of a padded rectangle, but the batcher asks for "
                "none (use a batcher that pads, such as recore-batchers:padded, or `start-absolute`)"
            )
        return found


@frozen
class StartAbsolute:
    """A learned vector for each place counted from the start of the history that the model reads:
    `x_t + P[t]`, `t = 0, 1, …`. It is what codes that pad on the right do.

    The history is cut to its last events *before* places are counted: for a user with a longer history, one
    more event shifts all places by one, so the scheme is not shift invariant. Computed from the events alone,
    whatever the padding. An unknown item keeps its place and gets that place's vector.
    """

    std: float = option(0.02, help="Vectors are drawn from normal(0, std).", validator=_not_negative)

    def claims(self) -> PositionClaims:
        """Counted from the start: later events change nothing, earlier ones everything."""
        return PositionClaims("start", prefix_consistent=True, padding=BOTH_SIDES)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """A learned vector added to each event."""
        return _added(facts, load)

    def problems(self, facts: Facts) -> list[str]:
        """Needs a bounded history."""
        return _unbounded("start-absolute", facts)


@frozen
class RelativeBias:
    """A learned number per head and distance, added to the attention logit: asking event `i` (the prediction)
    and key `j` give `logit_ij = q_i · k_j · scale + b[h, clip(i − j)]`.

    Distances are exact up to `max_distance` and clipped there, so that all older events share one number.
    With an encoder that is not causal, negative distances (later events) have numbers of their own.

    Raffel et al. 2020 (T5), section 2.1, with exact distances in place of logarithmic buckets; Shaw et al.
    2018 for the clipping.
    """

    max_distance: int = option(
        128, help="Distances at or beyond this share one number.", validator=_at_least_one
    )
    layers: Literal["each", "shared"] = option(
        "each",
        help="`each`: every layer learns its own numbers; `shared`: one table for all layers, as in T5.",
    )
    initial: Literal["zero", "normal"] = option(
        "zero", help="`zero`: training starts as if there were no positions; `normal`: normal(0, std)."
    )
    std: float = option(0.02, help="The deviation of `normal`.", validator=_not_negative)

    def claims(self) -> PositionClaims:
        """Only the distance between two events enters."""
        return PositionClaims("prediction", prefix_consistent=True, shift_invariant=True, padding=BOTH_SIDES)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Numbers added to the logits: attention leaves the fused kernel for tiles."""
        tables = 1 if self.layers == "shared" else (facts.layers or 0)
        buckets = self.max_distance * (1 if facts.causal else 2) + 1
        return Costs(tiles=True, parameters=tables * buckets * (facts.heads or 0))

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder with attention heads that takes pair tables."""
        if facts.terms is not None and "pair-table" not in facts.terms:
            takes = ", ".join(sorted(facts.terms)) or "none"
            problem = (
                "position 'relative-bias' needs an encoder that takes the term 'pair-table', but this one "
                f"takes: {takes} (use an encoder with attention, or positions that change inputs)"
            )
            return [problem]
        return []
