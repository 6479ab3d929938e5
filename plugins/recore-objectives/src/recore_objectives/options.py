"""What a recipe may set, and what each objective promises. Free of torch."""

from __future__ import annotations

import math
from typing import Any

from attrs import frozen

from recore import Facts, option


def _finite(instance: object, attribute: Any, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")


@frozen
class NextItem:
    """Each event predicts the item of the event after it.

    Of a history x_1 … x_n the inputs in training are x_1 … x_{n−1}, and the state at x_i, for a causal encoder
    a function of x_1 … x_i, predicts x_{i+1}: n − 1 pairs, each exactly once, each of weight 1
    (Kang & McAuley 2018, Self-Attentive Sequential Recommendation, sections III-A and III-E). An unknown item is
    no target but stays an input. A history of one event, or of none, gives nothing. In a query the inputs are
    the whole history and its last event asks; no row is appended. Needs a causal encoder: with any other a
    target is visible to its own context.

    *Weights from known items.* With `known` = α ≠ 0 the target at event p of a history weighs

        w_p ∝ exp(−α · m_p / log V),   m_p = the mean surprise of the history's other known items

    where the surprise −log p(item_q | the events before q) is that of the model as it stands, in evaluation mode
    (`recore.evidence`), and V the number of items: with α > 0 histories that the model predicts well, and in them
    the targets that it does not, count more. Weights are brought to a mean of one over the batch. They look at later
    events, too, and may: they enter the loss, never a forward pass. A target without other evidence in its
    history gets the batch's mean. Costs a pass of the encoder without gradient and the scores of all items at every
    event, in training only. The idea is that of known items in "Revisiting Self-Attentive Sequential
    Recommendation", section 4.1, taken to the loss.
    """

    known: float = option(
        0.0,
        help="α: how strongly targets are weighed by how well the rest is predicted; 0: not.",
        validator=_finite,
    )

    def columns(self) -> frozenset[str]:
        """What the model fills, where weights ask for it."""
        return frozenset({"surprise"}) if self.known else frozenset()

    def provides(self) -> Facts:
        """The query appends no rows."""
        return Facts(appended=0)

    def problems(self, facts: Facts) -> list[str]:
        """A target must not be visible to its own context."""
        if facts.causal is False:
            visible = (
                "predicts each event from those before it, but the encoder is not causal: it would see the "
                "target (expected an encoder that claims `causal`)"
            )
            return [visible]
        if self.known and facts.computed is not None and "surprise" not in facts.computed:
            missing = (
                f"known is {self.known}, but this model does not compute the surprise of known items (use recore:"
                "sequential, or `known: 0`)"
            )
            return [missing]
        if self.known and facts.prefix_consistent is False:
            moving = (
                f"known is {self.known}, which weighs by the state before each event, but `model.position` does not "
                "promise that states are those of their prefixes (use a scheme that claims `prefix_consistent`, or "
                "`known: 0`)"
            )
            return [moving]
        return []
