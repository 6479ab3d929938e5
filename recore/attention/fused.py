"""Softmax attention with nothing added to the logits: torch's fused kernel on rectangles of like length.

Legend: `T` events, `R` rows that ask, `H` heads, `b` sequences, `w` columns, `e` = d/H.
Nothing of size `w × w` is held: where every row asks causally, the triangle is the kernel's own; otherwise a
boolean mask `(b, 1, r or 1, w)` says what is seen, for few rows `r` of a sequence. Every row of it sees a key,
rows of padding too: one that sees nothing has a softmax of 0/0 and a gradient that is not finite.
Causal attention of all rows on a rectangle padded on the left would need a mask of `w × w` and is done in tiles.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recore.attention.kept import keeps, kept
from recore.attention.plan import Group, plan_of
from recore.ragged import View

# Up to so many rows of a sequence ask through a mask.
_FEW = 16


class _Take(torch.autograd.Function):
    """`x[index]`; backward reads only cell `home[n]` for row `rows[n]` of x (None: row n), because gradients of
    the other cells are zero by construction: they are padding. A plain index_select would add them all up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, home: Tensor, rows: Tensor | None) -> Tensor:
        ctx.save_for_backward(home, rows)
        ctx.size = x.shape[0]
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        home, rows = ctx.saved_tensors
        grad = grads[0].index_select(0, home)
        if rows is not None:
            grad = grad.new_zeros(ctx.size, *grad.shape[1:]).index_copy_(0, rows, grad)
        return grad, None, None, None


class _Put(torch.autograd.Function):
    """`x[home]`, each cell at most once; backward writes instead of adding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, home: Tensor) -> Tensor:
        ctx.save_for_backward(home)
        ctx.size = x.shape[0]
        return x.index_select(0, home)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (home,) = ctx.saved_tensors
        grad = grads[0]
        return grad.new_zeros(ctx.size, *grad.shape[1:]).index_copy_(0, home, grad), None


def laid_out(x: Tensor, view: View) -> Tensor:
    """The store of values `(T, H, e)`: themselves, or the cells `(B·W, H, e)` of the rectangle that the view's
    Layout makes. What the layout filled in becomes zero here, in values and not by a mask of the logits alone:
    0 · NaN is NaN."""
    if view.layout.padding == "none":
        return x
    rectangle = view.layout.rectangle(view.ragged(x))
    mask = view.remember("attention layout mask", lambda: view.layout.mask(view.offsets))
    return torch.where(mask[..., None, None], rectangle, 0.0).flatten(0, 1)


def fused(
    q: Tensor, k: Tensor, v: Tensor, view: View, rows: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """softmax(scale · q kᵀ) v per sequence and head: `(R, H, e)`."""
    plan = plan_of(view, rows)
    if rows is None and causal and keeps(plan, q):
        return kept(laid_out(q, view), laid_out(k, view), laid_out(v, view), plan, scale)
    if rows is None:
        asking = _taken(laid_out(q, view), plan.rows, plan.key_home, plan.key_rows)
    else:
        asking = _taken(q, plan.rows, plan.row_home, None)
    keys = _taken(laid_out(k, view), plan.keys, plan.key_home, plan.key_rows)
    values = _taken(laid_out(v, view), plan.keys, plan.key_home, plan.key_rows)
    row_sizes = [group.rows.numel() for group in plan.groups]
    key_sizes = [group.keys.numel() for group in plan.groups]
    pieces = zip(
        plan.groups,
        torch.split(asking, row_sizes),
        torch.split(keys, key_sizes),
        torch.split(values, key_sizes),
        strict=True,
    )
    results = [_group(group, q, k, v, causal, scale).flatten(0, 1) for group, q, k, v in pieces]
    out: Tensor = _Put.apply(torch.cat(results), plan.row_home)  # type: ignore[no-untyped-call]  # torch's
    return out


def _taken(x: Tensor, index: Tensor, home: Tensor, rows: Tensor | None) -> Tensor:
    taken: Tensor = _Take.apply(x, index, home, rows)  # type: ignore[no-untyped-call]  # torch's
    return taken


def _group(group: Group, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    """`(b, r, H, e)` of one rectangle, from its cells `(b · r or b · w, H, e)`."""
    q, k, v = (x.view(len(group), -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    if causal and group.aligned and group.tight:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)
    seen = group.seen[:, None, None]
    if causal:
        column = torch.arange(group.width, device=seen.device)
        seen = seen & (column <= group.at[:, None, :, None])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale).transpose(1, 2)


def fits(view: View, rows: Tensor | None, causal: bool) -> bool:
    """Whether the fused kernel is fit for these rows."""
    if rows is None:
        return not causal or view.layout.padding != "left"
    return max(group.count for group in plan_of(view, rows).groups) <= _FEW
