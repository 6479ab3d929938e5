"""One block: attention, then a feed-forward net.

Legend: `T` events, `C` rows of the frame (events, or cells of a rectangle), `R` rows that ask, `H` heads,
`d` width.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recore.attention import Term, attend
from recore.ragged import View
from recore_sasrec.affine import Affine, Rule
from recore_sasrec.details import Details, Place
from recore_sasrec.dropout import dropped, dropped_relu, dropped_sum
from recore_sasrec.frame import Frame
from recore_sasrec.options import Sasrec


class Block(nn.Module):
    """See `recore_sasrec.options.Sasrec` for the formula."""

    output: Affine | None

    def __init__(self, options: Sasrec, details: Details, width: int) -> None:
        super().__init__()
        self.options, self.details, self.width = options, details, width
        inner = options.ffn_width or width
        bias = details.attention_bias
        self.attention_norm = nn.LayerNorm(width, eps=details.epsilon)
        self.qkv = Affine(width, 3 * width, bias=bias)
        self.output = Affine(width, width, bias=bias) if details.output_projection else None
        self.ffn_norm = nn.LayerNorm(width, eps=details.epsilon)
        self.first = Affine(width, inner)
        self.second = Affine(inner, width)

    def draw(self, generator: torch.Generator) -> None:
        """Draw all initial weights, always in the same order."""
        details, std = self.details, self.options.std
        packed = details.initial_qkv.startswith("packed-")
        rule = cast(Rule, details.initial_qkv.removeprefix("packed-"))
        self.qkv.draw(rule, std, generator, fan_out=3 * self.width if packed else self.width)
        for affine in (self.output, self.first, self.second):
            if affine is not None:
                affine.draw(details.initial, std, generator)
        if details.ffn_bias == "uniform":
            self.first.draw_bias(generator)
            self.second.draw_bias(generator)

    def rate(self, place: Place) -> float:
        """The dropout rate at a place."""
        return self.options.dropout if self.training and place in self.details.dropouts else 0.0

    def forward(
        self, x: Tensor, frame: Frame, view: View, terms: tuple[Term, ...], rows: Tensor | None = None
    ) -> Tensor:
        """From rows `(C, d)` to rows `(C, d)`; with events `rows (R,)` to those alone, `(R, d)`."""
        return self._feed_forward(self._attention(x, frame, view, terms, rows))

    def _attention(
        self, x: Tensor, frame: Frame, view: View, terms: tuple[Term, ...], rows: Tensor | None
    ) -> Tensor:
        ask = frame.rows(rows)
        own = x if ask is None else x.index_select(0, ask)
        asking, keyed = own, x
        if self.details.norm == "queries":
            asking = self.attention_norm(own)
        elif self.details.norm == "all":
            keyed = self.attention_norm(x)
            asking = keyed if ask is None else keyed.index_select(0, ask)
        q, k, v = self._projected(asking, keyed)
        mixed = attend(
            q if rows is not None else frame.events(q),
            frame.events(k),
            frame.events(v),
            view,
            terms,
            rows=rows,
            causal=self.options.causal,
            dropout=self.rate("attention"),
            key_map=self._key_map,
            value_map=self._value_map,
        ).flatten(1)
        mixed = mixed if rows is not None else frame.spread(mixed)
        if self.output is not None:
            mixed = self.output(mixed)
        base = asking if self.details.residual == "normalised" else own
        y = dropped_sum(base, mixed, self.rate("attention-output"))
        return self.attention_norm(y) if self.details.norm == "post" else y

    def _key_map(self, table: Tensor) -> Tensor:
        """K without its bias, for terms with tables `(buckets, d)` in the input space."""
        return F.linear(table, self.qkv.weight[self.width : 2 * self.width])

    def _value_map(self, table: Tensor) -> Tensor:
        """V without its bias."""
        return F.linear(table, self.qkv.weight[2 * self.width :])

    def _projected(self, asking: Tensor, keyed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`q (R or C, H, d/H)`, `k` and `v (C, H, d/H)`: one product where both come from the same rows."""
        heads, width = self.options.heads, self.width
        if asking is keyed:
            q, k, v = self.qkv(asking).view(-1, 3, heads, width // heads).unbind(1)
            return q, k, v
        q = self.qkv.part(asking, 0, width).view(-1, heads, width // heads)
        k, v = self.qkv.part(keyed, width, 3 * width).view(-1, 2, heads, width // heads).unbind(1)
        return q, k, v

    def _feed_forward(self, y: Tensor) -> Tensor:
        post = self.details.norm == "post"
        inner = y if post else self.ffn_norm(y)
        hidden = self.first(inner)
        rate = self.rate("hidden")
        relu = self.options.activation == "relu"
        hidden = dropped_relu(hidden, rate) if relu else dropped(F.gelu(hidden), rate)
        base = inner if self.details.residual == "normalised" else y
        z = dropped_sum(base, self.second(hidden), self.rate("output"))
        return self.ffn_norm(z) if post else z
