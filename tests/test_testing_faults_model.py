"""Each check of embedders, positions and encoders fails with its own sentence on a planted fault."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from torch import Tensor, nn

from recore import BOTH_SIDES, EncoderClaims, Facts, PositionClaims
from recore.attention import PairFunction, PairTable, attend
from recore.contracts import Placed, Table
from recore.testing import CHECKS, PROFILES, case_for, made_part
from recore.testing.tiny.model import TERMS, Blocks, Lookup, TinyEmbedder, TinyEncoder

COUNTER = itertools.count()
FIRST = evolve(
    PROFILES["quick"], examples=12, draws=1_500, shrink=0
)  # the first example that fails, not the smallest


# --- Embedders ---------------------------------------------------------------------------------------------


class PadHasAVector(TinyEmbedder):
    def embed(self, batch, view):
        return self.weight[view["token"]]


class ZeroAtFirst(PadHasAVector):
    """Zero rows like any other: gradients move them."""

    def __init__(self, options, context):
        super().__init__(options, context)
        with torch.no_grad():
            self.weight[:2] = 0


class OnlyGradientMasked(ZeroAtFirst):
    """What padding_idx does: no gradient, but a resize draws the rows anew."""

    def embed(self, batch, view):
        return F.embedding(view["token"], self.weight, padding_idx=0)


class SpecialsScore(TinyEmbedder):
    def table(self):
        return Table(self.weight, None, None)


class RetiredAsNumbers(TinyEmbedder):
    def table(self):
        return evolve(super().table(), retired=self.retired[self.scored].long())


class NeighboursCount(TinyEmbedder):
    def embed(self, batch, view):
        x = super().embed(batch, view)
        return x + x.mean(0)


class Detached(TinyEmbedder):
    def table(self):
        return Table(self.weight[self.scored].detach().requires_grad_(), None, self.retired[self.scored])


class StaleTable(TinyEmbedder):
    """The table is copied once and goes stale after a step."""

    def table(self):
        if not hasattr(self, "kept"):
            self.kept = self.weight[self.scored]
        return Table(self.kept, None, self.retired[self.scored])


class DrawsAllAnew(TinyEmbedder):
    @torch.no_grad()
    def resize(self, rows):
        maps = super().resize(rows)
        self.weight = nn.Parameter(torch.randn_like(self.weight))
        return maps


class OffByOneRow(TinyEmbedder):
    @torch.no_grad()
    def resize(self, rows):
        return super().resize(evolve(rows, old=rows.old.clip(max=rows.old.max() - 1)))


class ForgetsRetired(TinyEmbedder):
    @torch.no_grad()
    def resize(self, rows):
        return super().resize(evolve(rows, retired=rows.retired[:0]))


class NoMaps(TinyEmbedder):
    def resize(self, rows):
        super().resize(rows)
        return {}


class MapOfAnotherName(TinyEmbedder):
    def resize(self, rows):
        return {"table": super().resize(rows)["weight"]}


class LiveAfterResize(TinyEmbedder):
    @torch.no_grad()
    def resize(self, rows):
        maps = super().resize(rows)
        self.live = torch.ones_like(self.live)
        return maps


class OutsideTorch:
    """Holds an embedder and is no module."""

    def __init__(self, options, context):
        self.inner = TinyEmbedder(options, context)


class ShortBias(TinyEmbedder):
    def table(self):
        return evolve(super().table(), bias=torch.zeros(3))


class Narrow(TinyEmbedder):
    def embed(self, batch, view):
        return super().embed(batch, view)[:, :-1]


class FirstOfTheBatch(TinyEmbedder):
    """Where histories stand together the first one counts twice."""

    def embed(self, batch, view):
        x = super().embed(batch, view)
        return x * (1.0 + ((view.sequence == 0) & (len(view) > 1)))[:, None]


class VectorsDetached(TinyEmbedder):
    def embed(self, batch, view):
        x = super().embed(batch, view)
        return x.detach() + 0 * x


class TwoTables(TinyEmbedder):
    """Scores and vectors come from rows of their own; `change(self, rows, moved)` is what a resize does to those
    that score."""

    def __init__(self, options, context, change=None):
        super().__init__(options, context)
        self.rows = nn.Parameter(self.weight.detach()[self.scored].clone())
        self.bias = nn.Parameter(torch.randn(len(self.rows)))
        self.change = change

    def table(self):
        return Table(self.rows, self.bias, self.retired[self.scored])

    @torch.no_grad()
    def resize(self, rows):
        maps = super().resize(rows)
        more = int(self.scored.sum()) - len(self.rows)
        new = torch.randn(more, self.rows.shape[1], dtype=self.rows.dtype)
        wide, bias = torch.cat([self.rows, new]), torch.cat([self.bias, torch.zeros(more).to(self.bias)])
        old = evolve(rows, old=rows.old[3:] - 3 * (rows.old[3:] >= 0), retired=rows.retired - 3)
        wide, bias = self.change(wide, bias, more)
        self.rows, self.bias = nn.Parameter(wide), nn.Parameter(bias)
        return {**maps, "rows": old, "bias": old}


def rows_turned(rows, bias, more):
    return rows.roll(1, 0), bias


def bias_gone(rows, bias, more):
    return rows, 0 * bias


def not_finite(rows, bias, more):
    return torch.cat([rows[: len(rows) - more], rows[len(rows) - more :] / 0]), bias


class NewRowsAlike(TinyEmbedder):
    @torch.no_grad()
    def resize(self, rows):
        maps = super().resize(rows)
        new = torch.from_numpy(rows.old) < 0
        self.weight = nn.Parameter(torch.where(new[:, None], torch.ones_like(self.weight), self.weight))
        return maps


class ShortMap(TinyEmbedder):
    def resize(self, rows):
        return {"weight": evolve(super().resize(rows)["weight"], old=rows.old[:-1])}


class WrongMap(TinyEmbedder):
    def resize(self, rows):
        return {"weight": evolve(super().resize(rows)["weight"], old=rows.old.clip(max=4))}


class NewRowsStill(TinyEmbedder):
    """After a resize what is new gets no gradient."""

    def __init__(self, options, context):
        super().__init__(options, context)
        self.first = len(self.weight)

    def held(self):
        return torch.cat([self.weight[: self.first], self.weight[self.first :].detach()])

    def embed(self, batch, view):
        token = view["token"]
        return self.held()[token] * self.live[token][:, None]

    def table(self):
        return evolve(super().table(), weight=self.held()[self.scored])


class ScoresElsewhere(TinyEmbedder):
    """A scale of the scores that no state dictionary holds; `of` is what it scales."""

    def __init__(self, options, context, of="weight"):
        super().__init__(options, context)
        self.scale, self.of = 1.0 + next(COUNTER), of

    def table(self):
        table = evolve(super().table(), bias=torch.ones(int(self.scored.sum())))
        return evolve(table, **{self.of: getattr(table, self.of) * self.scale})


class HiddenState(TinyEmbedder):
    """A scale that no state dictionary holds."""

    def __init__(self, options, context):
        super().__init__(options, context)
        self.scale = 1.0 + next(COUNTER)

    def embed(self, batch, view):
        return super().embed(batch, view) * self.scale


class NoiseInEval(TinyEmbedder):
    def table(self):
        torch.rand(1)
        return super().table()


def embedder(kind, *arguments):
    return made_part("embedder", lambda context: kind(Lookup(), context, *arguments), None, Facts(width=8))


# --- Positions ---------------------------------------------------------------------------------------------


class Position(nn.Module):
    """A vector per place; `where(view)` says which."""

    def __init__(self, context):
        super().__init__()
        self.facts = context.facts
        self.weight = nn.Parameter(torch.randn(2 * context.facts.history, context.facts.width))

    def where(self, view) -> Tensor:
        return view.place

    def place(self, x, batch, view):
        return Placed(x + self.weight[self.where(view)])


class TermsForThree(Position):
    def place(self, x, batch, view):
        return evolve(super().place(x, batch, view), terms=[(), (), ()])


class InPlace(Position):
    def place(self, x, batch, view):
        with torch.no_grad():
            x += 1
        return super().place(x, batch, view)


class SeesLaterItems(Position):
    def place(self, x, batch, view):
        total = x.new_zeros(len(view), x.shape[1]).index_add(0, view.sequence, x)
        return Placed(x + 0.01 * total[view.sequence])


class FromTheEnd(Position):
    def where(self, view):
        return view.lengths[view.sequence] - 1 - view.place


class Columns(Position):
    def where(self, view):
        return view.layout.slots(view.offsets)


class LongestOfTheBatch(Position):
    def where(self, view):
        return view.place + int(view.lengths.max())


class OverLength(Position):
    """Places as parts of the whole: 0/0 for one event."""

    def place(self, x, batch, view):
        part = view.place / (view.lengths[view.sequence] - 1)
        return Placed(x + part[:, None].to(x.dtype))


class DropsInEval(Position):
    def place(self, x, batch, view):
        return Placed(F.dropout(super().place(x, batch, view).inputs, 0.1, training=True))


class Times(Position):
    def place(self, x, batch, view):
        return Placed(x + torch.sin(view["time"].to(x.dtype))[:, None])


class TargetTimes(Position):
    def place(self, x, batch, view):
        return Placed(x + torch.sin(batch.targets.time.to(x.dtype))[:, None])


class NextTimes(Position):
    """Reads when the next event happens from the log, not from the target: a query has no next event."""

    def place(self, x, batch, view):
        time = torch.cat([view["time"][1:], view["time"][-1:]])
        last = view.place == view.lengths[view.sequence] - 1
        time = torch.where(last, view["time"], time) + 0 * batch.targets.time
        return Placed(x + torch.sin(time.to(x.dtype))[:, None])


class ScaledByTheFuture(Position):
    """Gaps in units of the whole history's shortest one."""

    def place(self, x, batch, view):
        gap = torch.cat([view["time"][:1] * 0, view["time"].diff()])
        gap = gap.masked_fill((view.place == 0) | (gap <= 0), 2**60)
        least = torch.full((len(view),), 2**60).scatter_reduce(0, view.sequence, gap, "amin")
        return Placed(x + torch.cos(gap / least[view.sequence]).to(x.dtype)[:, None])


class NoRowForOne(Position):
    """A history that is alone, of one event, gets inputs `(d,)`."""

    def place(self, x, batch, view):
        return Placed(x.squeeze(0))


class HalfPrecision(Position):
    def place(self, x, batch, view):
        added = self.weight[view.place]
        return Placed(x + (added if x.dtype == torch.float64 else added.bfloat16().to(x.dtype)))


class DetachedWeight(Position):
    def place(self, x, batch, view):
        return Placed(x + self.weight[view.place].detach())


class Distances(nn.Module):
    """A bias per distance; in the last layer by `last(row, key)`."""

    def __init__(self, context, last=None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2 * 128, context.facts.heads))
        self.last = last

    def place(self, x, batch, view):
        table = PairTable("logit", self.weight, low=-128)
        if self.last is None:
            return Placed(x, [(table,)])
        function = PairFunction(
            lambda r, k, w: self.last(view, r, k).to(w.dtype)[:, None] * w[0, 0], (self.weight,)
        )
        return Placed(x, [(table,), (function,)])


def by_start(view, rows, keys):
    return (view.place[rows][:, :, None] * view.place[keys][:, None, :]) / 5


class Idle(nn.Module):
    def __init__(self, context):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def place(self, x, batch, view):
        return Placed(x + 0 * self.weight.sum())


def position(kind, *claims, **more):
    return made_part("position", kind, PositionClaims(*claims, **more))


# --- Encoders ----------------------------------------------------------------------------------------------


class Encoder(TinyEncoder):
    """What `change(states, x, view)` makes of sound states."""

    def __init__(self, options, context, change=None):
        super().__init__(options, context)
        self.change = change

    def encode(self, x, batch, view, placed, rows=None):
        states = super().encode(x, batch, view, placed)
        states = states if self.change is None else self.change(states, placed.inputs, view)
        return states if rows is None else states[rows]


def one_narrower(states, x, view):
    return states[:, 1:]


def next_event(states, x, view):
    """An off-by-one in the mask: each event sees the next."""
    nxt = (torch.arange(view.events) + 1).clamp(max=view.events - 1)
    return states + 0.01 * x[nxt] * (view.sequence[nxt] == view.sequence)[:, None]


def knows_the_length(states, x, view):
    return states + 0.01 * view.lengths[view.sequence][:, None]


def norm_over_padding(states, x, view):
    """The mean over the rectangle, padding included; masked, but divided by the width."""
    if view.layout.padding == "none":
        return states
    return states * view.layout.columns(view.offsets) / view.lengths.max()


def multiplies_padding(states, x, view):
    """Zero is no mask: 0 · NaN is NaN."""
    if view.layout.padding == "none":
        return states
    cells = view.layout.rectangle(view.ragged(states))
    mask = view.layout.mask(view.offsets)[..., None]
    total = (cells * mask).sum(1) * 0
    return states + total[view.sequence]


def gradient_of_padding(states, x, view):
    """Values are right, gradients grow with the width."""
    if view.layout.padding == "none":
        return states
    extra = states * view.layout.columns(view.offsets)
    return states + 0.001 * (extra - extra.detach())


def batch_mean(states, x, view):
    return states - x.mean(0) * 0.01


def longest_of_the_batch(states, x, view):
    return states / (1 + 0.01 * view.lengths.max())


def over_deviation(states, x, view):
    """Divides by the deviation of the history's events, which one event has not."""
    found = []
    for a, b in itertools.pairwise(view.offsets.tolist()):
        if b > a:
            found.append(states[a:b] / states[a:b].std(0))
    return torch.cat(found)


def drops_in_eval(states, x, view):
    return F.dropout(states, 0.1, training=True)


def masks_by_sum(states, x, view):
    """Events whose vectors sum to zero are left out."""
    return states * (x.sum(-1, keepdim=True) != 0)


def half(states, x, view):
    return states if states.dtype == torch.float64 else states.bfloat16().to(states.dtype)


def forgets(states, x, view):
    """The same batch, other states."""
    return states * (1 + 0.01 * next(COUNTER))


def root(states, x, view):
    """Its gradient is not finite where it is 0."""
    return states + (0 * x).abs().sqrt()


def without_gradient(states, x, view):
    """Leaves torch's switch for gradients the other way."""
    torch.set_grad_enabled(not torch.is_grad_enabled())
    return states


class AllRows(TinyEncoder):
    def encode(self, x, batch, view, placed, rows=None):
        return super().encode(x, batch, view, placed)


class NoModule:
    def __init__(self, options, context):
        self.inner = TinyEncoder(options, context)

    def encode(self, x, batch, view, placed, rows=None):
        return self.inner.double().encode(x, batch, view, placed, rows)


class SortsRows(TinyEncoder):
    def encode(self, x, batch, view, placed, rows=None):
        return super().encode(x, batch, view, placed, None if rows is None else rows.sort().values)


class NoGradientThroughKeys(TinyEncoder):
    """With `rows` the values are right, and the keys are cut off from the gradient."""

    def encode(self, x, batch, view, placed, rows=None):
        if rows is None:
            return super().encode(x, batch, view, placed)
        full = super().encode(x, batch, view, placed)[rows]
        return full.detach() + (placed.inputs[rows] - placed.inputs[rows].detach())


class FirstTermForAll(TinyEncoder):
    """Shared terms reach the first layer only."""

    def encode(self, x, batch, view, placed, rows=None):
        if len(placed.terms) == 1:
            placed = Placed(placed.inputs, [placed.layer(0), ()])
        return super().encode(x, batch, view, placed, rows)


class LastLayerIgnoresTerms(TinyEncoder):
    def encode(self, x, batch, view, placed, rows=None):
        terms = [placed.layer(0), ()]
        return super().encode(x, batch, view, Placed(placed.inputs, terms), rows)


class StaleMask(TinyEncoder):
    """A cache on the module instead of the view: the layout of the first batch."""

    def encode(self, x, batch, view, placed, rows=None):
        if not hasattr(self, "first"):
            self.first = len(view)
        states = super().encode(x, batch, view, placed)
        states = states * (1 + 0.01 * abs(len(view) - self.first))
        return states if rows is None else states[rows]


class NotCausal(TinyEncoder):
    """One block in which every event sees all."""

    def encode(self, x, batch, view, placed, rows=None):
        q = placed.inputs.unflatten(1, (2, -1))
        states = super().encode(x, batch, view, placed) + attend(q, q, q, view, causal=False).flatten(1)
        return states if rows is None else states[rows]


ALL = EncoderClaims(True, BOTH_SIDES, True, True, TERMS)


def encoder(kind, *arguments, claims=ALL):
    facts = Blocks().provides()
    return made_part("encoder", lambda context: kind(Blocks(), context, *arguments), claims, facts)


FAULTS = [
    ("embedder", 1, "it is a OutsideTorch, no torch.nn.Module", embedder(OutsideTorch)),
    ("embedder", 3, "`bias` is (3,), V = 10", embedder(ShortBias)),
    ("embedder", 4, "events got vectors of shape", embedder(Narrow)),
    ("embedder", 4, "differ in reverse order", embedder(FirstOfTheBatch)),
    ("embedder", 5, "a step on vectors left the tokens", embedder(VectorsDetached)),
    ("embedder", 6, "the scoring rows of [0", embedder(TwoTables, rows_turned)),
    ("embedder", 6, "biases changed after", embedder(TwoTables, bias_gone)),
    ("embedder", 6, "new rows are not finite", embedder(TwoTables, not_finite)),
    ("embedder", 6, "new rows are all alike", embedder(NewRowsAlike)),
    ("embedder", 7, "rows, `weight` 1", embedder(ShortMap)),
    ("embedder", 7, "does not say where its rows came from", embedder(WrongMap)),
    ("embedder", 8, "after a resize the tokens [13", embedder(NewRowsStill)),
    ("embedder", 9, "after loading the scoring rows differ", embedder(ScoresElsewhere)),
    ("embedder", 9, "after loading the biases differ", embedder(ScoresElsewhere, "bias")),
    ("embedder", 1, "the vector of `pad` reaches", embedder(PadHasAVector)),
    ("embedder", 2, "after 1 steps of SGD with momentum", embedder(ZeroAtFirst)),
    ("embedder", 3, "the table is (13, 8), V = 10", embedder(SpecialsScore)),
    ("embedder", 3, "`retired` is torch.int64", embedder(RetiredAsNumbers)),
    ("embedder", 4, "when it is alone", embedder(NeighboursCount)),
    ("embedder", 5, "a step on scores left the items [0, 1", embedder(Detached)),
    ("embedder", 5, "a step on scores left the items [0, 1", embedder(StaleTable)),
    ("embedder", 6, "the vectors of tokens", embedder(DrawsAllAnew)),
    ("embedder", 6, "after 0 items were added", embedder(OffByOneRow)),
    ("embedder", 6, "the items [] are retired", embedder(ForgetsRetired)),
    ("embedder", 7, "was replaced and is not among the maps", embedder(NoMaps)),
    ("embedder", 7, "it maps ['table']", embedder(MapOfAnotherName)),
    ("embedder", 8, "the vector of `pad` reaches", embedder(LiveAfterResize)),
    ("embedder", 8, "the vector of `unknown` reaches", embedder(OnlyGradientMasked)),
    ("embedder", 9, "after loading the vectors differ", embedder(HiddenState)),
    ("embedder", 10, "different initial rows", embedder(HiddenState)),
    ("embedder", 10, "advanced torch's default generator", embedder(NoiseInEval)),
    ("position", 1, "there are terms for 3 layers, the encoder has 2", position(TermsForThree)),
    ("position", 1, "were changed in place", position(InPlace)),
    ("position", 1, "became", position(NoRowForOne)),
    ("position", 5, "and `relative_to: start` is claimed", position(FromTheEnd, "start")),
    ("position", 5, "with padding on the right", position(FromTheEnd, "window")),
    ("position", 5, "nothing is counted from it", position(Idle, "window")),
    ("position", 2, "states before place", position(SeesLaterItems)),
    ("position", 3, "it claims to be prefix-consistent", position(FromTheEnd, "prediction", True)),
    ("position", 4, "it claims to be shift-invariant", position(Position, "start", True, True)),
    (
        "position",
        4,
        "it claims to be shift-invariant",
        position(lambda context: Distances(context, by_start), "prediction", True, True),
    ),
    ("position", 5, "`relative_to: prediction` is claimed", position(Position, "prediction")),
    ("position", 5, "changed order", position(Distances, "nothing")),
    ("position", 5, "so nothing is counted from the start", position(Distances, "start")),
    ("position", 5, "though its columns stay", position(Position, "window")),
    ("position", 5, "so it is relative to nothing", position(Idle, "prediction")),
    ("position", 6, "padding on the left is claimed", position(Columns, padding=BOTH_SIDES)),
    ("position", 7, "a neighbour reaches them", position(LongestOfTheBatch)),
    ("position", 8, "some states are not finite", position(OverLength)),
    ("position", 9, "torch's default generator was advanced", position(DropsInEval)),
    ("position", 10, "when the times of the log changed", position(Times)),
    ("position", 10, "when the time of the target changed", position(TargetTimes, query_time="last-event")),
    (
        "position",
        10,
        "when the times of events from there on changed",
        position(ScaledByTheFuture, query_time="last-event"),
    ),
    (
        "position",
        10,
        "when the times of events from there on changed",
        position(NextTimes, query_time="target"),
    ),
    ("position", 10, "so none is read", position(Position, query_time="last-event")),
    ("position", 10, "so it is not read", position(Times, query_time="target")),
    ("position", 11, "states in float32 are", position(HalfPrecision)),
    ("position", 12, "`weight` gets no gradient", position(DetachedWeight)),
    ("encoder", 1, "gave states of shape", encoder(Encoder, one_narrower)),
    ("encoder", 1, "no torch.nn.Module", encoder(NoModule)),
    ("encoder", 2, "changed, and it claims to be causal", encoder(Encoder, next_event)),
    ("encoder", 2, "it claims to be causal", encoder(NotCausal)),
    ("encoder", 3, "were removed, and it claims to be causal", encoder(Encoder, knows_the_length)),
    ("encoder", 4, "columns of padding on the", encoder(Encoder, norm_over_padding)),
    ("encoder", 4, "filled with nan, states moved by inf", encoder(Encoder, multiplies_padding)),
    ("encoder", 4, "gradients moved by", encoder(Encoder, gradient_of_padding)),
    ("encoder", 5, "it claims to be batch-invariant", encoder(Encoder, batch_mean)),
    ("encoder", 5, "it claims to be batch-invariant", encoder(Encoder, longest_of_the_batch)),
    ("encoder", 5, "it claims to be batch-invariant", encoder(StaleMask)),
    ("encoder", 6, "some states are not finite", encoder(Encoder, over_deviation)),
    ("encoder", 6, "gradients are not finite in", encoder(Encoder, root)),
    ("encoder", 7, "rows gave states of shape", encoder(AllRows)),
    ("encoder", 8, "when it came again", encoder(Encoder, forgets)),
    ("encoder", 8, "gradient mode was left changed", encoder(Encoder, without_gradient)),
    ("encoder", 11, "so nothing can be told", encoder(Encoder, forgets)),
    ("encoder", 7, "states moved by", encoder(SortsRows)),
    ("encoder", 7, "gradients moved by", encoder(NoGradientThroughKeys)),
    ("encoder", 8, "torch's default generator was advanced", encoder(Encoder, drops_in_eval)),
    ("encoder", 9, "layer by layer differ by", encoder(FirstTermForAll)),
    ("encoder", 9, "in layer 1 of 2 changes no state", encoder(LastLayerIgnoresTerms)),
    ("encoder", 10, "states in float32 are", encoder(Encoder, half)),
    ("encoder", 11, "the event is taken for padding", encoder(Encoder, masks_by_sum)),
    ("encoder", 11, "when a vector that is zero moved", encoder(Encoder, masks_by_sum)),
]


@pytest.mark.parametrize(
    ("kind", "number", "words", "part"), FAULTS, ids=[f"{f[0]}-{f[1]}-{n}" for n, f in enumerate(FAULTS)]
)
def test_fault_is_caught_by_its_own_sentence(kind, number, words, part) -> None:
    check = CHECKS[kind][number - 1]
    with pytest.raises(AssertionError) as caught, torch.enable_grad():
        check(part, case_for(part, FIRST))
    assert str(caught.value).startswith(f"{kind} {number}: {check.sentence} But ")
    assert words in str(caught.value)
    assert "`this:made`" in str(caught.value)
