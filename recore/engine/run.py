"""A run from beginning to end: read, split, build, fit, measure, record. Also resume and reopen.

run       prepares, makes the folder, then goes on as resume does
resume    goes on from the newest checkpoint
reopen    a finished run's scorer, for evaluate and recommend
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from attrs import define, evolve

from recore.appended import read_frame
from recore.component import Context, Facts
from recore.contracts.data import Tokenizer
from recore.contracts.scoring import Model, Scorer
from recore.data import Interactions
from recore.engine import checkpoint
from recore.engine.drive import TRAINER, Fit, Interrupted, Stop, stoppable
from recore.engine.machine import Machine, reset_peak_memory
from recore.engine.prepare import (
    Prepared,
    Terms,
    build_model,
    encodes_items,
    first_context,
    prepare,
    tokenizer_of,
)
from recore.engine.record import make_record
from recore.engine.report import Reporter, Silent
from recore.engine.rundir import (
    FORMAT,
    RunFolder,
    check_seal,
    remove,
    write_aside,
    write_json,
    write_sealed,
)
from recore.errors import DivergenceError, RunFolderError, StorageError
from recore.frames import as_polars
from recore.recipe import Recipe, from_tree, to_yaml, with_frames

START = "start"  # folder with the weights and the trainer's state that an updated run began with
TRAINED = "trained.parquet"  # events that those weights had been trained on


def run(
    recipe: Recipe,
    seed: int,
    machine: Machine,
    root: Path,
    reporter: Reporter | None = None,
    fit_all: Mapping[str, Any] | None = None,
) -> RunFolder:
    """One recipe, one cell, one seed: a finished run folder under `root`. `fit_all`: all events train, for the
    epochs that it tells (`recore.engine.fit_all`)."""
    reporter = reporter or Silent()
    reset_peak_memory()
    terms = Terms() if fit_all is None else Terms(fit_all=True, epochs=fit_all["epochs"])
    prepared = prepare(recipe, seed, machine, terms=terms)
    model = prepared.model()
    folder = publish(root, prepared, [], {"fit_all": fit_all})
    return begin(prepared, model, folder, reporter)


def begin(
    prepared: Prepared, model: Model, folder: RunFolder, reporter: Reporter, note: str = ""
) -> RunFolder:
    """Go on with a folder that was just published; one in which nothing could begin is taken back."""
    with folder.held():
        announce(prepared, model, folder, reporter)
        if note:
            reporter.note(note)
        try:
            return go_on(prepared, model, folder, reporter)
        except (Interrupted, StorageError, DivergenceError):
            raise
        except Exception:
            if not folder.begun:
                folder.withdraw()
            raise


def publish(
    root: Path,
    prepared: Prepared,
    identity: Sequence[Any],
    more: Mapping[str, Any],
    write: Callable[[Path], object] | None = None,
) -> RunFolder:
    """The folder of a run that begins, with `more` in its run.json and what `write` puts into it. Its name is
    made of the recipe, the seed and `identity`."""
    recipe = prepared.recipe
    text = json.dumps([recipe.tree, recipe.cell, prepared.seed, *identity], sort_keys=True, default=str)
    folder = RunFolder.new(root, recipe.name, recipe.cell, hashlib.sha256(text.encode()).hexdigest()[:8])

    def fill(path: Path) -> None:
        _start(path, prepared, more)
        if write is not None:
            write(path)

    return folder.publish(fill)


def resume(path: Path, machine: Machine | None = None, reporter: Reporter | None = None) -> RunFolder:
    """Take a run up where it stopped; the end is the same as without the stop. A finished run is left as it
    is. Raises RunFolderError when the data or a plugin is not what the run began with."""
    reporter = reporter or Silent()
    folder = RunFolder.open(path)
    if folder.finished:
        folder.tidy()
        reporter.note(f"{folder.path} is finished already")
        return folder
    reset_peak_memory()
    with folder.held():
        if (folder.path / "record.json").exists():  # by the process that held it until now
            reporter.note(f"{folder.path} is finished already")
            return folder
        changed = other_code(recipe_of(folder), folder)
        if changed:
            raise RunFolderError(
                f"{folder.path} began with other code of {', '.join(changed)}, so it would not end with the "
                "same numbers; put that code back, or run anew"
            )
        about = folder.json("run.json")
        # As many threads as it had, for the same numbers, where it was left to torch.
        threads = about["options"]["threads"] or about["machine"]["cores"]
        prepared = again(folder, machine or Machine(**{**about["options"], "threads": threads}))
        return go_on(prepared, prepared.model(), folder, reporter)


def again(folder: RunFolder, machine: Machine, raw: Interactions | None = None) -> Prepared:
    """The run's recipe over its data, checked to be the same as when it began."""
    about = folder.json("run.json")
    recipe = recipe_of(folder)
    tokenizer = saved_tokenizer(recipe, folder, about["seed"], machine)
    users = saved_users(recipe, folder, about["seed"], machine)
    prepared = prepare(recipe, about["seed"], machine, tokenizer, users, terms_of(folder), raw)
    before, now = folder.json("card.json")["protocol"], _plain(prepared.card["protocol"])
    changed = [key for key in before if before[key] != now.get(key)]
    if changed:
        raise RunFolderError(
            f"{folder.path}: {', '.join(changed)} differ from when the run began (is the data the same?)"
        )
    return prepared


def terms_of(folder: RunFolder) -> Terms:
    """What the run does beside its recipe."""
    fit_all = folder.json("run.json").get("fit_all")
    known = folder.path / TRAINED
    trained = read_frame(known)["event"].to_numpy() if known.exists() else None
    return Terms(fit_all is not None, None if fit_all is None else fit_all["epochs"], trained)


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


def saved_tokenizer(
    recipe: Recipe, folder: RunFolder, seed: int, machine: Machine, name: str = "tokenizer"
) -> Tokenizer:
    """The run's own tokenizer, from its folder."""
    context = evolve(first_context(recipe, seed, machine), folder=folder.path / name)
    return context.build(tokenizer_of(recipe))


def saved_users(recipe: Recipe, folder: RunFolder, seed: int, machine: Machine) -> Tokenizer | None:
    """That of its users, where its model numbers them."""
    return saved_tokenizer(recipe, folder, seed, machine, "users") if encodes_items(recipe) else None


def _start(path: Path, prepared: Prepared, more: Mapping[str, Any]) -> None:
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
        **{key: value for key, value in more.items() if value is not None},
    }
    write_json(path / "run.json", about)
    write_json(path / "card.json", prepared.card)
    assert prepared.context.tokenizer is not None
    (path / "tokenizer").mkdir()
    prepared.context.tokenizer.save_pretrained(path / "tokenizer")
    if prepared.context.users is not None:
        (path / "users").mkdir()
        prepared.context.users.save_pretrained(path / "users")
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


def announce(prepared: Prepared, model: Model, folder: RunFolder, reporter: Reporter) -> None:
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


def go_on(prepared: Prepared, model: Model, folder: RunFolder, reporter: Reporter) -> RunFolder:
    """Fit from wherever the folder stands, measure once on test, record. What ends it early says how to go on."""
    command = f"recore resume {folder.path}"
    try:
        with stoppable():
            _finish(prepared, model, folder, reporter)
    except KeyboardInterrupt as stop:
        # Between training's steps signals are heard there; this one came while measuring, or was the second.
        signum = stop.signum if isinstance(stop, Stop) else signal.SIGINT
        raise Interrupted(f"interrupted; go on with: {command}", signum) from None
    except StorageError as error:
        error.add_note(f"the run {_stays(folder)}; when it can be written again, go on with: {command}")
        raise
    except DivergenceError as error:
        error.add_note(f"the run {_stays(folder)}: {folder.path}")
        raise
    return folder


def _stays(folder: RunFolder) -> str:
    return "stays as of its last checkpoint" if folder.begun else "has no checkpoint yet"


def _finish(prepared: Prepared, model: Model, folder: RunFolder, reporter: Reporter) -> None:
    fit = prepared.fit(folder, reporter)
    if prepared.terms.fit_all:
        reporter.note("all events train, nothing is held out: there are no figures of validation and test")
    elif prepared.trainer is not None and not len(prepared.parts.validation):
        reporter.note("no validation part: the weights of the last epoch are taken, and nothing stops early")
    take_up(prepared, model, fit, folder.path / START)
    fit.notify("recore_run_started", run=folder.path, card=prepared.card)
    scorer = model.fit(prepared.log, prepared.parts, fit)
    if not (folder.path / "model").exists():
        write_sealed(folder.path / "model", model.save)
    _keep_trainer(folder)
    test = None
    if not prepared.terms.fit_all:
        test = prepared.examination("test").ask(scorer, prepared.evaluators)
        write_aside(folder.path / "users-test.parquet", test.frame.write_parquet)
    validation = fit.validate(scorer)
    about = folder.json("run.json")
    facts = {
        "counts": {**prepared.log.counts, **prepared.parts.counts},
        "parameters": parameters(model),
        "plugins": about["plugins"],
        "fit_all": about.get("fit_all"),
        "update": about.get("update"),
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


def digest_of(folder: Path) -> str:
    """sha256 over the names and bytes of the files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def take_up(prepared: Prepared, model: Model, fit: Fit, start: Path) -> Scorer | None:
    """Weights and the trainer's state with which an updated run begins; None for a run that begins anew."""
    if not start.is_dir():
        return None
    scorer = model.load(start / "model", fit)
    if (start / TRAINER).is_dir() and prepared.trainer is not None:
        prepared.trainer.load_state_dict(checkpoint.read(start / TRAINER))
    return scorer


def _keep_trainer(folder: RunFolder) -> None:
    """The trainer's state at the best epoch, which stands beside its weights, where a finished run has it."""
    found = sorted((folder.path / "models").glob(f"epoch-*/{TRAINER}"))
    if found and not (folder.path / TRAINER).exists():
        write_aside(folder.path / TRAINER, lambda aside: shutil.copytree(found[-1], aside))


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
        return digest_of(self.weights)

    def prepared(self) -> Prepared:
        """The run's data, read again and checked to be the same."""
        return again(self.folder, self.machine)


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
    users = saved_users(recipe, folder, about["seed"], machine)
    context = evolve(context, tokenizer=tokenizer, users=users, facts=context.facts.merged(facts))
    weights = folder.path / "model"
    if not weights.exists():
        best = sorted((folder.path / "models").glob("epoch-*"))
        if not best:
            raise RunFolderError(f"{folder.path} has no weights yet; go on with: recore resume {folder.path}")
        weights = best[-1]
        check_seal(weights)
    model = build_model(recipe, context, machine)
    scorer = model.load(weights, Fit(recipe=recipe, context=context, machine=machine, folder=folder))
    table = folder.path / "items.parquet"
    items = pl.read_parquet(table) if table.exists() else None
    changed = other_code(recipe, folder)
    return Opened(folder, recipe, about["seed"], machine, scorer, context, items, changed, weights)
