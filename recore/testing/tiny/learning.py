"""The smallest sound objective, batcher, sampler, losses and trainer.

Legend: `T` events, `B` sequences, `N` predictions, `K` negatives, `V` items, `d` width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import logsigmoid

from recore.claims import BatcherClaims, LossClaims, SamplerClaims
from recore.component import Context, Facts, option
from recore.contracts.learning import LossValue, Negatives, Plan, StepModel, StepReport, Training, Verdict
from recore.contracts.model import Table
from recore.ragged import Batch, Layout, Targets, View, offsets_of


@frozen
class NextItem:
    """Each event predicts the item of the event after it; the query is the history itself."""

    def provides(self) -> Facts:
        """The query appends no rows."""
        return Facts(appended=0)


class TinyObjective:
    """Implements `recore.contracts.Objective`."""

    def reach(self, width: int) -> tuple[int, int]:
        """The last event of a training history is only a target, so it needs no input row."""
        return width + 1, width

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """Inputs: all events but each history's last. Unknown items are no targets."""
        first, stop = histories.offsets[:-1], histories.offsets[1:]
        inputs = histories.cut(first, torch.maximum(first, stop - 1), histories.index)
        after = inputs.place + first[inputs.sequence] + 1  # the row of the event after each input row
        wanted = histories["item"][after] >= 0
        if target_from is not None:
            wanted &= inputs.place + 1 >= target_from[inputs.sequence]
        where = wanted.nonzero().squeeze(-1)
        time = histories["time"][after[where]] if "time" in histories.columns else None
        weight = torch.ones(len(where))
        return inputs, Targets(where, histories["item"][after[where]], weight, time=time)

    def query(self, histories: View) -> tuple[View, Tensor]:
        """The histories as they are; their last rows ask."""
        return histories, histories.offsets[1:] - 1


@frozen
class Random:
    """Histories in random order, `size` to a batch, without a rectangle."""

    size: int = option(4, help="Histories to a batch.")

    def claims(self) -> BatcherClaims:
        """Each history once an epoch, in an order drawn anew."""
        return BatcherClaims(each="once", random=True)

    def provides(self) -> Facts:
        """No rectangle is asked for."""
        return Facts(padding="none")


class TinyBatcher:
    """Implements `recore.contracts.Batcher`."""

    def __init__(self, options: Random) -> None:
        self.options = options

    def epoch(self, lengths: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Plan:
        """All ranks draw the same order; batch `g` goes to rank `g mod world`, and ranks that would have one
        batch less get an empty one."""
        order = torch.randperm(len(lengths), generator=generator)
        size = self.options.size
        steps = math.ceil(len(lengths) / (size * world))
        mine = [
            order[(step * world + rank) * size : (step * world + rank + 1) * size] for step in range(steps)
        ]
        groups = offsets_of(torch.tensor([len(group) for group in mine], dtype=torch.int64))
        return Plan(torch.cat([order[:0], *mine]), groups, Layout())


@frozen
class Uniform:
    """K items drawn uniformly with replacement, for each prediction its own. Own items are kept."""

    count: int = option(4, help="K.")

    def claims(self) -> SamplerClaims:
        """Exact; nothing is excluded."""
        return SamplerClaims(log_q="exact", exclude="none")

    def provides(self) -> Facts:
        """Negatives, and how well their probability is known."""
        return Facts(negatives=True, log_q="exact", exclude="none")


class TinySampler:
    """Implements `recore.contracts.Sampler`."""

    def __init__(self, options: Uniform, items: int) -> None:
        self.count, self.items = options.count, items

    def draw(self, batch: Batch, model: StepModel, generator: torch.Generator) -> Negatives:
        """`items (N, K)`."""
        targets = _targets(batch)
        items = torch.randint(self.items, (len(targets), self.count), generator=generator)
        return Negatives(items, self.log_q(batch, items), self.log_q(batch, targets.id[:, None])[:, 0])

    def log_q(self, batch: Batch, items: Tensor) -> Tensor:
        """log(K / V), whatever the item."""
        rows = len(_targets(batch))
        return torch.full((rows, items.shape[-1]), math.log(self.count / self.items))

    def observe(self, batch: Batch, model: StepModel) -> None:
        """Learns nothing."""

    def state_dict(self) -> Mapping[str, Any]:
        """No state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """No state."""


@frozen
class Softmax:
    """Cross-entropy over all items, written plainly:

    − Σ_n w_n log softmax(h_n Wᵀ + b)[id_n]
    """

    def claims(self) -> LossClaims:
        """Holds `N × V` scores."""
        return LossClaims(memory="full", shift_invariant=True)


class TinySoftmax:
    """Implements `recore.contracts.Loss`."""

    def weight(self, targets: Targets) -> Tensor:
        """Σ w."""
        return targets.weight.sum()

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """Retired rows are no candidates."""
        scores = hidden @ table.weight.T
        if table.bias is not None:
            scores = scores + table.bias
        if table.retired is not None:
            scores = scores.masked_fill(table.retired, float("-inf"))
        each = torch.logsumexp(scores, -1) - scores.gather(-1, targets.id[:, None])[:, 0]
        return _value("softmax", each, targets)


@frozen
class SampledSoftmax:
    """Softmax over the target and the draws, both corrected (the form `symmetric`):

    score − log_q + log_weight
    """

    def claims(self) -> LossClaims:
        """Holds `N × K` scores."""
        return LossClaims(memory="negatives", negatives=True, correction="symmetric", shift_invariant=True)

    def problems(self, facts: Facts) -> list[str]:
        """Needs a sampler whose probability is known and which does not exclude targets."""
        found = [] if facts.negatives is not False else ["needs negatives, but no sampler is set"]
        if facts.log_q == "none":
            found.append("corrects by log_q, but the sampler claims none")
        if facts.exclude in ("target", "history"):
            found.append("the symmetric form needs a log_q of the target, but the sampler excludes targets")
        return found


class TinySampledSoftmax(TinySoftmax):
    """Implements `recore.contracts.Loss`."""

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """Draws whose `keep` is False are no candidates."""
        if negatives is None or negatives.log_q is None or negatives.log_q_target is None:
            raise ValueError("sampled softmax needs negatives with log_q and log_q_target")
        own = table.score(hidden, targets.id[:, None])[:, 0] - negatives.log_q_target
        draws = table.score(hidden, negatives.items) - negatives.log_q
        if negatives.log_weight_target is not None:
            own = own + negatives.log_weight_target
        if negatives.log_weight is not None:
            draws = draws + negatives.log_weight
        if negatives.keep is not None:
            draws = draws.masked_fill(~negatives.keep, float("-inf"))
        each = torch.logsumexp(torch.cat([own[:, None], draws], -1), -1) - own
        return _value("sampled", each, targets)


@frozen
class Binary:
    """Binary cross-entropy of the target against each draw, uncorrected."""

    def claims(self) -> LossClaims:
        """Holds `N × K` scores."""
        return LossClaims(memory="negatives", negatives=True)


class TinyBinary(TinySoftmax):
    """Implements `recore.contracts.Loss`."""

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """− log σ(target) − Σ_k log σ(−draw_k)."""
        if negatives is None:
            raise ValueError("binary cross-entropy needs negatives")
        draws = logsigmoid(-table.score(hidden, negatives.items))
        if negatives.keep is not None:
            draws = draws.masked_fill(~negatives.keep, 0.0)
        own = logsigmoid(table.score(hidden, targets.id[:, None])[:, 0])
        return _value("binary", -own - draws.sum(-1), targets)


@frozen
class Descent:
    """Gradient descent for a number of epochs; never stops early."""

    epochs: int = option(1, help="Epochs.")
    rate: float = option(0.1, help="Learning rate.")


class TinyTrainer:
    """Implements `recore.contracts.Trainer`."""

    metric = "ndcg@10"

    def __init__(self, options: Descent) -> None:
        self.options = options
        self.done = 0

    @property
    def last_epoch(self) -> int:
        """The most epochs."""
        return self.options.epochs

    def steps(self, training: Training) -> Iterator[StepReport]:
        """Plain steps; the place is the number of steps done."""
        each = training.batches(0)
        parameters = training.parameters
        while self.done < each * self.options.epochs:
            epoch, number = divmod(self.done, each)
            batches = training.draw(epoch, number)
            for parameter in parameters.values():
                parameter.grad = None
            sums = training.backward(batches, training.weights(batches), self.done)
            with torch.no_grad():
                for parameter in parameters.values():
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=self.options.rate)
            training.stepped(batches, self.done)
            self.done += 1
            losses = {name: total / weight for name, (total, weight) in sums.items()}
            events = sum(batch.views["user"].events for batch in batches)
            rate, ended = self.options.rate, number + 1 == each
            yield StepReport(self.done, epoch, losses, events, rate, float("nan"), ended)

    def judge(self, value: float) -> Verdict:
        """The latest is the best."""
        return Verdict(best=True, stop=False)

    def state_dict(self) -> Mapping[str, Any]:
        """Steps done."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Steps done."""
        self.done = int(state["done"])


def _targets(batch: Batch) -> Targets:
    if batch.targets is None:
        raise ValueError("this batch has no targets")
    return batch.targets


def _value(name: str, each: Tensor, targets: Targets) -> LossValue:
    total = (each * targets.weight).sum()
    weight = targets.weight.sum()
    return LossValue(total, weight, {name: (total.detach(), weight)})


def objective(options: NextItem, context: Context) -> TinyObjective:
    """Factory."""
    return TinyObjective()


def batcher(options: Random, context: Context) -> TinyBatcher:
    """Factory."""
    return TinyBatcher(options)


def sampler(options: Uniform, context: Context) -> TinySampler:
    """Factory."""
    if context.facts.items is None:
        raise ValueError("a sampler is built when the number of items is known")
    return TinySampler(options, context.facts.items)


def softmax(options: Softmax, context: Context) -> TinySoftmax:
    """Factory."""
    return TinySoftmax()


def sampled_softmax(options: SampledSoftmax, context: Context) -> TinySampledSoftmax:
    """Factory."""
    return TinySampledSoftmax()


def binary(options: Binary, context: Context) -> TinyBinary:
    """Factory."""
    return TinyBinary()


def trainer(options: Descent, context: Context) -> TinyTrainer:
    """Factory."""
    return TinyTrainer(options)
