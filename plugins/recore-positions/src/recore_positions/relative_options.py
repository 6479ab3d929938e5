"""Options of the positions that are relative to the event that asks. Free of torch."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from recore import BOTH_SIDES, Costs, Facts, Load, PositionClaims, option
from recore.costs import Product, linear
from recore_positions.checked import at_least_one, not_negative, untaken


def _relative() -> PositionClaims:
    """Only the distance between two events enters."""
    return PositionClaims("prediction", prefix_consistent=True, shift_invariant=True, padding=BOTH_SIDES)


@frozen
class RelativeBias:
    """A learned number per head and distance, added to the attention logit: asking event `i` (the prediction)
    and key `j` give `logit_ij = q_i · k_j · scale + b[h, bucket(i − j)]`.

    - `buckets: exact`: every distance has a number of its own up to `max_distance`, and is clipped there, so
      that all older events share one.
    - `buckets: logarithmic`, T5's: of `number` buckets the first half, `e = number / 2`, are the distances
      `0 … e − 1`; a distance `n ≥ e` falls into bucket

          e + floor( log(n / e) / log(max_distance / e) · (number − e) ),  at most number − 1

      so that buckets widen with distance and all events at or beyond `max_distance` share the last one. It
      tells the order of recent events and the age of old ones with few numbers: 32 reach as far as 129 exact
      ones.

    With an encoder that is not causal, negative distances (later events) have numbers of their own; T5 then
    gives each direction half of the buckets.

    Claims: relative to the prediction, prefix consistent, shift invariant, padding of either side changes
    nothing. Cost: no products; the logits leave the fused kernel for tiles, whose memory grows with length
    times tile. Buckets cost what exact distances cost, since they are spread to distances once per pass.

    Raffel et al. 2020 (T5), section 2.1, and its code (`relative_position_bucket`) for the buckets; exact
    distances and their clipping as in Shaw et al. 2018, section 3.2.
    """

    max_distance: int = option(
        128, help="Distances at or beyond this share one number.", validator=at_least_one
    )
    layers: Literal["each", "shared"] = option(
        "each",
        help="`each`: every layer learns its own numbers; `shared`: one table for all layers, as in T5.",
    )
    initial: Literal["zero", "normal"] = option(
        "zero", help="`zero`: training starts as if there were no positions; `normal`: normal(0, std)."
    )
    std: float = option(0.02, help="The deviation of `normal`.", validator=not_negative)
    buckets: Literal["exact", "logarithmic"] = option(
        "exact", help="One number for each distance, or T5's buckets that widen with distance."
    )
    number: int = option(
        32, help="Buckets where they are `logarithmic`, of both directions together.", validator=at_least_one
    )

    def rows(self, causal: bool) -> int:
        """Numbers per head in one table."""
        if self.buckets == "logarithmic":
            return self.number
        return self.max_distance * (1 if causal else 2) + 1

    def claims(self) -> PositionClaims:
        """Only the distance between two events enters."""
        return _relative()

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Numbers added to the logits: attention leaves the fused kernel for tiles."""
        tables = 1 if self.layers == "shared" else (facts.layers or 0)
        return Costs(tiles=True, parameters=tables * self.rows(bool(facts.causal)) * (facts.heads or 0))

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes pair tables; buckets that can widen."""
        found = untaken("relative-bias", "pair-table", facts)
        if self.buckets == "exact":
            return found
        directions = 1 if facts.causal is not False else 2
        each = self.number // directions
        if self.number % (2 * directions):
            found.append(
                f"`number`: expected a multiple of {2 * directions} logarithmic buckets"
                f"{', half of them for later events' if directions == 2 else ''}, got {self.number}"
            )
        elif self.max_distance <= each // 2:
            found.append(
                f"`max_distance`: expected more than {each // 2}, since that many distances have buckets of their "
                f"own, got {self.max_distance} (raise max_distance, lower number, or use `buckets: exact`)"
            )
        return found


@frozen
class RelativeKeys:
    """A learned vector per head and distance, added to the key: asking event `i` (the prediction) and key `j`
    give (Shaw et al. 2018, eqs. 2 and 4)

        logit_ij = scale · q_i · (k_j + a^K[clip(i − j)])

    so that what a distance is worth depends on what the asking event looks for. Distances are exact up to
    `max_distance` and clipped there: all older events share one vector. With an encoder that is not causal,
    negative distances (later events) have vectors of their own.

    Claims: relative to the prediction, prefix consistent, shift invariant, padding of either side changes
    nothing. Cost: one product of each row that asks with the distances that it can see, about that of q kᵀ
    again, forward and twice backward, in tiles; no vector per pair is ever made.

    Shaw et al. 2018, Self-Attention with Relative Position Representations, section 3.2, equation 4.
    """

    max_distance: int = option(
        128, help="Distances at or beyond this share one vector.", validator=at_least_one
    )
    layers: Literal["each", "shared"] = option(
        "each",
        help="`each`: every layer learns its own vectors, as in the paper; `shared`: one table for all.",
    )
    heads: Literal["each", "shared"] = option(
        "each", help="`each`: every head learns its own vectors; `shared`: one table for all heads."
    )
    std: float = option(
        0.02,
        help="Vectors are drawn from normal(0, std); 0: training starts as if there were no positions.",
        validator=not_negative,
    )

    def claims(self) -> PositionClaims:
        """Only the distance between two events enters."""
        return _relative()

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Each row that asks times the distances it sees; attention leaves the fused kernel for tiles."""
        return _vectors(self, 1, facts, load)

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes pair tables."""
        return untaken("relative-keys", "pair-table", facts)


@frozen
class RelativeKeysValues:
    """Learned vectors per head and distance, added to keys and to values: with asking event `i` (the
    prediction) and key `j` (Shaw et al. 2018, eqs. 3 and 4)

        logit_ij   = scale · q_i · (k_j + a^K[clip(i − j)])
        received_i = Σ_j softmax_j(logit_ij) · (v_j + a^V[clip(i − j)])

    Distances are exact up to `max_distance` and clipped there: all older events share one vector. With an
    encoder that is not causal, negative distances have vectors of their own.

    `tied: true` learns one table `P_1 … P_m` of *input* vectors, `m = max_distance + 1`, in place of these. It
    adds `P_1` to every input, and the encoder's own key and value maps make the tables, of every layer,

        a^K[δ − 1] = (P_δ − P_1) W_K,   a^V[δ − 1] = (P_δ − P_1) W_V,   δ = 1 … m

    so that a key `x + P_1` at distance `δ − 1` becomes `(x + P_δ) W_K`: what `prediction-absolute` gives it.
    With one layer, no norm on keys and values and no dropout on the inputs the two are equal, values and
    gradients, in one pass over the history and not one for each prefix; otherwise not: see
    docs/explanation/positions.md for the proof and by how much. For a history longer than `m` events clipping
    means that all events from the m-th last on carry `P_m`: equal to `prediction-absolute` with numbers clipped
    at `m`; set `max_distance` to the history's bound less one for the scheme itself. Free tables (`tied: false`)
    are the superset. Needs an encoder that declares `project` among its terms.

    Claims: relative to the prediction, prefix consistent, shift invariant, padding of either side changes
    nothing. Cost: one product of each row that asks with the distances that it can see, for keys and again for
    values: about that of attention once more, forward and twice backward, in tiles.

    Shaw et al. 2018, section 3.2, equations 3 and 4; Revisiting Self-Attentive Sequential Recommendation,
    section 4.1, for `tied`.
    """

    max_distance: int = option(
        128, help="Distances at or beyond this share one vector.", validator=at_least_one
    )
    layers: Literal["each", "shared"] | None = option(
        None,
        help="`each`: every layer learns its own vectors, as in the paper; `shared`: one pair of tables for "
        "all. Unset: `each`, and with `tied` the one table, which each layer maps anew.",
    )
    heads: Literal["each", "shared"] = option(
        "each", help="`each`: every head learns its own vectors; `shared`: one pair of tables for all heads."
    )
    std: float = option(
        0.02,
        help="Vectors are drawn from normal(0, std); 0: training starts as if there were no positions.",
        validator=not_negative,
    )
    tied: bool = option(
        False, help="One table of input vectors, mapped by the encoder, in place of free tables."
    )

    def claims(self) -> PositionClaims:
        """Only the distance between two events enters."""
        return _relative()

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Each row that asks times the distances it sees, twice; attention leaves the fused kernel for tiles."""
        if not self.tied:
            return _vectors(self, 2, facts, load)
        width = facts.width or 0
        added = load.events * width * 3 * (1.0 + load.training) * load.number
        return Costs(
            products=_products(self.max_distance, 2, facts, load),
            tiles=True,
            moved=added,
            kept=load.events * width * load.number,
            parameters=(self.max_distance + 1) * width,
        )

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes pair tables; `tied` needs its maps, and no later events."""
        found = untaken("relative-keys-values", "pair-table", facts)
        if not self.tied:
            return found
        if not found and facts.terms is not None and "project" not in facts.terms:
            found.append(
                "position 'relative-keys-values' with `tied: true` needs an encoder that passes its key and value "
                "maps (declares 'project' among its terms), but this one does not (use recore-sasrec:sasrec, or "
                "`tied: false`)"
            )
        if facts.causal is False:
            found.append(
                "position 'relative-keys-values' with `tied: true` counts back from the prediction, and the "
                "encoder is not causal: later events have no such number (use a causal encoder, or `tied: false`)"
            )
        shared = {"layers": self.layers, "heads": None if self.heads == "each" else self.heads}
        found += [
            f"`{name}: {said}` says who shares free tables, and `tied: true` has none: every layer and head maps "
            f"the one table by its own weights (leave `{name}` out, or set `tied: false`)"
            for name, said in shared.items()
            if said is not None
        ]
        return found


def _products(max_distance: int, into: int, facts: Facts, load: Load) -> tuple[Product, ...]:
    """Each row that asks with the vectors of the distances that it can see, in every layer."""
    rows = max_distance * (1 if facts.causal else 2) + 1
    seen = min(rows, load.events / load.sequences) if load.sequences else 0.0
    return linear(load.events, facts.width or 0, seen, load.training, times=into * (facts.layers or 0))


def _vectors(options: RelativeKeys | RelativeKeysValues, into: int, facts: Facts, load: Load) -> Costs:
    """Of free tables: `into` of them in each layer, or for all."""
    rows = options.max_distance * (1 if facts.causal else 2) + 1
    width = (facts.width or 0) // (1 if options.heads == "each" else facts.heads or 1)
    tables = into * (1 if options.layers == "shared" else facts.layers or 0)
    return Costs(
        products=_products(options.max_distance, into, facts, load),
        tiles=True,
        parameters=tables * rows * width,
    )
