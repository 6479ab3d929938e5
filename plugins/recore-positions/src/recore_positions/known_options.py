"""Options of the position that reads known items. Free of torch."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from recore import BOTH_SIDES, Costs, Facts, Load, PositionClaims, option
from recore.costs import linear
from recore_positions.checked import untaken


def _at_least_two(instance: object, attribute: Any, value: int) -> None:
    if value < 2:
        raise ValueError(f"`{attribute.name}`: expected at least 2, got {value}")


@frozen
class KnownItem:
    """How well a known item was predicted biases the attention that is paid to it:

        logit_ij = q_i · k_j · scale + b_h(u_j)

    where u_j is the evidence of event `j`, brought to [0, 1], and b_h a learned function per head: piecewise linear
    between `knots` numbers, zero at first, with a number of its own for events without evidence (the first that is
    read, and items the model does not know). `evidence` is one of

        surprise   s = −log p(item_j | the events before j);   u = min(s / (2 log V), 1), ½ for a blind guess
        rank       r = how many items score higher;            u = log(1 + r) / log V
        agreement  c = cos(state before j, the item's vector); u = (1 + c) / 2

    with V the number of items. The model computes it in a first pass without gradient, in evaluation mode and
    with this part switched off, alike in training, evaluation and serving (`recore.evidence`). It is of known items
    only: that of event `j` reads the events up to `j` and no later one.

    Cost: one more pass of the encoder, forward only, and for `surprise` and `rank` the scores of all items at every
    event: 2·T·V·d FLOPs for T events of width d, 8 million scores at a time. With `bce` that is about one
    further step; with full cross-entropy about a third of one.

    "Revisiting Self-Attentive Sequential Recommendation", section 4.1 (the last idea; `agreement` is its "embedding
    quality").
    """

    evidence: Literal["surprise", "rank", "agreement"] = option("surprise", help="What is read; see above.")
    knots: int = option(
        9, help="Numbers that a head learns, evenly spread over [0, 1].", validator=_at_least_two
    )
    layers: Literal["each", "shared"] = option(
        "each", help="`each`: every layer learns its own function; `shared`: one for all layers."
    )

    def claims(self) -> PositionClaims:
        """Given its column it reads nothing else: neither order nor time, and no layout."""
        return PositionClaims("nothing", prefix_consistent=True, shift_invariant=True, padding=BOTH_SIDES)

    def columns(self) -> frozenset[str]:
        """The column that the model fills."""
        return frozenset({self.evidence})

    def costs(self, facts: Facts, load: Load) -> Costs:
        """The scores of the first pass; its encoder pass is not counted here."""
        tables = 1 if self.layers == "shared" else (facts.layers or 0)
        items, width = facts.items or 0, facts.width or 0
        full = self.evidence != "agreement"
        scores = min(load.events * items, 8e6)
        return Costs(
            products=linear(load.events, width, items, training=False) if full else (),
            exponentials=load.events * items if self.evidence == "surprise" else 0.0,
            moved=(2 * load.events * items * load.number) if full else 0.0,
            calls=60.0,
            brief=2 * scores * load.number if full else 0.0,
            tiles=True,
            parameters=tables * (self.knots + 1) * (facts.heads or 0),
        )

    def problems(self, facts: Facts) -> list[str]:
        """Needs a model that fills the column, and an encoder that takes a bias per key."""
        found = untaken("known-item", "key-bias", facts)
        if facts.computed is not None and self.evidence not in facts.computed:
            found.append(
                f"position 'known-item' reads the column {self.evidence!r}, which this model (or this view of it) does "
                "not fill (use it under `model.position` of recore:sequential)"
            )
        if facts.prefix_consistent is False:
            found.append(
                "position 'known-item' reads the state before each event, but a position beside it does not promise "
                "that states are those of their prefixes: the same event would be a surprise or not by what follows "
                "(use schemes that claim `prefix_consistent`, such as start-absolute or relative-bias)"
            )
        if facts.causal is False:
            found.append(
                "position 'known-item' reads how well each item was predicted from those before it, but the encoder is "
                "not causal: its states know the item (use a causal encoder)"
            )
        return found
