"""What a recipe may set, and what each sampler promises. Free of torch."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from attrs.validators import ge

from recore import Costs, Facts, Load, SamplerClaims, option


@frozen
class Uniform:
    """K items drawn uniformly with replacement among those that may be drawn.

    Retired items are never drawn; V counts the others. `exclude` says what else may not be drawn for a
    prediction, and with it `log_q`, the log of the expected number of times an item is among the K draws:

    - `none`: nothing; log_q = log(K / V) for every item, the target included.
    - `target`: the target; log_q = log(K / (V − 1)), −inf for the target.
    - `history`: the target and every item of the user's whole training history, later ones included, however
      much of it the model reads (as in the SASRec code of 2018); log_q = log(K / (V − own)), −inf for own
      items, where `own` counts them. A sequence that comes from no training history has only its target as
      its own.

    With `shared: true` one draw of K serves all predictions of a batch, which is cheaper to score; what is
    excluded is then drawn for other rows but not kept for this one: log_q = log(K / V) for every item that is
    not excluded, −inf for those that are, and some rows may keep fewer than K, even none.

    Refused with `exclude: history` and `shared: false`: histories that hold every item, since nothing is left
    to draw; their number is said before training begins. Draws come from 62 random bits each, so frequencies
    are exact up to a share of V / 2^62.
    """

    count: int = option(1, validator=ge(1), help="K, the number of draws for a prediction, or for a batch.")
    exclude: Literal["none", "target", "history"] = option(
        "history", help="What is never a negative: nothing, the target, or all of the user's own items."
    )
    shared: bool = option(False, help="One draw for the whole batch instead of one for each prediction.")

    def claims(self) -> SamplerClaims:
        """Frequencies match `log_q`."""
        return SamplerClaims(log_q="exact", exclude=self.exclude)

    def provides(self) -> Facts:
        """Negatives, how well their probability is known, and what is never drawn."""
        return Facts(negatives=True, log_q="exact", exclude=self.exclude)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """For each draw a random number, a remainder, and with `exclude` a binary search among own items."""
        rows = load.predictions
        draws = self.count if self.shared else rows * self.count
        pairs = rows * self.count if self.shared and self.exclude != "none" else draws
        searched = (rows + pairs) if self.exclude == "history" else 0.0
        return Costs(
            moved=8.0 * (12 * rows + 16 * draws + 4 * pairs),
            gathered=128.0 * 20 * searched,  # about 20 places of a sorted table, each in lines of its own
            drawn=draws,
            calls=50.0,
            brief=8.0 * (6 * rows + 6 * pairs),
            negatives=self.count,
            shared=self.shared,
            large=f"{draws:,.0f} draws a step",
            instead="a smaller sampler.count, or sampler.shared",
        )
