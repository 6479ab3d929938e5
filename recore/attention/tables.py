"""Tables read by pairs, for a tile at a time: what rows say to buckets, spread to keys; what keys get, folded
to buckets. Keys and values of a table are both made of these two.

Legend: `n` sequences, `H` heads, `r` rows, `c` keys, `e` = d/H, `m` buckets that a tile reads.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from recore.attention.terms import Buckets
from recore.attention.tile import Tile


class Reader(Protocol):
    """How the pairs of a tile read a table."""

    def span(self, tile: Tile) -> slice:
        """The rows of the table that the tile reads, m of them."""
        ...

    def spread(self, tile: Tile, scores: Tensor, into: Tensor) -> None:
        """`into (n, H, r, c)` += the score `(n, H, r, m)` of each pair's bucket."""
        ...

    def fold(self, tile: Tile, weights: Tensor) -> Tensor:
        """Sums of `weights (n, H, r, c)` over the keys of each bucket, `(n, H, r, m)`."""
        ...


class ByBucket:
    """Any pairs: by gather and scatter. `index` is a Buckets, or a range of distances."""

    def __init__(self, index: Buckets | tuple[int, int], buckets: int) -> None:
        self.index = index
        self.buckets = buckets

    def span(self, tile: Tile) -> slice:
        return slice(0, self.buckets)

    def bucket(self, tile: Tile) -> Tensor:
        """`(n or 1, r, c)`"""
        return tile.distance(*self.index) if isinstance(self.index, tuple) else tile.bucket(self.index)

    def spread(self, tile: Tile, scores: Tensor, into: Tensor) -> None:
        into.add_(scores.gather(-1, self.bucket(tile)[:, None].expand(into.shape)))

    def fold(self, tile: Tile, weights: Tensor) -> Tensor:
        folded = weights.new_zeros(*weights.shape[:3], self.buckets)
        return folded.scatter_add_(-1, self.bucket(tile)[:, None].expand(weights.shape), weights)


class ByDiagonal:
    """Distances, where row `i` of a tile stands at column `top + i`: pairs of one distance are a diagonal.

    Laid out by distance, falling, the scores of a row are the next row's moved by one; so keys read them
    through a view whose row stride is one less than the row's length, and nothing is gathered. Keys so far away
    (or so far ahead) that all rows of the tile clip their distance are one column, handled apart:
    a table of few distances costs little whatever the length of the history.
    """

    def __init__(self, low: int, buckets: int) -> None:
        self.low, self.high = low, low + buckets - 1

    def _edges(self, tile: Tile) -> tuple[int, int]:
        """Keys before `start` are at distance ≥ high for all rows of the tile, keys from `stop` on ≤ low."""
        top, last = tile.band.start, tile.band.stop - 1
        start = min(max(top - self.high + 1, 0), tile.columns)
        return start, min(max(last - self.low, start), tile.columns)

    def _within(self, tile: Tile) -> tuple[int, int]:
        """Largest and smallest distance of the keys between the edges, before clipping."""
        start, stop = self._edges(tile)
        return tile.band.stop - 1 - start, tile.band.start - (stop - 1)

    def _clip(self, distance: int) -> int:
        return min(max(distance, self.low), self.high) - self.low

    def span(self, tile: Tile) -> slice:
        start, stop = self._edges(tile)
        far, near = (self._clip(distance) for distance in self._within(tile))
        ends = [*([far, near] if start < stop else [])]
        ends += [self.high - self.low] if start else []
        ends += [0] if stop < tile.columns else []
        return slice(min(ends), max(ends) + 1)

    def spread(self, tile: Tile, scores: Tensor, into: Tensor) -> None:
        start, stop = self._edges(tile)
        if start:
            into[..., :start].add_(scores[..., -1:])
        if stop < tile.columns:
            into[..., stop:].add_(scores[..., :1])
        if start == stop:
            return
        middle, over, under = self._parts(tile)
        inner = scores[..., middle].flip(-1)
        wide = inner.new_empty(*into.shape[:3], over + inner.shape[-1] + under)
        wide[..., over : over + inner.shape[-1]] = inner
        wide[..., :over] = inner[..., :1]
        wide[..., over + inner.shape[-1] :] = inner[..., -1:]
        into[..., start:stop].add_(_skewed(wide, stop - start))

    def fold(self, tile: Tile, weights: Tensor) -> Tensor:
        start, stop = self._edges(tile)
        span = self.span(tile)
        folded = weights.new_zeros(*weights.shape[:3], span.stop - span.start)
        if start < stop:
            middle, over, under = self._parts(tile)
            size = middle.stop - middle.start
            wide = weights.new_zeros(*weights.shape[:3], over + size + under)
            _skewed(wide, stop - start).copy_(weights[..., start:stop])
            folded[..., middle] = wide[..., over : over + size].flip(-1)
            if over:
                folded[..., middle.stop - 1] += wide[..., :over].sum(-1)
            if under:
                folded[..., middle.start] += wide[..., over + size :].sum(-1)
        if start:
            folded[..., -1] += weights[..., :start].sum(-1)
        if stop < tile.columns:
            folded[..., 0] += weights[..., stop:].sum(-1)
        return folded

    def _parts(self, tile: Tile) -> tuple[slice, int, int]:
        """Within the span: the buckets between the edges; how many distances clip to the largest of
        them, and to the smallest."""
        most, least = self._within(tile)
        far, near = self._clip(most), self._clip(least)
        base = self.span(tile).start
        return slice(near - base, far + 1 - base), most - (far + self.low), near + self.low - least


def _skewed(wide: Tensor, columns: int) -> Tensor:
    """Of `wide (n, H, r, r + columns − 1)`, contiguous, cell `r − 1 − i + j` of row `i` at `(i, j)`: a view."""
    rows, length = wide.shape[-2:]
    strides = (*wide.stride()[:2], length - 1, 1)
    return wide.as_strided((*wide.shape[:3], columns), strides, wide.storage_offset() + rows - 1)
