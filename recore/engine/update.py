"""An update: a new run from another run's weights, with new events, new items and items that retire.

Asked         what is asked of it
update        reads, checks, follows, publishes a run folder, and goes on as any run does
further       the new events, read as the recipe's own data are
followed      the tokenizer with rows for new items and tombstones for retired ones
carried_on    the parent's model and its optimiser's state, their rows moved likewise

Old ids and rows stay where and what they are; fresh rows stand behind them. What the run began with is kept in its
folder under `start/`, so that a run that is killed begins with the same bits again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import polars as pl
import torch
from attrs import evolve, frozen

from recore.appended import append, conformed, merged, read_frame
from recore.contracts.data import Changes, RowMap, Tokenizer
from recore.contracts.scoring import Model
from recore.data import Ids, Interactions
from recore.engine import checkpoint
from recore.engine import run as engine
from recore.engine.drive import TRAINER, Fit
from recore.engine.machine import Machine, reset_peak_memory
from recore.engine.prepare import Prepared, Terms, first_context, prepare, read_raw
from recore.engine.recommend import as_ids
from recore.engine.report import Reporter, Silent
from recore.engine.rundir import SEAL, RunFolder, check_seal, read_json, write_json
from recore.errors import DataError, Problem, RecipeError, RecoreError, RunFolderError
from recore.recipe import Recipe, from_tree
from recore.recipe.differences import differences
from recore.resize import ResizableModel, ResizableTrainer

T = TypeVar("T")
APPENDED = "recore:appended"
Overlap = Literal["refuse", "drop", "keep"]


@frozen(eq=False)
class Asked:
    """What an update is asked to do.

    Args:
        data: new events, and these only: a path, or a frame, that the recipe's data set reads as it read its own
            (`sets` that begin with `data.` change how); for a data set that takes no path, a Parquet file or a
            frame in the log's own columns. None: no new events.
        retire: items that leave the candidates, in the data's own ids, or a file with one id a line.
        sets: `a.b.c=value` texts, laid over the parent's recipe.
        epochs: what the recipe calls `trainer.epochs`, for this run.
        fit_all: all events train and nothing is held out; needs `epochs`.
        overlap: what becomes of new events that the log has already (same user, item and time).
        fresh_optimiser: leave the optimiser's state behind.
    """

    data: Any = None
    retire: pl.Series | Path | None = None
    sets: Sequence[str] = ()
    epochs: int | None = None
    fit_all: bool = False
    overlap: Overlap = "refuse"
    fresh_optimiser: bool = False

    def of_data(self) -> list[str]:
        """The sets that say how new events are read."""
        return [text for text in self.sets if text.split("=")[0].split(".")[0].strip() == "data"]

    def of_recipe(self) -> list[str]:
        """All others."""
        own = self.of_data()
        epochs = [] if self.epochs is None else [f"trainer.epochs={self.epochs}"]
        return [text for text in self.sets if text not in own] + epochs


def update(
    path: Path, asked: Asked, machine: Machine, root: Path, reporter: Reporter | None = None
) -> RunFolder:
    """A finished run under `root` that began with the weights of the finished run at `path`.

    Raises RecoreError with all problems at once; nothing is written then.
    """
    reporter = reporter or Silent()
    reset_peak_memory()
    parent = RunFolder.open(path)
    if not parent.finished:
        raise RunFolderError(f"{parent.path} is not finished; go on with: recore resume {parent.path}")
    if (parent.path / "model" / SEAL).is_file():
        check_seal(parent.path / "model")
    recipe = engine.recipe_of(parent)
    for text in engine.other_code(recipe, parent):
        reporter.note(f"other code than when the parent began: {text}")
    before, grown = _read(parent, recipe, asked, machine)
    tokenizer = engine.saved_tokenizer(recipe, parent, before.seed, machine)
    users = engine.saved_users(recipe, parent, before.seed, machine)
    moves: list[tuple[RowMap, RowMap | None]] = []

    def follow(log: Interactions, training: Interactions) -> tuple[Tokenizer, Tokenizer | None]:
        rows = followed(tokenizer, grown.log, training, grown.retire)
        moves.append((rows, None if users is None else joined_by(users, training.events["user"])))
        return tokenizer, users

    known = before.log.events["event"].gather(before.parts.train).to_numpy()
    terms = Terms(asked.fit_all, asked.epochs if asked.fit_all else None, trained=known)
    after = prepare(grown.recipe, before.seed, machine, terms=terms, raw=grown.log, follow=follow)
    ((rows, of_users),) = moves
    model, state = carried_on(parent, before, after, rows, of_users, asked)
    about = _about(parent, recipe, before, after, grown, asked)
    if of_users is not None:
        about["users"] = {"added": int((of_users.old < 0).sum())}
    after.card["treatment"]["update"] = {"parent weights": about["weights"], "updates": about["updates"]}
    own = after.model()
    _check_shapes(model, own, after.recipe)

    def begin(folder: Path) -> None:
        model.save(folder / engine.START / "model")
        if state is not None:
            checkpoint.write(folder / engine.START / TRAINER, state)
        pl.DataFrame({"event": known}).write_parquet(folder / engine.TRAINED)
        fit = after.fit(RunFolder(folder), Silent())
        scorer = engine.take_up(after, own, fit, folder / engine.START)
        content = read_json(folder / "run.json")
        content["update"]["validation_before"] = {} if scorer is None else fit.validate(scorer)
        write_json(folder / "run.json", content)

    fit_all = {"epochs": asked.epochs, "from": None} if asked.fit_all else None
    folder = engine.publish(
        root, after, [about["weights"], asked.fit_all], {"update": about, "fit_all": fit_all}, begin
    )
    return engine.begin(after, own, folder, reporter, _in_words(about))


# ---- reading and checking ------------------------------------------------------------------------------------


@frozen(eq=False)
class Grown:
    """The log with the new events, the recipe that reads it, the items to be retired, and what was counted."""

    log: Interactions
    recipe: Recipe
    retire: pl.Series
    counts: Mapping[str, int]


def _read(parent: RunFolder, recipe: Recipe, asked: Asked, machine: Machine) -> tuple[Prepared, Grown]:
    """The parent's data, checked to be the same, and the grown log. Raises DataError with all problems."""
    problems = _wrong(recipe, asked)

    def tried(work: Callable[[], T]) -> T | None:
        try:
            return work()
        except RecoreError as error:
            problems.extend(error.problems)
            return None

    about = parent.json("run.json")
    context = first_context(recipe, about["seed"], machine)
    tokenizer = tried(lambda: engine.saved_tokenizer(recipe, parent, about["seed"], machine))
    raw = tried(lambda: read_raw(recipe, context))
    before = None if raw is None else tried(lambda: engine.again(parent, machine, raw))
    if asked.data is not None:
        new = tried(lambda: further(recipe, asked, about["seed"], machine))
    elif raw is not None:
        new = evolve(raw, events=raw.events.clear(), items=None, users=None)
    else:
        new = None
    counts: dict[str, int] = {}
    if raw is not None and new is not None:
        told, held = new, raw
        new, counts = tried(lambda: _beside(held, told, asked)) or (None, {})
    grown_recipe = tried(lambda: _grown_recipe(parent, recipe, asked, raw, new))
    log = None
    if raw is not None and new is not None:
        log = raw if not len(new) else tried(lambda: append(raw, new.events, new.items, new.users))
    given = tried(lambda: _lines(asked.retire) if isinstance(asked.retire, Path) else asked.retire)
    retire = None
    if tokenizer is not None and log is not None:
        retire = tried(lambda: _to_retire(given, tokenizer, log))
    if problems or before is None or log is None or grown_recipe is None or retire is None:
        raise DataError(problems)
    return before, Grown(log, grown_recipe, retire, counts)


def _wrong(recipe: Recipe, asked: Asked) -> list[Problem]:
    """What stands against an update before anything is read."""
    problems = []
    if asked.data is None and asked.retire is None:
        problems.append(Problem("there is nothing to update: give new events (--data) or items to --retire"))
    if asked.data is None and asked.of_data():
        problems.append(Problem(f"--set {asked.of_data()[0]} says how new events are read; give --data too"))
    if asked.fit_all and asked.epochs is None:
        problems.append(
            Problem("--fit-all holds out nothing that could end training", hint="say how long: --epochs N")
        )
    if asked.epochs is not None and asked.epochs < 1:
        problems.append(Problem(f"--epochs: expected at least 1, got {asked.epochs}"))
    if recipe.trainer is None:
        model = recipe.model
        problems.append(
            Problem(
                f"model {model.component.name!r} is fitted without a trainer, so there are no weights to go on from",
                model.where,
                model.path,
                "run the recipe on the new data",
            )
        )
    return problems


def base_of(tree: Mapping[str, Any]) -> Any:
    """The data set that a chain of updates began with, as the recipe writes it."""
    data = tree["data"]
    return data["base"] if data["use"] == APPENDED else data


def further(recipe: Recipe, asked: Asked, seed: int, machine: Machine) -> Interactions:
    """The new events, read by the data set that the parent's recipe began with, from another path or frame.

    Raises DataError where they cannot be read, RecipeError where the sets do not fit.
    """
    data, is_path = dict(base_of(recipe.tree)), isinstance(asked.data, str | Path)
    sets = asked.of_data()
    other = any(text.split("=")[0].strip() in ("data", "data.use") for text in sets)
    if not other and ("path" if is_path else "frame") not in data:
        if sets:
            raise RecipeError(f"data set {data['use']!r} reads no path, so --set {sets[0]} changes nothing")
        frame = read_frame(Path(asked.data) if is_path else asked.data)
        return Interactions.from_frame(frame.drop("event", strict=False), source=str(asked.data))
    if is_path:
        data |= {"path": str(Path(asked.data).absolute()), **({"frame": None} if "frame" in data else {})}
        sets += [f"data.path={json.dumps(data['path'])}"] if other else []
    else:
        data |= {"frame": asked.data, **({"path": None} if "path" in data else {})}
    made = from_tree({**recipe.tree, "data": data}, recipe.name, plugins=recipe.plugins, sets=sets)
    return read_raw(made, first_context(made, seed, machine))


def _beside(raw: Interactions, new: Interactions, asked: Asked) -> tuple[Interactions, dict[str, int]]:
    """The new events, typed as the log's, and what was counted. Raises DataError where they are not new."""
    if not len(new):
        return new, {"new": 0}
    events = conformed(raw.events, new.events)
    counts = {"new": events.height}
    if "time" in events.columns:
        keys = ["user", "item", "time"]
        known = _among(events.select(keys), raw.events.select(keys))
        if known.any() and asked.overlap == "refuse":
            row = events.filter(known).row(0, named=True)
            raise DataError(
                Problem(
                    f"{int(known.sum())} of {events.height} new events are in the log already, the first: user "
                    f"{row['user']!r}, item {row['item']!r}, time {row['time']}",
                    hint="--data takes new events only; --overlap drop leaves them out, --overlap keep takes them as "
                    "events of their own",
                )
            )
        if asked.overlap == "drop":
            events = events.filter(~known)
            counts |= {"new": events.height, "left out, being in the log already": int(known.sum())}
            if not events.height:
                raise DataError("all new events are in the log already, so --overlap drop leaves none")
        last = raw.events.group_by("user").agg(pl.col("time").max().alias("last"))
        since = events.join(last, on="user", how="left")
        counts["earlier than an event that their user had"] = int((since["time"] < since["last"]).sum())
    elif _whole_log(raw, new):
        raise DataError(
            Problem(
                "the new events begin with all histories of the log: this is the whole log again",
                hint="--data takes new events only",
            )
        )
    fresh = events.join(raw.events.select("user").unique(), on="user", how="anti")
    counts["of new users"] = fresh.height
    items = None if new.items is not None and _equal(new.items, raw.items) else new.items
    users = None if new.users is not None and _equal(new.users, raw.users) else new.users
    return evolve(new, events=events, items=items, users=users), counts


def _among(rows: pl.DataFrame, others: pl.DataFrame) -> pl.Series:
    """Which rows `(n,)` stand among others; times count by value."""
    if rows.dtypes != others.dtypes:
        rows, others = (frame.with_columns(pl.col("time").cast(pl.Float64)) for frame in (rows, others))
    found = rows.with_row_index("row").join(others.unique(), on=rows.columns, how="semi")["row"]
    return pl.Series(np.isin(np.arange(rows.height), found.to_numpy()))


def _equal(new: pl.DataFrame, held: pl.DataFrame | None) -> bool:
    return held is not None and new.equals(held)


def _whole_log(raw: Interactions, new: Interactions) -> bool:
    """Whether every user's new events begin with all events that the user had."""
    if len(new) < len(raw):
        return False
    place = pl.int_range(pl.len()).over("user").alias("place")
    keys = ["user", "item", "place"]
    held = raw.events.with_columns(place).select(keys)
    events = conformed(raw.events, new.events)
    return held.join(events.with_columns(place).select(keys), on=keys, how="anti").height == 0


def _lines(path: Path) -> pl.Series:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"--retire: {path} cannot be read: {why}") from error
    found = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not found:
        raise DataError(
            Problem(f"--retire: {path} names no item", hint="one id a line, as the data writes them")
        )
    return pl.Series(found, dtype=pl.String)


def _to_retire(given: pl.Series | None, tokenizer: Tokenizer, log: Interactions) -> pl.Series:
    """Items to be retired, without repeats, as the data types them. Raises DataError for unknown ones."""
    if given is None:
        return log.events["item"].clear()
    ids = as_ids(given, tokenizer)
    # Text that is no id of this data is null, which is known to nobody.
    known = pl.Series(tokenizer.item_ids(ids) >= 0) | ids.is_in(log.events["item"].unique().implode())
    known = known.fill_null(False)
    if not known.all():
        unknown = given.filter(~known)
        first = ", ".join(str(item) for item in unknown.head(5))
        raise DataError(
            Problem(
                f"--retire: {len(unknown)} of {len(given)} items are not in the data, the first: {first}",
                hint="one id a line, as the data writes them",
            )
        )
    return ids.unique(maintain_order=True)


def _grown_recipe(
    parent: RunFolder, recipe: Recipe, asked: Asked, raw: Interactions | None, new: Interactions | None
) -> Recipe:
    """The parent's recipe over the grown log. What could not be read leaves its data as they were."""
    tree = {key: _held(value, parent.path / "data") for key, value in recipe.tree.items()}
    if raw is not None and new is not None and len(new):
        before: dict[str, pl.DataFrame | None] = {"events": None, "items": None, "users": None}
        if tree["data"]["use"] == APPENDED:
            held = {name: getattr(recipe.data.options, name) for name in before}
            before = {name: None if value is None else read_frame(value) for name, value in held.items()}
        earlier, own = before["events"], new.events.drop("event", strict=False)
        tree["data"] = {
            "use": APPENDED,
            "base": base_of(tree),
            "events": own if earlier is None else pl.concat([earlier, own], how="vertical_relaxed"),
            "items": merged(before["items"], new.items, "item"),
            "users": merged(before["users"], new.users, "user"),
        }
    return from_tree(tree, recipe.name, cell=recipe.cell, plugins=recipe.plugins, sets=asked.of_recipe())


def _held(value: Any, folder: Path) -> Any:
    """A tree in which the frames that the parent's folder holds are frames again, so that the new run's folder
    will hold them too and does not need its parent's."""
    if isinstance(value, Mapping):
        return {key: _held(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [_held(entry, folder) for entry in value]
    if isinstance(value, str) and value.startswith(f"{folder}/"):
        return read_frame(Path(value))
    return value


# ---- following -----------------------------------------------------------------------------------------------


def followed(tokenizer: Tokenizer, log: Interactions, training: Interactions, retire: pl.Series) -> RowMap:
    """Rows for the items of `training` that have none, in the order of their ids; then tombstones for `retire`.
    An item that is retired before it had a row gets one, so that it stays retired. What was retired stays so, new
    events or not. Raises DataError where nothing would be left to recommend."""
    wanted = pl.concat([training.events["item"], retire.cast(training.events["item"].dtype)]).unique().sort()
    added = wanted.filter(pl.Series(tokenizer.item_ids(wanted) < 0))
    rows = tokenizer.resize(Changes(added=added.to_list()))
    leaving = retire.filter(pl.Series(~np.isin(tokenizer.item_ids(retire), tokenizer.retired)))
    if not len(leaving):
        return rows
    if len(tokenizer.retired) + len(leaving) >= tokenizer.items:
        raise DataError("--retire: no item would be left to recommend")
    return RowMap(rows.old, tokenizer.resize(Changes(removed=leaving.to_list())).retired)


def joined_by(tokenizer: Tokenizer, users: pl.Series) -> RowMap:
    """Rows for the users that have none, in the order of their ids. Users do not retire."""
    wanted = users.unique().sort()
    return tokenizer.resize(Changes(added=wanted.filter(pl.Series(tokenizer.item_ids(wanted) < 0)).to_list()))


def carried_on(
    parent: RunFolder,
    before: Prepared,
    after: Prepared,
    rows: RowMap,
    of_users: RowMap | None,
    asked: Asked,
) -> tuple[Model, Mapping[str, Any] | None]:
    """The parent's model with its rows moved, and the state of the new run's trainer: the optimiser's, as it was
    with these weights, its rows moved likewise, or None.

    Raises RecipeError for a model or trainer that cannot follow, RunFolderError where the state is not there.
    """
    model: Any = before.model()  # a Model; whether it is resizable too is asked here
    trainer: Any = after.trainer
    problems = []
    lacking = "cannot follow items that come and go: it has no"
    if lacks(model, ResizableModel):
        part = before.recipe.model
        message = f"model {part.component.name!r} {lacking} `resize`"
        problems.append(Problem(message, part.where, part.path, "run the recipe on the new data"))
    if not asked.fresh_optimiser and lacks(trainer, ResizableTrainer):
        chosen = after.recipe.trainer
        assert chosen is not None
        message = f"trainer {chosen.component.name!r} {lacking} `resize` and `restart`"
        problems.append(
            Problem(
                message, chosen.where, chosen.path, "--fresh-optimiser leaves the optimiser's state behind"
            )
        )
    if problems:
        raise RecipeError(problems)
    model.load(parent.path / "model", Fit(before.recipe, before.context, before.machine, parent))
    moved = model.resize(rows) if of_users is None else model.resize(rows, of_users)
    if asked.fresh_optimiser:
        return model, None
    if not (parent.path / TRAINER).is_dir():
        raise RunFolderError(
            Problem(
                f"{parent.path} has no {TRAINER}/, the optimiser's state beside its weights",
                hint="it was made by an earlier recore; --fresh-optimiser goes on without",
            )
        )
    trainer.load_state_dict(checkpoint.read(parent.path / TRAINER))
    for name, of_parameter in moved.items():
        trainer.resize(name, of_parameter)
    trainer.restart()
    return model, trainer.state_dict()


def lacks(built: object, contract: type[Any]) -> bool:
    """Whether an object lacks a method of a contract."""
    return any(name[0] != "_" and not hasattr(built, name) for name in vars(contract))


def _check_shapes(model: Model, own: Model, recipe: Recipe) -> None:
    """The moved weights fit the new run's own model. Raises RecipeError with all that do not."""
    if not isinstance(model, torch.nn.Module) or not isinstance(own, torch.nn.Module):
        return
    there = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in own.state_dict().items()}
    problems = [
        Problem(
            f"weight {name!r} of the parent is {there.get(name, 'missing')}, expected {wanted.get(name, 'none')}",
            recipe.model.where,
            recipe.model.path,
            "an update keeps the shape of the model; a part with a row per item or user must follow `resize`",
        )
        for name in dict.fromkeys([*wanted, *there])
        if there.get(name) != wanted.get(name)
    ]
    if problems:
        raise RecipeError(problems)


# ---- what is told --------------------------------------------------------------------------------------------


def _about(
    parent: RunFolder,
    recipe: Recipe,
    before: Prepared,
    after: Prepared,
    grown: Grown,
    asked: Asked,
) -> dict[str, Any]:
    """The record of the update: its parent, and what changed."""
    told, held = parent.json("run.json"), parent.json("record.json")
    old, new = before.context.tokenizer, after.context.tokenizer
    assert old is not None
    assert new is not None
    gone: Ids = np.setdiff1d(new.retired, old.retired)
    which = "last epoch, trained on all its events" if told.get("fit_all") else "best epoch"
    return {
        "parent": str(parent.path),
        "parent_seed": told["seed"],
        "weights": engine.digest_of(parent.path / "model"),
        "weights_of": f"its {which}",
        "epoch": held["best_epoch"],
        "updates": told.get("update", {}).get("updates", 0) + 1,
        "events": dict(grown.counts),
        "items": {
            "added": new.items - old.items,
            "retired": len(gone),
            "asked to be retired, retired before": int(
                np.isin(old.item_ids(grown.retire), old.retired).sum()
            ),
            "rows": new.items,
            "rows of retired items": len(new.retired),
        },
        "changed": differences(
            {key: value for key, value in recipe.tree.items() if key != "data"},
            {key: value for key, value in after.recipe.tree.items() if key != "data"},
        ),
        "optimiser": "begun anew" if asked.fresh_optimiser else "that of these weights; fresh rows from zero",
    }


def _in_words(about: Mapping[str, Any]) -> str:
    items, events = about["items"], about["events"]
    changed = f"; changed: {', '.join(about['changed'])}" if about["changed"] else ""
    return (
        f"update {about['updates']} of {about['parent']}: {events['new']:,} new events, {items['added']:,} items "
        f"added, {items['retired']:,} retired; optimiser's state {about['optimiser']}{changed}"
    )
