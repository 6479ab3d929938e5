"""A run from beginning to end: read, split, build, fit, measure, record. Also resume and reopen.

prepare   reads the data and checks what only the data can tell; writes nothing
run       makes the folder, then goes on as resume does
reopen    a finished run's scorer, for evaluate and recommend
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from attrs import define, evolve

from recore.component import Context, Facts, Part
from recore.contracts.data import SplitParts, Tokenizer
from recore.contracts.learning import Trainer
from recore.contracts.scoring import Evaluator, Model, Scorer
from recore.data import Interactions
from recore.engine.card import protocol_card
from recore.engine.drive import Fit, Interrupted
from recore.engine.evaluate import Examination
from recore.engine.machine import Machine, reset_peak_memory
from recore.engine.record import make_record
from recore.engine.report import Reporter, Silent
from recore.engine.rundir import FORMAT, RunFolder, remove, write_aside, write_json
from recore.errors import DataError, Problem, RecipeError, RunFolderError
from recore.frames import as_polars
from recore.recipe import Recipe, from_tree, make_builder, to_yaml, with_frames


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
        tokenizer = context.build(_tokenizer_of(recipe))
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


def _tokenizer_of(recipe: Recipe) -> Part[Tokenizer]:
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


def run(
    recipe: Recipe, seed: int, machine: Machine, root: Path, reporter: Reporter | None = None
) -> RunFolder:
    """One recipe, one cell, one seed: a finished run folder under `root`."""
    reporter = reporter or Silent()
    reset_peak_memory()
    prepared = prepare(recipe, seed, machine)
    model = prepared.model()
    identity = json.dumps([recipe.tree, recipe.cell, seed], sort_keys=True, default=str)
    folder = RunFolder.new(root, recipe.name, recipe.cell, hashlib.sha256(identity.encode()).hexdigest()[:8])
    folder.publish(lambda path: _start(path, prepared))
    with folder.held():
        _announce(prepared, model, folder, reporter)
        return _go_on(prepared, model, folder, reporter)


def resume(path: Path, machine: Machine | None = None, reporter: Reporter | None = None) -> RunFolder:
    """Take a run up where it stopped; the end is the same as without the stop. A finished run is left as it
    is. Raises RunFolderError when the data or a plugin is not what the run began with."""
    reporter = reporter or Silent()
    folder = RunFolder.open(path)
    if folder.finished:
        reporter.note(f"{folder.path} is finished already")
        return folder
    reset_peak_memory()
    with folder.held():
        changed = other_code(recipe_of(folder), folder)
        if changed:
            raise RunFolderError(
                f"{folder.path} began with other code of {', '.join(changed)}, so it would not end with the "
                "same numbers; put that code back, or run anew"
            )
        about = folder.json("run.json")
        # As many threads as it had, for the same numbers, where it was left to torch.
        threads = about["options"]["threads"] or about["machine"]["cores"]
        prepared = _again(folder, machine or Machine(**{**about["options"], "threads": threads}))
        return _go_on(prepared, prepared.model(), folder, reporter)


def _again(folder: RunFolder, machine: Machine) -> Prepared:
    """The run's recipe over its data, checked to be the same as when it began."""
    about = folder.json("run.json")
    recipe = recipe_of(folder)
    tokenizer = saved_tokenizer(recipe, folder, about["seed"], machine)
    prepared = prepare(recipe, about["seed"], machine, tokenizer)
    before, now = folder.json("card.json")["protocol"], _plain(prepared.card["protocol"])
    changed = [key for key in before if before[key] != now.get(key)]
    if changed:
        raise RunFolderError(
            f"{folder.path}: {', '.join(changed)} differ from when the run began (is the data the same?)"
        )
    return prepared


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


def recipe_of(folder: RunFolder) -> Recipe:
    """The resolved recipe of a run, with its loose plugins. Raises RecipeError where a part is gone."""
    about = folder.json("run.json")
    loose = [folder.path / name for name in about["loose"]]
    return from_tree(folder.path / "recipe.yaml", name=about["recipe"], cell=about["cell"], loose=loose)


def other_code(recipe: Recipe, folder: RunFolder) -> list[str]:
    """The plugins whose code is not that with which the run began, in words."""
    held = {entry["name"]: entry for entry in recipe.provenance()}
    changed = []
    for entry in folder.json("run.json")["plugins"]:
        now = held.get(entry["name"], {"version": "missing", "sha256": ""})
        if now["sha256"] != entry["sha256"]:
            same = now["version"] == entry["version"]
            changed.append(
                f"{entry['name']} {entry['version']} ({'edited' if same else 'now ' + now['version']})"
            )
    return changed


def saved_tokenizer(recipe: Recipe, folder: RunFolder, seed: int, machine: Machine) -> Tokenizer:
    """The run's own tokenizer, from its folder."""
    context = evolve(first_context(recipe, seed, machine), folder=folder.path / "tokenizer")
    return context.build(_tokenizer_of(recipe))


def _start(path: Path, prepared: Prepared) -> None:
    """What a run folder holds before the first step."""
    recipe, machine = prepared.recipe, prepared.machine
    path.mkdir(parents=True)
    tree, loose = _keep_files(recipe, path)
    (path / "recipe.yaml").write_text(to_yaml(tree), encoding="utf-8")
    about = {
        "format": FORMAT,
        "recipe": recipe.name,
        "cell": recipe.cell,
        "seed": prepared.seed,
        "options": {"device": machine.device, "precision": machine.precision, "threads": machine.threads},
        "machine": machine.describe(),
        "plugins": recipe.provenance(),
        "loose": loose,
        "data": prepared.log.summary(),
        "split": dict(prepared.parts.counts),
        "facts": {
            "columns": sorted(prepared.context.facts.columns or ()),
            "users": prepared.context.facts.users,
            "order_across_users": prepared.context.facts.order_across_users,
        },
    }
    write_json(path / "run.json", about)
    write_json(path / "card.json", prepared.card)
    assert prepared.context.tokenizer is not None
    (path / "tokenizer").mkdir()
    prepared.context.tokenizer.save_pretrained(path / "tokenizer")
    if prepared.log.items is not None:
        prepared.log.items.write_parquet(path / "items.parquet")


def _keep_files(recipe: Recipe, path: Path) -> tuple[Any, list[str]]:
    """Loose plugins and data frames, copied into the run so that it can be taken up from its folder alone:
    the recipe's tree with the frames' files in their places, and the names of the loose files."""
    loose = []
    for provider in recipe.providers:
        if provider.loose is not None and provider.source is not None:
            file = path / "plugins" / provider.loose.name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(provider.source)
            file.chmod(0o644)
            loose.append(f"plugins/{file.name}")

    def written(place: str, frame: Any) -> str:
        file = path / "data" / f"{place}.parquet"
        file.parent.mkdir(exist_ok=True)
        as_polars(frame).write_parquet(file)
        return f"data/{file.name}"

    return with_frames(recipe.tree, written), loose


def _announce(prepared: Prepared, model: Model, folder: RunFolder, reporter: Reporter) -> None:
    recipe = prepared.recipe
    reporter.plan(
        {
            "recipe": recipe.name,
            "cell": recipe.cell,
            "seed": prepared.seed,
            "data": {**prepared.log.summary(), "source": prepared.log.source},
            "transforms": prepared.steps,
            "fingerprint": prepared.card["protocol"]["data"]["fingerprint"],
            "split": {"name": prepared.parts.name, **prepared.parts.counts},
            "sizes": {
                "training events": len(prepared.parts.train),
                "validation targets": len(prepared.parts.validation),
                "test targets": len(prepared.parts.test),
            },
            "parts": [
                {"path": part.path, "use": part.name, "version": recipe.plugins.version(part.provider)}
                for part in recipe.parts()
            ],
            "parameters": parameters(model),
            "machine": prepared.machine.describe(),
            "folder": str(folder.path),
        }
    )


def parameters(model: Model) -> dict[str, int]:
    """Trained numbers, by the first part of their names."""
    counts: dict[str, int] = {}
    if isinstance(model, torch.nn.Module):
        for name, parameter in model.named_parameters():
            key = name.split(".", 1)[0]
            counts[key] = counts.get(key, 0) + parameter.numel()
    return counts


def _go_on(prepared: Prepared, model: Model, folder: RunFolder, reporter: Reporter) -> RunFolder:
    """Fit from wherever the folder stands, measure once on test, record."""
    try:
        _finish(prepared, model, folder, reporter)
    except KeyboardInterrupt:
        # Between training's steps Ctrl-C is heard there; this one came while measuring, or was the second.
        raise Interrupted(f"interrupted; go on with: recore resume {folder.path}") from None
    return folder


def _finish(prepared: Prepared, model: Model, folder: RunFolder, reporter: Reporter) -> None:
    fit = prepared.fit(folder, reporter)
    if prepared.trainer is not None and not len(prepared.parts.validation):
        reporter.note("no validation part: the weights of the last epoch are taken, and nothing stops early")
    fit.notify("recore_run_started", run=folder.path, card=prepared.card)
    scorer = model.fit(prepared.log, prepared.parts, fit)
    if not (folder.path / "model").exists():
        write_aside(folder.path / "model", model.save)
    test = prepared.examination("test").ask(scorer, prepared.evaluators)
    validation = fit.validate(scorer)
    write_aside(folder.path / "users-test.parquet", test.frame.write_parquet)
    facts = {
        "counts": {**prepared.log.counts, **prepared.parts.counts},
        "parameters": parameters(model),
        "plugins": folder.json("run.json")["plugins"],
    }
    record = make_record(
        prepared.recipe,
        prepared.seed,
        prepared.card,
        test,
        validation,
        folder.metrics(),
        prepared.machine,
        facts,
    )
    write_json(folder.path / "record.json", record)
    remove(folder.path / "models")  # the best of them is `model` by now
    reporter.done(record, folder.path)
    fit.notify("recore_run_ended", run=folder.path, record=record)


@define
class Opened:
    """A run, ready to answer. `items` is the table of titles, where the data has one; `changed` names the
    plugins whose code is not that with which the run began."""

    folder: RunFolder
    recipe: Recipe
    seed: int
    machine: Machine
    scorer: Scorer
    context: Context
    items: pl.DataFrame | None
    changed: list[str]
    weights: Path

    def weights_digest(self) -> str:
        """sha256 over the files of the weights that answer."""
        digest = hashlib.sha256()
        for file in sorted(path for path in self.weights.rglob("*") if path.is_file()):
            digest.update(file.relative_to(self.weights).as_posix().encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()

    def prepared(self) -> Prepared:
        """The run's data, read again and checked to be the same."""
        return _again(self.folder, self.machine)


def reopen(path: Path, machine: Machine | None = None) -> Opened:
    """The scorer of a run, from its folder alone: the data is not read. A run that is not finished answers
    with the best weights so far."""
    folder = RunFolder.open(path)
    about = folder.json("run.json")
    recipe = recipe_of(folder)
    machine = machine or Machine(**about["options"])
    machine.prepare()
    tokenizer = saved_tokenizer(recipe, folder, about["seed"], machine)
    of_data = about["facts"]
    facts = Facts(
        columns=frozenset(of_data["columns"]),
        items=tokenizer.items,
        tokens=tokenizer.tokens,
        users=of_data["users"],
        order_across_users=of_data["order_across_users"],
    )
    context = first_context(recipe, about["seed"], machine)
    context = evolve(context, tokenizer=tokenizer, facts=context.facts.merged(facts))
    weights = folder.path / "model"
    if not weights.exists():
        best = sorted((folder.path / "models").glob("epoch-*"))
        if not best:
            raise RunFolderError(f"{folder.path} has no weights yet; go on with: recore resume {folder.path}")
        weights = best[-1]
    model = build_model(recipe, context, machine)
    scorer = model.load(weights, Fit(recipe=recipe, context=context, machine=machine, folder=folder))
    table = folder.path / "items.parquet"
    items = pl.read_parquet(table) if table.exists() else None
    changed = other_code(recipe, folder)
    return Opened(folder, recipe, about["seed"], machine, scorer, context, items, changed, weights)
