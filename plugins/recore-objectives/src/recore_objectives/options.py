"""What a recipe may set, and what each objective promises. Free of torch."""

from __future__ import annotations

from attrs import frozen

from recore import Facts


@frozen
class NextItem:
    """Each event predicts the item of the event after it.

    Of a history x_1 … x_n the inputs in training are x_1 … x_{n−1}, and the state at x_i, for a causal encoder
    a function of x_1 … x_i, predicts x_{i+1}: n − 1 pairs, each exactly once, each of weight 1
    (Kang & McAuley 2018, Self-Attentive Sequential Recommendation, sections III-A and III-E). An unknown item is
    no target but stays an input. A history of one event, or of none, gives nothing. In a query the inputs are
    the whole history and its last event asks; no row is appended. Needs a causal encoder: with any other a
    target is visible to its own context.
    """

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
        return []
