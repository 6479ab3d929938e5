"""Attention of every other kind: tiles of 64 rows with all the keys they see.

Legend: `T` events, `R` rows that ask, `H` heads, `e` = d/H; a group has `b` sequences, `w` key columns and `r` row
columns; a tile has `n` of its sequences, 64 of its rows and their first `c` key columns.

A tile holds all keys of its rows, so its softmax is whole. Its weights are kept for the backward pass where those of
all tiles are no more than ten times the queries' own numbers, about what the rest of a block keeps, too: histories
of a bounded length. Otherwise nothing is saved but q, k, v and the terms' tensors, and tiles are made again (with all
keys at hand torch's softmax, once more, takes less time than exp(S − a saved logsumexp)). Memory either way: three or
four tiles of a quarter of a million logits, which stay near the processor, or of one sequence's where these are more
(64 · H · c); and what grows with T.

With P the weights, O = P V and dO given: dV = Pᵀ dO; dP = dO Vᵀ; dS = P ∘ (dP − rowsum(P ∘ dP)); dQ = scale ·
dS K; dK = scale · dSᵀ Q. What terms add is in `parts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from recore.attention.dropout import Dropout
from recore.attention.fused import laid_out
from recore.attention.parts import TILE_ROWS, Part, parts_of
from recore.attention.plan import Group, Plan, plan_of
from recore.attention.terms import KeyBias, Normalise, PairFunction, PairTable, Silu
from recore.attention.tile import Tile
from recore.ragged import View

_LOGITS = 2**18  # of a tile
# Weights kept, as a multiple of the numbers of q.
_MOST = 10


def tiled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    view: View,
    terms: Sequence[PairTable | KeyBias | PairFunction],
    rows: Tensor | None,
    causal: bool,
    normalise: Normalise,
    dropout: float,
    scale: float,
) -> Tensor:
    """What `attend` says, `(R, H, e)`."""
    seed = int(torch.randint(2**62, ())) if dropout else 0
    asking = laid_out(q, view) if rows is None else q
    tensors = [tensor for term in terms for tensor in _tensors(term, q.dtype)]
    job = _Job(plan_of(view, rows), int(q.shape[0]), causal, normalise, dropout, scale, seed, tuple(terms))
    keys, values = laid_out(k, view), laid_out(v, view)
    out: Tensor = _Tiled.apply(job, asking, keys, values, *tensors)  # type: ignore[no-untyped-call]  # torch's
    return out


def _tensors(term: PairTable | KeyBias | PairFunction, dtype: torch.dtype) -> tuple[Tensor, ...]:
    match term:
        case PairTable():
            return (term.table.to(dtype),)
        case KeyBias():
            return (term.bias.to(dtype),)
        case PairFunction():
            return term.inputs


@frozen(eq=False)
class _Job:
    """One call, tensors with gradients aside: `results` rows come out, `seed` is that of dropout."""

    plan: Plan
    results: int
    causal: bool
    normalise: Normalise
    dropout: float
    scale: float
    seed: int
    terms: tuple[PairTable | KeyBias | PairFunction, ...]


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, q: Tensor, k: Tensor, v: Tensor, *tensors: Tensor) -> Tensor:
        ctx.job = job
        with torch.autocast(q.device.type, enabled=False):
            out, kept = _Pass(job, q, k, v, tensors, [False] * len(tensors)).forward()
        ctx.save_for_backward(q, k, v, *tensors, *kept)
        ctx.tensors = len(tensors)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *others = ctx.saved_tensors
        tensors, kept = others[: ctx.tensors], others[ctx.tensors :]
        with torch.autocast(q.device.type, enabled=False):
            own = _Pass(ctx.job, q, k, v, tensors, ctx.needs_input_grad[4:])
            return None, *own.backward(grads[0], kept)


class _Pass:
    """One pass over all tiles, forward or backward. `q (·, H, e)`, `k, v (·, H, e)` are the stores that the
    plan's groups read."""

    def __init__(
        self,
        job: _Job,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tensors: Sequence[Tensor],
        needs: Sequence[bool],
    ) -> None:
        self.job, self.q, self.k, self.v = job, q, k, v
        softmax, drops = job.normalise == "softmax", job.dropout > 0
        self.parts: list[Part] = parts_of(job.plan, job.terms, tensors, needs, job.causal, softmax, drops)
        self.drop = Dropout(job.dropout, job.seed, q.device) if drops else None
        self.grow = self.drop.grow if self.drop else 1.0
        self.buffers: dict[str, Tensor] = {}

    def forward(self) -> tuple[Tensor, list[Tensor]]:
        """What the rows receive, `(R, H, e)`, and the weights of all tiles, before dropout, where they are few
        enough to be kept."""
        out = self.v.new_empty(self.job.results, *self.v.shape[1:])
        keeps, kept = self._keeps(), list[Tensor]()
        for group, tiles in self._groups():
            queries, keys, values = self._rectangles(group)
            received = torch.empty_like(queries)
            for tile in tiles:
                asking = tile.rows_of(queries)
                _, weights = self._weights(tile, asking, tile.keys_of(keys), keeps)
                if keeps:
                    kept.append(weights)
                used, _ = self._dropped(tile, weights)
                got = _bmm(used, tile.keys_of(values))
                for part in self.parts:
                    part.result(tile, used, got)
                tile.rows_of(received).copy_(got)
            _write(out, received.mul_(self.grow), group.results, group.real_rows)
        return out, kept

    def backward(self, grad: Tensor, kept: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v and the terms' tensors, from that of the result `(R, H, e)`."""
        dq, dk, dv = torch.zeros_like(self.q), torch.zeros_like(self.k), torch.zeros_like(self.v)
        grad = grad * self.grow if self.drop else grad
        for group, tiles in self._groups():
            queries, keys, values = self._rectangles(group)
            # Rows of padding repeat an event that asks elsewhere: nothing is given to them.
            given = _rectangle(grad, group.results).mul_(group.asks[:, None, :, None])
            dqueries = torch.empty_like(queries)
            # The last rows, which come first, mostly see all columns: they write and the others add.
            written = tiles[-1].columns == group.width
            dkeys, dvalues = (torch.empty_like(x) if written else torch.zeros_like(x) for x in (keys, values))
            for tile in reversed(tiles):
                self._tile_back(
                    tile,
                    kept[tile.number] if kept else None,
                    (queries, given, keys, values),
                    (dqueries, dkeys, dvalues),
                    written and tile.band.stop == group.count,
                )
            for part in self.parts:
                part.leave(group)
            _write(dq, dqueries.mul_(self.job.scale), group.rows, group.real_rows)
            _write(dk, dkeys, group.keys, group.real_keys)
            _write(dv, dvalues, group.keys, group.real_keys)
        return dq, dk, dv, *(grad for part in self.parts for grad in part.gradients())

    def _tile_back(
        self,
        tile: Tile,
        kept: Tensor | None,
        rectangles: tuple[Tensor, Tensor, Tensor, Tensor],
        gradients: tuple[Tensor, Tensor, Tensor],
        first: bool,
    ) -> None:
        """From queries, gradients given, keys and values: writes the tile's rows of the queries' gradient, adds to
        those of the keys and the values (writes them if `first`), lets terms add to theirs. `kept`: weights of the
        forward pass."""
        queries, given, keys, values = rectangles
        dqueries, dkeys, dvalues = gradients
        asking, got = tile.rows_of(queries), tile.rows_of(given)
        if kept is None:
            logits, weights = self._weights(tile, asking, tile.keys_of(keys))
        else:
            logits, weights = self._space("logits", kept.shape), kept
        used, mask = self._dropped(tile, weights)
        _add(tile.keys_of(dvalues), used, got, first)
        dweights = _bmm(got, tile.keys_of(values).transpose(2, 3), self._space("dweights", weights.shape))
        for part in self.parts:
            part.result_back(tile, used, got, dweights)
        if mask is not None:
            dweights.mul_(mask)
        dlogits = self._dlogits(tile, logits, weights, dweights)
        dasking = _bmm(dlogits, tile.keys_of(keys))
        _add(tile.keys_of(dkeys), dlogits, asking, first)
        for part in self.parts:
            part.logits_back(tile, asking, dlogits, dasking)
        tile.rows_of(dqueries).copy_(dasking)

    def _keeps(self) -> bool:
        """Whether the weights of all tiles are few enough to be kept."""
        if isinstance(self.job.normalise, Silu):
            return False  # its gradient needs the logits
        bands = (
            (len(group), *band) for group in self.job.plan.groups for band in _bands(group, self.job.causal)
        )
        area = sum(many * (bottom - top) * columns for many, top, bottom, columns in bands)
        return area * int(self.q.shape[1]) <= _MOST * self.q.numel()

    def _groups(self) -> Iterator[tuple[Group, list[Tile]]]:
        """Groups with their tiles, always in this order."""
        number = 0
        for group in self.job.plan.groups:
            for part in self.parts:
                part.enter(group)
            tiles = list(_tiles(group, int(self.q.shape[1]), self.job.causal, number))
            number += len(tiles)
            yield group, tiles

    def _rectangles(self, group: Group) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries `(b, H, r, e)`, keys and values `(b, H, w, e)`."""
        queries = _rectangle(self.q, group.rows).mul_(self.job.scale)
        return queries, _rectangle(self.k, group.keys), _rectangle(self.v, group.keys)

    def _weights(
        self, tile: Tile, asking: Tensor, keys: Tensor, fresh: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits and weights `(n, H, r, c)`, unseen keys' weights 0; both in buffers, the weights' `fresh` if asked."""
        shape = torch.Size((*asking.shape[:3], tile.columns))
        logits = self._space("logits", shape)
        weights = torch.empty_like(logits) if fresh else self._space("weights", shape)
        begun = False
        for part in self.parts:
            begun = part.begin(tile, logits, begun) or begun
        if begun:
            logits.flatten(0, 1).baddbmm_(asking.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2))
        else:
            _bmm(asking, keys.transpose(2, 3), logits)
        for part in self.parts:
            part.logits(tile, asking, logits)
        if isinstance(self.job.normalise, Silu):
            tile.hide(logits, 0.0)
            torch.sigmoid(logits, out=weights)
            weights.mul_(logits).div_(_divisor(self.job.normalise, tile, weights))
        else:
            tile.hide(logits, -torch.inf)
            torch.softmax(logits, -1, out=weights)
        return logits, weights

    def _dlogits(self, tile: Tile, logits: Tensor, weights: Tensor, dweights: Tensor) -> Tensor:
        """dS from dP, in the buffer of the logits, which are not read again."""
        if isinstance(self.job.normalise, Silu):
            dweights.div_(_divisor(self.job.normalise, tile, dweights))
            rate = torch.sigmoid(logits, out=weights)  # silu' = σ (1 + S (1 − σ))
            slope = (1 - rate).mul_(logits).add_(1).mul_(rate)
            torch.mul(dweights, slope, out=logits)
            tile.hide(logits, 0.0)
            return logits
        torch.ops.aten._softmax_backward_data.out(dweights, weights, -1, weights.dtype, grad_input=logits)
        return logits

    def _dropped(self, tile: Tile, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """The weights that dropout leaves, others 0, and 1 where it leaves one: both in buffers. Without dropout
        the weights themselves, and None."""
        if self.drop is None:
            return weights, None
        mask = self.drop.mask(tile.number, self._space("mask", weights.shape))
        return torch.mul(weights, mask, out=self._space("used", weights.shape)), mask

    def _space(self, name: str, shape: torch.Size) -> Tensor:
        """A buffer that tile after tile uses: fresh pages cost as much as the arithmetic."""
        size = shape.numel()
        held = self.buffers.get(name)
        if held is None or held.numel() < size:
            held = self.buffers[name] = self.q.new_empty(size)
        return held[:size].view(shape)


def _bands(group: Group, causal: bool) -> Iterator[tuple[int, int, int]]:
    """The rows `top` to `bottom` that are a tile's, and how many columns they see."""
    for top in range(0, group.count, TILE_ROWS):
        bottom = min(top + TILE_ROWS, group.count)
        columns = group.width
        if causal:
            columns = bottom if group.aligned else int(group.at[:, top:bottom].max()) + 1
        yield top, bottom, columns


def _tiles(group: Group, heads: int, causal: bool, number: int) -> Iterator[Tile]:
    for top, bottom, columns in _bands(group, causal):
        many = max(1, _LOGITS // (heads * (bottom - top) * columns))
        for start in range(0, len(group), many):
            span = slice(start, min(start + many, len(group)))
            yield Tile(group, span, slice(top, bottom), columns, causal, number)
            number += 1


def _rectangle(x: Tensor, cells: Tensor) -> Tensor:
    """`x (·, H, e)` at cells `(b, w)` → `(b, H, w, e)`, a copy."""
    found = x.index_select(0, cells.flatten()).view(*cells.shape, *x.shape[1:])
    return found.transpose(1, 2).contiguous()


def _write(rows: Tensor, rectangle: Tensor, cells: Tensor, real: Tensor) -> None:
    """Writes the real cells of `(b, H, w, e)` to their `rows (·, H, e)`."""
    found = rectangle.transpose(1, 2).flatten(0, 1).index_select(0, real)
    rows.index_copy_(0, cells.flatten()[real], found)


def _bmm(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """`(n, H, ·, ·)` times `(n, H, ·, ·)`."""
    if out is None:
        product = torch.bmm(left.flatten(0, 1), right.flatten(0, 1))
        return product.view(*left.shape[:2], *product.shape[1:])
    torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out=out.flatten(0, 1))
    return out


def _add(total: Tensor, weights: Tensor, rows: Tensor, first: bool) -> None:
    """`total (n, H, c, e)`, a view, += weightsᵀ rows, or is that, if `first`. (A product that adds in place to a
    part of a tensor is done matrix by matrix, on one core.)"""
    if first:
        _bmm(weights.transpose(2, 3), rows, total)
    else:
        total.add_(_bmm(weights.transpose(2, 3), rows))


def _divisor(silu: Silu, tile: Tile, like: Tensor) -> Tensor:
    """What Silu divides by, `(n or 1, 1, r or 1, 1)`."""
    if silu.divide == "constant":
        return like.new_full((1, 1, 1, 1), silu.constant)
    return tile.visible.to(like.dtype)[:, None, :, None]
