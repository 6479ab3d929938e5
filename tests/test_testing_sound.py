"""The kit raises no false alarm: every tiny implementation keeps every sentence, and so do less usual ones."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch
from attrs import evolve
from torch import Tensor, nn

from recore import (
    BOTH_SIDES,
    BatcherClaims,
    Component,
    Context,
    EncoderClaims,
    Facts,
    LossClaims,
    PositionClaims,
    SamplerClaims,
)
from recore.attention import PairFunction, Rotate
from recore.contracts import LossValue, Negatives, Placed, Plan
from recore.kinds import KINDS
from recore.ragged import Batch, Layout, View, offsets_of
from recore.testing import (
    CHECKS,
    PROFILES,
    counts,
    failures,
    made_part,
    make_case,
    parametrize_with_checks,
    part_of,
    run_checks,
)
from recore.testing.tiny import PARTS, learning, model

# A kit elsewhere went from 47 checks to 1 and stayed green: the count is asserted.
COUNTS = {
    "split": 8,
    "tokenizer": 8,
    "objective": 10,
    "embedder": 10,
    "position": 12,
    "encoder": 11,
    "batcher": 6,
    "sampler": 10,
    "loss": 13,
    "evaluator": 9,
}
CALM = evolve(PROFILES["quick"], examples=5, draws=1000)
CHECKED = [part for kind, parts in PARTS.items() for part in parts if KINDS[kind].checks]


def test_counts() -> None:
    assert counts() == COUNTS
    for kind, checks in CHECKS.items():
        assert [check.number for check in checks] == list(range(1, COUNTS[kind] + 1))
        assert KINDS[kind].checks == f"recore.testing.{kind}"


def test_every_contract_has_a_tiny_implementation() -> None:
    assert set(PARTS) == set(KINDS) - {"transform", "model"}
    case = make_case()
    for kind, parts in PARTS.items():
        for part in parts:
            assert isinstance(case.build(part), KINDS[kind].contract), part.name


@pytest.mark.parametrize("part", CHECKED, ids=lambda part: f"{part.kind}-{part.component.name}")
def test_tiny_parts_are_sound(part) -> None:
    results = run_checks(part, profile=CALM)
    assert [result.measured for result in failures(results)] == []
    assert len(results) == COUNTS[part.kind]


@parametrize_with_checks(PARTS["batcher"] + PARTS["evaluator"])
def test_one_test_for_each_part_and_check(check) -> None:
    check()


def test_parametrize_makes_one_test_each() -> None:
    mark = parametrize_with_checks(PARTS["loss"])
    assert len(mark.args[1]) == 3 * COUNTS["loss"]
    with pytest.raises(ValueError, match="no checks of kind 'dataset'"):
        parametrize_with_checks(PARTS["dataset"])


# --- Less usual parts, all of them sound -------------------------------------------------------------------


class HistoryExcluded:
    """Uniform over what the user has not seen, each prediction its own draws."""

    def __init__(self, context: Context) -> None:
        self.seen, self.items, self.count = context.seen, context.facts.items, 3

    def _allowed(self, batch: Batch) -> Tensor:
        view, where = batch.views["user"], batch.targets.where
        allowed = torch.ones(len(where), self.items, dtype=torch.bool)
        for row, owner in enumerate(view.index[view.sequence[where]].tolist()):
            allowed[row, self.seen[owner]] = False
        return allowed

    def draw(self, batch, model, generator) -> Negatives:
        weights = self._allowed(batch).double()
        items = torch.zeros(len(weights), self.count, dtype=torch.int64)
        if len(weights):
            items = torch.multinomial(weights, self.count, replacement=True, generator=generator)
        own = self.log_q(batch, batch.targets.id[:, None])[:, 0]
        return Negatives(items, self.log_q(batch, items), own)

    def log_q(self, batch, items) -> Tensor:
        allowed = self._allowed(batch)
        every = torch.log(self.count / allowed.sum(-1, keepdim=True)).expand(allowed.shape)
        every = every.masked_fill(~allowed, float("-inf"))
        return every[:, items] if items.dim() == 1 else every.gather(1, items)

    def observe(self, batch, model) -> None: ...

    def state_dict(self):
        return {}

    def load_state_dict(self, state) -> None: ...


class SharedWithoutTarget(learning.TinySampler):
    """Distinct draws shared by the batch; a row does not keep its own target."""

    def draw(self, batch, model, generator) -> Negatives:
        items = torch.randperm(self.items, generator=generator)[: self.count]
        ids = batch.targets.id
        return Negatives(
            items,
            self.log_q(batch, items).masked_fill(items == ids[:, None], 0.0),
            self._own(ids),
            items != ids[:, None],
        )

    def _own(self, ids: Tensor) -> Tensor:
        return torch.full((len(ids),), float("-inf"))

    def log_q(self, batch, items) -> Tensor:
        ids = batch.targets.id[:, None]
        items = items.expand(len(ids), -1) if items.dim() == 1 else items
        return torch.where(items == ids, float("-inf"), math.log(self.count / self.items))


class Pooled(learning.TinySampler):
    """Two phases: half of the items form a pool, draws are uniform in it."""

    def draw(self, batch, model, generator) -> Negatives:
        pool = torch.randperm(self.items, generator=generator)[: self.items // 2]
        at = torch.randint(len(pool), (len(batch.targets), self.count), generator=generator)
        items = pool[at]
        return Negatives(items, self.log_q(batch, items), self.log_q(batch, batch.targets.id[:, None])[:, 0])


class Blocked(learning.TinySoftmax):
    """Softmax in blocks of rows, recomputed in the backward pass."""

    def loss(self, hidden, targets, table, negatives) -> LossValue:
        from torch.utils.checkpoint import checkpoint

        total = hidden.sum() * 0 + table.weight.sum() * 0
        for at in range(0, len(targets), 64):
            rows = slice(at, at + 64)
            total = total + checkpoint(
                self._block, hidden[rows], targets.id[rows], targets.weight[rows], table, use_reentrant=False
            )
        return LossValue(total, targets.weight.sum())

    def _block(self, hidden, ids, weight, table) -> Tensor:
        scores = hidden @ table.weight.T
        if table.bias is not None:
            scores = scores + table.bias
        if table.retired is not None:
            scores = scores.masked_fill(table.retired, float("-inf"))
        return ((scores.logsumexp(-1) - scores.gather(1, ids[:, None])[:, 0]) * weight).sum()


class Windows(learning.TinyBatcher):
    """Windows of six events that overlap by two; an event is a target once."""

    def epoch(self, lengths, generator, rank=0, world=1) -> Plan:
        entries = []
        for history, length in enumerate(lengths.tolist()):
            start = 0
            while True:
                stop = min(start + 6, length)
                entries.append((history, start, stop, 2 if start else 0))
                if stop == length:
                    break
                start = stop - 2
        rows = torch.tensor(entries)[torch.randperm(len(entries), generator=generator)]
        share = math.ceil(len(rows) / world)
        rows = rows[rank * share : (rank + 1) * share]
        groups = torch.tensor([*range(0, share, 4), share]).clamp(max=len(rows))
        return Plan(rows[:, 0], groups, Layout("right"), rows[:, 1], rows[:, 2], rows[:, 3])


class Drawn(learning.TinyBatcher):
    """Histories drawn with probability proportional to their length, weighed by 1 / expected count."""

    def epoch(self, lengths, generator, rank=0, world=1) -> Plan:
        share = lengths.double() / lengths.sum()
        index = torch.multinomial(share, len(lengths), replacement=True, generator=generator)[rank::world]
        weight = 1 / (share[index] * len(lengths))
        groups = offsets_of(torch.tensor([len(index)]))
        return Plan(index, groups, Layout(), weight=weight)


class Window(nn.Module):
    """A vector per column of the rectangle."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(context.facts.history, context.facts.width))

    def place(self, x, batch, view) -> Placed:
        if view.layout.padding == "none":
            raise ValueError("counts columns of a rectangle")
        return Placed(x + self.weight[view.layout.slots(view.offsets)])


class FromEnd(nn.Module):
    """A vector per place counted from the last event: prediction-absolute."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(context.facts.history, context.facts.width))

    def place(self, x, batch, view) -> Placed:
        return Placed(x + self.weight[view.lengths[view.sequence] - 1 - view.place])


class Rope(nn.Module):
    """Rotary positions, nothing that trains."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.half = context.facts.width // context.facts.heads // 2

    def place(self, x, batch, view) -> Placed:
        angle = view.place[:, None].to(x.dtype) / 3 ** torch.arange(self.half, dtype=x.dtype)
        return Placed(x, [(Rotate(angle.cos(), angle.sin()),)])


class TimeBias(nn.Module):
    """A slope per head on the log of the time between two events."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.randn(context.facts.heads))

    def place(self, x, batch, view) -> Placed:
        time = view["time"]

        def bias(rows: Tensor, keys: Tensor, slope: Tensor) -> Tensor:
            gap = (time[rows][:, :, None] - time[keys][:, None, :]).abs().to(slope.dtype)
            return slope[None, :, None, None] * gap.log1p()[:, None]

        return Placed(x, [(PairFunction(bias, (self.slope,)),)])


class Recurrent(nn.Module):
    """A recurrence through a forced rectangle, or event by event; takes inputs only."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.a, self.b = (nn.Linear(context.facts.width, context.facts.width) for _ in range(2))

    def encode(self, x, batch, view, placed, rows=None) -> Tensor:
        layout = view.layout if view.layout.padding != "none" else Layout("right")
        mask = layout.mask(view.offsets)
        cells = torch.where(mask[..., None], layout.rectangle(view.ragged(placed.inputs)), 0.0)
        state, found = cells.new_zeros(len(view), cells.shape[-1]), []
        for column in range(cells.shape[1]):
            new = torch.tanh(self.a(cells[:, column]) + self.b(state))
            state = torch.where(mask[:, column, None], new, state)
            found.append(state)
        return torch.stack(found, 1).flatten(0, 1)[layout.flat(view.offsets)]


class Pool(nn.Module):
    """The mean of all events of the history, at each event: not causal."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.w = nn.Linear(context.facts.width, context.facts.width)

    def encode(self, x, batch, view, placed, rows=None) -> Tensor:
        total = placed.inputs.new_zeros(len(view), x.shape[-1]).index_add(0, view.sequence, placed.inputs)
        return self.w(placed.inputs + (total / view.lengths.clamp(min=1)[:, None])[view.sequence])


class Masked(learning.TinyObjective):
    """One event of each history is hidden behind a mask and predicted; a query appends a mask."""

    def reach(self, width):
        return width, width - 1

    def training(self, histories, generator, target_from=None):
        since = torch.zeros(len(histories), dtype=torch.int64) if target_from is None else target_from
        rows = []
        for b in range(len(histories)):
            first, stop = int(histories.offsets[b]), int(histories.offsets[b + 1])
            may = [
                r for r in range(first + min(int(since[b]), stop - first), stop) if histories["item"][r] >= 0
            ]
            if may:
                rows.append(may[int(torch.randint(len(may), (1,), generator=generator))])
        where = torch.tensor(rows, dtype=torch.int64)
        token, item = histories["token"].clone(), histories["item"].clone()
        ids = item[where]
        token[where], item[where] = 2, -1
        return histories.with_columns(token=token, item=item), learning.Targets(
            where, ids, torch.ones(len(where))
        )

    def query(self, histories):
        stop = histories.offsets[1:]
        order = torch.cat([torch.arange(histories.events), stop - 1]) if len(stop) else stop
        rows = torch.cat([histories.sequence, torch.arange(len(histories))]).argsort(stable=True)
        inputs = histories.take(
            order[rows], histories.offsets + torch.arange(len(histories) + 1), histories.index
        )
        where = inputs.offsets[1:] - 1
        changed = {name: inputs[name].clone() for name in ("token", "item", "event")}
        changed["token"][where], changed["item"][where], changed["event"][where] = 2, -1, -1
        return inputs.with_columns(**changed), where


def sampler(kind, claims):
    return made_part("sampler", lambda context: kind(learning.Uniform(), context.facts.items), claims)


def position(kind, *claims, **more):
    return made_part("position", kind, PositionClaims(*claims, **more))


UNUSUAL = {
    "history": made_part("sampler", HistoryExcluded, SamplerClaims("exact", "history")),
    "shared": sampler(SharedWithoutTarget, SamplerClaims("exact", "target")),
    "pooled": sampler(Pooled, SamplerClaims("two-phase")),
    "estimated": sampler(learning.TinySampler, SamplerClaims("estimated")),
    "no log_q": sampler(learning.TinySampler, SamplerClaims("none")),
    "blocked": made_part("loss", lambda _: Blocked(), LossClaims("blocks")),
    "windows": made_part("batcher", lambda _: Windows(learning.Random()), BatcherClaims("target")),
    "drawn": made_part("batcher", lambda _: Drawn(learning.Random()), BatcherClaims("drawn")),
    "window": position(Window, "window", padding=frozenset({"right"})),
    "from end": position(FromEnd, "prediction", shift_invariant=True, padding=BOTH_SIDES),
    "rope": position(Rope, "prediction", True, True, BOTH_SIDES),
    "time": position(TimeBias, "prediction", True, True, BOTH_SIDES, query_time="last-event"),
    "recurrent": made_part("encoder", Recurrent, EncoderClaims(True, BOTH_SIDES, True)),
    "pool": made_part("encoder", Pool, EncoderClaims(False, BOTH_SIDES, True), Facts(causal=False)),
    "masked": made_part("objective", lambda _: Masked(), None, Facts(causal=False)),
}
NOT_CLAIMED = {
    "drawn": [],
    "window": [3, 4],
    "from end": [3],
    "rope": [12],
    "recurrent": [7, 9],
    "pool": [2, 3, 7, 9],
    "no log_q": [5, 6, 7, 8],
    "estimated": [6, 7],
    "pooled": [7],
    "blocked": [9, 10, 13],
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_parts_are_sound(name) -> None:
    results = run_checks(UNUSUAL[name], profile=CALM)
    assert [result.measured for result in failures(results)] == []
    open_ = [number for number, result in enumerate(results, 1) if result.status == "not claimed"]
    assert open_ == NOT_CLAIMED.get(name, [])


def test_what_is_not_claimed_is_measured() -> None:
    by = {result.name: result for result in run_checks(UNUSUAL["window"], profile=CALM)}
    padding = by["position 6"]
    assert padding.status == "pass"
    assert "not claimed on the left: measured " in padding.measured
    assert "could be claimed" not in padding.measured
    causal = run_checks(UNUSUAL["pool"], profile=CALM)[1]
    assert causal.status == "not claimed"
    assert float(causal.measured.removeprefix("measured ")) > 0.01


def test_a_claim_that_is_too_weak_gets_a_hint() -> None:
    weak = made_part("encoder", Recurrent, EncoderClaims())
    measured = Counter(
        "could be claimed" in result.measured
        for result in run_checks(weak, profile=CALM)
        if result.status == "not claimed"
    )
    assert measured[True] == 4  # causal twice, padding, batch_invariant


def test_it_is_said_when_no_rectangle_was_made() -> None:
    pool = made_part("encoder", Pool, EncoderClaims(False, BOTH_SIDES, True), Facts(causal=False))
    results = run_checks(pool, profile=CALM)
    assert "no rectangle was made" in results[3].measured
    made = run_checks(UNUSUAL["recurrent"], profile=CALM)[3]
    assert "rectangles were made" in made.measured


def test_checks_do_not_depend_on_order_or_on_the_default_generator() -> None:
    part = PARTS["sampler"][0]
    first = [(r.name, r.status, r.measured) for r in run_checks(part)]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = [(r.name, r.status, r.measured) for r in run_checks(part)]
    assert first == again
    assert torch.equal(state, torch.get_rng_state())


def test_profiles_and_options() -> None:
    assert list(PROFILES) == ["quick", "default", "thorough"]
    quick = evolve(PROFILES["quick"], examples=2, draws=200)
    component = Component("uniform", learning.Uniform, "recore.testing.tiny.learning:sampler", "Uniform.")
    part = part_of("sampler", component, "acme", learning.Uniform(count=7))
    results = run_checks(part, profile=quick)
    assert {result.part for result in results} == {"acme:uniform"}
    assert "K = 7" in results[1].measured
    assert all(result.seconds >= 0 for result in results)


def test_what_the_kit_cannot_do_it_says() -> None:
    with pytest.raises(ValueError, match="no checks of kind 'dataset'"):
        run_checks(PARTS["dataset"][0])

    class Strict(model.Blocks):
        def problems(self, facts: Facts) -> list[str]:
            return ["needs a crystal ball"]

    with pytest.raises(ValueError, match="suits no case of the kit: needs a crystal ball"):
        run_checks(evolve(PARTS["encoder"][0], options=Strict()))
    bare = Component("x", LossValue, "nowhere:x", "Options without defaults.")
    with pytest.raises(ValueError, match="options without a default"):
        part_of("loss", bare)


def test_a_missing_extra_is_named() -> None:
    code = """
        import sys
        sys.modules["hypothesis"] = None
        try:
            import recore.testing
        except ImportError as error:
            print(error)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == (
        "recore.testing needs hypothesis and pytest, and 'hypothesis' is not installed: "
        "pip install 'recore[testing]'"
    )


def test_layouts_and_histories_cover_what_they_promise() -> None:
    from hypothesis import find, settings

    from recore.testing.strategies import MOST_EXTRA, histories, interactions, layouts, ragged_batches

    calm = settings(database=None, deadline=None, max_examples=2000)
    widest = find(layouts(5, "left"), lambda one: one.width == 5 + MOST_EXTRA, settings=calm)
    assert widest.padding == "left"
    nan = find(layouts(5), lambda one: math.isnan(one.fill), settings=calm)
    assert nan.width == 5
    unknown = find(histories(unknown=True), lambda view: bool((view["item"] < 0).any()), settings=calm)
    assert unknown["token"][unknown["item"] < 0].tolist() == [1]
    smallest = find(ragged_batches(), lambda batch: True, settings=calm)
    assert smallest.views["user"].events == 1
    tied = find(
        interactions(times=True),
        lambda log: bool(log.events.select(pl.struct("user", "time").is_duplicated().any()).item()),
        settings=calm,
    )
    assert len(tied) == 2
    assert np.array_equal(tied.offsets(), [0, 2])
    assert View({"token": smallest.views["user"]["token"]}, smallest.views["user"].offsets).events == 1
