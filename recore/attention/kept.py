"""Causal softmax attention with nothing added to the logits, on the CPU: its weights are kept for the backward pass.

Legend: `T` events, `H` heads, `e` = d/H; a group has `b` sequences and `w` columns; a tile has 64 of its rows (128 of
long ones) and the `c` columns that they see.

torch's fused kernel makes the weights again in the backward pass, a fifth of the arithmetic, and is slower at the
products themselves. Keeping them costs a number for each pair of a tile, so it is done only where that is no more
than twice what q, k, v and the result take together, and less with more heads, which a bounded history of one or two
heads is: memory still grows with T alone. Everything else goes on through `fused.py`.

With P the weights, O = P V and dO given: dV = Pᵀ dO; dP = dO Vᵀ; dS = P ∘ (dP − rowsum(P ∘ dP)); dQ = scale · dS K;
dK = dSᵀ (scale · Q).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recore.attention.plan import Group, Plan

# Rows of a tile; twice as many from a width on where their longer triangle is little: a group has few sequences so
# long, and with more rows both cores have something to do.
_ROWS, _LONG = 64, 512
# Weights kept, as a multiple of the numbers of q and divided by the heads: the narrower a head, the less its products
# weigh beside the weights themselves, and the better torch's kernel does (with four heads it is faster at any length).
_MOST = 8
# Weights of a group from which it is worth it: a tile costs a dozen calls, torch's kernel one.
_LEAST = 20_000


def keeps(plan: Plan, q: Tensor) -> bool:
    """Whether the weights of `q (·, H, e)` asking itself are to be kept."""
    if q.device.type != "cpu" or q.dtype not in (torch.float32, torch.float64) or not plan.groups:
        return False
    area = sum(len(group) * (bottom - top) * bottom for group in plan.groups for top, bottom in _tiles(group))
    heads = int(q.shape[1])
    return _LEAST * len(plan.groups) <= area * heads <= _MOST * q.numel() / heads


def kept(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> Tensor:
    """softmax(scale · q kᵀ) v per sequence and head, causally, from stores `(·, H, e)`: `(T, H, e)`. The plan is one
    in which every event asks, none of its groups padded on the left."""
    out: Tensor = _Kept.apply(q, k, v, plan, scale)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> Tensor:
        ctx.plan, ctx.scale, ctx.size = plan, scale, q.shape[0]
        queries = q.index_select(0, plan.rows).mul_(scale)
        keys, values = k.index_select(0, plan.keys), v.index_select(0, plan.keys)
        received = torch.empty_like(queries)
        triangle = q.new_full((2 * _ROWS, 2 * _ROWS), -math.inf).triu_(1)
        saved = []
        for group, cells in _groups(plan):
            asking, seen, said = (_rectangle(x[cells], group) for x in (queries, keys, values))
            into = _rectangle(received[cells], group)
            saved += [asking, seen, said]
            for top, bottom in _tiles(group):
                logits = torch.bmm(asking[:, top:bottom], seen[:, :bottom].transpose(1, 2))
                logits[:, :, top:].add_(triangle[: bottom - top, : bottom - top])
                weights = torch.softmax(logits, -1)
                torch.bmm(weights, said[:, :bottom], out=into[:, top:bottom])
                saved.append(weights)
            _put(received[cells], into, group)
        ctx.save_for_backward(*saved)
        return received.index_select(0, plan.row_home)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan, saved = ctx.plan, iter(ctx.saved_tensors)
        # Rows of padding repeat an event that asks elsewhere: nothing is given to them.
        cells_given = grad.new_zeros(plan.rows.shape[0], *grad.shape[1:])
        given_all = cells_given.index_copy_(0, plan.row_home, grad)
        to_all = [torch.empty_like(given_all) for _ in range(3)]
        for group, cells in _groups(plan):
            asking, seen, said = next(saved), next(saved), next(saved)
            given = _rectangle(given_all[cells], group)
            to_asking, to_seen, to_said = (_rectangle(x[cells], group) for x in to_all)
            tiles = [(top, bottom, next(saved)) for top, bottom in _tiles(group)]
            # The last tile sees all columns, so it writes and the others add.
            for top, bottom, weights in reversed(tiles):
                got = given[:, top:bottom]
                _gather(to_said, bottom, weights, got)
                slope = torch.bmm(got, said[:, :bottom].transpose(1, 2))
                torch.ops.aten._softmax_backward_data.out(slope, weights, -1, weights.dtype, grad_input=slope)
                torch.bmm(slope, seen[:, :bottom], out=to_asking[:, top:bottom])
                _gather(to_seen, bottom, slope, asking[:, top:bottom])
            to_asking.mul_(ctx.scale)
            for store, rectangle in zip(to_all, (to_asking, to_seen, to_said), strict=True):
                _put(store[cells], rectangle, group)
        return *(_home(x, plan, ctx.size) for x in to_all), None, None


def _gather(into: Tensor, bottom: int, weights: Tensor, rows: Tensor) -> None:
    """`weightsᵀ rows` to the columns up to `bottom`: written where these are all, added where they are not. (A
    product that adds in place to a part of a tensor is done matrix by matrix, on one core.)"""
    if bottom == into.shape[1]:
        torch.bmm(weights.transpose(1, 2), rows, out=into)
    else:
        into[:, :bottom].add_(torch.bmm(weights.transpose(1, 2), rows))


def _groups(plan: Plan) -> Iterator[tuple[Group, slice]]:
    """Groups, each with its cells among those of all."""
    start = 0
    for group in plan.groups:
        stop = start + group.keys.numel()
        yield group, slice(start, stop)
        start = stop


def _tiles(group: Group) -> list[tuple[int, int]]:
    """The rows `top` to `bottom` of each tile; it sees the columns up to `bottom`."""
    rows = _ROWS if group.width < _LONG else 2 * _ROWS
    return [(top, min(top + rows, group.width)) for top in range(0, group.width, rows)]


def _rectangle(cells: Tensor, group: Group) -> Tensor:
    """`(b · w, H, e)` → `(b · H, w, e)`: the same memory where there is one head or one column, else a copy."""
    heads, size = cells.shape[1:]
    return cells.view(len(group), -1, heads, size).transpose(1, 2).reshape(len(group) * heads, -1, size)


def _put(cells: Tensor, rectangle: Tensor, group: Group) -> None:
    """What was written to `_rectangle(cells)` to where it came from."""
    if rectangle.data_ptr() != cells.data_ptr():
        whole = rectangle.view(len(group), -1, *rectangle.shape[1:]).transpose(1, 2)
        cells.view(whole.shape).copy_(whole)


def _home(cells: Tensor, plan: Plan, size: int) -> Tensor:
    """Gradients of cells to the store's rows; those of padding are dropped, being zero or nobody's."""
    found = cells.index_select(0, plan.key_home)
    if plan.key_rows is None:
        return found
    return found.new_zeros(size, *found.shape[1:]).index_copy_(0, plan.key_rows, found)
