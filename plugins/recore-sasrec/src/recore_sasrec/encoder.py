"""The encoder `sasrec`. Legend: `T` events, `R` rows that are asked for, `d` width."""

from __future__ import annotations

from torch import Tensor, nn

from recore import Context, Problem, RecipeError
from recore.contracts import Placed
from recore.ragged import Batch, View
from recore_sasrec.block import Block
from recore_sasrec.dropout import dropped
from recore_sasrec.frame import framed
from recore_sasrec.options import Sasrec


def build(options: Sasrec, context: Context) -> SasrecEncoder:
    """Build for the embedder's width. Raises RecipeError where no width is known or the options cannot
    stand together."""
    return SasrecEncoder(options, context)


class SasrecEncoder(nn.Module):
    """`blocks`, and `final_norm` where there is one."""

    final_norm: nn.LayerNorm | None

    def __init__(self, options: Sasrec, context: Context) -> None:
        super().__init__()
        width = context.facts.width
        found = options.problems(context.facts)
        if width is None:
            found.append("the embedder states no width, which encoder 'sasrec' needs")
        if found or width is None:
            raise RecipeError([Problem(text, path=context.path or "model.encoder") for text in found])
        self.options = options
        self.details = options.details
        self.blocks = nn.ModuleList(Block(options, self.details, width) for _ in range(options.layers))
        generator = context.generator("weights")
        for block in self.blocks:
            assert isinstance(block, Block)
            block.draw(generator)
        self.final_norm = nn.LayerNorm(width, eps=self.details.epsilon) if self.details.final_norm else None

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        """Hidden states `(T, d)`, or `(R, d)` of the events `rows (R,)`: the last block then computes its
        queries and its feed-forward net for those only."""
        x, frame = framed(x, view)
        if self.training and "input" in self.details.dropouts:
            x = dropped(x, self.options.dropout)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            x = block(x, frame, view, placed.layer(number), rows if number == last else None)
        if rows is None:
            x = frame.events(x)
        return x if self.final_norm is None else self.final_norm(x)
