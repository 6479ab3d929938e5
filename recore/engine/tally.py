"""Parts, sizes and speeds of one recipe, added up: the rows, the times and the memory of an estimate.

Legend: `T` events of a batch, `N` predictions, `V` items, `d` width, `P` parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from attrs import evolve, frozen

from recore.claims import LossClaims
from recore.component import Facts, Part
from recore.costs import Costs, Load, Product
from recore.engine.calibrate import Speed
from recore.engine.evaluate import Examination
from recore.engine.machine import Machine
from recore.engine.prepare import Prepared
from recore.engine.ranks import rank_block
from recore.engine.trial import Drawn, Questions, Trial, drawn, questions
from recore.engine.unstated import claimed, of_matrices
from recore.histories import cut_queries, tokenise
from recore.ragged import Layout
from recore.statistics import interval

MIB = 2**20
COPIES = (
    5  # numbers for each parameter while a checkpoint is written: the trainer copies two moments, then all is
)
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


def number_of(machine: Machine) -> int:
    return 8 if machine.precision == "float64" else 4


def told_parts(prepared: Prepared) -> list[tuple[Part[Any], Facts]]:
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
    facts = (facts if view == "user" else (facts.views or {}).get(view, facts)).merged(data)
    users = prepared.context.users
    if view == "item" and users is not None:
        facts = facts.merged(Facts(items=users.items, tokens=users.tokens, users=data.items))
    return facts


class Tally:
    """Parts, sizes and speeds of one recipe, added up."""

    def __init__(self, prepared: Prepared, made: Trial, speed: Speed) -> None:
        self.prepared, self.made, self.speed = prepared, made, speed
        self.recipe = prepared.recipe
        self.number = number_of(prepared.machine)
        self.notes: list[str] = []
        self.views = self.recipe.model.views()
        self.told = told_parts(prepared)
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
            evolve(
                loads.get(view, evolve(self.whole, view=view)),
                parameters=self.whole.parameters,
                terms=self._adds_terms(view),
            )
            for loads in (self.drawn.mean, self.drawn.largest)
        )
        found: list[Row] = []
        for number in range(max(1, len(entries))):
            sampler = entries[number].sampler if entries and part.kind == "loss" else None
            told = None if sampler is None else sampler.costs(facts, mean)
            if part.kind == "loss" and sampler is not None:
                drawing = told or Costs(negatives=1.0)
                mean, largest = (
                    evolve(load, negatives=drawing.negatives, shared=drawing.shared)
                    for load in (mean, largest)
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
            return claimed(part.claims, facts, load), "by its claim"
        maps = [shape for shape in shapes if len(shape) == 2 and shape[0] <= (facts.items or 0)]
        if part.kind in ("encoder", "position", "model") and shapes:
            return of_matrices(
                maps or [shape for shape in shapes if len(shape) == 2], load
            ), "by its matrices"
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
        tiles = self._adds_terms(view)
        each = self.speed.attention(costs.attention, lengths, layout, tiles, training)
        plan = self.speed.plan(lengths, layout) * events / max(sum(lengths), 1)
        return {"attention": each * events * costs.attention.times + plan}

    def _adds_terms(self, view: str) -> bool:
        """Whether some position of a view adds terms to attention."""
        return any(
            said.tiles
            for one, told in self.told
            if one.kind == "position" and self._view(one) == view
            for said in (one.costs(told, Load()),)
            if said is not None
        )

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
            facts = next(
                (f for part, f in self.told if self._view(part) == view and part.kind == "encoder"), None
            )
            facts = facts or self.prepared.context.facts
            lengths = of.lengths
            if view == "item":  # the users of its items: as many as are read, or as there are on average
                mean = len(self.prepared.log) / max(self.prepared.context.facts.items or 1, 1)
                lengths = np.full(len(of.queries), max(1, round(mean)), dtype=np.int64)
            layout = self.drawn.layout.get(view, Layout())
            found[view] = questions(of, facts, evolve(self.whole, view=view), layout, lengths)
        return found

    def _evaluation(
        self, parts: Sequence[Part[Any]], asked: Mapping[str, Questions] | None = None
    ) -> dict[str, float]:
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
                    taken |= self._attention(
                        costs, of.lengths, of.layout, view, of.load.events, training=False
                    )
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
        for part, evaluator in self._evaluators():
            said = self._measuring(part, evaluator.wants.view) if part in parts else None
            if said is not None:
                found["metrics"] = found.get("metrics", 0.0) + sum(self.speed.seconds(said, 0.0).values())
        return found

    def _measuring(self, part: Part[Any], view: str) -> Costs | None:
        """What an evaluator states of all questions of its view."""
        queries = self.asked[view].queries if view in self.asked else 0.0
        load = evolve(self.whole, predictions=queries, training=False, view=view)
        return part.costs(self.prepared.context.facts, load)

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
            "parameters, gradients, optimiser": weights * (2 if self.made.training is not None else 1)
            + always,
        }
        step = sum(row.kept for row in self.rows) + max((row.brief for row in self.rows), default=0.0)
        trains = self.made.training is not None
        sizes = (
            step / MIB if trains else 0.0,
            sum(self.asking().values()) / MIB,
            COPIES * weights if trains else 0.0,
        )
        passing = dict(zip(PASSING, sizes, strict=True))
        at_peak = max(passing, key=lambda name: passing[name])
        peak = sum(lasting.values()) + passing[at_peak]
        if reading > peak:
            at_peak, peak = "reading the data", reading
        return {**lasting, **passing, "reading the data": reading, "peak": peak}, at_peak

    def asking(self) -> dict[str, float]:
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
                "evaluators": sum(
                    said.brief
                    for part, evaluator in self._evaluators()
                    if evaluator.wants.view == view and (said := self._measuring(part, view)) is not None
                ),
            }
            if sum(found.values()) > sum(worst.values()):
                worst = found
        test = self.made.validation
        if worst and test is not None:  # the test's questions are as many, and are asked beside these
            worst["test's questions"] = float(
                test.queries.events.estimated_size() + 8 * len(test.seen.values)
            )
        return worst
