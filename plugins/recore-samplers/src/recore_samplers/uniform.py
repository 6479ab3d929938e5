"""Uniform draws without a loop and without rejection.

Legend: `N` predictions, `K` negatives, `V` items that can be drawn, `B` sequences, `S` training histories.
Items are drawn as *ranks* 0 … V − 1 among the items that can be drawn; retired items have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from recore.component import Context
from recore.contracts import Negatives, StepModel
from recore.errors import DataError
from recore.ragged import Batch, Ragged, Targets
from recore_samplers.options import Uniform
from recore_samplers.own import Own


@frozen(eq=False)
class _Rows:
    """The predictions of a batch: `history (N,)` whose items are own, `rank (N,)` of the target (−1: it cannot
    be drawn), `free (N,)` its number among the ranks that the history leaves free, `extra (N,)` whether it is
    to be excluded besides the history, `room (N,)` how many items are left to draw."""

    history: Tensor
    rank: Tensor
    free: Tensor
    extra: Tensor
    room: Tensor


class UniformSampler:
    """Implements `recore.contracts.Sampler`; see `recore_samplers.options.Uniform` for what it draws.

    Args:
        options: what the recipe says.
        items: item ids are 0 … items − 1.
        seen: per training history its distinct item ids, ascending; needed for `exclude: history` only.
        retired: item ids that are never drawn.
    """

    def __init__(
        self, options: Uniform, items: int, seen: Ragged | None = None, retired: Tensor | None = None
    ) -> None:
        self.options = options
        live = torch.ones(items, dtype=torch.bool)
        if retired is not None:
            live[retired] = False
        self._items = live.nonzero().squeeze(-1)  # (V,) rank → item id
        self._ranks = torch.where(live, live.cumsum(0) - 1, -1)  # (items,) item id → rank
        nobody = Ragged(torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        own = seen if seen is not None and options.exclude == "history" else nobody
        self._own = Own.of(own, self._ranks, self.count)
        self._refuse_full()

    @property
    def count(self) -> int:
        """V, the items that can be drawn."""
        return len(self._items)

    def draw(self, batch: Batch, model: StepModel, generator: torch.Generator) -> Negatives:
        """`items (K,)` with `keep (N, K)`, or `items (N, K)`, with `log_q` `(N, 1)` and `log_q_target (N,)`.

        `log_q` is finite throughout; of draws that are not kept it says nothing. Raises DataError when for
        some prediction no item is left.
        """
        rows, device = self._rows(batch), _targets(batch).id.device
        shape = (self.options.count,) if self.options.shared else (len(rows.room), self.options.count)
        bits = torch.randint(2**62, shape, generator=generator)
        if self.options.shared:
            rank = bits % self.count
            keep = None if self.options.exclude == "none" else ~self._excluded(batch, rows, rank)
        else:
            if len(rows.room) and int(rows.room.min()) < 1:
                raise DataError(
                    f"sampler 'uniform': nothing is left to draw for {int((rows.room < 1).sum())} of "
                    f"{len(rows.room)} predictions, expected an item that is neither the target nor one of "
                    "the user's own (set exclude: target or none, or shared: true)"
                )
            rank, keep = self._skip(rows, bits % rows.room[:, None].clamp(min=1)), None
        return Negatives(
            self._items[rank].to(device),
            self._log_share(rows).to(device)[:, None],
            self._log_q_target(rows).to(device),
            None if keep is None else keep.to(device),
        )

    def log_q(self, batch: Batch, items: Tensor) -> Tensor:
        """`(N, K)` of item ids `(K,)` or `(N, K)`; −inf for what is never drawn, or never kept."""
        rows = self._rows(batch)
        rank = self._ranks[items.cpu()]
        never = (rank < 0) | self._excluded(batch, rows, rank)
        share = self._log_share(rows)[:, None].expand(never.shape)
        return share.masked_fill(never, -math.inf).to(items.device)

    def observe(self, batch: Batch, model: StepModel) -> None:
        """Learns nothing."""

    def state_dict(self) -> Mapping[str, Any]:
        """No state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """No state."""

    def _rows(self, batch: Batch) -> _Rows:
        """All on the CPU, where the generator is."""
        targets = _targets(batch)
        rank = self._ranks[targets.id.cpu()]
        history = self._histories(batch)[batch.views[targets.view].sequence[targets.where].cpu()]
        exclude = self.options.exclude
        if exclude == "none":
            return _Rows(history, rank, rank, torch.zeros_like(rank) > 0, torch.full_like(rank, self.count))
        before, held = self._own.find(history, rank)
        extra = (rank >= 0) & ~held
        room = self.count - self._own.sizes(history) - extra.long()
        return _Rows(history, rank, rank - before, extra, room)

    def _histories(self, batch: Batch) -> Tensor:
        """For each sequence `(B,)` the history whose items are its own; `none` where there is none."""
        view = batch.views[_targets(batch).view]
        if view.index is None or self.options.exclude != "history":
            return torch.full((len(view),), self._own.none)
        index = view.index.cpu()
        if len(index) and int(index.max()) >= self._own.none:
            raise ValueError(
                f"sampler 'uniform': a sequence comes from training history {int(index.max())}, but own items "
                f"are known of {self._own.none} histories (view.index and context.seen must agree)"
            )
        return torch.where(index < 0, self._own.none, index)

    def _skip(self, rows: _Rows, place: Tensor) -> Tensor:
        """Ranks `(N, K)` of the `place`-th items that are not excluded."""
        if self.options.exclude == "none":
            return place
        # A target that is not the history's own is skipped first, then the history's own.
        place = place + (rows.extra[:, None] & (place >= rows.free[:, None]))
        return self._own.skip(rows.history[:, None], place) if len(self._own.keys) else place

    def _excluded(self, batch: Batch, rows: _Rows, rank: Tensor) -> Tensor:
        """Whether items of `rank (K,)` or `(N, K)` are excluded from each prediction, `(N, K)`."""
        if self.options.exclude == "none":
            return torch.zeros(len(rows.rank), rank.shape[-1], dtype=torch.bool)
        target = (rank == rows.rank[:, None]) & (rows.rank[:, None] >= 0)
        if not len(self._own.keys):
            return target
        if rank.dim() == 2:
            return target | self._own.find(rows.history[:, None], rank)[1]
        # Shared items are looked up once a sequence, not once a prediction.
        targets = _targets(batch)
        own = self._own.find(self._histories(batch)[:, None], rank)[1]
        return target | own[batch.views[targets.view].sequence[targets.where].cpu()]

    def _log_share(self, rows: _Rows) -> Tensor:
        """log(K / room) `(N,)` of an item that is not excluded; shared draws have all items as their room."""
        room = torch.full_like(rows.room, self.count) if self.options.shared else rows.room
        return (self.options.count / room.double()).log().to(torch.get_default_dtype())

    def _log_q_target(self, rows: _Rows) -> Tensor:
        """`(N,)`: −inf where the target is never drawn."""
        never = rows.rank < 0 if self.options.exclude == "none" else torch.ones_like(rows.extra)
        return self._log_share(rows).masked_fill(never, -math.inf)

    def _refuse_full(self) -> None:
        """What the data shows, before any training."""
        if self.count < 1 + (self.options.exclude == "target"):
            raise DataError(
                f"sampler 'uniform': {self.count} items can be drawn, expected at least "
                f"{1 + (self.options.exclude == 'target')} with exclude: {self.options.exclude}"
            )
        if self.options.shared:
            return
        full = (self._own.offsets.diff() >= self.count).nonzero().squeeze(-1)
        if len(full):
            raise DataError(
                f"sampler 'uniform': {len(full)} of {self._own.none} training histories hold all {self.count} "
                f"items that can be drawn (the first is history {int(full[0])}), expected at least one item "
                "left (set exclude: target or none, or shared: true, or drop these users)"
            )


def _targets(batch: Batch) -> Targets:
    if batch.targets is None:
        raise ValueError("sampler 'uniform' draws for predictions, but this batch has no targets")
    if batch.targets.id.dim() != 1:
        raise ValueError(
            "sampler 'uniform' takes one item id for each prediction, expected (N,), got "
            f"{tuple(batch.targets.id.shape)}"
        )
    return batch.targets


def build(options: Uniform, context: Context) -> UniformSampler:
    """Factory. Raises DataError when some user has no item left to draw, ValueError when the number of items,
    or for `exclude: history` the users' own items, is not in the context."""
    items = context.facts.items if context.tokenizer is None else context.tokenizer.items
    if items is None:
        raise ValueError("sampler 'uniform' is built when the number of items is known, but context has none")
    if options.exclude == "history" and context.seen is None:
        raise ValueError("sampler 'uniform' with exclude: history needs context.seen, but it is not set")
    retired = None
    if context.tokenizer is not None:
        retired = torch.as_tensor(context.tokenizer.retired, dtype=torch.int64)
    return UniformSampler(options, items, context.seen, retired)
