"""Attention of every other kind: tiles of 64 rows with all the keys they see, made again in the backward pass.

Legend: `T` events, `R` rows that ask, `H` heads, `e` = d/H; a group has `b` sequences, `w` key columns and `r` row
columns; a tile has `n` of its sequences, 64 of its rows and their first `c` key columns.

A tile holds all keys of its rows, so its softmax is whole, and nothing is saved for the backward pass but q, k,
v and the terms' tensors (with all keys at hand torch's softmax, once more, takes less time than exp(S − a
saved logsumexp)). Memory: three or four tiles of about a million logits, and what grows with T.

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
        ctx.save_for_backward(q, k, v, *tensors)
        with torch.autocast(q.device.type, enabled=False):
            return _Pass(job, q, k, v, tensors, [False] * len(tensors)).forward()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *tensors = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            return None, *_Pass(ctx.job, q, k, v, tensors, ctx.needs_input_grad[4:]).backward(grads[0])


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

    def forward(self) -> Tensor:
        """What the rows receive, `(R, H, e)`."""
        out = self.v.new_empty(self.job.results, *self.v.shape[1:])
        for group, tiles in self._groups():
            queries, keys, values = self._rectangles(group)
            received = torch.empty_like(queries)
            for tile in tiles:
                asking = tile.rows_of(queries)
                _, weights = self._weights(tile, asking, tile.keys_of(keys))
                kept = self._kept(tile, weights)
                if kept is not None:
                    weights.mul_(kept)
                got = _bmm(weights, tile.keys_of(values))
                for part in self.parts:
                    part.result(tile, weights, got)
                tile.rows_of(received).copy_(got)
            _write(out, received.mul_(self.grow), group.results, group.real_rows)
        return out

    def backward(self, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v and the terms' tensors, from that of the result `(R, H, e)`."""
        dq, dk, dv = torch.zeros_like(self.q), torch.zeros_like(self.k), torch.zeros_like(self.v)
        for group, tiles in self._groups():
            queries, keys, values = self._rectangles(group)
            # Rows of padding repeat an event that asks elsewhere: nothing is given to them.
            given = _rectangle(grad * self.grow, group.results).mul_(group.asks[:, None, :, None])
            dqueries = torch.empty_like(queries)
            dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
            for tile in tiles:
                rectangles = (queries, given, keys, values)
                self._tile_back(tile, *rectangles, dqueries, dkeys, dvalues)
            for part in self.parts:
                part.leave(group)
            _write(dq, dqueries.mul_(self.job.scale), group.rows, group.real_rows)
            _write(dk, dkeys, group.keys, group.real_keys)
            _write(dv, dvalues, group.keys, group.real_keys)
        return dq, dk, dv, *(grad for part in self.parts for grad in part.gradients())

    def _tile_back(
        self,
        tile: Tile,
        queries: Tensor,
        given: Tensor,
        keys: Tensor,
        values: Tensor,
        dqueries: Tensor,
        dkeys: Tensor,
        dvalues: Tensor,
    ) -> None:
        """Writes the tile's rows of `dqueries`, adds to `dkeys` and `dvalues`, lets terms add to theirs."""
        asking, got = tile.rows_of(queries), tile.rows_of(given)
        logits, weights = self._weights(tile, asking, tile.keys_of(keys))
        kept, used = self._kept(tile, weights), weights
        if kept is not None:
            used = torch.mul(weights, kept, out=self._space("used", weights.shape))
        _add(tile.keys_of(dvalues), used, got)
        dweights = _bmm(got, tile.keys_of(values).transpose(2, 3), self._space("dweights", weights.shape))
        for part in self.parts:
            part.result_back(tile, used, got, dweights)
        if kept is not None:
            dweights.mul_(kept)
        dlogits = self._dlogits(tile, logits, weights, dweights)
        dasking = _bmm(dlogits, tile.keys_of(keys))
        _add(tile.keys_of(dkeys), dlogits, asking)
        for part in self.parts:
            part.logits_back(tile, asking, dlogits, dasking)
        tile.rows_of(dqueries).copy_(dasking)

    def _groups(self) -> Iterator[tuple[Group, Iterator[Tile]]]:
        """Groups with their tiles, always in this order."""
        number = 0
        for group in self.job.plan.groups:
            for part in self.parts:
                part.enter(group)
            tiles = list(_tiles(group, int(self.q.shape[1]), self.job.causal, number))
            number += len(tiles)
            yield group, iter(tiles)

    def _rectangles(self, group: Group) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries `(b, H, r, e)`, keys and values `(b, H, w, e)`."""
        queries = _rectangle(self.q, group.rows).mul_(self.job.scale)
        return queries, _rectangle(self.k, group.keys), _rectangle(self.v, group.keys)

    def _weights(self, tile: Tile, asking: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and weights `(n, H, r, c)`, unseen keys' weights 0; both in buffers."""
        shape = torch.Size((*asking.shape[:3], tile.columns))
        logits, weights = self._space("logits", shape), self._space("weights", shape)
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

    def _kept(self, tile: Tile, weights: Tensor) -> Tensor | None:
        """1 where dropout leaves a weight, or None without dropout."""
        if self.drop is None:
            return None
        return self.drop.mask(tile.number, self._space("kept", weights.shape))

    def _space(self, name: str, shape: torch.Size) -> Tensor:
        """A buffer that tile after tile uses: fresh pages cost as much as the arithmetic."""
        size = shape.numel()
        held = self.buffers.get(name)
        if held is None or held.numel() < size:
            held = self.buffers[name] = self.q.new_empty(size)
        return held[:size].view(shape)


def _tiles(group: Group, heads: int, causal: bool, number: int) -> Iterator[Tile]:
    for top in range(0, group.count, TILE_ROWS):
        bottom = min(top + TILE_ROWS, group.count)
        columns = group.width
        if causal:
            columns = bottom if group.aligned else int(group.at[:, top:bottom].max()) + 1
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


def _add(total: Tensor, weights: Tensor, rows: Tensor) -> None:
    """`total (n, H, c, e)`, a view, += weightsᵀ rows."""
    total.flatten(0, 1).baddbmm_(weights.flatten(0, 1).transpose(1, 2), rows.flatten(0, 1))


def _divisor(silu: Silu, tile: Tile, like: Tensor) -> Tensor:
    """What Silu divides by, `(n or 1, 1, r or 1, 1)`."""
    if silu.divide == "constant":
        return like.new_full((1, 1, 1, 1), silu.constant)
    return tile.visible.to(like.dtype)[:, None, :, None]
