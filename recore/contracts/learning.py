"""Contracts of what is learned from: objective, batcher, sampler, loss, trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from recore.contracts.model import Table
    from recore.ragged import Batch, Layout, Targets, View


@runtime_checkable
class Objective(Protocol):
    """What is predicted from where, written as data; vectorised over histories."""

    def reach(self, width: int) -> tuple[int, int]:
        """How many events of a history fit in `width` input rows: in training, and in a query."""
        ...

    def training(
        self, histories: View, generator: torch.Generator, target_from: Tensor | None = None
    ) -> tuple[View, Targets]:
        """Inputs and targets. `target_from (B,)`: only events at this place of their history or later are
        targets (0-based; None: all)."""
        ...

    def query(self, histories: View) -> tuple[View, Tensor]:
        """Inputs, and for each history the row `(B,)` whose state answers for what comes next. Training,
        evaluation and serving take the query from here; histories are not empty. A row that is added, here or
        in training, has item and event −1 and copies every other column of the event before it."""
        ...


@frozen(eq=False)
class Plan:
    """An epoch as data: batch `g` holds the entries `groups[g]` to `groups[g + 1]`.

    Entry `e` is history `index[e]`, of which the events `start[e]` to `stop[e]` are used (None: all);
    `target_from[e]` is the first event that may be a target, counted from `start[e]`; `weight[e]` multiplies
    the weights of its targets (1 / probability where entries are drawn). The place in an epoch is the number
    of batches done: a plan is a value, made again from the same generator, so a batcher has no state.
    """

    index: Tensor
    groups: Tensor
    layout: Layout
    start: Tensor | None = None
    stop: Tensor | None = None
    target_from: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return self.groups.numel() - 1


@runtime_checkable
class Batcher(Protocol):
    """Which histories stand together, and in which layout. Same generator, same plan. Knows no objective."""

    def epoch(self, lengths: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Plan:
        """The plan of one rank for histories of `lengths (B,)` events. All ranks have equally many batches;
        together they hold each history exactly as often as stated."""
        ...


class StepModel(Protocol):
    """What a sampler may ask of the model within a step; detached."""

    def score(self, ids: Tensor) -> Tensor:
        """Scores `(N, K)` of items `(K,)` or `(N, K)` for the batch's predictions."""
        ...

    def top_k(self, k: int) -> Tensor:
        """The ids `(N, k)` that score highest."""
        ...


@frozen(eq=False)
class Negatives:
    """Draws. `items (K,)` shared by the batch or `(N, K)`; `keep (N, K)` or None: False where a draw is no
    candidate of that row; `log_q`, `log_weight` broadcastable to `(N, K)`; the same of the targets `(N,)`.

    `log_q` is the log of the *expected number of times the item is among the K draws*; −inf for a target
    that is never drawn. `log_weight` is the push that the sampler means, 0 for neutral ones; None: zeros.
    """

    items: Tensor
    log_q: Tensor | None = None
    log_q_target: Tensor | None = None
    keep: Tensor | None = None
    log_weight: Tensor | None = None
    log_weight_target: Tensor | None = None


@runtime_checkable
class Sampler(Protocol):
    """Draws negatives, and says how likely each draw was. Never draws a special row."""

    def draw(self, batch: Batch, model: StepModel, generator: torch.Generator) -> Negatives: ...

    def log_q(self, batch: Batch, items: Tensor) -> Tensor:
        """`log_q (N, K)` of items `(K,)` or `(N, K)` for each prediction of the batch."""
        ...

    def observe(self, batch: Batch, model: StepModel) -> None:
        """Called after each step for every batch of it, without gradient."""
        ...

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@frozen(eq=False)
class LossValue:
    """Sums, never means: `total`, a scalar with gradient; `weight`, what it is to be divided by in the end;
    `terms`, name → (sum, weight), detached, for the log."""

    total: Tensor
    weight: Tensor
    terms: Mapping[str, tuple[Tensor, Tensor]] = field(factory=dict)


@runtime_checkable
class Loss(Protocol):
    """A sum over predictions. N = 0 gives 0 and weight 0."""

    def weight(self, targets: Targets) -> Tensor:
        """The weight that `loss` will report, without a forward pass: micro-batches and ranks are summed
        before anything is sent backward."""
        ...

    def loss(self, hidden: Tensor, targets: Targets, table: Table, negatives: Negatives | None) -> LossValue:
        """From hidden states `(N, d)`."""
        ...


@frozen
class StepReport:
    """One optimiser step. `step` counts from 1, `epoch` from 0, as `Training.draw` takes it. `losses`: per
    loss, the mean over its weight. `epoch_ended`: the last step of an epoch, after which the engine validates
    and asks for a verdict."""

    step: int
    epoch: int
    losses: Mapping[str, float]
    events: int
    learning_rate: float
    gradient_norm: float
    epoch_ended: bool = False


@frozen
class Verdict:
    """What the trainer makes of a validation figure: `best` so far, and whether to `stop`."""

    best: bool
    stop: bool
    reason: str = ""


class Training(Protocol):
    """What a trainer drives: the model's own side of a step. Given by the model, so that no trainer needs to
    know what a batch is made of."""

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that train, by name."""
        ...

    def batches(self, epoch: int) -> int:
        """Optimiser batches in an epoch."""
        ...

    def draw(self, epoch: int, number: int) -> Sequence[Batch]:
        """Batch `number` of an epoch: one Batch, or one for each objective that is trained at once."""
        ...

    def weights(self, batches: Sequence[Batch]) -> Mapping[str, Tensor]:
        """Per loss, the weight of these batches, without a forward pass. A trainer that accumulates passes
        the batches of several draws, end to end, here and to `backward` and `stepped`."""
        ...

    def backward(
        self, batches: Sequence[Batch], weights: Mapping[str, Tensor], step: int
    ) -> Mapping[str, tuple[float, float]]:
        """Forward and backward of `total / weight`, summed over the losses that `weights` names; per loss
        (sum, weight). Raises DivergenceError when a loss is not finite."""
        ...

    def stepped(self, batches: Sequence[Batch], step: int) -> None:
        """After an optimiser step: samplers observe."""
        ...


@runtime_checkable
class Trainer(Protocol):
    """Owns optimiser, schedule, warm-up, clipping, accumulation and early stopping. The engine drives the
    generator, so that stopping, checkpoints, progress and resume are written once."""

    def steps(self, training: Training) -> Iterator[StepReport]:
        """Steps from where the state stands to the end. After a report with `epoch_ended` the engine calls
        `judge` before it asks for the next one."""
        ...

    def judge(self, value: float) -> Verdict:
        """Hear a validation figure (higher is better); says whether to stop."""
        ...

    @property
    def metric(self) -> str:
        """The validation metric that chooses the checkpoint, as in `ndcg@10`."""
        ...

    @property
    def last_epoch(self) -> int:
        """The most epochs it will run."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors and plain values, nested; resumed equals uninterrupted."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Called after `bind`-free construction and before `steps`."""
        ...
