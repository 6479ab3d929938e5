"""The position `window-called-start`. Legend: `T` events, `W` columns, `d` width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context, Problem, RecipeError
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_pitfalls.position_options import WindowCalledStart


def build(options: WindowCalledStart, context: Context) -> Columns:
    """Raises RecipeError where the history has no bound or the width is unknown."""
    return Columns(options, context)


class Columns(nn.Module):
    """`weight (W, d)`: row `c` is added to the events in column `c`."""

    def __init__(self, options: WindowCalledStart, context: Context) -> None:
        super().__init__()
        history, width = context.facts.history, context.facts.width
        if not isinstance(history, int) or width is None:
            problem = f"vectors per column need a bounded history and a width, got {history!r} and {width!r}"
            raise RecipeError(Problem(problem, path=context.path or "model.position"))
        drawn = torch.empty(history, width)
        self.weight = nn.Parameter(drawn.normal_(0.0, options.std, generator=context.generator("weights")))

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """Inputs change, no terms."""
        return Placed(x + self.weight[view.layout.slots(view.offsets)])
