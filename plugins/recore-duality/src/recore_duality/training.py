"""The model's side of a step in two views: the core's batch of users, and one of questions about items.

Legend: `T` training events, `N` questions of a step, `U` users, `d` width.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import evolve
from torch import Tensor

from recore import Context
from recore.contracts import Table
from recore.engine.drive import Fit
from recore.histories import seen_items, tokenise
from recore.ragged import Batch, Ragged, Targets, View, offsets_of
from recore.rng import generator
from recore.sequential import Answer, SequentialTraining
from recore.timeline import Timeline
from recore_duality.known import Known
from recore_duality.tower import STATE, users_of

if TYPE_CHECKING:
    from recore_duality.model import DualModel

VIEW = "item"


class DualTraining(SequentialTraining):
    """Implements `recore.contracts.Training`. Its own state is what the users' states of the epoch were computed
    with: they are computed again from it, not saved."""

    model: DualModel

    def __init__(self, model: DualModel, fit: Fit) -> None:
        super().__init__(model, fit)
        self.answering = any(entry.view == VIEW for entry in self.losses)

    def contexts(self, fit: Fit) -> Mapping[str, Context]:
        """The context of losses of the view `item`: the transposed log, and users as what is scored."""
        model = self.model
        self.users = users_of(model.context)
        self.log, self.columns = fit.training, fit.columns
        self.items = fit.tokenizer
        transposed = self.log.transposed()
        columns = self.columns | {"time"} if self._ordered else self.columns
        view = tokenise(transposed.events, transposed.offsets(), self.users, columns)
        # Which item each history is: its row in the table of items.
        self.subject = torch.from_numpy(self.items.item_ids(transposed.user_ids()).copy())
        inner = evolve(fit.context, tokenizer=self.users, seen=self._seen(view), interactions=transposed)
        self.known: Known | None = None
        if self._ordered:
            self.known = Known(self.log, self.users)
            view = view.with_columns(**{STATE: self.known.came(view["event"])})
            time = view["time"].numpy()
            self.in_time = torch.from_numpy(np.argsort(time, kind="stable"))
            self.starts, self.stops = self._bounds(view, time)
        self.view = view
        self._states: Tensor | None = None
        self._weights: dict[str, Tensor] = {}
        self._epoch = -1
        return {VIEW: inner}

    @property
    def _ordered(self) -> bool:
        return self.model.item.ordered

    def _seen(self, view: View) -> Ragged:
        """Per item of the table its users."""
        seen = seen_items(view)
        lengths = torch.zeros(self.items.items, dtype=torch.int64)
        lengths[self.subject] = seen.lengths
        order = torch.argsort(self.subject)
        rows = View({"token": seen.values}, seen.offsets).cut(seen.offsets[order], seen.offsets[order + 1])
        return Ragged(rows["token"], offsets_of(lengths))

    def _bounds(self, view: View, time: Any) -> tuple[Tensor, Tensor]:
        """For each place in time the first of its item's last m users before its moment, and the first that is
        not before it: `(T,)` rows of the view."""
        questions = self.model.dual.item.questions
        in_order = time[self.in_time.numpy()]
        # Events of one time are asked about at one moment, that of the first of them: their order says nothing.
        first = np.searchsorted(in_order, in_order, side="left")
        self.moments = in_order[(first // questions) * questions]
        offsets = view.offsets.numpy()
        group = view.sequence.numpy()[self.in_time.numpy()]
        stop = Timeline(offsets, time).stop(group, self.moments)
        start = np.maximum(offsets[:-1][group], stop - self.model.item.history)
        return torch.from_numpy(start), torch.from_numpy(stop)

    # ---- what is drawn

    def draw(self, epoch: int, number: int) -> Sequence[Batch]:
        """Batch `number` of an epoch, and beside it one of questions about items."""
        batches = list(super().draw(epoch, number))
        if self.answering:
            if self._ordered:
                self._look_up(epoch)
                batches.append(self._moments(epoch, number))
            else:
                batches.append(self._sets(epoch, number))
        return batches

    def _moments(self, epoch: int, number: int) -> Batch:
        """`moments` runs of `questions` consecutive events, each asked about at the time of its first."""
        item = self.model.dual.item
        runs = -(-len(self.in_time) // item.questions)
        order = torch.randperm(runs, generator=generator(self.seed, "moments", epoch))
        chosen = order[(number * item.moments + torch.arange(min(item.moments, runs))) % runs].sort().values
        places = (chosen[:, None] * item.questions + torch.arange(item.questions)).reshape(-1)
        return self.questions(places[places < len(self.in_time)], epoch, number)

    def questions(self, places: Tensor, epoch: int = 0, number: int = 0) -> Batch:
        """The events at `places (N,)` of the log in order of time, each asked about at its moment: the item's
        last m users strictly before it, and the event's own user as the target."""
        start, stop = self.starts[places], self.stops[places]
        offsets = offsets_of(stop - start + 1)
        rows = torch.arange(int(offsets[-1])) + torch.repeat_interleave(
            start - offsets[:-1], stop - start + 1
        )
        target = self.in_time[places]
        rows[offsets[1:] - 1] = target
        index = self.subject[self.view.sequence[target]]
        histories = self.view.take(rows, offsets, index)
        time = histories["time"].clone()
        time[offsets[1:] - 1] = torch.from_numpy(self.moments[places.numpy()])
        return self._batch(histories.with_columns(time=time), stop - start, epoch, number)

    def _sets(self, epoch: int, number: int) -> Batch:
        """Items drawn by their training events, each with all of its users."""
        item = self.model.dual.item
        random = generator(self.seed, "sets", epoch, number)
        event = torch.randint(self.view.events, (item.moments * item.questions,), generator=random)
        drawn = self.view.sequence[event]
        histories = self.view.cut(self.view.offsets[drawn], self.view.offsets[drawn + 1], self.subject[drawn])
        return self._batch(histories, None, epoch, number)

    def _batch(self, histories: View, since: Tensor | None, epoch: int, number: int) -> Batch:
        random = generator(self.seed, "objective", VIEW, epoch, number)
        inputs, targets = self.model.item.objective.training(histories, random, since)
        inputs = inputs.laid_out(self.model.item.layout)
        return Batch({VIEW: inputs}, targets).to(self.device)

    # ---- what is known

    def _look_up(self, epoch: int) -> None:
        """The states of all training events, as the weights of the epoch's beginning give them."""
        if self._epoch != epoch or not self._weights:
            self._weights = {name: value.clone() for name, value in self._user_weights().items()}
            self._epoch, self._states = epoch, None
        if self._states is None:
            now = {name: value.clone() for name, value in self._user_weights().items()}
            self._put(self._weights)
            self._states = self.model.states(self.log, self.items, self.columns)
            self._put(now)

    def _user_weights(self) -> dict[str, Tensor]:
        return {n: value for n, value in self.model.state_dict().items() if not n.startswith("item.")}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        own = self.model.state_dict()
        for name, value in weights.items():
            own[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and the user's weights at its beginning."""
        return {"epoch": self._epoch, "weights": dict(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self._epoch = state["epoch"]
        self._weights = {name: value.to(self.device) for name, value in state["weights"].items()}
        self._states = None

    # ---- what is learned

    def answers(self, batch: Batch, names: Container[str]) -> Iterator[Answer]:
        """The core's for users; for items one answer for each moment, and one for what compares."""
        if VIEW not in batch.views:
            yield from super().answers(batch, names)
            return
        view, targets = batch.views[VIEW], batch.targets
        assert targets is not None
        assert view.index is not None
        losses = [entry for entry in self.losses if entry.view == VIEW and entry.name in names]
        if not losses or not len(targets):
            return
        known = self._states
        if known is None:
            known = self.model.embedder.table().weight.new_zeros(1, self.model.item.width)
        encoded = self.model.item.encoded(view, targets.where, known)
        subject = view.index[view.sequence[targets.where]]
        comparing = [entry for entry in losses if entry.agreement]
        if comparing:
            itself = evolve(targets, id=subject)
            yield Answer(encoded, itself, self.model.embedder.table(), comparing)
        predicting = [entry for entry in losses if not entry.agreement]
        if predicting:
            asking = self.model.item.asking(encoded, self.model.own(subject))
            for rows, table in self._tables(targets, known):
                part = Targets(
                    targets.where[rows], targets.id[rows], targets.weight[rows], VIEW, _of(targets.time, rows)
                )
                yield Answer(asking[rows], part, table, predicting)

    def _tables(self, targets: Targets, known: Tensor) -> Iterator[tuple[Tensor, Table]]:
        """The users as they are known at each moment, and the questions asked then."""
        every = torch.arange(len(targets), device=targets.id.device)
        if self.known is None or targets.time is None:
            yield every, self.model.item.users(known, every, every)
            return
        moments, which = torch.unique(targets.time, return_inverse=True)
        for number, moment in enumerate(moments.tolist()):
            last, age = self.known.rows(moment)
            rows = every[which == number]
            yield (
                rows,
                self.model.item.users(
                    known, torch.from_numpy(last).to(known.device), torch.from_numpy(age).to(known.device)
                ),
            )


def _of(time: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if time is None else time[rows]
