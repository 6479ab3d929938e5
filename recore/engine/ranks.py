"""From a block of scores to ranks and lists: where ties, the seen filter and cold targets are decided.

Legend: `n` rows (one per query and target), `V` items, `k` places of a list.

**Rank.** Pessimistic: the rank of a target is 1 + the number of other candidates whose score is at least
`score(target) − bound`. Equal scores thus never go the model's way, and neither do scores that only rounding
tells apart: the same history scored alone and in a batch differs by the order of summation. `bound` is
`TIE_BOUND · s`
(2⁻⁴⁰ · s in float64), `s` the largest finite |score| of the row over all items, seen ones included, so that
the filter does not move it. A target that is no candidate (cold, retired, filtered) ranks V + 1.

**List.** By score, descending; exactly equal scores by `order`, a permutation that comes from a hash of the
data's own ids and a seed, never by item id: so lists survive relabelling. Equal scores at the end of the list
are decided by `order` too, which `torch.topk` does not promise.

`rank_block` gives both, `list_block` the lists alone. The passes over all `n·V` scores are few and simple, since
with a large catalogue they are what an evaluation and a list for everybody spend their time on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
from attrs import frozen
from torch import Tensor

from recore.errors import DataError, DivergenceError
from recore.ragged import Ragged

# Relative to the row's largest |score|: 32 units of rounding in float32. The same history scored alone and in
# a batch was seen to differ by up to 1.5e-5.
TIE_BOUND = 2.0**-18
BOUNDS: dict[torch.dtype, float] = {torch.float32: TIE_BOUND, torch.float64: 2.0**-40}
# Cells looked at together: few enough to stay in a CPU's cache over the passes, where that matters.
CELLS_CPU, CELLS_ELSEWHERE = 2**20, 2**26
# From so many items on, the best of a row are sought in the best of its groups of so many.
WIDE, GROUP = 2**13, 64

Seen = Ragged | tuple[Tensor, Tensor]


@frozen(eq=False)
class Ranked:
    """What a block of scores says of its targets, on the CPU: `rank (n,)` from 1, V + 1 where the target
    is no candidate; `candidates (n,)`; `top (n, k)` item ids, −1 where fewer are left; `filtered (n,)`: True
    where the target is among the seen items that were taken away."""

    rank: Tensor
    candidates: Tensor
    top: Tensor
    filtered: Tensor


def rank_block(scores: Tensor, targets: Tensor, seen: Seen | None, order: Tensor, k: int = 0) -> Ranked:
    """Ranks and lists of a block. Does not write to `scores`.

    Args:
        scores: `(n, V)` float32 or float64; −inf for retired items, which are no candidates.
        targets: `(n,)` item ids, −1 for cold ones.
        seen: items that are no candidates: a Ragged of item ids over the n rows, or `(row, item)` pairs.
            Item ids −1 (unknown items) are passed over; repeats are harmless. None: no filter.
        order: `(V,)` the place of each item among equals, from `tie_order`.
        k: length of the lists; 0: no lists, and no time spent on them.

    Raises DivergenceError when a score is NaN, ValueError for shapes and ids that do not fit, TypeError for
    scores in half precision, whose ties would be most of the catalogue.
    """
    n, items = _check(scores, targets, order, k)
    device = scores.device
    targets, order = targets.to(device), order.to(device)
    rows, gone = _pairs(seen, n, items, device)
    filtered = torch.zeros(n, dtype=torch.bool, device=device)
    filtered[rows[gone == targets[rows]]] = True

    rank = torch.empty(n, dtype=torch.int64, device=device)
    candidates = items - torch.bincount(rows, minlength=n)
    top = torch.empty(n, k, dtype=torch.int64, device=device)
    for block, start, stop, here in _chunks(scores, rows):
        scale, whole = _scale(block, start)
        block[rows[here] - start, gone[here]] = float("-inf")
        wanted = targets[start:stop]
        score = block.gather(1, wanted.clamp(min=0).unsqueeze(1))
        possible = (wanted >= 0) & (score.squeeze(1) > float("-inf"))
        if k:
            top[start:stop] = _top(block, order, k)
        if not whole:
            candidates[start:stop] = (block > float("-inf")).sum(1)
        # The target itself counts: this is the rank, not the number of places before it.
        ahead = _at_least(block, score - BOUNDS[scores.dtype] * scale)
        rank[start:stop] = torch.where(possible, ahead, items + 1)
    return Ranked(rank.cpu(), candidates.cpu(), top.cpu(), filtered.cpu())


def list_block(scores: Tensor, seen: Seen | None, order: Tensor, k: int) -> Tensor:
    """The lists `(n, k)` of `rank_block` alone, on the CPU: nothing is counted. Does not write to `scores`.

    Raises what `rank_block` raises.
    """
    nobody = torch.full(scores.shape[:1], -1, dtype=torch.int64)
    n, items = _check(scores, nobody, order, k)
    device = scores.device
    order = order.to(device)
    rows, gone = _pairs(seen, n, items, device)
    top = torch.empty(n, k, dtype=torch.int64, device=device)
    for block, start, stop, here in _chunks(scores, rows):
        _refuse_nan(block, block.amax(1), start)
        block[rows[here] - start, gone[here]] = float("-inf")
        top[start:stop] = _top(block, order, k)
    return top.cpu()


def tie_order(ids: pl.Series, seed: int) -> Tensor:
    """The place `(V,)` of each item among items of equal score: the rank of blake2b(seed, type, id).

    Depends on the data's own ids and the seed only: the same on every machine, and for every numbering of
    the items. The number 5 and the text "5" are different ids; integers of any width are one type.

    Raises DataError for ids that are neither integers nor text, and for missing ones.
    """
    if ids.dtype.is_integer():
        tag = "int"
    elif ids.dtype == pl.String or isinstance(ids.dtype, pl.Categorical | pl.Enum):
        tag, ids = "str", ids.cast(pl.String)
    else:
        raise DataError(f"item ids must be integers or text to break ties by, got {ids.dtype}")
    if missing := ids.null_count():
        raise DataError(f"{missing} of {len(ids)} items have no id to break ties by")
    head = f"tie\x1f{seed}\x1f{tag}\x1f"
    hashes = [hashlib.blake2b(f"{head}{item}".encode(), digest_size=16).digest() for item in ids.to_list()]
    halves = np.frombuffer(b"".join(hashes), dtype=">u8").reshape(-1, 2)
    place = np.empty(len(ids), dtype=np.int64)
    place[np.lexsort((halves[:, 1], halves[:, 0]))] = np.arange(len(ids))
    return torch.from_numpy(place)


def _check(scores: Tensor, targets: Tensor, order: Tensor, k: int) -> tuple[int, int]:
    if scores.dtype not in BOUNDS:
        raise TypeError(f"scores must be float32 or float64 to be ranked, got {scores.dtype}")
    if scores.dim() != 2 or targets.shape != scores.shape[:1] or order.shape != scores.shape[1:]:
        raise ValueError(
            "expected scores (n, V), targets (n,) and order (V,), got "
            f"{tuple(scores.shape)}, {tuple(targets.shape)} and {tuple(order.shape)}"
        )
    n, items = scores.shape
    if items == 0:
        raise ValueError("there are no items to rank: scores have shape (n, 0)")
    if n and not -1 <= int(targets.min()) <= int(targets.max()) < items:
        raise ValueError(
            f"targets must be item ids from −1 (cold) to {items - 1}, got {int(targets.min())} to "
            f"{int(targets.max())}"
        )
    if k < 0:
        raise ValueError(f"k must be at least 0, got {k}")
    return n, items


def _pairs(seen: Seen | None, n: int, items: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Known seen items as `(row, item)`, each pair once, ascending."""
    if seen is None:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return none, none
    if isinstance(seen, Ragged):
        if len(seen) != n:
            raise ValueError(f"expected the seen items of {n} rows, got those of {len(seen)}")
        rows, gone = torch.repeat_interleave(torch.arange(n), seen.lengths.cpu()), seen.values
    else:
        rows, gone = seen
    rows, gone = rows.to(device), gone.to(device)
    rows, gone = rows[gone >= 0], gone[gone >= 0]
    if len(rows) and (int(gone.max()) >= items or int(rows.min()) < 0 or int(rows.max()) >= n):
        raise ValueError(
            f"seen items must stand in rows 0 to {n - 1} with ids below {items}, got rows "
            f"{int(rows.min())} to {int(rows.max())} and ids up to {int(gone.max())}"
        )
    pairs = torch.unique(rows * items + gone)
    return pairs // items, pairs % items


def _chunks(scores: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, int, int, slice]]:
    """Rows that are looked at together: a copy of their scores, to be written to until the next comes; from and to;
    and where in the ascending `rows` they stand."""
    n, items = scores.shape
    step = max(1, (CELLS_CPU if scores.device.type == "cpu" else CELLS_ELSEWHERE) // items)
    starts = torch.arange(0, n + step, step, device=rows.device).clamp(max=n)
    places = torch.searchsorted(rows, starts).tolist()
    held = scores.new_empty(
        min(step, n), items
    )  # once: memory that is new must first be cleared by the system
    for number, start in enumerate(range(0, n, step)):
        stop = min(start + step, n)
        block = held[: stop - start].copy_(scores[start:stop])
        yield block, start, stop, slice(places[number], places[number + 1])


def _at_least(block: Tensor, least: Tensor) -> Tensor:
    """How many scores of each row reach `least (b, 1)`, `(b,)`. Writes to `block`: zeros and ones in floating point,
    which a CPU makes and adds up several at a time; their sum is exact (in float64 from 2^24 items on)."""
    exact = block.dtype if block.shape[1] < 2**24 else torch.float64
    return block.ge_(least).sum(1, dtype=exact).long()


def _scale(block: Tensor, first: int) -> tuple[Tensor, bool]:
    """The largest finite |score| of each row, `(b, 1)`, and whether all scores are finite."""
    scale = torch.maximum(block.amax(1, keepdim=True).abs(), block.amin(1, keepdim=True).abs())
    _refuse_nan(block, scale, first)
    if whole := not bool(scale.isinf().any()):
        return scale, whole
    magnitude = block.abs()  # some are retired
    return magnitude.masked_fill_(magnitude.isinf(), 0.0).amax(1, keepdim=True), whole


def _refuse_nan(block: Tensor, largest: Tensor, first: int) -> None:
    """Raises DivergenceError where the `largest` of some row is NaN, as it is where any score is."""
    if bool(largest.isnan().any()):
        row, item = block.isnan().nonzero()[0].tolist()
        raise DivergenceError(
            f"scores: the score of item id {item} in row {first + row} of the block is NaN, expected a "
            f"number ({int(block.isnan().sum())} NaN in {block.numel()} scores looked at; the model has "
            "diverged, or its scorer divides by zero)"
        )


def _top(block: Tensor, order: Tensor, k: int) -> Tensor:
    """The lists `(b, k)` of a block in which whatever is no candidate is −inf."""
    items = block.shape[1]
    short = max(k - items, 0)
    k -= short
    values, ids = _best(block, min(k + 1, items))
    if items > k:
        edge = values[:, k - 1 : k]
        tied = ((edge == values[:, k:]) & (edge > float("-inf"))).squeeze(1).nonzero().squeeze(1)
        values, ids = values[:, :k], ids[:, :k]
        if len(tied):
            ids[tied] = _settle(block[tied], values[tied], ids[tied], order)
    # Order within equal scores: by `order` first, then stably by score.
    by_order = order[ids].argsort(dim=1)
    values, ids = values.gather(1, by_order), ids.gather(1, by_order)
    values, by_score = values.sort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, by_score).masked_fill(values == float("-inf"), -1)
    return torch.nn.functional.pad(ids, (0, short), value=-1)


def _best(block: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest scores of each row, descending, and their ids, both `(b, count)`; which of equal ones
    at the end is left open, as by `torch.topk`.

    A long row is cut into groups, and only the groups with the `count` largest maxima are sorted: whatever is
    left out is at most the least of these maxima, and so many scores reach it.
    """
    rows, items = block.shape
    groups = items // GROUP
    if items < WIDE or groups < 2 * count:
        return block.topk(count, dim=1)
    # Every `groups`-th item is in a group: the maxima are then taken over contiguous runs of memory.
    body = block[:, : groups * GROUP].view(rows, GROUP, groups)
    chosen = body.amax(1).topk(count, dim=1, sorted=False).indices.unsqueeze(1)
    values = body.gather(2, chosen.expand(rows, GROUP, count)).flatten(1)
    ids = (chosen + groups * torch.arange(GROUP, device=block.device)[:, None]).flatten(1)
    rest = torch.arange(groups * GROUP, items, device=block.device).expand(rows, -1)
    values = torch.cat([values, block[:, groups * GROUP :]], dim=1)
    values, place = values.topk(count, dim=1)
    return values, torch.cat([ids, rest], dim=1).gather(1, place)


def _settle(block: Tensor, values: Tensor, ids: Tensor, order: Tensor) -> Tensor:
    """Lists `(m, k)` whose last score occurs beyond their end too: keep what is above it, and fill up with
    the first by `order` among its equals."""
    k = ids.shape[1]
    edge = values[:, -1:]
    place = torch.where(block == edge, order, len(order))
    first = place.topk(k, dim=1, largest=False).indices
    above = (values > edge).sum(1, keepdim=True)
    slot = torch.arange(k, device=ids.device) - above
    return torch.where(slot < 0, ids, first.gather(1, slot.clamp(min=0)))
