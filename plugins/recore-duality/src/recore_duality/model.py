"""The model `dual`: the core's assembled model for users, and a tower beside it for items.

Legend: `T` events, `N` questions, `d` width.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from recore import Context
from recore.contracts import RowMap, SplitParts, Tokenizer
from recore.data import Interactions
from recore.engine.drive import Fit, Stateful
from recore.histories import tokenise
from recore.ragged import Batch, View
from recore.sequential import SequentialModel, blocks, evaluating
from recore_duality.known import read_rows, windows
from recore_duality.options import Dual
from recore_duality.scorer import DualScorer
from recore_duality.tower import ItemTower
from recore_duality.training import DualTraining


def build(options: Dual, context: Context) -> DualModel:
    """Build the parts of both views and wire them."""
    return DualModel(options, context)


class DualModel(SequentialModel):
    """Implements `recore.contracts.Model`; the view `user` is the core's own."""

    def __init__(self, options: Dual, context: Context) -> None:
        super().__init__(options, context)
        self.dual = options
        self.item = ItemTower(options.item, context)

    def own(self, items: Tensor) -> Tensor:
        """The items' own vectors `(N, d)`, zero for unknown ones (−1)."""
        weight = self.embedder.table().weight
        rows = weight.index_select(0, items.clamp(min=0))
        return rows * (items >= 0).to(rows.dtype)[:, None]

    @torch.no_grad()
    def states(self, log: Interactions, tokenizer: Tokenizer, columns: Iterable[str]) -> Tensor:
        """`(T + 1, d)`: for each event of a log the state of its user after it, and a zero row at the end. An
        event whose item the tokenizer drops leaves the state as it was."""
        view = tokenise(log.events, log.offsets(), tokenizer, columns)
        start, stop, read = windows(view, self.history)
        table = self.embedder.table().weight
        found = table.new_zeros(view.events + 1, table.shape[1])
        with evaluating(self):
            for block in blocks(stop - start):
                cut = view.cut(start[block], stop[block]).laid_out(self.layout).to(table.device)
                hidden = self(Batch({"user": cut}), cut)
                keep, rows = read_rows(start[block], stop[block], read[block])
                found[rows.to(table.device)] = hidden[keep.to(table.device)]
        return found if view.events == len(log) else self._spread(found, view, log)

    def _spread(self, found: Tensor, view: View, log: Interactions) -> Tensor:
        """States of all events where some were dropped: that of the user's last event that was not, or zero."""
        event = torch.from_numpy(log.events["event"].to_numpy().copy())
        kept = torch.isin(event, view["event"])
        lengths = torch.from_numpy(log.offsets()).diff()
        so_far = kept.long().cumsum(0)
        before = torch.cat([so_far.new_zeros(1), so_far])[torch.from_numpy(log.offsets()[:-1])]
        none = so_far == torch.repeat_interleave(before, lengths)
        rows = torch.where(none, torch.tensor(-1), so_far - 1)
        return torch.cat([found[rows.to(found.device)], found[-1:]])

    def fit(self, interactions: Interactions, parts: SplitParts, fit: Fit) -> DualScorer:
        """Train as the recipe says, and give the scorer of the best epoch."""
        training = DualTraining(self, fit)
        scorer = DualScorer(self, fit.tokenizer, training.objective, fit.columns)
        states: dict[str, Stateful] = {"model": self, "duality": training, **training.samplers_by_name()}
        return self.load(fit.drive(training, states, scorer, self), fit)

    def resize(self, rows: RowMap, users: RowMap | None = None) -> dict[str, RowMap]:
        """Follow both tokenizers."""
        moved = super().resize(rows)
        if users is not None:
            of_users = self.item.embedder.resize(users)
            moved |= {f"item.embedder.{name}": how for name, how in of_users.items()}
        return moved

    def load(self, folder: Path, fit: Fit) -> DualScorer:
        """Weights from `folder`, and the scorer of them. Raises RunFolderError when they do not fit."""
        scorer = super().load(folder, fit)
        return DualScorer(self, scorer.tokenizer, scorer.objective, scorer.columns)
