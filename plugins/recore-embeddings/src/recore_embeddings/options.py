"""Options of the embedders. Free of torch."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from recore import Costs, Facts, Load, option

Initial = Literal["normal", "uniform", "xavier-normal", "xavier-uniform"]


def _positive(instance: object, attribute: Any, value: float) -> None:
    if not value > 0:
        raise ValueError(f"`{attribute.name}`: expected a number above 0, got {value}")


@frozen
class PaddingSafe:
    """One trained vector per item, `E (V, d)`: it embeds histories, and the same rows score,
    `score(h, i) = h · E_i (+ b_i)`.

    The rows of `pad` and `unknown` are exactly zero whatever any optimiser does, because they do not exist:
    the parameter holds item rows only, and a special token is looked up as a zero vector. Special rows that
    train (`mask`) live in a small parameter of their own. An unknown item in a history hence keeps its place
    (and gets a position) with a zero vector.

    Where the encoder asks for it (fact `item_scale`), vectors are multiplied by √d on their way in, before
    positions are added; the rows that score are never scaled (Vaswani et al. 2017, section 3.4).

    Takes tokenizers with one token per item, special rows first.
    """

    width: int = option(64, help="d, the width of item vectors and hidden states.", validator=_positive)
    initial: Initial = option(
        "normal",
        help="How fresh rows are drawn: normal(0, std); uniform(−std·√3, std·√3), whose deviation is std; or "
        "xavier, whose deviation is √(2 / (V + d)) and which ignores std. Rows added later follow the same "
        "rule, xavier with the new V.",
    )
    std: float = option(0.02, help="The deviation of `normal` and `uniform`.", validator=_positive)
    bias: bool = option(False, help="Whether each item has an output bias b_i, from 0.")

    def provides(self) -> Facts:
        """The width of hidden states."""
        return Facts(width=self.width)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """A row for each event, and in training its gradient added to the table, which is filled with zeros."""
        rows, table = load.events * self.width, (facts.items or 0) * self.width
        scaled = 2.0 if facts.item_scale == "sqrt-width" else 0.0
        trained = 1.0 + load.training
        return Costs(
            gathered=rows * trained * load.number,
            moved=(rows * (1 + scaled) * trained + 3 * table * load.training) * load.number,
            calls=12.0 * trained,
            kept=rows * load.number,
            brief=table * load.number,  # a second gradient of the table, before the two are added
            # Trained special rows (a `mask`) are not told here: they are few.
            parameters=table + (facts.items or 0) * self.bias,
            large=f"a table of {facts.items or 0:,} items, {self.width} wide",
            instead="a smaller width, or fewer items (recore-data:k-core)",
        )
