"""The embedder `padding-safe`: special rows that do not train do not exist.

Legend: `T` events, `V` items, `S` special rows, `d` width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from recore import Context, Problem, RecipeError
from recore.contracts import RowMap, Table, Tokenizer
from recore.ragged import Batch, View
from recore_embeddings.initial import fresh_rows
from recore_embeddings.lookup import rows_of
from recore_embeddings.options import PaddingSafe


def build(options: PaddingSafe, context: Context) -> PaddingSafeEmbedder:
    """Build for the tokenizer in `context`. Raises RecipeError where there is none that fits."""
    return PaddingSafeEmbedder(options, context)


class PaddingSafeEmbedder(nn.Module):
    """`weight (V, d)`: item rows only, so that the table that scores is the parameter itself. `special`: one
    row per special that trains. `bias (V,)` where asked for. `retired (V,)`: rows that score no more."""

    bias: nn.Parameter | None
    special: nn.Parameter | None
    retired: Tensor
    slot: Tensor

    def __init__(self, options: PaddingSafe, context: Context) -> None:
        super().__init__()
        tokenizer = _fitting(context)
        self.options = options
        self.context = context
        self.specials = len(tokenizer.specials)
        self.scale = math.sqrt(options.width) if context.facts.item_scale == "sqrt-width" else 1.0
        items = tokenizer.items
        self.weight = nn.Parameter(self._fresh(items, items, context.generator("weights")))
        self.register_parameter("bias", nn.Parameter(torch.zeros(items)) if options.bias else None)
        trained = [special.id for special in tokenizer.specials if special.trainable]
        rows = self._fresh(len(trained), items, context.generator("special"))
        self.register_parameter("special", nn.Parameter(rows) if trained else None)
        # Slot 0 is the zero vector; slot i is row i − 1 of `special`.
        slot = torch.zeros(self.specials, dtype=torch.int64)
        slot[trained] = torch.arange(1, len(trained) + 1)
        self.register_buffer("slot", slot, persistent=False)
        retired = torch.zeros(items, dtype=torch.bool)
        retired[torch.from_numpy(np.asarray(tokenizer.retired, dtype=np.int64))] = True
        self.register_buffer("retired", retired)

    def _fresh(self, count: int, total: int, generator: torch.Generator) -> Tensor:
        options = self.options
        return fresh_rows(count, options.width, options.initial, options.std, total, generator)

    def embed(self, batch: Batch, view: View) -> Tensor:
        """`(T, d)`: zero for special tokens that do not train.

        Raises ValueError for tokens `(T, n)` and for negative tokens, IndexError for tokens beyond the table.
        """
        token = view["token"]
        if token.dim() != 1:
            raise ValueError(
                f"embedder 'padding-safe' takes one token per event, `(T,)`, got {tuple(token.shape)}: "
                "use an embedder for several tokens per item, or a tokenizer with one"
            )
        index = token - self.specials
        special = token < self.specials
        if not bool(special.any()):
            x = rows_of(self.weight, index)
        else:
            if int(token.min()) < 0:
                raise ValueError(f"tokens are rows, 0 and up, got {int(token.min())}")
            x = rows_of(self.weight, index.clamp(min=0)).masked_fill(special.unsqueeze(-1), 0.0)
            x = self._with_trained_specials(x, token, special)
        return x if self.scale == 1.0 else x * self.scale

    def _with_trained_specials(self, x: Tensor, token: Tensor, special: Tensor) -> Tensor:
        if self.special is None:
            return x
        where = special.nonzero().squeeze(-1)
        rows = torch.cat([self.special.new_zeros(1, self.special.shape[1]), self.special])
        return x.index_copy(0, where, rows_of(rows, self.slot[token[where]]))

    def table(self) -> Table:
        """The item rows: the parameter itself, no copy."""
        return Table(self.weight, self.bias, self.retired if bool(self.retired.any()) else None)

    @torch.no_grad()
    def resize(self, rows: RowMap) -> dict[str, RowMap]:
        """Follow the tokenizer: `rows.old` and `rows.retired` count tokens, special rows first and unmoved.

        Rows that stay keep their bits; fresh ones (`old` −1) are drawn by the rule of `initial` from a
        generator derived from the sizes before and after, their bias is 0. Gives the map in rows of the
        parameter for each parameter replaced. Raises ValueError for a map that is none of this table.
        """
        old, retired = self._item_rows(rows)
        source = torch.from_numpy(old).to(self.weight.device)
        fresh = source < 0
        before, after = self.weight.shape[0], len(old)
        generator = self.context.generator("resize", before, after)
        drawn = self._fresh(int(fresh.sum()), after, generator)
        weight = self.weight.detach()[source.clamp(min=0)]
        weight[fresh] = drawn.to(weight)
        self.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        moved = {"weight": RowMap(old, retired)}
        if self.bias is not None:
            bias = self.bias.detach()[source.clamp(min=0)].masked_fill(fresh, 0.0)
            self.bias = nn.Parameter(bias, requires_grad=self.bias.requires_grad)
            moved["bias"] = RowMap(old, retired)
        gone = self.retired[source.clamp(min=0)].masked_fill(fresh, False)
        gone[torch.from_numpy(retired).to(gone.device)] = True
        self.retired = gone
        return moved

    def _item_rows(self, rows: RowMap) -> tuple[np.ndarray, np.ndarray]:
        """The map in item rows. Raises ValueError where special rows move or an old row does not exist."""
        old, retired = np.asarray(rows.old, dtype=np.int64), np.asarray(rows.retired, dtype=np.int64)
        count, tokens = self.specials, self.specials + self.weight.shape[0]
        items = old[count:]
        problems = []
        if not np.array_equal(old[:count], np.arange(count)):
            problems.append(f"its first {count} rows must be the special rows, unmoved, got {old[:count]}")
        if not len(items):
            problems.append("it leaves no item rows")
        if ((items < count) & (items != -1) | (items >= tokens)).any():
            problems.append(f"old item rows must be −1 or from {count} to {tokens - 1}")
        if ((retired < count) | (retired >= len(old))).any():
            problems.append(f"retired rows must be from {count} to {len(old) - 1}, got {retired}")
        if problems:
            raise ValueError(f"a row map does not fit embedder 'padding-safe': {'; '.join(problems)}")
        return np.where(items < 0, -1, items - count), retired - count


def _fitting(context: Context) -> Tokenizer:
    """The tokenizer, if its numbering is one token per item after the special rows."""
    tokenizer = context.tokenizer
    where = context.path or "model.embedder"
    if tokenizer is None:
        raise RecipeError(
            Problem(
                "embedder 'padding-safe' needs a tokenizer, got none", path=where, hint="set `tokenizer:`"
            )
        )
    special = sorted(special.id for special in tokenizer.specials)
    problems = []
    if special != list(range(len(special))):
        problems.append(f"special rows 0 … {len(special) - 1}, got {special}")
    if tokenizer.tokens != tokenizer.items + len(special):
        problems.append(
            f"one token per item, {tokenizer.items} + {len(special)} special rows, "
            f"got {tokenizer.tokens} tokens"
        )
    if problems:
        raise RecipeError(
            [
                Problem(
                    f"embedder 'padding-safe' expects {problem}",
                    path=where,
                    hint="use a tokenizer with one token per item, such as recore-tokenizers:items",
                )
                for problem in problems
            ]
        )
    return tokenizer
