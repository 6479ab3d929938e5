"""The embedder `padding-row-trained`. Legend: `T` events, `S` special rows, `d` width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recore import Context, Problem, RecipeError
from recore.contracts import Embedder, RowMap, Table
from recore.ragged import Batch, View
from recore_pitfalls.embedder_options import PaddingRowTrained
from recore_pitfalls.rectangle import in_place


def build(options: PaddingRowTrained, context: Context) -> PaddingRow:
    """Raises RecipeError where there is no tokenizer or no width."""
    return PaddingRow(options, context)


class PaddingRow(nn.Module):
    """`inner`: the sound embedder. `rows (S, d)`: vectors of the special tokens that should be zero, numbered by
    `slot`; slot 0 is of all others."""

    inner: Embedder
    slot: Tensor

    def __init__(self, options: PaddingRowTrained, context: Context) -> None:
        super().__init__()
        width, tokenizer = options.provides().width, context.tokenizer
        if width is None or tokenizer is None:
            problem = f"rows of special tokens need a width and a tokenizer, got {width} and {tokenizer}"
            raise RecipeError(Problem(problem, path=context.path or "model.embedder"))
        self.inner = in_place(context, options.embedder)
        still = [special.id for special in tokenizer.specials if not special.trainable]
        drawn = torch.empty(len(still), width)
        self.rows = nn.Parameter(drawn.normal_(0.0, options.std, generator=context.generator("padding")))
        slot = torch.zeros(
            max([special.id for special in tokenizer.specials], default=0) + 2, dtype=torch.int64
        )
        slot[still] = torch.arange(1, len(still) + 1)
        self.register_buffer("slot", slot, persistent=False)

    def embed(self, batch: Batch, view: View) -> Tensor:
        """`(T, d)`."""
        token = view["token"]
        slot = self.slot[token.clamp(max=len(self.slot) - 1)]
        table = torch.cat([self.rows.new_zeros(1, self.rows.shape[1]), self.rows])
        return self.inner.embed(batch, view) + table[slot]

    def table(self) -> Table:
        """The sound embedder's."""
        return self.inner.table()

    def resize(self, rows: RowMap) -> dict[str, RowMap]:
        """The sound embedder's; special rows do not move."""
        return {f"inner.{name}": moved for name, moved in self.inner.resize(rows).items()}
