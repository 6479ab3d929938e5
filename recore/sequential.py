"""The assembled model: embedder → positions → encoder, its side of a training step, and its scorer.

Legend: `T` events in a batch, `B` sequences, `N` predictions, `V` items, `d` width.
One scoring path: training, evaluation and serving cut histories, lay them out and take the query in here.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from attrs import evolve, frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recore.builtin import Sequential
from recore.claims import EncoderClaims, PositionClaims
from recore.component import Context
from recore.contracts.data import RowMap, SplitParts, Tokenizer
from recore.contracts.learning import Batcher, Loss, Negatives, Objective, Plan, Sampler
from recore.contracts.model import Embedder, Encoder, Placed, Position, Table
from recore.contracts.scoring import Queries
from recore.data import Interactions
from recore.errors import DataError, DivergenceError, RunFolderError
from recore.evidence import EVIDENCE, known_items
from recore.histories import cut_queries, seen_items, tokenise
from recore.ragged import Batch, Layout, Targets, View
from recore.rng import default_generator, generator

if TYPE_CHECKING:
    from recore.engine.drive import Fit

EVENTS_AT_ONCE = 65_536  # events encoded together when there is no gradient: bounds memory, not results


def build(options: Sequential, context: Context) -> SequentialModel:
    """Build the parts and wire them."""
    return SequentialModel(options, context)


class SequentialModel(nn.Module):
    """Embedder, positions and encoder. `forward` gives hidden states; `fit` trains; `load` reads weights."""

    def __init__(self, options: Sequential, context: Context) -> None:
        super().__init__()
        self.options = options
        self.context = context
        self.embedder: Embedder = context.build(options.embedder)
        self.positions: list[Position] = [context.build(part) for part in options.positions]
        self.encoder: Encoder = context.build(options.encoder)
        # Parts without parameters need not be modules; a list of them is registered by hand for that reason.
        for number, position in enumerate(self.positions):
            if isinstance(position, nn.Module):
                self.add_module(f"position{number}", position)
        # A first pass without the positions that read evidence makes the evidence.
        reading = [part.columns() & EVIDENCE for part in options.positions]
        self.evidence = frozenset().union(*reading)
        self.first = [position for position, read in zip(self.positions, reading, strict=True) if not read]
        self.asks_when = any(
            isinstance(part.claims, PositionClaims) and part.claims.query_time == "target"
            for part in options.positions
        )
        claims = options.encoder.claims
        self.encodes_rows = isinstance(claims, EncoderClaims) and claims.rows
        self.history = None if options.history.last == "all" else int(options.history.last)
        self.padding = context.facts.padding or "none"

    @property
    def layout(self) -> Layout:
        """The rectangle that training and query batches ask for alike."""
        return Layout(self.padding, self.history)

    def forward(self, batch: Batch, view: View, rows: Tensor | None = None) -> Tensor:
        """Hidden states `(T, d)`, or those of `rows (R,)`."""
        if missing := self.evidence - set(view.columns):
            states = self.first_pass(batch, view)
            before = torch.arange(view.events, device=states.device) - 1
            before = before.masked_fill(view.place == 0, -1)
            view = view.with_columns(
                **known_items(states, before, view["item"], self.embedder.table(), missing)
            )
            batch = evolve(batch, views={**batch.views, "user": view})
        return self._encoded(self.positions, batch, view, rows)

    @torch.no_grad()
    def first_pass(self, batch: Batch, view: View) -> Tensor:
        """Hidden states `(T, d)` as they are in evaluation, without the positions that read evidence."""
        with evaluating(self):
            return self._encoded(self.first, batch, view)

    def _encoded(
        self, positions: Sequence[Position], batch: Batch, view: View, rows: Tensor | None = None
    ) -> Tensor:
        x = self.embedder.embed(batch, view)
        placed = folded(positions, x, batch, view)
        x = placed.inputs
        if rows is not None and self.encodes_rows:
            return self.encoder.encode(x, batch, view, placed, rows=rows)
        hidden = self.encoder.encode(x, batch, view, placed)
        return hidden if rows is None else hidden[rows]

    def fit(self, interactions: Interactions, parts: SplitParts, fit: Fit) -> SequentialScorer:
        """Train as the recipe says, and give the scorer of the best epoch."""
        training = SequentialTraining(self, fit)
        scorer = SequentialScorer(self, fit.tokenizer, training.objective, fit.columns)
        best = fit.drive(training, {"model": self, **training.samplers_by_name()}, scorer, self)
        return self.load(best, fit)

    def save(self, folder: Path) -> None:
        """Weights as `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")

    def resize(self, rows: RowMap, users: RowMap | None = None) -> dict[str, RowMap]:
        """Follow the tokenizer; `users` are not numbered here. Gives, per parameter that was replaced, how its
        rows moved."""
        return {f"embedder.{name}": moved for name, moved in self.embedder.resize(rows).items()}

    def load(self, folder: Path, fit: Fit) -> SequentialScorer:
        """Weights from `folder`, and the scorer of them. Raises RunFolderError when they do not fit."""
        try:
            self.load_state_dict(load_file(folder / "model.safetensors", device=fit.machine.device))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunFolderError(f"the weights in {folder} cannot be read: {error}") from error
        return SequentialScorer(self, fit.tokenizer, fit.build_objective(), fit.columns)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode; afterwards in the mode that it was in."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def blocks(lengths: Tensor, most: int = EVENTS_AT_ONCE) -> list[slice]:
    """Consecutive sequences of at most `most` events together."""
    ends = lengths.cumsum(0)
    found, begin = [], 0
    while begin < len(lengths):
        used = int(ends[begin - 1]) if begin else 0
        end = max(int(torch.searchsorted(ends, used + most, right=True)), begin + 1)
        found.append(slice(begin, end))
        begin = end
    return found


def folded(positions: Sequence[Position], x: Tensor, batch: Batch, view: View) -> Placed:
    """What positions contribute together: the inputs of one are the `x` of the next, terms are concatenated."""
    placed = Placed(x)
    for position in positions:
        more = position.place(placed.inputs, batch, view)
        layers = range(max(len(placed.terms), len(more.terms)))
        placed = Placed(more.inputs, [placed.layer(n) + tuple(more.layer(n)) for n in layers])
    return placed


@frozen
class Weighted:
    """A loss of the recipe as built: its name, the view it learns from, its weight, the sampler before it, and
    whether it compares a sequence with its own row of a table (`LossClaims.agreement`)."""

    name: str
    view: str
    loss: Loss
    weight: float
    sampler: Sampler | None
    agreement: bool = False


@frozen(eq=False)
class Answer:
    """What some losses of a batch look at: hidden states `(N, d)`, their targets, the table that scores."""

    hidden: Tensor
    targets: Targets
    table: Table
    losses: Sequence[Weighted]


class StepScores:
    """What a sampler may ask of the model within a step; detached."""

    def __init__(self, hidden: Tensor, table: Table) -> None:
        self._hidden = hidden.detach()
        bias = None if table.bias is None else table.bias.detach()
        self._table = Table(table.weight.detach(), bias, table.retired)

    def score(self, ids: Tensor) -> Tensor:
        """Scores `(N, K)` of items `(K,)` or `(N, K)`."""
        return self._table.score(self._hidden, ids)

    def top_k(self, k: int) -> Tensor:
        """The ids `(N, k)` that score highest, in blocks of rows."""
        blocks = torch.split(self._hidden, max(1, 8_000_000 // self._table.weight.shape[0]))
        return torch.cat([score_table(block, self._table).topk(k).indices for block in blocks])


def score_table(hidden: Tensor, table: Table) -> Tensor:
    """Scores `(N, V)` of all rows, −inf for retired ones."""
    scores = hidden @ table.weight.T
    if table.bias is not None:
        scores += table.bias
    return scores if table.retired is None else scores.masked_fill_(table.retired, float("-inf"))


class SequentialTraining:
    """The model's side of a step: which histories, which targets, which losses. Implements
    `recore.contracts.Training`."""

    def __init__(self, model: SequentialModel, fit: Fit) -> None:
        self.model = model
        self.seed = fit.seed
        self.device = fit.machine.device
        self.objective: Objective = fit.build_objective()
        reach = None if model.history is None else self.objective.reach(model.history)[0]
        self.batcher: Batcher = fit.build_batcher(reach)
        # Of the columns that the model fills, those that the objective weighs targets by.
        self.weighing = fit.recipe.objective.columns() & EVIDENCE if fit.recipe.objective else frozenset()
        log = fit.training
        histories = tokenise(log.events, log.offsets(), fit.tokenizer, fit.columns)
        fit.context = evolve(fit.context, seen=seen_items(histories))
        self.losses = [Weighted(*built) for built in fit.build_losses(self.contexts(fit))]
        if reach is not None and not model.context.facts.whole_histories:
            histories = histories.last_events(reach)
        self.histories = histories
        self._plan: tuple[int, Plan] | None = None

    def contexts(self, fit: Fit) -> Mapping[str, Context]:
        """The contexts in which losses of other views than `user` are built: none here."""
        return {}

    def samplers_by_name(self) -> dict[str, Sampler]:
        """The samplers, whose state belongs in a checkpoint."""
        return {f"sampler.{entry.name}": entry.sampler for entry in self.losses if entry.sampler}

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def plan(self, epoch: int) -> Plan:
        """The epoch's plan: a value, made again from the same generator on resume."""
        if self._plan is None or self._plan[0] != epoch:
            drawn = self.batcher.epoch(self.histories.lengths, generator(self.seed, "batches", epoch))
            self._plan = (epoch, drawn)
        return self._plan[1]

    def batches(self, epoch: int) -> int:
        """Optimiser batches in an epoch."""
        return len(self.plan(epoch))

    def draw(self, epoch: int, number: int) -> Sequence[Batch]:
        """Batch `number` of an epoch."""
        plan = self.plan(epoch)
        chosen = slice(int(plan.groups[number]), int(plan.groups[number + 1]))
        index = plan.index[chosen]
        first = self.histories.offsets[index]
        start = first if plan.start is None else first + plan.start[chosen]
        stop = self.histories.offsets[index + 1] if plan.stop is None else first + plan.stop[chosen]
        histories = self.histories.cut(start, stop, index)
        since = None if plan.target_from is None else plan.target_from[chosen]
        if self.weighing:
            histories = self._with_evidence(histories)
        random = generator(self.seed, "objective", epoch, number)
        inputs, targets = self.objective.training(histories, random, since)
        if plan.weight is not None:
            share = plan.weight[chosen][inputs.sequence[targets.where]]
            targets = evolve(targets, weight=targets.weight * share)
        inputs = inputs.laid_out(Layout(plan.layout.padding, self.model.history))
        return [Batch({"user": inputs}, targets).to(self.device)]

    def _with_evidence(self, histories: View) -> View:
        """The histories with what the model, as it stands, makes of each event from those before it."""
        first, stop = histories.offsets[:-1], histories.offsets[1:]
        inputs = histories.cut(first, torch.maximum(first, stop - 1)).laid_out(self.model.layout)
        inputs = inputs.to(self.device)
        full = inputs.lengths > 0
        targets = None
        if self.model.asks_when:
            targets = _when(inputs.last[full], histories["time"].to(self.device)[histories.last][full])
        items, table = histories["item"].to(self.device), self.model.embedder.table()
        states = table.weight[:0]  # of histories of one event each there are none
        if inputs.events:
            states = self.model.first_pass(Batch({"user": inputs}, targets), inputs)
        before = inputs.offsets[:-1].cpu()[histories.sequence] + histories.place - 1
        before = before.masked_fill(histories.place == 0, -1).to(self.device)
        found = known_items(states, before, items, table, self.weighing)
        return histories.with_columns(**{name: column.cpu() for name, column in found.items()})

    def weights(self, batches: Sequence[Batch]) -> Mapping[str, Tensor]:
        """Per loss, the weight of these batches, without a forward pass."""
        found = {}
        for entry in self.losses:
            own = [targets for batch in batches if (targets := _targets(batch)).view == entry.view]
            found[entry.name] = sum((entry.loss.weight(targets) for targets in own), torch.zeros(()))
        return found

    def answers(self, batch: Batch, names: Container[str]) -> Iterator[Answer]:
        """The forward pass of a batch: what its losses, those among `names`, look at. A model that encodes
        more views answers for their batches here."""
        view, targets = batch.views["user"], _targets(batch)
        losses = [entry for entry in self.losses if entry.view == "user" and entry.name in names]
        if losses and len(targets):
            hidden = self.model(batch, view, _rows(targets, view))
            yield Answer(hidden, targets, self.model.embedder.table(), losses)

    def backward(
        self, batches: Sequence[Batch], weights: Mapping[str, Tensor], step: int
    ) -> Mapping[str, tuple[float, float]]:
        """Forward and backward of the losses that `weights` names (a trainer may take turns); per loss
        (sum, weight)."""
        self.model.train()
        reported: dict[str, tuple[float, float]] = {}
        for micro, batch in enumerate(batches):
            with default_generator(self.seed, "step", step, micro):
                shares: list[Tensor] = []
                for number, answer in enumerate(self.answers(batch, weights)):
                    place = (step, micro, number) if number else (step, micro)
                    for entry in answer.losses:
                        value = entry.loss.loss(
                            answer.hidden,
                            answer.targets,
                            answer.table,
                            self._negatives(entry, batch, answer, place),
                        )
                        weight = weights[entry.name].to(value.total.dtype)  # as exact as what it divides
                        # Where nothing counts there is nothing to divide by, and 0 · ∞ would spoil the gradient.
                        share = torch.where(weight > 0, entry.weight / weight, torch.zeros_like(weight))
                        shares.append(value.total * share)
                        there = reported.get(entry.name, (0.0, 0.0))
                        reported[entry.name] = (
                            there[0] + float(value.total.detach()),
                            there[1] + float(value.weight),
                        )
                        if not torch.isfinite(value.total.detach()):
                            raise DivergenceError(
                                f"step {step}: loss {entry.name!r} is {float(value.total.detach())}, expected "
                                "a finite number (lower trainer.learning_rate, or set trainer.clip)"
                            )
                if shares:
                    torch.autograd.backward(sum(shares[1:], shares[0]))
        return reported

    def _negatives(
        self, entry: Weighted, batch: Batch, answer: Answer, place: tuple[int, ...]
    ) -> Negatives | None:
        if entry.sampler is None:
            return None
        random = generator(self.seed, "negatives", entry.name, *place)
        with torch.no_grad():
            asked = evolve(batch, targets=answer.targets)
            return entry.sampler.draw(asked, StepScores(answer.hidden, answer.table), random)

    def stepped(self, batches: Sequence[Batch], step: int) -> None:
        """After an optimiser step: samplers that watch the model observe."""
        for batch in batches:
            view = _targets(batch).view
            watching = [e.sampler for e in self.losses if e.sampler is not None and e.view == view]
            if not watching:
                continue
            scores = _LazyScores(self, batch)
            for sampler in watching:
                sampler.observe(batch, scores)


class _LazyScores:
    """The model's scores after a step, computed once, and only if a sampler asks."""

    def __init__(self, training: SequentialTraining, batch: Batch) -> None:
        self._training, self._batch = training, batch
        self._made: list[StepScores] = []

    def _scores(self) -> list[StepScores]:
        if not self._made:
            names = [entry.name for entry in self._training.losses]
            with torch.no_grad(), evaluating(self._training.model):
                answers = self._training.answers(self._batch, names)
                self._made = [StepScores(answer.hidden, answer.table) for answer in answers]
        return self._made

    def score(self, ids: Tensor) -> Tensor:
        """Scores `(N, K)` of items."""
        return torch.cat([scores.score(ids) for scores in self._scores()])

    def top_k(self, k: int) -> Tensor:
        """The ids `(N, k)` that score highest."""
        return torch.cat([scores.top_k(k) for scores in self._scores()])


def _targets(batch: Batch) -> Targets:
    if batch.targets is None:
        raise ValueError("a training batch has no targets: the objective must give some, if only N = 0")
    return batch.targets


def _when(where: Tensor, time: Tensor) -> Targets:
    """Of no known item at the rows `where (N,)`, and when."""
    return Targets(where, torch.full_like(where, -1), torch.ones(len(where), device=where.device), time=time)


def _rows(targets: Targets, view: View) -> Tensor | None:
    """The rows that predict, or None when all do, in order: then nothing has to be gathered."""
    where = targets.where
    if len(where) == view.events and torch.equal(where, torch.arange(len(where), device=where.device)):
        return None
    return where


class SequentialScorer:
    """Queries in the data's own ids → scores of all items. Implements `recore.contracts.Scorer`."""

    def __init__(
        self, model: SequentialModel, tokenizer: Tokenizer, objective: Objective, columns: frozenset[str]
    ) -> None:
        self.model = model
        self.objective = objective
        self.columns = columns
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        """Numbers the candidates."""
        return self._tokenizer

    @torch.no_grad()
    def encode(self, queries: Queries) -> Tensor:
        """`(B, d)`. A history without any known event has no state: zeros, so that all items tie. Raises DataError
        where the model reads when the predicted event happens and the queries do not say."""
        model = self.model
        if absent := sorted(self.columns - set(queries.events.columns)):
            raise DataError(
                f"this model reads {', '.join(absent)} of every event, but the histories that ask do not tell "
                "(from Python give times, `Query.times`; on the command line ask for users of the log, --users)"
            )
        if model.asks_when and queries.time is None and len(queries):
            raise DataError(
                "a position of this model reads the time of the event to be predicted (`query_time: target`), but "
                f"{len(queries)} queries give none: give each a time (`Query.time`; `recore recommend --at TIME`)"
            )
        if model.history is not None:
            # Dropped unknown items make room for older ones, so cut after they are dropped where they are.
            reach = self.objective.reach(model.history)[1]
            if self._tokenizer.unknown == "keep":
                queries = cut_queries(queries, reach)
        view = tokenise(queries.events, queries.offsets, self._tokenizer, self.columns)
        if model.history is not None and self._tokenizer.unknown != "keep":
            view = view.last_events(reach)
        time = None
        if model.asks_when and queries.time is not None:
            time = torch.from_numpy(np.array(queries.time))
        with evaluating(model):
            return self._states(view, time)

    def _states(self, view: View, time: Tensor | None) -> Tensor:
        """`(B, d)`; `time (B,)`: when what is predicted happens, for models that read it."""
        model = self.model
        table = model.embedder.table()
        states = table.weight.new_zeros(len(view), table.weight.shape[1])
        full = (view.lengths > 0).nonzero().squeeze(-1)
        # Histories of like length together: attention then wastes nothing on its inner rectangles.
        full = full[view.lengths[full].argsort(stable=True)]
        # Of a padded layout every history fills a row of the rectangle, however short it is.
        whole = (
            model.history or int(view.lengths.max()) if model.layout.padding != "none" and len(full) else 0
        )
        for some in blocks(view.lengths[full].clamp(min=whole)):
            index = full[some]
            block = view.cut(view.offsets[index], view.offsets[index + 1])
            inputs, where = self.objective.query(block)
            inputs = inputs.laid_out(model.layout).to(states.device)
            where = where.to(states.device)
            when = None if time is None else _when(where, time[index].to(where.device))
            states[index.to(states.device)] = model(Batch({"user": inputs}, when), inputs, where)
        return states

    @torch.no_grad()
    def score(self, state: Tensor, items: Tensor | None = None) -> Tensor:
        """Scores `(B, V)`, or `(B, n)` of `items (n,)`; −inf for retired items."""
        table = self.model.embedder.table()
        if items is None:
            return score_table(state, table)
        scores = table.score(state, items)
        if table.retired is not None:
            scores = scores.masked_fill(table.retired[items], float("-inf"))
        return scores
