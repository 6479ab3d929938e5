"""Each check of batchers, samplers, losses and evaluators fails with its own sentence on a planted fault."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
import torch
from attrs import evolve

from recore import BatcherClaims, Facts, LossClaims, SamplerClaims
from recore.contracts import LossValue, Negatives, Plan, Table
from recore.ragged import Layout
from recore.testing import CHECKS, PROFILES, case_for, made_part
from recore.testing.tiny.learning import (
    Random,
    TinyBatcher,
    TinyBinary,
    TinySampledSoftmax,
    TinySampler,
    TinySoftmax,
    Uniform,
)
from recore.testing.tiny.scoring import TinyEvaluator

COUNTER = itertools.count()
FIRST = evolve(
    PROFILES["quick"], examples=12, draws=1_500, shrink=0
)  # the first example that fails, not the smallest


# --- Batchers ----------------------------------------------------------------------------------------------


class Batcher(TinyBatcher):
    """What `change(plan)` makes of a sound plan."""

    def __init__(self, change):
        super().__init__(Random())
        self.change = change

    def epoch(self, lengths, generator, rank=0, world=1):
        return self.change(super().epoch(lengths, generator, rank, world))


def drops_the_last_partial_batch(plan):
    whole = int((plan.groups.diff() == 4).sum())
    return Plan(plan.index[: 4 * whole], plan.groups[: whole + 1], plan.layout)


def repeats_a_history(plan):
    groups = plan.groups.clone()
    groups[-1] += 1
    return Plan(torch.cat([plan.index, plan.index[:1]]), groups, plan.layout)


def overlapping_windows(plan):
    """Each history twice, the second time from its middle, all its events targets again."""
    index = plan.index.repeat_interleave(2)
    return Plan(index, plan.groups * 2, plan.layout)


def loses_the_first_entry(plan):
    return evolve(plan, groups=plan.groups.clamp(min=1))


def narrow(plan):
    return evolve(plan, layout=Layout("right", 1))


class UnweighedDraws(TinyBatcher):
    def epoch(self, lengths, generator, rank=0, world=1):
        index = torch.multinomial(lengths.double(), len(lengths), replacement=True, generator=generator)
        return Plan(index, torch.tensor([0, len(index)]), Layout())


class GlobalRandom(TinyBatcher):
    def epoch(self, lengths, generator, rank=0, world=1):
        plan = super().epoch(lengths, generator, rank, world)
        return evolve(plan, index=plan.index[torch.randperm(len(plan.index))])


class DependsOnTheObject(TinyBatcher):
    def __init__(self, options):
        super().__init__(options)
        self.turn = next(COUNTER)

    def epoch(self, lengths, generator, rank=0, world=1):
        plan = super().epoch(lengths, generator, rank, world)
        return evolve(plan, index=plan.index.roll(self.turn))


class CountsEpochs(TinyBatcher):
    calls = 0

    def epoch(self, lengths, generator, rank=0, world=1):
        self.calls += 1
        plan = super().epoch(lengths, generator, rank, world)
        return evolve(plan, index=plan.index.roll(self.calls))


class SortsTheLengths(TinyBatcher):
    def epoch(self, lengths, generator, rank=0, world=1):
        lengths.copy_(lengths.clone().sort().values)
        return super().epoch(lengths, generator, rank, world)


class UnequalRanks(TinyBatcher):
    def epoch(self, lengths, generator, rank=0, world=1):
        order = torch.randperm(len(lengths), generator=generator)[rank::world]
        groups = torch.tensor([*range(0, len(order), 4), len(order)])
        return Plan(order, groups, Layout())


class RanksOverlap(TinyBatcher):
    def epoch(self, lengths, generator, rank=0, world=1):
        return super().epoch(lengths, generator)


class Fixed(TinyBatcher):
    def epoch(self, lengths, generator, rank=0, world=1):
        return super().epoch(lengths, torch.Generator().manual_seed(0), rank, world)


class SameBatches(TinyBatcher):
    """Only the order of the batches is drawn: the same histories always meet."""

    def epoch(self, lengths, generator, rank=0, world=1):
        groups = torch.arange(math.ceil(len(lengths) / 4))[
            torch.randperm(math.ceil(len(lengths) / 4), generator=generator)
        ]
        mine = [torch.arange(4 * g, min(4 * g + 4, len(lengths))) for g in groups.tolist()]
        sizes = torch.tensor([0, *(len(m) for m in mine)])
        return Plan(torch.cat(mine), sizes.cumsum(0), Layout())


def batcher(kind, *arguments, claims=None):
    return made_part("batcher", lambda _: kind(*(arguments or [Random()])), claims or BatcherClaims("once"))


class Pieces:
    """Whole histories cut by `cut(length, reach, generator)` into (start, stop, target_from, weight), in random
    order, seven to a batch; `rank` of a plan is `share`d."""

    def __init__(self, cut, reach, share=None):
        self.cut, self.reach, self.share = cut, reach, share

    def epoch(self, lengths, generator, rank=0, world=1):
        rows = [
            (index, *piece)
            for index, length in enumerate(lengths.tolist())
            for piece in self.cut(length, self.reach, generator)
        ]
        order = torch.randperm(len(rows), generator=generator).tolist()
        groups = torch.tensor([*range(0, len(rows), 7), len(rows)])
        columns = list(zip(*(rows[n] for n in order), strict=True)) or [()] * 5
        whole = [torch.tensor(column, dtype=torch.int64) for column in columns[:4]]
        plan = Plan(whole[0], groups, Layout(), *whole[1:], torch.tensor(columns[4], dtype=torch.float64))
        return plan if world == 1 else dealt(plan, rank, world, self.share)


def dealt(plan, rank, world, change=None):
    """Of every batch each rank takes its turn."""
    place = torch.cat([torch.arange(int(n)) for n in plan.groups.diff()] or [torch.arange(0)])
    mine = place % world == rank
    batch = torch.repeat_interleave(torch.arange(len(plan)), plan.groups.diff())
    sizes = torch.bincount(batch[mine], minlength=len(plan))
    taken = {name: getattr(plan, name)[mine] for name in ("index", "start", "stop", "target_from", "weight")}
    share = Plan(groups=torch.cat([torch.zeros(1).long(), sizes.cumsum(0)]), layout=plan.layout, **taken)
    return share if change is None else change(share)


def prefix(target, reach):
    start = 0 if reach is None else max(0, target + 1 - reach)
    return start, target + 1, target - start, 1.0


def prefixes(length, reach, generator):
    """Sound: each context a row of its own."""
    return [prefix(target, reach) for target in range(1, length)]


def drawn_prefix(weigh, low=1):
    """One prefix of each history, from `low` on, of weight `weigh(length)`."""

    def cut(length, reach, generator):
        if length < 2:
            return []
        first = min(low, length - 1)
        target = int(torch.randint(first, length, (1,), generator=generator))
        return [(*prefix(target, reach)[:3], float(weigh(length)))]

    return cut


def last_is_left_out(length, reach, generator):
    """Where a history is longer than the bound, its oldest event is no target: the contexts end before it."""
    return [p for p in prefixes(length, reach, generator) if reach is None or length <= reach or p[1] > 2]


def two_windows(overlap):
    def cut(length, reach, generator):
        middle = length // 2
        if length < 4:
            return [(0, length, 0, 1.0)]
        return [(0, middle, 0, 1.0), (max(0, middle - overlap), length, min(middle, overlap), 1.0)]

    return cut


def sees_the_boundary_twice(length, reach, generator):
    """`target_from` is one too small: the last target of a window is one of the next, too."""
    first, *rest = two_windows(2)(length, reach, generator)
    return [first, *((start, stop, since - 1, weight) for start, stop, since, weight in rest)]


def without_context(length, reach, generator):
    """Windows end to end: the first event of each has nothing before it."""
    size = reach or 4
    return [(at, min(at + size, length), 0, 1.0) for at in range(0, length, size)]


def one_event_more(length, reach, generator):
    """The bound counts inputs, not events."""
    return prefixes(length, None if reach is None else reach + 1, generator)


def all_targets_again(length, reach, generator):
    return [(start, stop, 0, weight) for start, stop, _, weight in prefixes(length, reach, generator)]


def one_too_far(length, reach, generator):
    return [(0, length + 1, 0, 1.0)]


def without_the_last(length, reach, generator):
    return [(0, max(1, length - 1), 0, 1.0)]


def other_histories(plan):
    return evolve(plan, index=plan.index + 1000)


def weightless(plan):
    return evolve(plan, weight=torch.zeros(len(plan.index)))


def unweighed(plan):
    return evolve(plan, weight=torch.ones_like(plan.weight))


def pieces(cut, each="target", share=None, single=False):
    facts = Facts(whole_histories=True, one_prediction_per_row=single or None)
    return made_part(
        "batcher",
        lambda context: Pieces(cut, context.facts.reach, share),
        BatcherClaims(each),
        facts,
    )


# --- Samplers ----------------------------------------------------------------------------------------------


class DrawsOnePast(TinySampler):
    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, items=drawn.items + (drawn.items == self.items - 1))


class KeepOfAnotherShape(TinySampler):
    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, keep=torch.ones(3, 3, dtype=torch.bool))


class TargetInQuotes(TinySampler):
    """Says that the target is −inf, and draws it."""

    def log_q(self, batch, items):
        said = super().log_q(batch, items)
        items = items.expand(said.shape) if items.dim() == 1 else items
        return said.masked_fill(items == batch.targets.id[:, None], float("-inf"))


class NeverOwn(TinySampler):
    """Excludes the history though it claims to exclude nothing."""

    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        view = batch.views["user"]
        own = view["item"][None] * (view.sequence[batch.targets.where][:, None] == view.sequence[None])
        there = (drawn.items[:, :, None] == own[:, None, :]).any(-1)
        return evolve(drawn, keep=~there)


class GlobalDraws(TinySampler):
    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, items=torch.randint(self.items, drawn.items.shape))


class DrawsByObject(TinySampler):
    def __init__(self, options, items):
        super().__init__(options, items)
        self.turn = next(COUNTER)

    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, items=(drawn.items + self.turn) % self.items)


class OtherLogQInDraw(TinySampler):
    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, log_q=drawn.log_q - math.log(self.count))


class OtherLogQOfTarget(TinySampler):
    def draw(self, batch, model, generator):
        return evolve(super().draw(batch, model, generator), log_q_target=torch.zeros(len(batch.targets)))


class Skewed(TinySampler):
    """Low items come more often, and log_q says they do not."""

    share = 0.3

    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        other = torch.randint(self.items, drawn.items.shape, generator=generator)
        coin = torch.rand(drawn.items.shape, generator=generator) < self.share
        return evolve(drawn, items=torch.where(coin, torch.minimum(drawn.items, other), drawn.items))


class SlightlySkewed(Skewed):
    """So little that each prediction by itself leaves room for it."""

    share = 0.12


class ForgetsToRenormalise(TinySampler):
    """The target is never drawn, and log_q of the others is still that of V items."""

    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        ids = batch.targets.id[:, None]
        again = (ids + torch.randint(1, self.items, drawn.items.shape, generator=generator)) % self.items
        return Negatives(again, drawn.log_q, torch.full_like(drawn.log_q_target, float("-inf")))

    def log_q(self, batch, items):
        said = super().log_q(batch, items)
        items = items.expand(said.shape) if items.dim() == 1 else items
        return said.masked_fill(items == batch.targets.id[:, None], float("-inf"))


class PerDraw(TinySampler):
    """The probability of one draw instead of the expected count among K."""

    def log_q(self, batch, items):
        return super().log_q(batch, items) - math.log(self.count)


class FiniteForExcluded(ForgetsToRenormalise):
    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, log_q_target=torch.zeros(len(batch.targets)))


class Floats(TinySampler):
    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, items=drawn.items.double())


class ThreeDimensions(TinySampler):
    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, items=drawn.items[None])


class VariesK(TinySampler):
    """More draws from time to time."""

    def draw(self, batch, model, generator):
        self.count = 1 + int(torch.randint(9, (1,), generator=generator))
        return super().draw(batch, model, generator)


class KeptAtMinusInfinity(TargetInQuotes):
    """Draws the target and gives −inf for it."""

    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, log_q=self.log_q(batch, drawn.items))


class Silent(TinySampler):
    def draw(self, batch, model, generator):
        return evolve(super().draw(batch, model, generator), log_q=None)


class PaddingDrawn(TinySampler):
    """One draw in V + 1 is padding, and lost."""

    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, keep=torch.randint(self.items + 1, drawn.items.shape, generator=generator) > 0)


class ForgetsCounts(TinySampler):
    """`log_q` moves with each step, and is not saved."""

    steps = 0

    def observe(self, batch, model):
        self.steps += 1

    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, log_q=drawn.log_q + self.steps)


class LosesState(TinySampler):
    steps = 0

    def observe(self, batch, model):
        self.steps += 1

    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        return evolve(drawn, items=(drawn.items + self.steps) % self.items)


class OneRowForNone(TinySampler):
    def draw(self, batch, model, generator):
        drawn = super().draw(batch, model, generator)
        if len(drawn.items):
            return drawn
        return Negatives(torch.zeros(1, self.count, dtype=torch.int64))


def sampler(kind, *claims):
    claims = SamplerClaims(*(claims or ("exact", "none")))
    return made_part("sampler", lambda context: kind(Uniform(), context.facts.items), claims)


# --- Losses ------------------------------------------------------------------------------------------------


class Loss(TinySoftmax):
    """What `change(value, hidden, targets, table)` makes of a sound total."""

    def __init__(self, change):
        self.change = change

    def loss(self, hidden, targets, table, negatives):
        value = super().loss(hidden, targets, table, negatives)
        return evolve(value, total=self.change(value.total, hidden, targets, table))


def extra_gradient(total, hidden, targets, table):
    return total + 0.01 * (hidden.sum() - hidden.sum().detach())


def no_gradient_of_biases(total, hidden, targets, table):
    bias = table.bias
    return total if bias is None else total - (bias.sum() - bias.sum().detach()) * total.detach()


def by_place(total, hidden, targets, table):
    return total + (hidden.sum(-1) * torch.arange(len(hidden))).sum()


def squared_weights(total, hidden, targets, table):
    return total + ((hidden**2).sum(-1) * targets.weight**2).sum()


def mean(total, hidden, targets, table):
    return total / max(1, len(hidden))


def nothing_is_nan(total, hidden, targets, table):
    return total / targets.weight.sum() * targets.weight.sum()


def still(tensor):
    """Zero, with a gradient of one."""
    return tensor - tensor.detach()


def pulled_by_place(total, hidden, targets, table):
    return total + (still(hidden).sum(-1) * torch.arange(len(hidden))).sum()


def pulled_by_squares(total, hidden, targets, table):
    return total + (still(hidden).sum(-1) * targets.weight**2).sum()


def pulls_the_first(total, hidden, targets, table):
    return total + still(hidden)[:1].sum() * targets.weight.sum()


def pulls_by_number(total, hidden, targets, table):
    return total + (still(hidden).sum(-1) * targets.weight).sum() * len(hidden)


def pulls_without_predictions(total, hidden, targets, table):
    return total if len(hidden) else total + still(table.weight).sum()


def pulled_by_retired(total, hidden, targets, table):
    return total + (still(hidden) @ table.weight.sum(0) * targets.weight).sum()


def pulls_retired(total, hidden, targets, table):
    return total + still(table.weight).sum() * targets.weight.sum()


class NeverWithoutWeight(TinySoftmax):
    def loss(self, hidden, targets, table, negatives):
        value = super().loss(hidden, targets, table, negatives)
        return evolve(value, weight=value.weight.clamp(min=1.0))


class WeightIsACount(TinySoftmax):
    def weight(self, targets):
        return torch.tensor(float(len(targets)))


class OneBlock(TinySoftmax):
    """Rows after the first block of 1,000 are lost."""

    def loss(self, hidden, targets, table, negatives):
        value = super().loss(hidden, targets, table, negatives)
        head = evolve(targets, where=targets.where[:1000], id=targets.id[:1000], weight=targets.weight[:1000])
        return evolve(value, total=super().loss(hidden[:1000], head, table, negatives).total)


class BlocksOfItems(TinySoftmax):
    """Items after the first block of 1,024 are no candidates."""

    def loss(self, hidden, targets, table, negatives):
        gone = torch.arange(len(table.weight)) >= 1024
        gone[targets.id] = False
        if table.retired is not None:
            gone |= table.retired
        return super().loss(hidden, targets, evolve(table, retired=gone), negatives)


class PaddingIsAClass(TinySoftmax):
    """The row of padding scores 0, always, beside the items."""

    def loss(self, hidden, targets, table, negatives):
        row = torch.zeros_like(table.weight[:1])
        bias = None if table.bias is None else torch.cat([table.bias, row[:, 0]])
        gone = None if table.retired is None else torch.cat([table.retired, row[:, 0] > 0])
        return super().loss(hidden, targets, Table(torch.cat([table.weight, row]), bias, gone), negatives)


class RetiredCount(TinySoftmax):
    def loss(self, hidden, targets, table, negatives):
        return super().loss(hidden, targets, evolve(table, retired=None), negatives)


class KeepsAll(TinySampledSoftmax):
    def loss(self, hidden, targets, table, negatives):
        return super().loss(hidden, targets, table, evolve(negatives, keep=None))


class WrongSign(TinySampledSoftmax):
    def loss(self, hidden, targets, table, negatives):
        turned = evolve(negatives, log_q=-negatives.log_q, log_q_target=-negatives.log_q_target)
        return super().loss(hidden, targets, table, turned)


class NoLogWeight(TinySampledSoftmax):
    def loss(self, hidden, targets, table, negatives):
        return super().loss(hidden, targets, table, evolve(negatives, log_weight=None))


class TargetUncorrected(TinySampledSoftmax):
    def loss(self, hidden, targets, table, negatives):
        zero = torch.zeros_like(negatives.log_q_target)
        return super().loss(
            hidden, targets, table, evolve(negatives, log_q_target=zero, log_weight_target=None)
        )


class Half(TinySoftmax):
    """The work is done in bfloat16 unless the numbers are float64."""

    def loss(self, hidden, targets, table, negatives):
        if hidden.dtype == torch.float64:
            return super().loss(hidden, targets, table, negatives)
        narrow = Table(table.weight.bfloat16(), None if table.bias is None else table.bias.bfloat16())
        return super().loss(hidden.bfloat16(), targets, narrow, negatives)


class NegativesOverAll(TinyBinary):
    def loss(self, hidden, targets, table, negatives):
        scores = hidden @ table.weight.T
        value = super().loss(hidden, targets, table, negatives)
        return LossValue(value.total + 0 * scores.sum(), value.weight)


def loss(kind, *arguments, **claims):
    return made_part("loss", lambda _: kind(*arguments), LossClaims(**claims))


SAMPLED = {"negatives": True, "correction": "symmetric", "memory": "negatives"}


# --- Evaluators --------------------------------------------------------------------------------------------


class Evaluator(TinyEvaluator):
    """What `change(totals, frame)` makes of a sound result; `rank` changes ranks first."""

    def __init__(self, change=None, rank=None, k=10):
        super().__init__(k)
        object.__setattr__(self, "change", change)
        object.__setattr__(self, "of", rank)

    def update(self, block):
        super().update(block if self.of is None else evolve(block, rank=self.of(block)))

    def finish(self):
        totals, frame = super().finish()
        return (totals, frame) if self.change is None else self.change(totals, frame)


def changed(name, value):
    """One column becomes another, and its total follows."""

    def change(totals, frame):
        frame = frame.with_columns(value.alias(name))
        return {**totals, name: frame[name].mean()}, frame

    return change


def median(totals, frame):
    return {**totals, "hr@10": frame["hr@10"].median() + 0.25}, frame


def no_column(totals, frame):
    return totals, frame.drop("ndcg@10")


def no_length(totals, frame):
    return totals, frame.drop("length")


def longer(totals, frame):
    return totals, frame.with_columns(pl.col("length") + 1)


class NamedByBlocks(TinyEvaluator):
    """A metric more for each block."""

    def start(self, context):
        super().start(context)
        object.__setattr__(self, "blocks", 0)

    def update(self, block):
        super().update(block)
        object.__setattr__(self, "blocks", self.blocks + 1)

    def finish(self):
        totals, frame = super().finish()
        return {**totals, f"blocks{self.blocks}": 1.0}, frame


class RowsByBlocks(NamedByBlocks):
    """Totals are right, and rows belong to other users where there is more than one block."""

    def finish(self):
        totals, frame = TinyEvaluator.finish(self)
        if self.blocks > 1:
            frame = frame.with_columns(pl.col("hr@10").sort(), pl.col("ndcg@10").sort())
        return totals, frame


def loses_misses(totals, frame):
    frame = frame.filter(pl.col("hr@10") > 0)
    return {name: (frame[name].mean() or 0.0) for name in totals}, frame


class MeanOfBlocks(TinyEvaluator):
    def start(self, context):
        super().start(context)
        object.__setattr__(self, "means", [])

    def update(self, block):
        before = len(self._rows)
        super().update(block)
        self.means.append(sum(row["hr@10"] for row in self._rows[before:]) / (len(self._rows) - before))

    def finish(self):
        totals, frame = super().finish()
        return {**totals, "hr@10": sum(self.means) / len(self.means)}, frame


class CountsImpossible(TinyEvaluator):
    def start(self, context):
        super().start(evolve(context, items=10**9))


class TiesWon(TinyEvaluator):
    """Ranks of its own, from the scores: only what scores more is ahead."""

    @property
    def wants(self):
        return evolve(super().wants, scores=True)

    def update(self, block):
        own = block.scores.gather(1, torch.from_numpy(block.targets).clamp(min=0)[:, None])
        rank = ((block.scores > own).sum(1) + 1).numpy()
        possible = (block.targets >= 0) & ~block.in_history
        super().update(evolve(block, rank=np.where(possible, rank, block.rank)))


class NoFormulas(TinyEvaluator):
    def finish(self):
        totals, frame = super().finish()
        return {**totals, "luck": 1.0}, frame


class Accumulates(TinyEvaluator):
    def start(self, context):
        self._told[:] = [context]


def evaluator(kind, *arguments, **more):
    return made_part("evaluator", lambda _: kind(*(arguments or ([] if more else [10])), **more))


FAULTS = [
    ("batcher", 1, "stand in no batch", batcher(Batcher, drops_the_last_partial_batch)),
    ("batcher", 1, "is a target twice", batcher(Batcher, repeats_a_history)),
    ("batcher", 1, "is a target twice", batcher(Batcher, overlapping_windows)),
    ("batcher", 1, "weighs", batcher(UnweighedDraws, claims=BatcherClaims("drawn"))),
    ("batcher", 1, "in 2 pieces", pieces(two_windows(2), "once")),
    ("batcher", 1, "event 1 is in none", pieces(last_is_left_out)),
    ("batcher", 1, "is a target twice", pieces(sees_the_boundary_twice)),
    ("batcher", 1, "has nothing before it in its entry", pieces(without_context)),
    ("batcher", 1, "and nothing is drawn", pieces(drawn_prefix(lambda n: n), "target")),
    (
        "batcher",
        1,
        "on average, and should weigh 1, of a model that reads 5",
        pieces(drawn_prefix(lambda n: 1), "drawn"),
    ),
    ("batcher", 1, "should weigh 1", pieces(drawn_prefix(lambda n: n), "drawn")),
    ("batcher", 1, "event 1 of history", pieces(drawn_prefix(lambda n: max(1, n - 2), 2), "drawn")),
    ("batcher", 1, "stands in batches as [(0, 0, ", pieces(one_too_far)),
    ("batcher", 1, "not the whole of it, all events targets", pieces(without_the_last, "once")),
    ("batcher", 1, "each on average", pieces(drawn_prefix(lambda n: 0.9 * (n - 1)), "drawn")),
    ("batcher", 2, "asked twice, it planned otherwise", batcher(CountsEpochs)),
    ("batcher", 5, "entries [", batcher(Batcher, other_histories)),
    ("batcher", 5, "some weights are not positive", batcher(Batcher, weightless)),
    ("batcher", 2, "torch's default generator was advanced", batcher(GlobalRandom)),
    ("batcher", 2, "another object planned otherwise", batcher(DependsOnTheObject)),
    ("batcher", 3, "planned three epochs", batcher(CountsEpochs)),
    ("batcher", 3, "the lengths [", batcher(SortsTheLengths)),
    ("batcher", 4, "ranks make", batcher(UnequalRanks)),
    ("batcher", 4, "on 2 ranks together", batcher(RanksOverlap)),
    ("batcher", 4, "of other weights", pieces(drawn_prefix(lambda n: n - 1), "drawn", unweighed)),
    ("batcher", 5, "of a model that reads 2 events: an entry holds 3 events", pieces(one_event_more)),
    (
        "batcher",
        5,
        "targets, and one prediction for each row is stated",
        pieces(all_targets_again, single=True),
    ),
    ("batcher", 5, "do not cut 1 entries", batcher(Batcher, loses_the_first_entry)),
    ("batcher", 5, "a layout of width 1 cannot hold", batcher(Batcher, narrow)),
    ("batcher", 6, "planned alike with two generators", batcher(Fixed)),
    ("batcher", 6, "the same 50 batches came", batcher(SameBatches)),
    ("batcher", 6, "`random` is not claimed", batcher(TinyBatcher, claims=BatcherClaims("once", False))),
    ("sampler", 1, "draws run from 1 to 10, V = 10", sampler(DrawsOnePast)),
    ("sampler", 1, "draws are torch.float64", sampler(Floats)),
    ("sampler", 2, "`items` are (1,", sampler(ThreeDimensions)),
    ("sampler", 2, "`items` were", sampler(VariesK)),
    ("sampler", 5, "a kept draw has log_q -inf", sampler(KeptAtMinusInfinity)),
    ("sampler", 5, "`log_q` is None, and log_q: exact is claimed", sampler(Silent)),
    ("sampler", 7, "some draw no item, such as padding", sampler(PaddingDrawn)),
    ("sampler", 9, "a reload `log_q` differs", sampler(ForgetsCounts)),
    ("sampler", 2, "`keep` is (3, 3)", sampler(KeepOfAnotherShape)),
    ("sampler", 3, "excluded by `target`", sampler(TargetInQuotes, "exact", "target")),
    ("sampler", 3, "excluded by `history`", sampler(TinySampler, "exact", "history")),
    ("sampler", 3, "as if excluded", sampler(NeverOwn)),
    ("sampler", 4, "torch's default generator was advanced", sampler(GlobalDraws)),
    ("sampler", 4, "by a fresh object", sampler(DrawsByObject)),
    ("sampler", 5, "a draw has log_q", sampler(OtherLogQInDraw)),
    ("sampler", 5, "have log_q [0.0", sampler(OtherLogQOfTarget)),
    ("sampler", 6, "standard errors", sampler(Skewed)),
    ("sampler", 6, "over all predictions", sampler(SlightlySkewed)),
    ("sampler", 6, "standard errors from 1", sampler(Skewed, "two-phase")),
    ("sampler", 7, "exp(log_q) sums to 3.6", sampler(ForgetsToRenormalise, "exact", "target")),
    ("sampler", 7, "exp(log_q) sums to 1.0", sampler(PerDraw)),
    ("sampler", 8, "and `target` excludes them", sampler(FiniteForExcluded, "exact", "target")),
    ("sampler", 8, "and none is excluded", sampler(ForgetsToRenormalise)),
    ("sampler", 9, "after three steps and a reload the draws are", sampler(LosesState)),
    ("sampler", 10, "without predictions 1 rows of draws came", sampler(OneRowForNone)),
    ("loss", 1, "the gradient of the hidden states says", loss(Loss, extra_gradient)),
    ("loss", 1, "the gradient of the biases says", loss(Loss, no_gradient_of_biases)),
    ("loss", 2, "the total", loss(Loss, by_place)),
    ("loss", 2, "gradients up to", loss(Loss, pulled_by_place)),
    ("loss", 3, "the gradient of the hidden states is off by", loss(Loss, pulled_by_squares)),
    ("loss", 3, "a prediction of weight 0 has a gradient of", loss(Loss, pulls_the_first)),
    ("loss", 4, "the weight is 1", loss(NeverWithoutWeight)),
    ("loss", 4, "a gradient of 1", loss(Loss, pulls_without_predictions)),
    ("loss", 5, "predictions is off by", loss(Loss, pulls_by_number)),
    ("loss", 8, "gradients of hidden states moved by", loss(Loss, pulled_by_retired)),
    ("loss", 8, "retired rows have a gradient of", loss(Loss, pulls_retired)),
    ("loss", 3, "with weights w + 3 u the total is", loss(Loss, squared_weights)),
    ("loss", 4, "the total is nan", loss(Loss, nothing_is_nan)),
    ("loss", 5, "of 2 pieces together", loss(Loss, mean)),
    ("loss", 6, "of 1500 predictions", loss(OneBlock)),
    ("loss", 6, "of 70 predictions", loss(BlocksOfItems)),
    ("loss", 7, "the loss reports", loss(WeightIsACount)),
    ("loss", 8, "after retired rows changed", loss(RetiredCount)),
    ("loss", 9, "after draws that are not kept", loss(KeepsAll, **SAMPLED)),
    ("loss", 10, "0.7 more log_weight on draws gives", loss(WrongSign, **SAMPLED)),
    ("loss", 10, "does not enter as", loss(NoLogWeight, **SAMPLED)),
    ("loss", 10, "on targets gives", loss(TargetUncorrected, **SAMPLED)),
    ("loss", 10, "and no correction is claimed", loss(TinySampledSoftmax, negatives=True)),
    ("loss", 11, "memory `blocks` is claimed", loss(TinySoftmax, memory="blocks")),
    ("loss", 11, "memory `negatives` is claimed", loss(NegativesOverAll, negatives=True, memory="negatives")),
    ("loss", 12, "in float32", loss(Half)),
    ("loss", 13, "such as a class for padding", loss(PaddingIsAClass, shift_invariant=True)),
    ("evaluator", 1, "the oracle says", evaluator(Evaluator, rank=lambda block: block.rank + 1)),
    ("evaluator", 1, "ndcg@10 of rank", evaluator(Evaluator, changed("ndcg@10", pl.col("ndcg@10") ** 2))),
    ("evaluator", 1, "the frame has no column 'ndcg@10'", evaluator(Evaluator, no_column)),
    ("evaluator", 1, "in total, the oracle says", evaluator(Evaluator, median)),
    ("evaluator", 2, "the frame has the columns", evaluator(Evaluator, no_length)),
    ("evaluator", 2, "users and lengths", evaluator(Evaluator, longer)),
    ("evaluator", 3, "became ['blocks", evaluator(NamedByBlocks)),
    ("evaluator", 3, "differ in blocks of three", evaluator(RowsByBlocks)),
    ("evaluator", 2, "and its column has the mean", evaluator(Evaluator, median)),
    ("evaluator", 2, "queries gave", evaluator(Evaluator, loses_misses)),
    ("evaluator", 3, "in another order, three a block", evaluator(MeanOfBlocks)),
    (
        "evaluator",
        4,
        "after relabelling",
        evaluator(Evaluator, rank=lambda block: block.rank + (block.targets % 2)),
    ),
    ("evaluator", 5, "items a target of rank", evaluator(CountsImpossible)),
    ("evaluator", 6, "no formula is given of luck", evaluator(NoFormulas)),
    ("evaluator", 7, "after an evaluation of", evaluator(Accumulates)),
    ("evaluator", 9, "ties went the model's way", evaluator(TiesWon)),
    ("evaluator", 8, "at rank [1]", evaluator(Evaluator, changed("ndcg@10", pl.col("ndcg@10") % 1.0))),
]


@pytest.mark.parametrize(
    ("kind", "number", "words", "part"), FAULTS, ids=[f"{f[0]}-{f[1]}-{n}" for n, f in enumerate(FAULTS)]
)
def test_fault_is_caught_by_its_own_sentence(kind, number, words, part) -> None:
    check = CHECKS[kind][number - 1]
    with pytest.raises(AssertionError) as caught:
        check(part, case_for(part, FIRST))
    assert str(caught.value).startswith(f"{kind} {number}: {check.sentence} But ")
    assert words in str(caught.value)
    assert "`this:made`" in str(caught.value)


@pytest.mark.parametrize(
    "part", [pieces(prefixes, single=True), pieces(drawn_prefix(lambda n: n - 1), "drawn", single=True)]
)
def test_what_the_faults_of_pieces_are_made_of_is_sound(part) -> None:
    for number in (1, 5):  # it is slow, being written in Python
        CHECKS["batcher"][number - 1](part, case_for(part, evolve(FIRST, examples=1)))
