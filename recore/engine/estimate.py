"""What a run will need: parameters, memory and time, by a stated formula (docs/reference/estimate.md).

Sizes come from the data, which is really read, and from batches really drawn; speeds from `calibrate`; what a batch
costs from the parts, each of which may state its `costs`. No step is taken and nothing is written.

Legend: `T` events of a batch, `N` predictions, `V` items, `d` width, `P` parameters.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import numpy as np
import torch
from attrs import evolve, frozen

from recore.claims import LossClaims
from recore.component import Facts, Part
from recore.costs import Costs, Load, Product, linear
from recore.engine.calibrate import Speed
from recore.engine.evaluate import Examination
from recore.engine.machine import Machine, peak_memory_mib, processor, reset_peak_memory
from recore.engine.prepare import Prepared, prepare
from recore.engine.ranks import rank_block
from recore.engine.rundir import RunFolder
from recore.engine.trial import Drawn, Questions, Trial, drawn, questions, trial
from recore.errors import RecoreError, RunFolderError
from recore.histories import cut_queries, tokenise
from recore.ragged import Layout
from recore.recipe import Recipe
from recore.statistics import interval

MIB = 2**20
GROUPS = ("batches", "encoder", "sampler", "loss", "optimiser", "evaluation")
PASSING = ("a training step", "an evaluation", "a checkpoint")  # moments of which the largest counts
OF_KIND = {  # which share of an epoch a part's time belongs to; batches are timed
    "embedder": "encoder",
    "position": "encoder",
    "encoder": "encoder",
    "model": "encoder",
    "sampler": "sampler",
    "loss": "loss",
    "trainer": "optimiser",
}
Stated = Literal["stated", "by its claim", "by its matrices", "not stated"]


@frozen
class Row:
    """One part: `seconds` of an epoch by what they are spent on, bytes `kept` to the backward pass, `brief` and
    `always` beside its trained `parameters`, which are counted in what was built; `stated`: whose word it is."""

    path: str
    use: str
    kind: str
    group: str
    stated: Stated
    seconds: Mapping[str, float]
    kept: float
    brief: float
    always: float
    parameters: int
    large: str = ""
    instead: str = ""

    @property
    def total(self) -> float:
        """Seconds of an epoch."""
        return sum(self.seconds.values())


@frozen
class Estimate:
    """An estimate. `seconds`: of an epoch, by group; `once`: seconds that a run takes whatever its epochs are;
    `memory`: MiB, the first three always, of the `passing` ones the largest, which is `at_peak`; `evaluating`:
    seconds of an epoch's evaluation by what they are spent on, as those of the rows on an idle machine; `busy`:
    by how much all other seconds are longer because others have the cores; `sizes`: what was counted with."""

    passing: ClassVar[tuple[str, ...]] = PASSING

    recipe: str
    cell: str
    seed: int
    machine: Mapping[str, Any]
    data: Mapping[str, Any]
    sizes: Mapping[str, Any]
    parameters: Mapping[str, int]
    rows: Sequence[Row]
    seconds: Mapping[str, float]
    once: Mapping[str, float]
    epochs: int
    memory: Mapping[str, float]
    at_peak: str
    evaluating: Mapping[str, float]
    advice: Sequence[str]
    notes: Sequence[str]
    busy: float
    took: float

    @property
    def epoch(self) -> float:
        """Seconds of an epoch, validation included."""
        return sum(self.seconds.values())

    @property
    def total(self) -> float:
        """Seconds of the run, if it goes on to its last epoch."""
        return self.epoch * self.epochs + sum(self.once.values())

    @property
    def peak(self) -> float:
        """MiB."""
        return self.memory["peak"]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = attrs.asdict(self)
        plain |= {"epoch": self.epoch, "total": self.total, "peak_memory_mib": self.peak}
        return plain


def used(folder: RunFolder) -> dict[str, Any]:
    """What a run measured so far: mean seconds of its epochs, peak memory, epochs; and its machine, if it is not
    this one."""
    lines = folder.metrics()
    if not lines:
        raise RunFolderError(f"{folder.path} has measured nothing yet: its first epoch has not ended")
    about = folder.json("run.json")["machine"]
    peak = max(line["peak_memory_mib"] for line in lines)
    if folder.finished:
        peak = max(peak, folder.json("record.json")["peak_memory_mib"])
    mean = {key: float(np.mean([line[key] for line in lines])) for key in ("seconds", "validation_seconds")}
    return {
        **mean,
        "epoch": sum(mean.values()),
        "epochs": len(lines),
        "peak_memory_mib": peak,
        "other machine": "" if about["processor"] == processor() else about["processor"],
    }


def resident_mib() -> float:
    """What this process holds now, in MiB; its peak where the system does not tell."""
    try:
        return int(Path("/proc/self/status").read_text().split("VmRSS:", 1)[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return peak_memory_mib()


def estimate(recipe: Recipe, seed: int, machine: Machine) -> Estimate:
    """Estimate a run of a recipe on this machine. Raises what `prepare` raises, and RecoreError where the
    parameters alone would not fit into memory."""
    begun = time.perf_counter()
    reset_peak_memory()
    _warm(machine)
    start = min(10.0, time.process_time())  # of interpreter, torch and plugins: a run starts alike
    base = resident_mib()
    started = time.perf_counter()
    prepared = prepare(recipe, seed, machine)
    reading = time.perf_counter() - started
    reading_peak = peak_memory_mib()
    _fits(prepared)
    made = trial(prepared)
    held = resident_mib()
    sheet = _Sheet(prepared, made, Speed(machine))
    seconds, once = sheet.times()
    busy = sheet.speed.busy
    seconds = {name: value * busy for name, value in seconds.items()}
    once = {name: value * busy for name, value in {"start": start, **once}.items()}
    once["reading"] = reading
    memory, at_peak = sheet.memory(base, held, reading_peak)
    advice = sheet.advice(seconds, memory, at_peak)
    return Estimate(
        recipe.name,
        recipe.cell,
        seed,
        machine.describe(),
        prepared.log.summary(),
        sheet.sizes(),
        sheet.parameters,
        sheet.rows,
        seconds,
        once,
        prepared.trainer.last_epoch if prepared.trainer is not None else 0,
        memory,
        at_peak,
        sheet.evaluating,
        advice,
        sheet.notes,
        busy,
        time.perf_counter() - begun,
    )


def _warm(machine: Machine) -> None:
    """Let torch import and set up what it only does at a first step, so that it counts as torch."""
    machine.prepare()
    weight = torch.nn.Parameter(torch.zeros(64, 64, dtype=getattr(torch, machine.precision), device=machine.device))
    optimiser = torch.optim.Adam([weight])
    torch.autograd.backward((weight @ weight).sum())
    optimiser.step()


def _fits(prepared: Prepared) -> None:
    """Raises RecoreError where what the parts state of their parameters cannot be held, before it is built."""
    available = _available_mib()
    stated = []
    for part, facts in _told(prepared):
        costs = part.costs(facts, Load(number=_number(prepared.machine)))
        if costs is not None and costs.parameters:
            stated.append((costs.parameters * _number(prepared.machine) * 4 / MIB, part))
    need = sum(size for size, _ in stated)
    if available is not None and need > available:
        size, part = max(stated, key=lambda one: one[0])
        raise RecoreError(
            f"{prepared.recipe.name}: weights, gradients and moments take {_size(need)}, of which "
            f"{_size(size)} are {part.kind} {part.name!r} ({part.path}), and {_size(available)} are free here: "
            "expected a recipe that fits (a smaller width, fewer items, or another machine)"
        )


def _available_mib() -> float | None:
    try:
        return int(Path("/proc/meminfo").read_text().split("MemAvailable:", 1)[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return None


def _number(machine: Machine) -> int:
    return 8 if machine.precision == "float64" else 4


def _told(prepared: Prepared) -> list[tuple[Part[Any], Facts]]:
    """Every part of the recipe with the facts that it is told, data included."""
    recipe, known = prepared.recipe, prepared.context.facts
    data = Facts(
        columns=known.columns,
        items=known.items,
        tokens=known.tokens,
        users=known.users,
        order_across_users=known.order_across_users,
    )
    views = recipe.model.views()
    told: dict[int, Facts] = {
        id(part): of_view(recipe.facts, view, data, prepared) for part in recipe.parts()
        for view in (views.get(id(part), "user"),)
    }  # fmt: skip
    for entry in recipe.losses:
        own = of_view(entry.facts, entry.view, data, prepared)
        for top in (entry.part, entry.sampler):
            told |= {id(one): own for one in (top, *top.parts())} if top is not None else {}
    return [(part, told[id(part)]) for part in recipe.parts()]


def of_view(facts: Facts, view: str, data: Facts, prepared: Prepared) -> Facts:
    """The facts of a view, with those of the data as seen from it: the items of the view `item` are users."""
    facts = (facts.views or {}).get(view, facts).merged(data)
    users = prepared.context.users
    if view == "item" and users is not None:
        facts = facts.merged(Facts(items=users.items, tokens=users.tokens, users=data.items))
    return facts


class _Sheet:
    """Parts, sizes and speeds of one recipe, added up."""

    def __init__(self, prepared: Prepared, made: Trial, speed: Speed) -> None:
        self.prepared, self.made, self.speed = prepared, made, speed
        self.recipe = prepared.recipe
        self.number = _number(prepared.machine)
        self.notes: list[str] = []
        self.views = self.recipe.model.views()
        self.told = _told(prepared)
        self.drawn = Drawn(0) if made.training is None else drawn(made.training, self.number)
        if made.training is None:
            self.notes.append(
                f"model {self.recipe.model.name!r} does not train by steps: what its fit takes is not estimated"
            )
        self.whole = Load(
            parameters=sum(int(np.prod(shape)) for shape in self._shapes()),
            tensors=len(self._shapes()),
            number=self.number,
        )
        self.rows = [row for part, facts in self.told for row in self._rows(part, facts)]
        self.asked = self._questions(made.validation)

    # ---- what there is

    def _shapes(self) -> list[tuple[int, ...]]:
        if self.made.training is not None:
            return [tuple(p.shape) for p in self.made.training.parameters.values()]
        model = self.made.model
        return [tuple(p.shape) for p in model.parameters()] if isinstance(model, torch.nn.Module) else []

    @property
    def parameters(self) -> dict[str, int]:
        """Trained numbers by part."""
        return {row.path: row.parameters for row in self.rows if row.parameters}

    def sizes(self) -> dict[str, Any]:
        """What was counted with."""
        return {
            "batches": self.drawn.count,
            "of a batch": {view: attrs.asdict(load) for view, load in self.drawn.mean.items()},
            "parameters": round(self.whole.parameters),
            "questions": {view: asked.queries for view, asked in self.asked.items()},
            "candidates": {view: asked.items for view, asked in self.asked.items()},
        }

    def _view(self, part: Part[Any]) -> str:
        return self.views.get(id(part), "user")

    def _rows(self, part: Part[Any], facts: Facts) -> list[Row]:
        """The row of a part that takes time or memory in a step; none for the others."""
        group = OF_KIND.get(part.kind)
        if group is None:
            return []
        shapes = self.made.matrices(part)
        parameters = sum(int(np.prod(shape)) for shape in shapes)
        if part.kind == "model" and part.costs(facts, Load()) is None and not parameters:
            return []  # its parts say it all
        view = self._view(part)
        entries = [e for e in self.recipe.losses if part in (e.part, e.sampler)]
        if entries:
            view = entries[0].view
        mean, largest = (
            evolve(loads.get(view, evolve(self.whole, view=view)), parameters=self.whole.parameters)
            for loads in (self.drawn.mean, self.drawn.largest)
        )
        found: list[Row] = []
        for number in range(max(1, len(entries))):
            sampler = entries[number].sampler if entries and part.kind == "loss" else None
            told = None if sampler is None else sampler.costs(facts, mean)
            if part.kind == "loss" and sampler is not None:
                drawing = told or Costs(negatives=1.0)
                mean, largest = (
                    evolve(load, negatives=drawing.negatives, shared=drawing.shared) for load in (mean, largest)
                )
            costs, stated = self._costs(part, facts, mean, shapes)
            at_most, _ = self._costs(part, facts, largest, shapes)
            seconds = self._seconds(part, facts, costs, mean)
            found.append(
                Row(
                    part.path,
                    part.name,
                    part.kind,
                    group,
                    stated,
                    {name: value * self.drawn.count for name, value in seconds.items()},
                    at_most.kept,
                    at_most.brief,
                    costs.always + costs.state * self.whole.parameters * self.number,
                    parameters,
                    at_most.large,
                    at_most.instead,
                )
            )
            if stated not in ("stated", "by its claim"):
                how = {
                    "not stated": "nothing of it is counted but its parameters",
                    "by its matrices": "it is taken as its matrices applied to every event",
                }[stated]
                self.notes.append(f"{part.kind} {part.name!r} ({part.path}) does not state its costs: {how}")
        return found

    def _costs(
        self, part: Part[Any], facts: Facts, load: Load, shapes: list[tuple[int, ...]]
    ) -> tuple[Costs, Stated]:
        """What a part says of itself, or what can be said for it."""
        own = part.costs(facts, load)
        if own is not None:
            return own, "stated"
        if part.kind == "loss" and isinstance(part.claims, LossClaims):
            return _claimed(part.claims, facts, load), "by its claim"
        maps = [shape for shape in shapes if len(shape) == 2 and shape[0] <= (facts.items or 0)]
        if part.kind in ("encoder", "position", "model") and shapes:
            return _of_matrices(maps or [shape for shape in shapes if len(shape) == 2], load), "by its matrices"
        if part.kind == "embedder":
            width = facts.width or 0
            size = load.events * width * load.number
            return Costs(gathered=2 * size, moved=3 * size, calls=20, kept=2 * size), "by its matrices"
        return Costs(), "not stated"

    # ---- time

    def _seconds(self, part: Part[Any], facts: Facts, costs: Costs, load: Load) -> dict[str, float]:
        """Seconds of one batch in training."""
        size = max(load.cells, 1.0) * (facts.width or 64) * self.number
        found = self.speed.seconds(costs, size)
        view = load.view
        if costs.attention is not None and view in self.drawn.lengths and load.events:
            lengths, layout = self.drawn.lengths[view], self.drawn.layout[view]
            found |= self._attention(costs, lengths, layout, view, load.events, training=True)
        return found

    def _attention(
        self, costs: Costs, lengths: list[int], layout: Layout, view: str, events: float, training: bool
    ) -> dict[str, float]:
        assert costs.attention is not None
        tiles = any(
            said.tiles
            for one, told in self.told
            if one.kind == "position" and self._view(one) == view
            for said in (one.costs(told, Load()),)
            if said is not None
        )
        each = self.speed.attention(costs.attention, lengths, layout, tiles, training)
        plan = self.speed.plan(lengths, layout) * events / max(sum(lengths), 1)
        return {"attention": each * events * costs.attention.times + plan}

    def times(self) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds of an epoch by group; and of what is done once, in the end."""
        seconds = {group: sum(row.total for row in self.rows if row.group == group) for group in GROUPS}
        seconds["batches"] = self.drawn.seconds * self.drawn.count + self.drawn.first
        epoch = [part for part, e in self._evaluators() if e.wants.each_epoch]
        every = [part for part, _ in self._evaluators()]
        self.evaluating = self._evaluation(epoch)
        seconds["evaluation"] = sum(self.evaluating.values())
        final = sum(self._evaluation(every).values())
        test = final if self.asked else sum(self._evaluation(every, self._test()).values())
        once = {"test and a last validation": test + final, "intervals": self._intervals()}
        return seconds, once

    def _evaluators(self) -> list[tuple[Part[Any], Any]]:
        return list(zip(self.recipe.evaluators, self.prepared.evaluators, strict=True))

    def _test(self) -> dict[str, Questions]:
        return self._questions(self.prepared.examination("test"))

    def _questions(self, of: Examination | None) -> dict[str, Questions]:
        """The questions of a part, by view: an item's answer to who is next counts as the view `item`."""
        if of is None:
            return {}
        found: dict[str, Questions] = {}
        for view in dict.fromkeys(e.wants.view for e in self.prepared.evaluators):
            facts = next((f for part, f in self.told if self._view(part) == view and part.kind == "encoder"), None)
            facts = facts or self.prepared.context.facts
            lengths = of.lengths
            if view == "item":  # the users of its items: as many as are read, or as there are on average
                mean = len(self.prepared.log) / max(self.prepared.context.facts.items or 1, 1)
                lengths = np.full(len(of.queries), max(1, round(mean)), dtype=np.int64)
            layout = self.drawn.layout.get(view, Layout())
            found[view] = questions(of, facts, evolve(self.whole, view=view), layout, lengths)
        return found

    def _evaluation(self, parts: Sequence[Part[Any]], asked: Mapping[str, Questions] | None = None) -> dict[str, float]:
        """Seconds of asking these evaluators once, by what they are spent on."""
        found: dict[str, float] = {}
        wanted = {e.wants.view for part, e in self._evaluators() if part in parts}
        for view, of in (self.asked if asked is None else asked).items():
            if view not in wanted or not of.queries:
                continue
            encoding = 0.0
            for part, facts in self.told:
                if self._view(part) != view or OF_KIND.get(part.kind) != "encoder":
                    continue
                costs, _ = self._costs(part, facts, of.load, self.made.matrices(part))
                size = max(of.load.cells, 1.0) * (facts.width or 64) * self.number
                taken = self.speed.seconds(costs, size)
                if costs.attention is not None and of.load.events:
                    taken |= self._attention(costs, of.lengths, of.layout, view, of.load.events, training=False)
                encoding += sum(taken.values()) * of.batches
            width = self._width(view)
            rounds = of.queries / of.block
            size = of.block * of.items * self.number
            score = Costs((Product(of.block, width, of.items, rounds),) if width else (), moved=size * rounds)
            found["encoding"] = found.get("encoding", 0.0) + encoding
            found["scores"] = found.get("scores", 0.0) + sum(self.speed.seconds(score, size).values())
            found["ranks"] = found.get("ranks", 0.0) + self._ranking(of) * of.queries * of.items * len(
                {e.wants.seen for part, e in self._evaluators() if part in parts and e.wants.view == view}
            )
            found["ids"] = found.get("ids", 0.0) + self._reading() * of.load.events * of.batches
        whole = evolve(self.whole, predictions=sum(of.queries for of in self.asked.values()), training=False)
        for part in parts:
            said = part.costs(self.prepared.context.facts, whole)
            if said is not None:
                found["metrics"] = found.get("metrics", 0.0) + sum(self.speed.seconds(said, 0.0).values())
        return found

    def _width(self, view: str) -> int:
        """d of a view's states, 0 where nobody says."""
        widths = [facts.width for part, facts in self.told if self._view(part) == view and facts.width]
        return widths[0] if widths else 0

    def _ranking(self, of: Questions) -> float:
        """Seconds to rank a target among one candidate, timed on a million scores."""
        rows = max(1, min(of.queries, 2**20 // of.items))

        def measure() -> float:
            scores = torch.rand(rows, of.items, generator=torch.Generator().manual_seed(0))
            targets, order = torch.zeros(rows, dtype=torch.int64), torch.arange(of.items)
            k = max((e.wants.k for e in self.prepared.evaluators), default=10)
            return self.speed.timed(lambda: rank_block(scores, targets, None, order, k)) / scores.numel()

        return self.speed.once(("rank", rows, of.items), measure)

    def _reading(self) -> float:
        """Seconds to look up the id of one event of a question, timed on some."""
        of = self.made.validation
        if of is None or not len(of.queries):
            return 0.0

        def measure() -> float:
            tokenizer, some = self.prepared.context.tokenizer, of.queries.block(0, min(len(of.queries), 1024))
            assert tokenizer is not None
            last = self.prepared.context.facts.history
            reach = int(last) if last not in (None, "all") else max(int(of.lengths.max()), 1)

            def read() -> None:
                cut = cut_queries(some, reach)
                tokenise(cut.events, cut.offsets, tokenizer, self._columns())

            read()
            events = int(np.minimum(np.diff(some.offsets), reach).sum())
            return self.speed.timed(read) / max(events, 1)

        return self.speed.once("ids", measure)

    def _columns(self) -> frozenset[str]:
        return self.recipe.columns - (self.recipe.facts.computed or frozenset())

    def _intervals(self) -> float:
        """Seconds of the intervals of all metrics, one of them timed."""
        users = len(self.prepared.parts.test)
        metrics = sum(len(evaluator.formulas) for evaluator in self.prepared.evaluators)
        values = np.random.default_rng(0).random(users)
        ids = self.prepared.log.events["user"].gather(self.prepared.parts.test.target)
        return self.speed.timed(lambda: interval(values, seed=0, users=ids)) * metrics

    # ---- memory

    def memory(self, base: float, held: float, reading: float) -> tuple[dict[str, float], str]:
        """MiB by what they are for, and which of the passing ones is at the peak."""
        weights = self.whole.parameters * self.number / MIB
        always = sum(row.always for row in self.rows) / MIB
        lasting = {
            "interpreter, torch, plugins": base,
            "log, histories, questions": max(held - base - weights, 0.0),
            "parameters, gradients, optimiser": weights * (2 if self.made.training is not None else 1) + always,
        }
        step = sum(row.kept for row in self.rows) + max((row.brief for row in self.rows), default=0.0)
        trains = self.made.training is not None
        # A checkpoint: copies of the moments by the trainer, of all state, of what is written, of what is read.
        sizes = (step / MIB if trains else 0.0, sum(self._asking().values()) / MIB, 8 * weights if trains else 0.0)
        passing = dict(zip(PASSING, sizes, strict=True))
        at_peak = max(passing, key=lambda name: passing[name])
        peak = sum(lasting.values()) + passing[at_peak]
        if reading > peak:
            at_peak, peak = "reading the data", reading
        return {**lasting, **passing, "reading the data": reading, "peak": peak}, at_peak

    def _asking(self) -> dict[str, float]:
        """Bytes held for a moment in an evaluation."""
        worst: dict[str, float] = {}
        for view, of in self.asked.items():
            encoding = max(
                (
                    self._costs(part, facts, of.largest, self.made.matrices(part))[0].brief
                    for part, facts in self.told
                    if self._view(part) == view and OF_KIND.get(part.kind) == "encoder"
                ),
                default=0.0,
            )
            found = {
                "encoding": encoding,
                "scores": float(of.block * of.items * self.number),
                "ids": 96.0 * of.largest.events,
            }
            if sum(found.values()) > sum(worst.values()):
                worst = found
        test = self.made.validation
        if worst and test is not None:  # the test's questions are as many, and are asked beside these
            worst["test's questions"] = float(test.queries.events.estimated_size() + 8 * len(test.seen.values))
        return worst

    # ---- what to change

    def advice(self, seconds: Mapping[str, float], memory: Mapping[str, float], at_peak: str) -> list[str]:
        """A line for each part that takes much of the whole, and what to change."""
        found = []
        for size, what, instead in self._large(memory, at_peak):
            share = size / memory["peak"]
            if (share >= 0.25 and size >= 128) or size >= 2048:
                remedy = f": {instead}" if instead else ""
                found.append(f"{share:.0%} of memory, {_size(size)}, is {what}{remedy}")
        total = sum(seconds.values())
        for group in GROUPS:
            share = seconds[group] / total if total else 0.0
            if share < 0.5:
                continue
            row = max(
                (row for row in self.rows if row.group == group), key=lambda row: row.total, default=None
            )
            if group == "evaluation":
                of = max(self.asked.values(), key=lambda one: one.queries * one.items)
                found.append(
                    f"{share:.0%} of the time of an epoch is evaluation, {of.queries:,} questions against "
                    f"{of.items:,} candidates: a cheaper encoder or loss saves little"
                )
            elif row is not None and row.total:
                remedy = f": {row.instead}" if row.instead else ""
                calls = row.seconds.get("calls", 0.0) / row.total
                if calls > 0.5:
                    remedy = ": small steps, mostly the overhead of calls; take more histories to a batch"
                found.append(
                    f"{share:.0%} of the time of an epoch is {row.large or 'the work'} of {row.kind} "
                    f"{row.use!r}{remedy}"
                )
        for view, load in self.drawn.mean.items():
            if load.events and load.cells > 1.5 * load.events:
                found.append(
                    f"{1 - load.events / load.cells:.0%} of the rows that the view {view!r} computes are padding: a "
                    "batcher that asks for no rectangle computes none of them"
                )
        return found

    def _large(self, memory: Mapping[str, float], at_peak: str) -> list[tuple[float, str, str]]:
        """MiB, what it is, and what to change, largest first."""
        found = []
        state = sum(row.always for row in self.rows) / max(self.whole.parameters, 1.0)
        copies = 8 * self.number if at_peak == "a checkpoint" else 0
        brief = max(self.rows, key=lambda row: row.brief, default=None)
        for row in self.rows:
            trained = row.parameters * (2 * self.number + state + copies) / MIB
            named = f"{row.kind} {row.use!r}"
            written = " (and its copies while a checkpoint is written)" if copies else ""
            what = "the embedding table" if row.kind == "embedder" else "the parameters"
            found.append(
                (trained, f"{what} of {named} with gradient and moments{written}", row.instead)
            )
            if at_peak == "a training step":
                size = (row.kept + (row.brief if row is brief else 0.0)) / MIB
                found.append((size, f"{row.large or 'what the backward pass needs'} of {named}", row.instead))
        if at_peak == "an evaluation":
            for what, size in self._asking().items():
                found.append((size / MIB, f"the {what} of an evaluation's block", ""))
        found.append(
            (
                memory["log, histories, questions"],
                "the log, its histories and the questions",
                "a shorter log (transforms), or fewer columns",
            )
        )
        return sorted(found, key=lambda one: -one[0])


def _claimed(claims: LossClaims, facts: Facts, load: Load) -> Costs:
    """What a loss that states no costs takes by its claim of memory: `full` holds N × V scores and their
    probabilities; `blocks` the same work a block at a time; `negatives` N × K."""
    width, items, count = facts.width or 0, facts.items or 0, load.predictions
    others = load.negatives + 1 if claims.memory == "negatives" else items
    scores = count * others
    gradients = (count + items) * width
    held = {"full": scores, "blocks": 0.0, "negatives": scores * width}[claims.memory]
    brief = {"full": 2 * scores, "blocks": min(count, 512.0) * items, "negatives": scores * width}[claims.memory]
    products = () if claims.memory == "negatives" else linear(count, width, items, load.training)
    return Costs(
        products=products,
        gathered=2 * scores * width * load.number if claims.memory == "negatives" else 0.0,
        moved=(12 * scores + 4 * gradients) * load.number,
        exponentials=scores,
        calls=40,
        kept=(held + gradients) * load.number,
        brief=(brief + gradients) * load.number,
        large=f"N × {'K' if claims.memory == 'negatives' else 'V'} scores, {count:,.0f} predictions of "
        f"{others:,.0f} items",
        instead={
            "full": "use a blocked loss, one that claims `memory: blocks`, or one with negatives",
            "blocks": "a loss with negatives is faster with many items",
            "negatives": "fewer negatives",
        }[claims.memory],
    )


def _of_matrices(shapes: Sequence[tuple[int, ...]], load: Load) -> Costs:
    """A part that states nothing, taken as its matrices applied to every event, one after another."""
    products: list[Product] = []
    for columns, inner in shapes:
        products += linear(load.cells, inner, columns, load.training)
    numbers = load.cells * sum(inner + columns for columns, inner in shapes)
    return Costs(
        products=tuple(products),
        moved=4 * numbers * load.number,
        calls=20.0 * len(shapes),
        kept=2 * numbers * load.number,
        brief=numbers * load.number,
        large="the matrices, on every event,",
    )


def _size(mib: float) -> str:
    """`1.5 GiB`, `120 MiB`."""
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
