"""SASRec as most people run it in PyTorch: a padded rectangle everywhere. What the benchmarks compare with.

Legend: `B` histories, `L` columns of the rectangle, `d` width, `V` items (numbered from 1; 0 is padding).

Written from Kang & McAuley 2018 (section III) with the structure of the port most people use (pmixer/SASRec.pytorch):
histories padded on the left to `L`; item vectors times √d plus position vectors; in each block
`torch.nn.MultiheadAttention` with a causal mask, whose queries alone are normalised and which are added back,
then a norm and two convolutions of kernel size 1; dropout after the embeddings, in attention and twice in the
feed-forward net; a last norm; binary cross-entropy of the next item against one negative; Adam, batches of 128.
As in that port, keys of padding are not masked (they are constant rows), and the loss counts real targets only.

`lean=True` is the same computation with all that torch offers today for free: attention weights are not asked for and
not dropped, so that torch's fused causal kernel runs, and Adam is fused. Nobody's default, and the hardest to beat
of the padded forms.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PointWise(nn.Module):
    """`x (B, L, d)` → `x + conv(relu(conv(x)))`, as convolutions of kernel size 1 over `(B, d, L)`."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, kernel_size=1)
        self.second = nn.Conv1d(width, width, kernel_size=1)
        self.inner = nn.Dropout(dropout)
        self.outer = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, d)`."""
        hidden = torch.relu(self.inner(self.first(x.transpose(1, 2))))
        added: Tensor = self.outer(self.second(hidden)).transpose(1, 2)
        return x + added


class Block(nn.Module):
    """Attention of normalised queries to raw keys, then the pointwise net."""

    def __init__(self, width: int, heads: int, dropout: float, lean: bool) -> None:
        super().__init__()
        self.lean = lean
        self.attention_norm = nn.LayerNorm(width, eps=1e-8)
        self.attention = nn.MultiheadAttention(width, heads, 0.0 if lean else dropout, batch_first=True)
        self.forward_norm = nn.LayerNorm(width, eps=1e-8)
        self.pointwise = PointWise(width, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x (B, L, d)`, `mask (L, L)` True where a key is not seen → `(B, L, d)`."""
        queries = self.attention_norm(x)
        if self.lean:
            mixed, _ = self.attention(queries, x, x, attn_mask=mask, is_causal=True, need_weights=False)
        else:
            mixed, _ = self.attention(queries, x, x, attn_mask=mask)
        out: Tensor = self.pointwise(self.forward_norm(queries + mixed))
        return out


class Textbook(nn.Module):
    """The model. Token 0 is padding, items are 1 … V."""

    def __init__(
        self,
        items: int,
        width: int = 64,
        length: int = 200,
        layers: int = 2,
        heads: int = 1,
        dropout: float = 0.1,
        lean: bool = False,
    ) -> None:
        super().__init__()
        self.width, self.length, self.lean = width, length, lean
        self.item = nn.Embedding(items + 1, width, padding_idx=0)
        self.position = nn.Embedding(length + 1, width, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, lean) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width, eps=1e-8)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():  # the usual port leaves these rows drawn; padding is meant to be zero
            self.item.weight[0] = 0.0
            self.position.weight[0] = 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states `(B, L, d)` of `tokens (B, L)`."""
        columns = tokens.shape[1]
        places = torch.arange(1, columns + 1, device=tokens.device) * (tokens != 0)
        x = self.item(tokens) * math.sqrt(self.width) + self.position(places)
        x = self.dropout(x)
        mask = ~torch.ones(columns, columns, dtype=torch.bool, device=tokens.device).tril()
        for block in self.blocks:
            x = block(x, mask)
        hidden: Tensor = self.last_norm(x)
        return hidden

    def loss(self, tokens: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The mean over real targets of −log σ(s⁺) − log σ(−s⁻), a scalar; all three are `(B, L)`."""
        hidden = self(tokens)
        up = (hidden * self.item(positive)).sum(-1)
        down = (hidden * self.item(negative)).sum(-1)
        real = positive != 0
        return F.binary_cross_entropy_with_logits(
            up[real], torch.ones_like(up[real])
        ) + F.binary_cross_entropy_with_logits(down[real], torch.zeros_like(down[real]))

    def optimiser(self, learning_rate: float = 1e-3) -> torch.optim.Optimizer:
        """Adam as the port sets it."""
        return torch.optim.Adam(
            self.parameters(), lr=learning_rate, betas=(0.9, 0.98), fused=True if self.lean else None
        )


def train_step(
    model: Textbook, optimiser: torch.optim.Optimizer, batch: tuple[Tensor, Tensor, Tensor]
) -> float:
    """One step on `tokens, positive, negative`, each `(B, L)`. Gives the loss."""
    optimiser.zero_grad()
    loss = model.loss(*batch)
    torch.autograd.backward(loss)
    optimiser.step()
    return float(loss.detach())


def padded_left(values: Tensor, offsets: Tensor, length: int) -> Tensor:
    """Sequences `values[offsets[b] : offsets[b + 1]]` of at most `length` as `(B, L)`, 0 before each."""
    lengths = offsets.diff()
    column = torch.arange(length)
    source = offsets[1:, None] - length + column
    return torch.where(column >= length - lengths[:, None], values[source.clamp(min=0)], 0)
