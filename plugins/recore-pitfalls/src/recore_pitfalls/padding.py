"""Padding that is attended to: as zeros, as a trained vector, with positions; and padding that sees nothing.

Legend: `C` cells of the rectangle, `W` columns, `H` heads, `d` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context, Problem, RecipeError
from recore.attention import KeyBias
from recore.contracts import Placed
from recore_pitfalls.encoder_options import PaddingAttended, PaddingNan, PaddingPositions, PaddingTrained
from recore_pitfalls.rectangle import Rectangle, Widened


def build_attended(options: PaddingAttended, context: Context) -> Widened:
    """Padding holds zeros."""
    return Widened(options, context)


def build_trained(options: PaddingTrained, context: Context) -> Trained:
    """Padding holds one trained vector. Raises RecipeError where the width is unknown."""
    return Trained(options, context)


def build_positions(options: PaddingPositions, context: Context) -> Positioned:
    """Padding holds a trained vector per column. Raises RecipeError where width or history are unknown."""
    return Positioned(options, context)


def build_nan(options: PaddingNan, context: Context) -> Blind:
    """Padding sees nothing."""
    return Blind(options, context)


def _width(context: Context) -> int:
    width = context.facts.width
    if width is None:
        path = context.path or "model.encoder"
        raise RecipeError(Problem("the embedder states no width, which vectors of padding need", path=path))
    return width


class Trained(Widened):
    """`vector (d,)` stands in every cell of padding."""

    def __init__(self, options: PaddingTrained, context: Context) -> None:
        super().__init__(options, context)
        drawn = torch.empty(_width(context))
        self.vector = nn.Parameter(drawn.normal_(0.0, options.std, generator=context.generator("padding")))

    def filled(self, x: Tensor, rectangle: Rectangle) -> Tensor:
        """`(C, d)`."""
        return torch.where(rectangle.real[:, None], rectangle.spread(x), self.vector)


class Positioned(Widened):
    """`weight (W, d)`: row `c` stands in cells of padding of column `c`."""

    def __init__(self, options: PaddingPositions, context: Context) -> None:
        super().__init__(options, context)
        history = context.facts.history
        if not isinstance(history, int):
            problem = f"vectors per column need a bounded history, got {history!r}"
            raise RecipeError(Problem(problem, path=context.path or "model.encoder"))
        drawn = torch.empty(history, _width(context))
        self.weight = nn.Parameter(drawn.normal_(0.0, options.std, generator=context.generator("padding")))

    def filled(self, x: Tensor, rectangle: Rectangle) -> Tensor:
        """`(C, d)`."""
        return torch.where(rectangle.real[:, None], rectangle.spread(x), self.weight[rectangle.column])


class Blind(Widened):
    """Padding is hidden from all rows, its own too."""

    def __init__(self, options: PaddingNan, context: Context) -> None:
        super().__init__(options, context)
        self.heads = options.provides().heads or 1

    def terms(self, placed: Placed, rectangle: Rectangle) -> Placed:
        """A bias of −∞ on every cell of padding."""
        bias = placed.inputs.new_zeros(rectangle.real.numel(), self.heads)
        term = KeyBias(bias.masked_fill(~rectangle.real[:, None], -torch.inf))
        return Placed(placed.inputs, [(*terms, term) for terms in placed.terms])
