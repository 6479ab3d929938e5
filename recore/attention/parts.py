"""What each term does to a tile, forward and backward.

Legend: `T` events, `n` sequences, `H` heads, `r` rows, `c` keys, `e` = d/H. Queries (`asking`) come scaled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recore.attention.bands import Band
from recore.attention.plan import Group, Plan
from recore.attention.tables import ByBucket, ByDiagonal, Reader
from recore.attention.terms import KeyBias, PairFunction, PairTable
from recore.attention.tile import Tile

TILE_ROWS = 64


class Part:
    """A term at work on one call: it does nothing where a method is not overridden."""

    def enter(self, group: Group) -> None:
        """Called before the tiles of a group."""

    def begin(self, tile: Tile, logits: Tensor, begun: bool) -> bool:
        """May write to the empty logits `(n, H, r, c)`, or add if `begun`, before q kᵀ is added. True if so."""
        return False

    def logits(self, tile: Tile, asking: Tensor, logits: Tensor) -> None:
        """Adds to the logits."""

    def result(self, tile: Tile, weights: Tensor, received: Tensor) -> None:
        """Adds to what the rows receive, `(n, H, r, e)`."""

    def result_back(self, tile: Tile, weights: Tensor, given: Tensor, dweights: Tensor) -> None:
        """From the gradient `given` of what the rows received: its own, and what it adds to `dweights`."""

    def logits_back(self, tile: Tile, asking: Tensor, dlogits: Tensor, dasking: Tensor) -> None:
        """From the gradient of the logits: its own, and what it adds to `dasking`."""

    def leave(self, group: Group) -> None:
        """Called after the tiles of a group, in the backward pass."""

    def gradients(self) -> tuple[Tensor | None, ...]:
        """Of its tensors, in order; None for those that need none."""
        raise NotImplementedError


def parts_of(
    plan: Plan,
    terms: Sequence[PairTable | KeyBias | PairFunction],
    tensors: Sequence[Tensor],
    needs: Sequence[bool],
    causal: bool,
    softmax: bool,
    dropout: bool,
) -> list[Part]:
    """The parts of a call's terms, in their order. `tensors`: all of theirs, in order; `needs`: which of them
    need a gradient; `softmax`: weights of a row sum to one before dropout."""
    left = iter(zip(tensors, needs, strict=True))
    parts: list[Part] = []
    for term in terms:
        match term:
            case PairTable():
                parts.append(_table_part(plan, term, *next(left), causal, softmax, dropout))
            case KeyBias():
                parts.append(_KeyBias(*next(left)))
            case PairFunction():
                parts.append(_PairFunction(term, [next(left) for _ in term.inputs]))
    return parts


def _table_part(
    plan: Plan, term: PairTable, table: Tensor, needed: bool, causal: bool, softmax: bool, dropout: bool
) -> Part:
    reader: Reader
    if term.index != "distance":
        reader = ByBucket(term.index, term.buckets)
    elif all(group.aligned for group in plan.groups):
        if term.into == "logit":
            return _DistanceBias(plan, term.low, table, needed, causal)
        if causal and term.low <= 0:
            band = Band(table, term.low, needed)
            return _KeyBand(band, softmax) if term.into == "key" else _ValueBand(band, softmax, dropout)
        reader = ByDiagonal(term.low, term.buckets)
    else:
        reader = ByBucket((term.low, term.low + term.buckets - 1), term.buckets)
    if term.into == "logit":
        assert isinstance(reader, ByBucket)
        return _BucketBias(reader, table, needed)
    return {"key": _KeyTable, "value": _ValueTable}[term.into](reader, table, needed)


class _DistanceBias(Part):
    """A logit table of distances where rows stand at their columns. The bias of a tile is a window of
    one strip `(H, 64, x)`: row `i`, column `x` hold the bias at distance `i + origin − x`. Its gradient is summed
    over sequences into a strip alike, tile by tile, and over the strip's diagonals once, at the end."""

    def __init__(self, plan: Plan, low: int, table: Tensor, needed: bool, causal: bool) -> None:
        widest = max(group.width for group in plan.groups)
        self.origin = (widest - 1) // TILE_ROWS * TILE_ROWS
        size = self.origin + (TILE_ROWS if causal else widest)
        row = torch.arange(TILE_ROWS, device=table.device)[:, None]
        distance = row + self.origin - torch.arange(size, device=table.device)
        self.bucket = distance.clamp(low, low + table.shape[0] - 1) - low
        self.strip = table.T.index_select(1, self.bucket.flatten()).view(-1, *distance.shape)
        self.table = table
        self.grad = torch.zeros_like(self.strip) if needed else None

    def _window(self, tile: Tile, strip: Tensor) -> Tensor:
        start = self.origin - tile.band.start
        return strip[:, : tile.rows, start : start + tile.columns]

    def begin(self, tile: Tile, logits: Tensor, begun: bool) -> bool:
        window = self._window(tile, self.strip)
        logits.add_(window) if begun else logits.copy_(window)
        return True

    def logits_back(self, tile: Tile, asking: Tensor, dlogits: Tensor, dasking: Tensor) -> None:
        if self.grad is not None:
            self._window(tile, self.grad).add_(dlogits.sum(0))

    def gradients(self) -> tuple[Tensor | None, ...]:
        if self.grad is None:
            return (None,)
        grad = torch.zeros_like(self.table.T)
        return (grad.index_add_(1, self.bucket.flatten(), self.grad.flatten(1)).T,)


class _BucketBias(Part):
    """A logit table read by any pairs."""

    def __init__(self, reader: ByBucket, table: Tensor, needed: bool) -> None:
        self.reader, self.columns = reader, table.T.contiguous()
        self.grad = torch.zeros_like(table) if needed else None

    def logits(self, tile: Tile, asking: Tensor, logits: Tensor) -> None:
        bucket = self.reader.bucket(tile)
        for head, column in enumerate(self.columns):
            logits[:, head].add_(column.index_select(0, bucket.flatten()).view(bucket.shape))

    def logits_back(self, tile: Tile, asking: Tensor, dlogits: Tensor, dasking: Tensor) -> None:
        if self.grad is None:
            return
        if self.reader.buckets <= 2 * tile.columns:
            self.grad.add_(self.reader.fold(tile, dlogits).sum((0, 2)).T)
            return
        bucket = self.reader.bucket(tile).expand(dlogits[:, 0].shape).flatten()
        for head in range(dlogits.shape[1]):
            self.grad[:, head].index_add_(0, bucket, dlogits[:, head].flatten())

    def gradients(self) -> tuple[Tensor | None, ...]:
        return (self.grad,)


class _KeyBias(Part):
    """A bias per key and head."""

    def __init__(self, bias: Tensor, needed: bool) -> None:
        self.bias = bias
        self.grad = torch.zeros_like(bias) if needed else None

    def enter(self, group: Group) -> None:
        self.rectangle = self.bias[group.events].transpose(1, 2).unsqueeze(2)  # (b, H, 1, w)
        if self.grad is not None:
            self.sums = torch.zeros_like(self.rectangle)

    def begin(self, tile: Tile, logits: Tensor, begun: bool) -> bool:
        added = self.rectangle[tile.span, ..., : tile.columns]
        logits.add_(added) if begun else logits.copy_(added)
        return True

    def logits_back(self, tile: Tile, asking: Tensor, dlogits: Tensor, dasking: Tensor) -> None:
        if self.grad is not None:
            self.sums[tile.span, ..., : tile.columns] += dlogits.sum(2, keepdim=True)

    def leave(self, group: Group) -> None:
        if self.grad is not None:
            cells = self.sums.squeeze(2).transpose(1, 2).flatten(0, 1)  # (b·w, H)
            events = group.events.flatten()[group.real_keys]
            self.grad.index_copy_(0, events, cells[group.real_keys])

    def gradients(self) -> tuple[Tensor | None, ...]:
        return (self.grad,)


class _PairFunction(Part):
    """Any function of pairs; its backward pass runs it anew under autograd, for the tile alone."""

    def __init__(self, term: PairFunction, inputs: Sequence[tuple[Tensor, bool]]) -> None:
        self.f = term.f
        self.inputs = [tensor.detach().requires_grad_(needed) for tensor, needed in inputs]
        self.grads = [torch.zeros_like(tensor) if needed else None for tensor, needed in inputs]

    def _call(self, tile: Tile) -> Tensor:
        return self.f(tile.row_events, tile.key_events, *self.inputs)

    def logits(self, tile: Tile, asking: Tensor, logits: Tensor) -> None:
        logits.add_(self._call(tile))

    def logits_back(self, tile: Tile, asking: Tensor, dlogits: Tensor, dasking: Tensor) -> None:
        wanted = [n for n, grad in enumerate(self.grads) if grad is not None]
        if not wanted:
            return
        with torch.enable_grad():
            found = self._call(tile)
            if not found.requires_grad:
                return
            given = dlogits.sum_to_size(found.shape).to(found.dtype)
            grads = torch.autograd.grad(found, [self.inputs[n] for n in wanted], given, allow_unused=True)
        for n, grad in zip(wanted, grads, strict=True):
            held = self.grads[n]
            if grad is not None and held is not None:
                held.add_(grad)

    def gradients(self) -> tuple[Tensor | None, ...]:
        return tuple(self.grads)


class _VectorTable(Part):
    """A table `(buckets, H, e)` of vectors."""

    def __init__(self, reader: Reader, table: Tensor, needed: bool) -> None:
        self.reader = reader
        self.table = table.transpose(0, 1).contiguous()  # (H, buckets, e)
        self.grad = torch.zeros_like(self.table) if needed else None

    def _spread(self, tile: Tile, rows: Tensor, into: Tensor) -> None:
        """into += rows (n, H, r, e) · the vector of each pair's bucket."""
        table = self.table[:, self.reader.span(tile)]
        self.reader.spread(tile, torch.einsum("nhre,hme->nhrm", rows, table), into)

    def _learn(self, tile: Tile, folded: Tensor, rows: Tensor) -> None:
        if self.grad is not None:
            self.grad[:, self.reader.span(tile)] += torch.einsum("nhrm,nhre->hme", folded, rows)

    def _collect(self, tile: Tile, folded: Tensor, into: Tensor) -> None:
        """into (n, H, r, e) += what is folded to buckets, times their vectors."""
        into.add_(torch.einsum("nhrm,hme->nhre", folded, self.table[:, self.reader.span(tile)]))

    def gradients(self) -> tuple[Tensor | None, ...]:
        return (None if self.grad is None else self.grad.transpose(0, 1),)


class _KeyTable(_VectorTable):
    def logits(self, tile: Tile, asking: Tensor, logits: Tensor) -> None:
        self._spread(tile, asking, logits)

    def logits_back(self, tile: Tile, asking: Tensor, dlogits: Tensor, dasking: Tensor) -> None:
        folded = self.reader.fold(tile, dlogits)
        self._collect(tile, folded, dasking)
        self._learn(tile, folded, asking)


class _ValueTable(_VectorTable):
    def result(self, tile: Tile, weights: Tensor, received: Tensor) -> None:
        self._collect(tile, self.reader.fold(tile, weights), received)

    def result_back(self, tile: Tile, weights: Tensor, given: Tensor, dweights: Tensor) -> None:
        self._spread(tile, given, dweights)
        if self.grad is not None:
            self._learn(tile, self.reader.fold(tile, weights), given)


class _KeyBand(Part):
    """Keys per distance, by bands. A softmax does not see the far vector's share of a logit."""

    def __init__(self, band: Band, softmax: bool) -> None:
        self.band, self.whole = band, not softmax

    def logits(self, tile: Tile, asking: Tensor, logits: Tensor) -> None:
        self.band.spread(tile, asking, logits, self.whole)

    def logits_back(self, tile: Tile, asking: Tensor, dlogits: Tensor, dasking: Tensor) -> None:
        self.band.collect(tile, dlogits, dasking)
        self.band.learn(tile, dlogits, asking)
        if self.whole:
            total = dlogits.sum(-1, keepdim=True)
            dasking.addcmul_(total, self.band.far)
            self.band.far_learns(total, asking)

    def gradients(self) -> tuple[Tensor | None, ...]:
        return (self.band.gradient(),)


class _ValueBand(Part):
    """Values per distance, by bands. Weights of a row that sum to one give it the far vector whole, and what that
    adds to the gradient of all of them alike is nothing to the softmax's."""

    def __init__(self, band: Band, softmax: bool, dropout: bool) -> None:
        self.band, self.whole = band, not softmax or dropout

    def result(self, tile: Tile, weights: Tensor, received: Tensor) -> None:
        self.band.collect(tile, weights, received)
        if self.whole:
            received.addcmul_(weights.sum(-1, keepdim=True), self.band.far)
        else:
            received.add_(self.band.far)

    def result_back(self, tile: Tile, weights: Tensor, given: Tensor, dweights: Tensor) -> None:
        self.band.spread(tile, given, dweights, self.whole)
        self.band.learn(tile, weights, given)
        self.band.far_learns(weights.sum(-1, keepdim=True) if self.whole else None, given)

    def gradients(self) -> tuple[Tensor | None, ...]:
        return (self.band.gradient(),)
