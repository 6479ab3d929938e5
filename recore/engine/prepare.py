"""From a recipe to what can be fitted: the data read, split and tokenised, all that only the data can tell checked.

Nothing is trained here and nothing written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from attrs import define, evolve, frozen

from recore.component import Context, Facts, Part
from recore.contracts.data import Holdout, SplitParts, Tokenizer
from recore.contracts.learning import Trainer
from recore.contracts.scoring import Evaluator, Model
from recore.data import Ids, Interactions
from recore.engine.bounds import beyond_bound
from recore.engine.card import protocol_card
from recore.engine.drive import Fit
from recore.engine.evaluate import Audience, Examination
from recore.engine.machine import Machine
from recore.engine.report import Reporter
from recore.engine.rundir import RunFolder
from recore.errors import DataError, Problem, RecipeError
from recore.recipe import Recipe, import_factories, make_builder


@frozen(eq=False)
class Terms:
    """What a run does beside its recipe. `fit_all`: all events train and nothing is held out. `epochs`: training
    stops after exactly so many. `trained`: `event` ids that the starting weights were trained on already, which
    are nobody's target any more."""

    fit_all: bool = False
    epochs: int | None = None
    trained: Ids | None = None


@define
class Prepared:
    """A recipe with its data read, split and tokenised; nothing is trained and nothing written."""

    recipe: Recipe
    seed: int
    machine: Machine
    log: Interactions
    steps: list[dict[str, Any]]
    parts: SplitParts
    context: Context
    evaluators: list[Evaluator]
    trainer: Trainer | None
    card: dict[str, Any]
    terms: Terms = Terms()

    def examination(self, part: Literal["validation", "test"]) -> Examination:
        """The questions of one part. Raises DataError where everything trains."""
        if self.terms.fit_all:
            raise DataError(
                f"this run trained on all events (--fit-all), so it has no {part} part; measure the run that chose "
                "its epochs"
            )
        assert self.context.tokenizer is not None
        holdout = self.parts.validation if part == "validation" else self.parts.test
        trained = np.arange(self.context.tokenizer.items)
        if self.context.interactions is not None:
            trained = np.unique(self.context.tokenizer.item_ids(self.context.interactions.events["item"]))
        audience = self.audience(part) if any(e.wants.view == "item" for e in self.evaluators) else None
        return Examination(self.log, holdout, self.context.tokenizer, part, self.seed, trained, audience)

    def audience(self, part: Literal["validation", "test"]) -> Audience:
        """The questions of one part from the other side. Known are the training events, and for the test the
        validation targets, where times say which of them were earlier."""
        rows, holdout = self.parts.train, self.parts.validation
        if part == "test":
            holdout = self.parts.test
            if self.log.order_across_users:
                rows = np.sort(np.concatenate([rows, self.parts.validation.target]))
        return Audience(self.log.rows(rows), self.log.events[holdout.target], part, self.seed)

    def fit(self, folder: RunFolder, reporter: Reporter) -> Fit:
        """What the model is given."""
        return Fit(
            recipe=self.recipe,
            context=self.context,
            machine=self.machine,
            folder=folder,
            validation=self.examination("validation") if len(self.parts.validation) else None,
            evaluators=self.evaluators,
            trainer=self.trainer,
            reporter=reporter,
            epochs=self.terms.epochs,
        )

    def model(self) -> Model:
        """The model, on its device. Its weights are drawn here, from the seed."""
        return build_model(self.recipe, self.context, self.machine)


def build_model(recipe: Recipe, context: Context, machine: Machine) -> Model:
    """Build the recipe's model and place it on the machine."""
    model: Model = context.build(recipe.model)
    if isinstance(model, torch.nn.Module):
        machine.place(model)
    return model


def first_context(recipe: Recipe, seed: int, machine: Machine) -> Context:
    """The context before any data is read."""
    return Context(seed=seed, facts=recipe.facts, builder=make_builder(recipe.plugins), device=machine.device)


def read_raw(recipe: Recipe, context: Context) -> Interactions:
    """The log as the data set gives it."""
    log: Interactions = context.build(recipe.data).load(evolve(context, path=recipe.data.path))
    return log


def read_log(
    recipe: Recipe, context: Context, raw: Interactions | None = None
) -> tuple[Interactions, list[dict[str, Any]]]:
    """The log after all transforms, and what each transform left and dropped."""
    log = read_raw(recipe, context) if raw is None else raw
    steps = []
    for part in recipe.transforms:
        log, dropped = context.build(part).apply(log)
        summary = log.summary()
        left = {key: summary[key] for key in ("events", "users", "items")}
        steps.append({"use": part.name, "dropped": dict(dropped.counts), "left": left})
        if not len(log):
            raise DataError(Problem("nothing is left of the log", where=part.where, path=part.path))
    return log, steps


def prepare(
    recipe: Recipe,
    seed: int,
    machine: Machine,
    tokenizer: Tokenizer | None = None,
    users: Tokenizer | None = None,
    terms: Terms | None = None,
    raw: Interactions | None = None,
    follow: Callable[[Interactions, Interactions], tuple[Tokenizer, Tokenizer | None]] | None = None,
) -> Prepared:
    """Read the data and check all that only the data can tell. A `tokenizer` that was saved is used as it is,
    and so is that of the `users`, which is there for a model that encodes items by their users. `raw`: the log as
    the data set gives it, where that is known already. `follow`: makes the tokenizer from the log and its
    training part, where an older one has to follow them.

    Raises RecipeError and DataError, each with all problems at once.
    """
    machine.prepare()
    import_factories(recipe.parts(), recipe.plugins)
    context = first_context(recipe, seed, machine)
    if not recipe.evaluators:
        raise RecipeError(
            Problem("expected at least one evaluator, got none", recipe.model.where, "evaluators")
        )
    evaluators: list[Evaluator] = [context.build(part) for part in recipe.evaluators]
    trainer: Trainer | None = context.build(recipe.trainer) if recipe.trainer else None
    _check_metric(recipe, evaluators, trainer)
    terms = terms or Terms()
    log, steps = read_log(recipe, context, raw)
    parts = split(recipe, context, log, terms)
    if not len(parts.train):
        raise DataError(Problem("the training part is empty", recipe.split.where, recipe.split.path))
    if not len(parts.test) and not terms.fit_all:
        counts = ", ".join(f"{count:,} {what}" for what, count in parts.counts.items() if count)
        raise DataError(
            Problem("the test part holds no target", recipe.split.where, recipe.split.path, counts)
        )
    training = log.rows(parts.train)
    context = evolve(context, interactions=training)
    if tokenizer is None:
        if follow is None:
            tokenizer = context.build(tokenizer_of(recipe))
        else:
            tokenizer, users = follow(log, training)
    parts = _count_retired(parts, log, tokenizer)
    if users is None and encodes_items(recipe):
        users = evolve(context, interactions=training.transposed()).build(tokenizer_of(recipe))
    facts = Facts(
        columns=frozenset(log.events.columns),
        items=tokenizer.items,
        tokens=tokenizer.tokens,
        users=len(training.offsets()) - 1,
        order_across_users=log.order_across_users,
    )
    context = evolve(context, tokenizer=tokenizer, users=users, facts=context.facts.merged(facts))
    problems = recipe.problems(facts)
    for part in recipe.parts():
        problems += [
            Problem(
                f"{part.kind} {part.component.name!r} reads the column {name!r}, which the data does not have",
                part.where,
                part.path,
                f"use data that has it, or another {part.kind}; columns: {', '.join(log.events.columns)}",
            )
            for name in sorted(part.columns() - set(log.events.columns) - (recipe.facts.computed or set()))
        ]
    if problems:
        raise RecipeError(problems)
    parts = evolve(parts, counts={**parts.counts, **beyond_bound(recipe, context, training, parts)})
    metric = trainer.metric if trainer is not None and len(parts.validation) else None
    card = protocol_card(recipe, log, steps, parts, evaluators, metric, seed)
    if terms.fit_all:
        given = f"after {terms.epochs} epochs, a number given beforehand"
        card["protocol"]["checkpoint"] = "after fitting" if terms.epochs is None else given
    if len(tokenizer.retired):
        card["protocol"]["candidates"] += f", without {len(tokenizer.retired):,} that are retired"
    return Prepared(recipe, seed, machine, log, steps, parts, context, evaluators, trainer, card, terms)


def split(recipe: Recipe, context: Context, log: Interactions, terms: Terms) -> SplitParts:
    """The recipe's split, or all events to train on; no target that the starting weights know already."""
    if terms.fit_all:
        nothing = np.zeros(0, dtype=np.int64)
        empty = Holdout(nothing, nothing, nothing)
        everything = np.arange(len(log), dtype=np.int64)
        return SplitParts(everything, empty, empty, "none: all events train, nothing is held out")
    parts: SplitParts = context.build(recipe.split).parts(log)
    return parts if terms.trained is None else _without_known(parts, log, terms.trained)


def _without_known(parts: SplitParts, log: Interactions, trained: Ids) -> SplitParts:
    """Targets whose events were trained on already go to the training part, and are counted."""
    event, train, counts, left = log.events["event"].to_numpy(), [parts.train], dict(parts.counts), {}
    for part, held in (("validation", parts.validation), ("test", parts.test)):
        known = np.isin(event[held.target], trained)
        counts[f"{part} targets that the starting weights were trained on, which train"] = int(known.sum())
        train.append(held.target[known])
        left[part] = Holdout(held.target[~known], held.start[~known], held.stop[~known])
    rows = np.sort(np.concatenate(train))
    return SplitParts(rows, left["validation"], left["test"], parts.name, counts)


def _count_retired(parts: SplitParts, log: Interactions, tokenizer: Tokenizer) -> SplitParts:
    if not len(tokenizer.retired):
        return parts
    ids = tokenizer.item_ids(log.events["item"])
    gone = np.isin(ids, tokenizer.retired)
    counts = {
        "events of retired items, which no model learns to predict": int(gone[parts.train].sum()),
        "validation targets that are retired items, hence ranked last": int(
            gone[parts.validation.target].sum()
        ),
        "test targets that are retired items, hence ranked last": int(gone[parts.test.target].sum()),
    }
    return evolve(parts, counts={**parts.counts, **counts})


def encodes_items(recipe: Recipe) -> bool:
    """Whether the model encodes items by their users, and so needs users numbered."""
    return recipe.facts.views is not None and "item" in recipe.facts.views


def tokenizer_of(recipe: Recipe) -> Part[Tokenizer]:
    """The recipe's tokenizer. Raises RecipeError where it sets none."""
    if recipe.tokenizer is None:
        raise RecipeError(
            Problem(
                "expected `tokenizer:`, which numbers the items for every model, got none",
                recipe.model.where,
                "tokenizer",
            )
        )
    return recipe.tokenizer


def _check_metric(recipe: Recipe, evaluators: Sequence[Evaluator], trainer: Trainer | None) -> None:
    """Every metric is measured once, and the trainer's is among them. Raises RecipeError."""
    first: dict[str, Part[Any]] = {}
    problems = []
    for part, evaluator in zip(recipe.evaluators, evaluators, strict=True):
        twice = [name for name in evaluator.formulas if name in first]
        if twice:
            message = f"measures {', '.join(twice)}, as {first[twice[0]].path} does already"
            problems.append(Problem(message, part.where, part.path, "a record holds each metric once"))
        first |= {name: part for name in evaluator.formulas if name not in first}
    if problems:
        raise RecipeError(problems)
    if trainer is None or recipe.trainer is None:
        return
    measured = {name for e in evaluators if e.wants.each_epoch for name in e.formulas}
    if trainer.metric not in measured:
        raise RecipeError(
            Problem(
                f"expected one of the metrics that the evaluators measure each epoch ({', '.join(sorted(measured))}), "
                f"got {trainer.metric!r}",
                recipe.trainer.where,
                f"{recipe.trainer.path}.metric",
            )
        )
