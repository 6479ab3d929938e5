"""A run from beginning to end: read, split, build, fit, measure, record. Also resume and reopen.

run       prepares, makes the folder, then goes on as resume does
resume    goes on from the newest checkpoint
reopen    a finished run's scorer, for evaluate and recommend
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import torch
from attrs import define, evolve

from recore.component import Context, Facts
from recore.contracts.data import Tokenizer
from recore.contracts.scoring import Model, Scorer
from recore.engine.drive import Fit, Interrupted
from recore.engine.machine import Machine, reset_peak_memory
from recore.engine.prepare import Prepared, build_model, first_context, prepare, tokenizer_of
from recore.engine.record import make_record
from recore.engine.report import Reporter, Silent
from recore.engine.rundir import FORMAT, RunFolder, remove, write_aside, write_json
from recore.errors import RunFolderError
from recore.frames import as_polars
from recore.recipe import Recipe, from_tree, to_yaml, with_frames


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
    return context.build(tokenizer_of(recipe))


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
