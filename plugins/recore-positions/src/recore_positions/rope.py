"""The position `rope`. Legend: `T` events, `L` places of the longest history of a batch, `e` = d/H."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context
from recore.attention import Rotate
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_positions.checked import refuse
from recore_positions.ordered_options import Rope


def build(options: Rope, context: Context) -> RotaryPositions:
    """Build for the encoder's width per head. Raises RecipeError where that is unknown or odd, or the encoder does
    not turn queries and keys."""
    facts = context.facts
    problems = options.problems(facts)
    if facts.heads is None or facts.width is None or facts.width % facts.heads:
        problems.append(
            f"position 'rope' needs an encoder that states its heads, and heads that divide the width, got heads "
            f"{facts.heads} and width {facts.width} (use an encoder with attention, such as recore-sasrec:sasrec)"
        )
    refuse(problems, context)
    return RotaryPositions(options, context)


class RotaryPositions(nn.Module):
    """Nothing trains."""

    def __init__(self, options: Rope, context: Context) -> None:
        super().__init__()
        assert context.facts.heads is not None
        assert context.facts.width is not None
        self.base, self.pairs = float(options.base), context.facts.width // context.facts.heads // 2

    def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
        """The inputs unchanged, and for all layers the turn of each event, `cos, sin (T, e/2)`."""
        # Half precision could not hold an angle's cosine well enough to tell neighbours.
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        key = ("rope", self.base, self.pairs, dtype, x.device)
        return Placed(x, [(view.remember(key, lambda: self._turns(view, dtype, x.device)),)])

    def _turns(self, view: View, dtype: torch.dtype, device: torch.device) -> Rotate:
        longest = int(view.lengths.max()) if view.events else 0
        pair = torch.arange(self.pairs, dtype=torch.float64, device=device)
        place = torch.arange(longest, dtype=torch.float64, device=device)
        angle = place[:, None] * self.base ** (-pair / self.pairs)  # (L, e/2)
        cos, sin = (part.to(dtype).index_select(0, view.place) for part in (angle.cos(), angle.sin()))
        return Rotate(cos, sin)
