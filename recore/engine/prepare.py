"""From a recipe to what can be fitted: the data read, split and tokenised, all that only the data can tell checked.

Nothing is trained here and nothing written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from attrs import define, evolve

from recore.component import Context, Facts, Part
from recore.contracts.data import SplitParts, Tokenizer
from recore.contracts.learning import Trainer
from recore.contracts.scoring import Evaluator, Model
from recore.data import Interactions
from recore.engine.card import protocol_card
from recore.engine.drive import Fit
from recore.engine.evaluate import Examination
from recore.engine.machine import Machine
from recore.engine.report import Reporter
from recore.engine.rundir import RunFolder
from recore.errors import DataError, Problem, RecipeError
from recore.recipe import Recipe, make_builder


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

    def examination(self, part: Literal["validation", "test"]) -> Examination:
        """The questions of one part."""
        assert self.context.tokenizer is not None
        holdout = self.parts.validation if part == "validation" else self.parts.test
        trained = np.arange(self.context.tokenizer.items)
        if self.context.interactions is not None:
            trained = np.unique(self.context.tokenizer.item_ids(self.context.interactions.events["item"]))
        return Examination(self.log, holdout, self.context.tokenizer, part, self.seed, trained)

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


def read_log(recipe: Recipe, context: Context) -> tuple[Interactions, list[dict[str, Any]]]:
    """The log after all transforms, and what each transform left and dropped."""
    log = context.build(recipe.data).load(evolve(context, path=recipe.data.path))
    steps = []
    for part in recipe.transforms:
        log, dropped = context.build(part).apply(log)
        summary = log.summary()
        left = {key: summary[key] for key in ("events", "users", "items")}
        steps.append({"use": part.name, "dropped": dict(dropped.counts), "left": left})
        if not len(log):
            raise DataError(Problem("nothing is left of the log", where=part.where, path=part.path))
    return log, steps


def prepare(recipe: Recipe, seed: int, machine: Machine, tokenizer: Tokenizer | None = None) -> Prepared:
    """Read the data and check all that only the data can tell. A `tokenizer` that was saved is used as it is.

    Raises RecipeError and DataError, each with all problems at once.
    """
    machine.prepare()
    context = first_context(recipe, seed, machine)
    if not recipe.evaluators:
        raise RecipeError(
            Problem("expected at least one evaluator, got none", recipe.model.where, "evaluators")
        )
    evaluators: list[Evaluator] = [context.build(part) for part in recipe.evaluators]
    trainer: Trainer | None = context.build(recipe.trainer) if recipe.trainer else None
    _check_metric(recipe, evaluators, trainer)
    log, steps = read_log(recipe, context)
    parts: SplitParts = context.build(recipe.split).parts(log)
    if not len(parts.train):
        raise DataError(Problem("the training part is empty", recipe.split.where, recipe.split.path))
    if not len(parts.test):
        counts = ", ".join(f"{count:,} {what}" for what, count in parts.counts.items() if count)
        raise DataError(
            Problem("the test part holds no target", recipe.split.where, recipe.split.path, counts)
        )
    training = log.rows(parts.train)
    context = evolve(context, interactions=training)
    if tokenizer is None:
        tokenizer = context.build(tokenizer_of(recipe))
    facts = Facts(
        columns=frozenset(log.events.columns),
        items=tokenizer.items,
        tokens=tokenizer.tokens,
        users=len(training.offsets()) - 1,
        order_across_users=log.order_across_users,
    )
    context = evolve(context, tokenizer=tokenizer, facts=context.facts.merged(facts))
    problems = recipe.problems(facts)
    for part in recipe.parts():
        problems += [
            Problem(
                f"{part.kind} {part.component.name!r} reads the column {name!r}, which the data does not have",
                part.where,
                part.path,
                f"columns: {', '.join(log.events.columns)}",
            )
            for name in sorted(part.columns() - set(log.events.columns) - (recipe.facts.computed or set()))
        ]
    if problems:
        raise RecipeError(problems)
    metric = trainer.metric if trainer is not None and len(parts.validation) else None
    card = protocol_card(recipe, log, steps, parts, evaluators, metric, seed)
    return Prepared(recipe, seed, machine, log, steps, parts, context, evaluators, trainer, card)


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
    measured = {name for evaluator in evaluators for name in evaluator.formulas}
    if trainer.metric not in measured:
        raise RecipeError(
            Problem(
                f"expected one of the metrics that the evaluators measure ({', '.join(sorted(measured))}), "
                f"got {trainer.metric!r}",
                recipe.trainer.where,
                f"{recipe.trainer.path}.metric",
            )
        )
