"""Options of the mistakes of embedders. Free of torch."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from recore import Facts, Part, option
from recore.contracts.model import Embedder


def _above_zero(instance: object, attribute: Any, value: float) -> None:
    if not value > 0:
        raise ValueError(f"`{attribute.name}`: expected a number above 0, got {value}")


@frozen
class PaddingRowTrained:
    """The rows of `pad` and `unknown` are drawn like any other and train: an initialisation writes over the zero row
    that `padding_idx` made, or weight decay and momentum move it. Vectors and scores of items are those of the
    sound embedder around which this stands.

    It does harm where something reads those rows: an unknown item in a history here, and padding in codes that
    look padding up; see the encoder `padding-trained` for what that costs.

    Caught by embedder 1; by 2 and 8, too. Seen in: pmixer/SASRec.pytorch, issue 24; pytorch/pytorch, issues 6411 and
    6495; rixwew/pytorch-fm, issue 23.
    """

    embedder: Part[Embedder] = option(help="The sound embedder.")
    std: float = option(0.02, help="The rows are drawn from normal(0, std).", validator=_above_zero)

    def provides(self) -> Facts:
        """As the sound embedder does."""
        return self.embedder.provides()
