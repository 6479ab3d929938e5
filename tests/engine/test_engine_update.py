"""An update: ids and rows stay, what is new stands behind them, what retires is never recommended again, and the new
run is a run like any other."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from engine_helpers import ITEMS, RECIPE, Small, figures, framed, main, walks
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import recore
from recore.api import Result
from recore.appended import append
from recore.data import Interactions
from recore.engine import checkpoint
from recore.engine.machine import Machine
from recore.engine.recommend import Limits, recommend
from recore.engine.run import reopen, resume
from recore.engine.rundir import RunFolder
from recore.engine.update import Asked, update
from recore.errors import DataError, RecipeError, RunFolderError
from recore.histories import queries_from
from recore.recipe.differences import differences

ROOT = Path(recore.__file__).resolve().parents[1]
GONE = ["i05", "i06"]


def renamed(frame: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """The same events of other users."""
    return frame.with_columns(user=pl.lit(prefix) + pl.col("user"))


def more(users: int = 12, seed: int = 1) -> pl.DataFrame:
    """New events: of users that the tiny log has and of new ones, of its items and of three new ones."""
    fresh = renamed(walks(users, ITEMS, seed), "new-")
    known = walks(6, ITEMS, seed + 1)
    born = pl.DataFrame({"user": ["new-u0"] * 4 + ["u1"], "item": ["j2", "j1", "j3", "i01", "j1"]})
    return pl.concat([known.group_by("user", maintain_order=True).head(2), born, fresh])


def updated(run: Path, root: Path, **asked: Any) -> Path:
    """The folder of an update."""
    retire = asked.pop("retire", None)
    wanted = Asked(retire=None if retire is None else pl.Series(retire), **asked)
    return update(run, wanted, Machine(), root).path


@pytest.fixture(scope="module")
def child(whole: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An update of the tiny run. Shared: do not write into its folder."""
    return updated(whole.folder, tmp_path_factory.mktemp("child"), data=more(), retire=GONE)


def start_of(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the trainer's state that an update began with."""
    return load_file(folder / "start" / "model" / "model.safetensors"), checkpoint.read(
        folder / "start" / "trainer"
    )


# ---- rows and their optimiser's state ------------------------------------------------------------------------


def test_adding_a_hundred_and_removing_fifty_moves_nothing_else(tmp_path: Path) -> None:
    """Every other row and its optimiser state is bit-identical, the fresh ones are drawn and their state is zero;
    the run goes on, and removed ids are neither recommended nor used again."""
    every = pl.Series([f"i{item:02d}" for item in range(160)])
    whole = pl.DataFrame({"user": ["w"] * 162, "item": [*every, "i01", "i02"]})  # so that all items train
    frame = pl.concat([walks(60, 160, seed=3), whole])
    overlay = framed(frame) | {
        "model": {"embedder": {"bias": True}},
        "trainer": {"epochs": 2},
    }
    (tmp_path / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    before = recore.run(recore.load(tmp_path / "tiny.yaml", overlay=overlay), runs=tmp_path / "runs")
    retired = every.gather_every(3).head(50).to_list()
    born = pl.DataFrame(
        {
            "user": [f"n{number // 4}" for number in range(200)],
            "item": [f"new{number % 100:03d}" for number in range(200)],
        }
    )
    # Each new user has four events and the last two are held out, so twice each item to have it train.
    born = pl.concat([born, pl.DataFrame({"user": born["user"], "item": ["i01"] * 200})])
    folder = updated(before.folder, tmp_path / "runs", data=born, retire=retired, epochs=1)

    old, new = reopen(before.folder), reopen(folder)
    count = old.scorer.tokenizer.items
    every = new.scorer.tokenizer.items_of(np.arange(new.scorer.tokenizer.items))
    assert every[:count].equals(old.scorer.tokenizer.items_of(np.arange(count)))
    assert set(every[count:]) == set(born["item"]) - {"i01"}
    assert len(every) == count + 100

    weights, state = start_of(folder)
    was = load_file(before.folder / "model" / "model.safetensors")
    had = checkpoint.read(before.folder / "trainer")
    grown = {"embedder.weight", "embedder.bias", "embedder.retired"}
    for name, tensor in was.items():
        held = weights[name][:count] if name in grown else weights[name]
        if name != "embedder.retired":
            assert torch.equal(held, tensor), name
    fresh = weights["embedder.weight"][count:]
    assert 0.01 < float(fresh.std()) < 0.03
    assert not weights["embedder.bias"][count:].any()
    gone = new.scorer.tokenizer.item_ids(pl.Series(retired))
    assert weights["embedder.retired"].nonzero().squeeze(-1).tolist() == sorted(gone.tolist())
    assert set(state["optimiser"]) == set(had["optimiser"])
    for name, moments in had["optimiser"].items():
        assert set(moments) == {"step", "exp_avg", "exp_avg_sq"}
        for quantity, tensor in moments.items():
            held = state["optimiser"][name][quantity]
            if name in grown and tensor.dim():
                assert held.shape[0] == count + 100
                assert not held[count:].any()
                held = held[:count]
            assert torch.equal(held, tensor), (name, quantity)
            assert tensor.any(), (name, quantity)

    # It went on: rows that stay have moved since, those of retired items are read but pushed by nobody.
    after = load_file(folder / "model" / "model.safetensors")
    assert not torch.equal(after["embedder.weight"][:count], was["embedder.weight"])
    assert not torch.equal(after["embedder.weight"][count:], fresh)
    log = new.prepared().log
    offsets = log.offsets()
    lists = recommend(
        new.scorer, queries_from(log, offsets[:-1], offsets[1:]), Limits(len(every), keep_seen=True)
    )
    assert set(lists["item"]) == set(every) - set(retired)


def test_the_state_is_that_of_the_weights(small: Small, tmp_path: Path) -> None:
    """Beside the best epoch's weights stands the optimiser's state of that epoch, not of the last."""
    run = small({"trainer": {"learning_rate": 0.3, "epochs": 6}})
    best, epochs = run.record["best_epoch"], run.record["epochs"]
    assert best < epochs
    held = checkpoint.read(run.folder / "trainer")
    steps = {name: float(moments["step"]) for name, moments in held["optimiser"].items()}
    lines = RunFolder(run.folder).metrics()
    assert set(steps.values()) == {float(lines[best - 1]["step"])}
    assert held["epoch"] == held["best_epoch"] == best
    _, state = start_of(updated(run.folder, tmp_path / "runs", data=more(), epochs=1))
    assert (state["epoch"], state["step"], state["best"], state["stopped"]) == (0, 0, None, False)
    assert {float(moments["step"]) for moments in state["optimiser"].values()} == set(steps.values())


def test_a_fresh_optimiser_begins_anew(whole: Result, tmp_path: Path) -> None:
    folder = updated(whole.folder, tmp_path, data=more(), fresh_optimiser=True, epochs=1)
    assert not (folder / "start" / "trainer").exists()
    assert json.loads((folder / "record.json").read_text("utf-8"))["update"]["optimiser"] == "begun anew"


# ---- the run that comes of it --------------------------------------------------------------------------------


def test_what_the_record_says(whole: Result, child: Path) -> None:
    record = json.loads((child / "record.json").read_text("utf-8"))
    told = record["update"]
    assert told["parent"] == str(whole.folder)
    assert told["weights"] == whole.opened.weights_digest()
    assert (told["updates"], told["weights_of"]) == (1, "its best epoch")
    assert told["epoch"] == whole.record["best_epoch"]
    assert told["events"]["new"] == len(more())
    assert told["items"] == {
        "added": told["items"]["added"],
        "retired": 2,
        "asked to be retired, retired before": 0,
        "rows": ITEMS + told["items"]["added"],
        "rows of retired items": 2,
    }
    assert 1 <= told["items"]["added"] <= 3
    assert told["changed"] == []
    assert set(told["validation_before"]) == set(record["validation"])
    assert record["card"]["treatment"]["update"]["updates"] == 1
    assert "without 2 that are retired" in record["card"]["protocol"]["candidates"]
    assert record["counts"]["events appended"] == len(more())
    assert record["counts"]["events of retired items, which no model learns to predict"] > 0
    assert whole.record["update"] is None


def test_removed_items_stay_readable_and_are_never_recommended(whole: Result, child: Path) -> None:
    opened = reopen(child)
    tokenizer = opened.scorer.tokenizer
    assert (
        tokenizer.item_ids(pl.Series(GONE)).tolist()
        == whole.opened.scorer.tokenizer.item_ids(pl.Series(GONE)).tolist()
    )
    assert tokenizer.items_of(tokenizer.retired).to_list() == GONE
    result = recore.open_run(child)
    with_it = result.recommend([["i01", "i05"]], k=100, keep_seen=True)
    without = result.recommend([["i01", "never met"]], k=100, keep_seen=True)
    assert not set(GONE) & set(with_it["item"])
    assert with_it.height == tokenizer.items - 2
    assert not np.allclose(with_it.sort("item")["score"].to_numpy(), without.sort("item")["score"].to_numpy())


def test_an_update_is_a_run_like_any_other(
    child: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((child / "record.json").read_text("utf-8"))
    status, printed, _ = main(capsys, "evaluate", child, "--json")
    assert status == 0
    assert json.loads(printed)["totals"] == record["test"]
    assert main(capsys, "resume", child)[0] == 0
    status, printed, _ = main(capsys, "recommend", child, "--users", "=new-u0", "-k", 3, "--json")
    assert status == 0
    assert len(printed.splitlines()) == 3
    # Its recipe is complete: run from the beginning it reads the same log.
    again = recore.run(child / "recipe.yaml", runs=tmp_path)
    held, made = (entry["card"]["protocol"]["data"]["fingerprint"] for entry in (record, again.record))
    assert held == made
    assert again.record["update"] is None


def test_updates_of_updates_need_no_parent(whole: Result, small: Small, tmp_path: Path) -> None:
    """A chain: ids only ever grow, every run reads its data without the folders before it, and one update with all
    events gives the same log as several."""
    first = small(framed(walks()), runs=tmp_path / "first")
    parts = [renamed(more(seed=seed), f"d{seed}-") for seed in (5, 6)]
    second = updated(first.folder, tmp_path / "second", data=parts[0], retire=["i05"], epochs=1)
    shutil.rmtree(tmp_path / "first")
    third = updated(second, tmp_path / "third", data=parts[1], retire=["i05", "i06"], epochs=1)
    tokenizers = [reopen(path).scorer.tokenizer for path in (second, third)]
    names = [tokenizer.items_of(np.arange(tokenizer.items)) for tokenizer in tokenizers]
    shutil.rmtree(tmp_path / "second")
    assert names[1][: len(names[0])].equals(names[0])
    record = json.loads((third / "record.json").read_text("utf-8"))
    assert record["update"]["updates"] == 2
    assert record["update"]["items"]["retired"] == 1
    assert record["update"]["items"]["asked to be retired, retired before"] == 1
    assert record["counts"]["events appended"] == sum(map(len, parts))
    opened = reopen(third)
    prepared = opened.prepared()
    measured = prepared.examination("test").ask(opened.scorer, prepared.evaluators)
    assert dict(measured.totals) == record["test"]
    grouped = [Interactions.from_frame(part).events.drop("event") for part in parts]
    at_once = append(Interactions.from_frame(walks()), pl.concat(grouped))
    assert prepared.log.fingerprint() == at_once.fingerprint()


def test_what_retired_stays_retired_when_new_events_name_it(
    whole: Result, child: Path, tmp_path: Path
) -> None:
    """Its id is not used again and it does not come back: later events of it are read, and nobody's target."""
    late = pl.DataFrame(
        {"user": [f"late{n}" for n in range(4) for _ in range(4)], "item": ["i01", "i05", "i06", "i02"] * 4}
    )
    folder = updated(child, tmp_path, data=late, epochs=1)
    tokenizer = reopen(folder).scorer.tokenizer
    assert tokenizer.items_of(tokenizer.retired).to_list() == GONE
    assert tokenizer.items == reopen(child).scorer.tokenizer.items
    record = json.loads((folder / "record.json").read_text("utf-8"))
    assert record["update"]["items"]["added"] == 0
    assert record["counts"]["validation targets that are retired items, hence ranked last"] >= 4


def test_an_item_may_retire_before_it_has_a_row(whole: Result, tmp_path: Path) -> None:
    """New events name an item, and it is to be retired at once: it gets a tombstone, so that it stays retired."""
    folder = updated(whole.folder, tmp_path, data=more(), retire=["j1", "j2"], epochs=1)
    tokenizer = reopen(folder).scorer.tokenizer
    assert set(tokenizer.items_of(tokenizer.retired)) == {"j1", "j2"}


def test_items_may_retire_without_new_events(whole: Result, tmp_path: Path) -> None:
    folder = updated(whole.folder, tmp_path, retire=GONE, epochs=1)
    record = json.loads((folder / "record.json").read_text("utf-8"))
    assert record["update"]["events"] == {"new": 0}
    fingerprints = [entry["card"]["protocol"]["data"]["fingerprint"] for entry in (record, whole.record)]
    assert fingerprints[0] == fingerprints[1]


class Killed(BaseException):
    """Stands for what ends a process within a statement."""


def test_killed_at_every_rename_it_ends_with_the_same_numbers(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = figures(updated(whole.folder, tmp_path / "whole", data=more(), retire=GONE, epochs=1))
    real, calls = Path.replace, [0]

    def stops_at(call: int) -> Any:
        calls[0] = 0

        def replace(self: Path, target: Path) -> Path:
            calls[0] += 1
            if calls[0] == call:
                raise Killed
            return real(self, target)

        return replace

    resumed = nothing = 0
    for call in range(1, 100):
        root = tmp_path / str(call)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stops_at(call))
            try:
                updated(whole.folder, root, data=more(), retire=GONE, epochs=1)
                break
            except Killed:
                pass
        found = [path.parent for path in root.glob("tiny/*/run.json") if not path.parent.is_symlink()]
        if not found:
            assert [path for path in root.rglob("*") if not path.is_dir()] == []
            nothing += 1
            continue
        resumed += 1
        assert figures(resume(found[0]).path) == expected, call
    assert resumed >= 8
    assert nothing >= 1


# ---- targets that the weights know ---------------------------------------------------------------------------


def test_what_the_weights_were_trained_on_is_nobodys_target(whole: Result, tmp_path: Path) -> None:
    """After a run that trained on everything, only new events can measure."""
    everything = updated(whole.folder, tmp_path, data=more(), epochs=1, fit_all=True)
    record = json.loads((everything / "record.json").read_text("utf-8"))
    assert (record["test"], record["validation"], record["users"]) == ({}, {}, 0)
    later = renamed(more(seed=9), "z")
    folder = updated(everything, tmp_path, data=later, epochs=1)
    prepared = reopen(folder).prepared()
    events = prepared.log.events
    old = pl.concat([walks(), more()])
    names = set(later["user"])
    assert {*events["user"].gather(prepared.parts.test.target)} <= names
    assert {*events["user"].gather(prepared.parts.validation.target)} <= names
    counts = prepared.parts.counts
    dropped = counts["test targets that the starting weights were trained on, which train"]
    assert dropped == old["user"].n_unique() - int((old["user"].value_counts()["count"] < 3).sum())
    held = len(prepared.parts.test) + len(prepared.parts.validation)
    assert len(prepared.parts.train) + held == len(events)


def test_a_plain_update_drops_no_target(child: Path) -> None:
    """Under leave-last an older run has never seen what an update holds out."""
    counts = reopen(child).prepared().parts.counts
    assert counts["test targets that the starting weights were trained on, which train"] == 0
    assert counts["validation targets that the starting weights were trained on, which train"] == 0


# ---- data ----------------------------------------------------------------------------------------------------


def logs(times: bool) -> st.SearchStrategy[pl.DataFrame]:
    fields: Mapping[str, Any] = {"user": st.integers(0, 4), "item": st.integers(0, 5)}
    if times:
        fields = {**fields, "time": st.integers(0, 3)}
    rows = st.lists(st.tuples(*fields.values()), min_size=1, max_size=12)
    return rows.map(lambda found: pl.DataFrame(found, schema=list(fields), orient="row"))


@settings(deadline=None, max_examples=60)
@given(st.data(), st.booleans(), st.sampled_from(["file", "hash"]))
def test_appending_twice_is_appending_once(data: st.DataObject, times: bool, ties: Any) -> None:
    """Row ids of what was there stay; two increments are one; the order is that of one log of all rows."""
    base, one, two = (data.draw(logs(times)) for _ in range(3))
    held = Interactions.from_frame(base, ties=ties)
    grown = append(append(held, one), two)
    assert grown.fingerprint() == append(held, pl.concat([one, two])).fingerprint()
    assert grown.counts == append(held, pl.concat([one, two])).counts
    assert grown.source == append(held, one).source
    kept = grown.events.filter(pl.col("event") <= held.events["event"].max()).sort("event")
    assert kept.equals(held.events.sort("event"))
    at_once = Interactions.from_frame(pl.concat([base, one, two]), ties=ties)
    columns = ["user", "item", *(["time"] if times else [])]
    assert grown.events.select(columns).equals(at_once.events.select(columns))


def test_appended_columns_must_be_those_of_the_log() -> None:
    base = Interactions.from_frame(pl.DataFrame({"user": ["a"], "item": ["x"], "time": [1], "price": [2.0]}))
    wrong = pl.DataFrame({"user": [1.5], "item": ["y"], "time": ["noon"], "colour": ["red"]})
    with pytest.raises(DataError) as error:
        append(base, wrong)
    assert [problem.message for problem in error.value.problems] == [
        "the new events lack price, which the log has",
        "the new events have colour, which the log does not have",
        "column 'user' of the new events: expected String, as in the log, got Float64",
        "column 'time' of the new events: expected Int64, as in the log, got String",
    ]
    numbers = pl.DataFrame({"user": [1], "item": [7], "time": [2.5], "price": [3]})
    assert append(base, numbers).events["item"].to_list() == ["x", "7"]


def test_tables_follow(home: Path, whole: Result, tmp_path: Path) -> None:
    """Titles of new items come with the new events; a new title of an old item replaces it."""
    more().write_csv(tmp_path / "more.csv")
    pl.DataFrame({"item": ["j1", "i00"], "title": ["Born", "Renamed"]}).write_csv(tmp_path / "titles.csv")
    titles = f"data.items.path={tmp_path / 'titles.csv'}"
    folder = updated(whole.folder, tmp_path, data=tmp_path / "more.csv", sets=[titles], epochs=1)
    items = reopen(folder).items
    assert items is not None
    held = dict(items.select("item", "title").iter_rows())
    assert (held["j1"], held["i00"], len(held)) == ("Born", "Renamed", ITEMS + 1)
    assert held["i01"] == "The [bold] title of i01, ünïcode"


TIMED = pl.DataFrame(
    {
        "user": [f"u{n}" for n in range(8) for _ in range(5)],
        "item": [f"i{(n + k) % 9}" for n in range(8) for k in range(5)],
        "time": [100 * n + k for n in range(8) for k in range(5)],
    }
)


@pytest.fixture(scope="module")
def timed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    overlay = framed(TIMED)
    overlay["data"]["time"] = "time"
    overlay["trainer"] = {"epochs": 1}
    return recore.run(
        recore.load(home / "tiny.yaml", overlay=overlay), runs=tmp_path_factory.mktemp("timed")
    ).folder


def test_overlap_is_refused_dropped_or_kept(timed: Path, tmp_path: Path) -> None:
    late = pl.DataFrame({"user": ["u1"], "item": ["i8"], "time": [50]})
    new = pl.concat([TIMED.tail(3), late, pl.DataFrame({"user": ["u7"], "item": ["i1"], "time": [999]})])
    with pytest.raises(DataError, match="3 of 5 new events are in the log already, the first: user 'u7'"):
        updated(timed, tmp_path, data=new)
    assert not list(tmp_path.rglob("run.json"))
    for overlap, count in (("drop", 2), ("keep", 5)):
        folder = updated(timed, tmp_path / overlap, data=new, overlap=overlap)
        told = json.loads((folder / "record.json").read_text("utf-8"))["update"]["events"]
        assert told["new"] == count
        assert told["earlier than an event that their user had"] >= 1
    with pytest.raises(DataError, match="leaves none"):
        updated(timed, tmp_path, data=TIMED.tail(3), overlap="drop")


def test_a_parent_without_a_path_takes_the_logs_own_columns(tmp_path: Path, home: Path) -> None:
    """`world` reads no file: its new events are a Parquet file, or a frame, in the log's own columns; or another
    data set reads them, as --set says."""
    world = {"use": "recore-world:world", "users": 40, "items": 40, "events": 8.0, "longest": 12, "days": 20}
    overlay = {"data": world, "trainer": {"epochs": 1}}
    run = recore.run(recore.load(home / "tiny.yaml", overlay=overlay), runs=tmp_path / "runs")
    log = reopen(run.folder).prepared().log.events
    new = log.tail(9).with_columns(time=pl.col("time") + 86_400 * 30).drop("event")
    new.write_parquet(tmp_path / "new.parquet")
    new.write_csv(tmp_path / "new.csv")
    one = updated(run.folder, tmp_path / "one", data=tmp_path / "new.parquet")
    reader = "data={use: recore-data:events, time: time, creator: creator, propensity: propensity}"
    two = updated(run.folder, tmp_path / "two", data=tmp_path / "new.csv", sets=[reader])
    cards = [json.loads((path / "card.json").read_text("utf-8"))["protocol"]["data"] for path in (one, two)]
    assert cards[0]["fingerprint"] == cards[1]["fingerprint"]
    with pytest.raises(DataError, match=r"new.csv cannot be read as a Parquet file"):
        updated(run.folder, tmp_path / "three", data=tmp_path / "new.csv")
    with pytest.raises(DataError, match="the new events lack creator, propensity, which the log has"):
        updated(run.folder, tmp_path / "four", data=new.select("user", "item", "time"))


def test_integer_ids_fractions_and_a_log_appended_by_hand(home: Path, tmp_path: Path) -> None:
    """Ids of a file are typed as the data types them; times may be whole in one log and not in the other; and a
    recipe that appends events itself can be updated too."""
    base = TIMED.with_columns(item=pl.col("item").str.slice(1).cast(pl.Int64))
    extra = pl.DataFrame({"user": ["u1"], "item": [3], "time": [105]})
    extra.write_parquet(tmp_path / "extra.parquet")
    base.write_csv(tmp_path / "base.csv")
    inner = {"use": "recore-data:events", "path": tmp_path / "base.csv", "time": "time"}
    data = {"use": "recore:appended", "base": inner, "events": tmp_path / "extra.parquet"}
    overlay = {"data": data, "trainer": {"epochs": 1}}
    run = recore.run(recore.load(home / "tiny.yaml", overlay=overlay), runs=tmp_path / "runs")
    new = pl.DataFrame({"user": ["u1", "u2"], "item": [5, 6], "time": [105.5, 300.25]})
    with pytest.raises(DataError, match="--retire: 1 of 2 items are not in the data, the first: abc"):
        updated(run.folder, tmp_path, data=new, retire=["3", "abc"])
    with pytest.raises(
        DataError, match="1 of 3 new events are in the log already, the first: user 'u1', item 3"
    ):
        updated(run.folder, tmp_path, data=pl.concat([new, extra.cast({"time": pl.Float64})]))
    result = recore.update(run, new, retire=[3], epochs=1, runs=tmp_path / "runs")
    assert result.record["update"]["items"]["retired"] == 1
    log = result.opened.prepared().log.events
    assert log.filter(pl.col("user") == "u1")["time"].tail(2).to_list() == [105.0, 105.5]
    assert result.record["counts"]["events appended"] == 3


# ---- what is refused -----------------------------------------------------------------------------------------


def test_all_mistakes_at_once_and_nothing_written(
    whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more().rename({"item": "thing"}).write_csv(tmp_path / "more.csv")
    (tmp_path / "gone.txt").write_text("i05\nnever met\n", encoding="utf-8")
    status, _, told = main(
        *(capsys, "update", whole.folder, "--runs", tmp_path / "runs", "--data", tmp_path / "more.csv"),
        *("--retire", tmp_path / "nowhere.txt", "--fit-all", "--set", "trainer.epoch=3"),
    )
    assert status == 2
    assert "--fit-all holds out nothing that could end training (say how long: --epochs N)" in told
    assert f"{tmp_path / 'more.csv'} has no column 'item'" in told
    assert f"--retire: {tmp_path / 'nowhere.txt'} cannot be read: No such file or directory" in told
    assert "--set trainer.epoch=3: trainer.epoch: unknown option" in told
    assert len(told.strip().splitlines()) == 4
    walks(5).write_csv(tmp_path / "more.csv")
    status, _, told = main(
        *(capsys, "update", whole.folder, "--runs", tmp_path / "runs", "--data", tmp_path / "more.csv"),
        *("--retire", tmp_path / "gone.txt"),
    )
    assert status == 2
    assert told.strip() == (
        "--retire: 1 of 2 items are not in the data, the first: never met (one id a line, as the data writes them)"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "there is nothing to update: give new events (--data) or items to --retire"),
        (["--set", "data.user=u", "--retire", "gone.txt"], "data.user=u says how new events are read; give --data too"),
        (["--data", "none.csv"], "none.csv is not there"),
        (["--data", "log.csv"], "this is the whole log again (--data takes new events only)"),
        (["--retire", "every.txt"], "--retire: no item would be left to recommend"),
        (["--retire", "empty.txt"], "names no item"),
        (["--retire", "gone.txt", "--epochs", "0"], "--epochs: expected at least 1, got 0"),
        (["--data", "more.csv", "--set", "model.embedder.width=9"], "weight 'embedder.weight' of the parent is ("),
    ],
)  # fmt: skip
def test_refused(
    arguments: list[str],
    expected: str,
    whole: Result,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(home / "log.csv", "log.csv")
    more().write_csv("more.csv")
    Path("gone.txt").write_text("i05\n", encoding="utf-8")
    Path("empty.txt").write_text("\n", encoding="utf-8")
    Path("every.txt").write_text("\n".join(walks()["item"].unique()), encoding="utf-8")
    status, _, told = main(capsys, "update", whole.folder, *arguments)
    assert status == 2, told
    assert expected in told
    assert not Path("runs").exists() or not list(Path("runs").rglob("*"))


def test_other_data_than_the_parent_saw(home: Path, tmp_path: Path) -> None:
    """The parent's own data are read again, and must be what they were."""
    shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("runs"))
    run = recore.run(recore.load(tmp_path / "home" / "tiny.yaml"), runs=tmp_path / "runs")
    walks(seed=4).write_csv(tmp_path / "home" / "log.csv")
    with pytest.raises(DataError, match="data, split differ from when the run began"):
        updated(run.folder, tmp_path, data=more())


def test_a_run_that_cannot_be_updated(
    whole: Result, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recore_training.standard import StandardTrainer

    from recore.sequential import SequentialModel

    copy = tmp_path / "copy"
    shutil.copytree(whole.folder, copy)
    (copy / "record.json").unlink()
    with pytest.raises(RunFolderError, match="is not finished; go on with: recore resume"):
        updated(copy, tmp_path, data=more())
    shutil.copy(whole.folder / "record.json", copy)
    shutil.rmtree(copy / "trainer")
    with pytest.raises(RunFolderError, match=r"has no trainer/, the optimiser's state beside its weights"):
        updated(copy, tmp_path / "runs", data=more())
    with monkeypatch.context() as patch:
        patch.delattr(SequentialModel, "resize")
        patch.delattr(StandardTrainer, "restart")
        with pytest.raises(RecipeError) as error:
            updated(whole.folder, tmp_path / "runs", data=more())
    assert [problem.message for problem in error.value.problems] == [
        "model 'sequential' cannot follow items that come and go: it has no `resize`",
        "trainer 'standard' cannot follow items that come and go: it has no `resize` and `restart`",
    ]
    assert not (tmp_path / "runs").exists()


def test_differences_say_where() -> None:
    one = {"a": {"b": 1, "c": [1, 2]}, "d": "x", "f": pl.DataFrame()}
    other = {"a": {"b": 1.0, "c": [1, 3]}, "e": None, "f": "data/f.parquet"}
    assert differences(one, other) == [
        "a.b: 1 → 1.0",
        "a.c.1: 2 → 3",
        "d: 'x' → not there",
        "e: not there → nothing (~)",
    ]
    assert differences(one, one) == []


# ---- day by day ----------------------------------------------------------------------------------------------


def test_three_days_of_a_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement of docs/results/updates.md in small: births, retirements, ids kept, all answers counted."""
    spec = importlib.util.spec_from_file_location("updates", ROOT / "benchmarks" / "updates.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "updates", script)
    spec.loader.exec_module(script)
    monkeypatch.setitem(script.RECIPE["trainer"], "epochs", 3)
    told: list[str] = []
    days = script.Days(script.world(120, 0), Machine(), tmp_path, 1)
    found = script.several(days, 51, 53, told.append)
    assert len(told) == 4
    assert [row["day"] for row in found["days"]] == [51, 52, 53]
    assert {row["ids kept"] for row in found["days"]} == {"yes"}
    total = found["total"]
    assert total["added"] >= 1
    assert total["retired"] >= 1
    assert total["events"] == sum(row["events"] for row in found["days"]) > 60
    for name in script.KINDS:
        assert total[name]["low"] <= total[name]["ndcg@10"] <= total[name]["high"]
        # Pooled over events: the mean of the days, each with its own number of them.
        days_mean = sum(row[name]["ndcg@10"] * row["events"] for row in found["days"]) / total["events"]
        assert total[name]["ndcg@10"] == pytest.approx(days_mean)
    # What no run has a row for is a miss: the run that is left alone has most of these.
    missing = [total[name]["missing"] for name in ("update", "retrain", "none")]
    assert missing[0] == missing[1] <= missing[2]
    rows = [row["items"]["rows"] for row in found["days"]]
    assert rows == sorted(rows)
