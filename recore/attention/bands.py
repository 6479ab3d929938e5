"""Keys and values per distance, in causal attention where every row stands at its own column: by diagonals in place.

Legend: `n` sequences, `H` heads, `r` rows, `c` keys, `e` = d/H, `s` distances told apart.

Distances from `high` on share one vector, the *far* one. Less that vector, a key table says something about the
latest `s` keys of a row alone, and of the far vector remains q · far, the same for all keys of a row, which a softmax
does not see. Likewise the value table gives a row far · (the sum of its weights, which is one) and something for each
of its latest `s` keys. So one needs, of a tile's logits or weights, the cells at distance `s − 1, …, 0` of each row:
a band along the diagonal, which is a view of the tile with a row stride of `c + 1`. Products read it where it stands,
and nothing is gathered, folded or moved.

The band of a row whose history is shorter than `s` would begin before its first key. In memory that is the end of the
row above, whose keys from there on are later than that row and hidden: what is added there is never seen, and weights
read there are 0. The tile's first row has no row above; it is a piece of its own, as short as its history.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from attrs import frozen
from torch import Tensor

from recore.attention.tile import Tile


@frozen
class Piece:
    """Rows `rows` of a tile with their latest `many` keys."""

    tile: Tile
    rows: slice
    many: int

    def of(self, x: Tensor) -> Tensor:
        """The band `(n · H, rows, many)` of a contiguous `x (n, H, r, c)`, distances falling: a view."""
        first, columns = self.rows.start, self.tile.columns
        start = first * columns + self.tile.band.start + first - self.many + 1
        shape = (x.shape[0] * x.shape[1], self.rows.stop - first, self.many)
        return x.as_strided(shape, (x.stride(1), columns + 1, 1), x.storage_offset() + start)

    def at(self, x: Tensor) -> Tensor:
        """The rows' own part `(n · H, rows, e)` of `x (n, H, r, e)`."""
        return x.flatten(0, 1)[:, self.rows]


class Band:
    """A table `(buckets, H, e)` of distances from `low ≤ 0`, and its gradient; `whole` asks for the far vector's
    share, which nobody needs where weights of a row sum to one."""

    def __init__(self, table: Tensor, low: int, needed: bool) -> None:
        self.shape, self.low, self.needed = table.shape, low, needed
        vectors = table.transpose(0, 1)
        self.far = vectors[:, -1:]  # (H, 1, e)
        self.near = (vectors[:, -low:-1] - self.far).flip(1)  # (H, s, e)
        self.of_far, self.of_near = (torch.zeros_like(x) for x in (self.far, self.near))
        self._tiled = self.near[:0]

    def pieces(self, tile: Tile) -> Iterator[Piece]:
        """The tile's bands."""
        top, many = tile.band.start, min(int(self.near.shape[1]), tile.columns)
        if many > top + 1:
            yield Piece(tile, slice(0, 1), top + 1)
            if tile.rows > 1:
                yield Piece(tile, slice(1, tile.rows), many)
        elif many:
            yield Piece(tile, slice(0, tile.rows), many)

    def vectors(self, piece: Piece) -> Tensor:
        """`(n · H, many, e)`: the piece's vectors for every sequence. (A batch of products reads one tensor; with
        one head that is a view, with more a copy, made for the first tile of so many sequences.)"""
        heads, every, width = self.near.shape
        sequences = piece.tile.span.stop - piece.tile.span.start
        if self._tiled.shape[0] < sequences * heads:
            self._tiled = self.near.expand(sequences, -1, -1, -1).reshape(-1, every, width)
        return self._tiled[: sequences * heads, every - piece.many :]

    def spread(self, tile: Tile, rows: Tensor, into: Tensor, whole: bool) -> None:
        """`into (n, H, r, c)` += each pair's vector · its row of `rows (n, H, r, e)`."""
        for piece in self.pieces(tile):
            piece.of(into).add_(torch.bmm(piece.at(rows), self.vectors(piece).transpose(1, 2)))
        if whole:
            into.add_((rows * self.far).sum(-1, keepdim=True))

    def collect(self, tile: Tile, weights: Tensor, into: Tensor) -> None:
        """`into (n, H, r, e)` += Σ over keys of `weights (n, H, r, c)` times the vector, less the far one's share."""
        for piece in self.pieces(tile):
            if piece.rows == slice(0, tile.rows):
                into.flatten(0, 1).baddbmm_(piece.of(weights), self.vectors(piece))
            else:  # a product that adds to a part of a tensor is done matrix by matrix
                piece.at(into).add_(torch.bmm(piece.of(weights), self.vectors(piece)))

    def learn(self, tile: Tile, weights: Tensor, rows: Tensor) -> None:
        """The gradient Σ weights · rows of each pair's vector, less the far one's share."""
        if not self.needed:
            return
        for piece in self.pieces(tile):
            found = torch.bmm(piece.of(weights).transpose(1, 2), piece.at(rows))
            self.of_near[:, -piece.many :].add_(found.view(-1, len(self.near), *found.shape[1:]).sum(0))

    def far_learns(self, weights: Tensor | None, rows: Tensor) -> None:
        """The far vector's own gradient Σ weights · rows, of `weights (n, H, r, 1)` (None: ones)."""
        if self.needed:
            share = rows if weights is None else rows * weights
            self.of_far.add_(share.sum((0, 2))[:, None])

    def gradient(self) -> Tensor | None:
        """Of the table, `(buckets, H, e)`."""
        if not self.needed:
            return None
        grad = self.far.new_zeros(self.shape)
        near = self.of_near.flip(1)
        grad[-self.low : -1] = near.transpose(0, 1)
        grad[-1] = (self.of_far - near.sum(1, keepdim=True))[:, 0]
        return grad
