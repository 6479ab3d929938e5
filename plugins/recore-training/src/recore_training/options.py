"""Options of the trainers. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import attrs
from attrs import frozen

from recore import Costs, Facts, Load, option

Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _number(words: str, holds: Callable[[float], bool]) -> Check:
    """A validator of finite numbers."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
        if not math.isfinite(value) or not holds(value):
            raise ValueError(f"expected {words}, got {value}")

    return check


_positive = _number("a number above 0", lambda value: value > 0)
_not_negative = _number("a number from 0", lambda value: value >= 0)
_from_one = _number("a whole number from 1", lambda value: value >= 1)


def _or_none(check: Check) -> Check:
    def checked(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            check(instance, attribute, value)

    return checked


def _betas(instance: Any, attribute: attrs.Attribute[Any], value: tuple[float, float]) -> None:
    if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
        raise ValueError(f"expected two numbers from 0 to below 1, got {list(value)}")


def _metric(instance: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    if not value.strip():
        raise ValueError(f"expected the name of a validation metric, such as ndcg@10, got {value!r}")


@frozen
class Standard:
    """One optimiser over all parameters, driven step by step.

    A step draws `accumulate` consecutive batches, sums the weight of their losses first and then sends each
    share backward, so that the gradient is that of one large batch; takes the norm of the whole gradient,
    clips it, and steps with the learning rate

        lr(t) = learning_rate · min(1, t / warm_up) · decay(p)
        decay: constant 1; linear 1 − p; cosine (1 + cos πp) / 2

    where t counts steps from 1 and p, from 0 to below 1, is the share of all `epochs` that was done before
    the step: (epochs done + batches of this epoch done / its batches) / epochs. An early stop ends the
    schedule where it stands.

    After each epoch the validation metric is heard; the best epoch's weights are the result. A gradient whose
    norm is not finite ends the run before the parameters are touched, and says where it arose. Resuming
    gives the numbers of an uninterrupted run.
    """

    optimiser: Literal["adam", "adamw"] = option(
        "adam",
        help="`adam` (Kingma & Ba 2015, algorithm 1), where weight decay is added to the gradient; `adamw` "
        "(Loshchilov & Hutter 2019, algorithm 2), where it shrinks the weights directly.",
    )
    learning_rate: float = option(1e-3, validator=_positive, help="The highest learning rate.")
    betas: tuple[float, float] = option(
        (0.9, 0.999),
        validator=_betas,
        help="How slowly the averages of the gradient and of its square forget. SASRec's code has 0.9, 0.98.",
    )
    eps: float = option(1e-8, validator=_positive, help="Added to the root of the averaged square.")
    weight_decay: float = option(
        0.0, validator=_not_negative, help="Of all parameters alike, norms and biases included."
    )
    epochs: int = option(100, validator=_from_one, help="The most epochs.")
    warm_up: int = option(
        0, validator=_not_negative, help="Steps over which the learning rate rises linearly; 0: none."
    )
    schedule: Literal["constant", "linear", "cosine"] = option(
        "constant", help="How the learning rate falls over `epochs`."
    )
    clip: float | None = option(
        None,
        validator=_or_none(_positive),
        help="The largest Euclidean norm of the whole gradient; a longer one is scaled down to it. ~: none.",
    )
    accumulate: int = option(
        1, validator=_from_one, help="Batches of one step (the last of an epoch: fewer)."
    )
    patience: int | None = option(
        None,
        validator=_or_none(_from_one),
        help="Stop after this many epochs in a row without a better validation metric. ~: never early.",
    )
    metric: str = option(
        "ndcg@10",
        validator=_metric,
        help="The validation metric, higher is better, that chooses the epoch and that `patience` waits for.",
    )

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Adam reads the weight, the gradient and two moments, and writes three of them; the norm reads the
        gradient once, clipping twice more. With `accumulate` a step is the share of a batch."""
        share = 1.0 / self.accumulate
        return Costs(
            moved=(8 + 2 * (self.clip is not None)) * load.parameters * load.number * share,
            calls=(12 * load.tensors + 60) * share,
            state=2.0,
            large=f"{load.parameters:,.0f} parameters with gradients and moments",
            instead="a smaller width, or fewer items",
        )
