"""What cannot work is said before anything is written, or where it arises; nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from engine_helpers import Small, framed, main, walks

import recore
from recore.api import Machine
from recore.engine import drive
from recore.engine.prepare import prepare
from recore.engine.run import reopen
from recore.errors import DataError, DivergenceError, RecipeError


def test_divergence_says_where_and_keeps_the_last_good_state(
    small: Small,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Loss or gradient: step, part and remedy; status 2; the epoch before is still there."""
    from recore.sequential import SequentialModel, SequentialTraining

    real = SequentialTraining.backward

    def blown(self: SequentialTraining, batches: Any, weights: Any, step: int) -> Any:
        if step == 6:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.mul_(1e30)
        return real(self, batches, weights, step)

    monkeypatch.setattr(SequentialTraining, "backward", blown)
    status, _, err = main(capsys, "run", home / "tiny.yaml", "--runs", tmp_path, "--quiet")
    assert status == 2
    assert "step 6" in err
    assert "'ce'" in err
    assert "trainer.learning_rate" in err
    folder = (tmp_path / "tiny" / "latest").resolve()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["000000004"]
    assert [path.name for path in (folder / "models").iterdir()] == ["epoch-0001"]
    monkeypatch.setattr(SequentialTraining, "backward", real)
    scorer: Any = reopen(folder).scorer
    assert isinstance(scorer.model, SequentialModel)
    assert all(parameter.isfinite().all() for parameter in scorer.model.parameters())


def test_a_huge_learning_rate_diverges(small: Small) -> None:
    with pytest.raises(DivergenceError, match=r"step \d+") as caught:
        small({"trainer": {"learning_rate": 1e38, "epochs": 3}})
    assert caught.value.exit_status == 2


def test_divergence_in_validation_names_the_epoch(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    from recore.sequential import SequentialScorer

    real = SequentialScorer.score
    monkeypatch.setattr(
        SequentialScorer, "score", lambda self, state, items=None: real(self, state) * float("nan")
    )
    with pytest.raises(DivergenceError, match=r"validation after step 4, the last of epoch 1: .*NaN"):
        small()


def refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """Status 2 and a complaint; nothing was written."""
    status, out, err = main(capsys, "run", home / "tiny.yaml", "--runs", tmp_path / "runs", *more)
    assert status == 2, (out, err)
    assert out == ""
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()
    return err


@pytest.mark.parametrize(
    ("changes", "complaints"),
    [
        (["trainer.metric=ndcg@7"], ["trainer.metric", "'ndcg@7'", "ndcg@10"]),
        (["evaluators=[]"], ["evaluators", "at least one"]),
        (
            ["evaluators=[{use: recore-evaluation:ranking}, {use: recore-evaluation:ranking, seen: none}]"],
            ["evaluators.1", "measures", "ndcg@10", "as evaluators.0 does already"],
        ),
        (["transforms={use: recore-data:rating-at-least, least: 3}"], ["rating"]),
        (["transforms={use: recore-data:k-core, users: 99}"], ["k-core", "leaves none of 237 events"]),
        (["data.path=nowhere.csv"], ["nowhere.csv"]),
        (["trainer.epochs=many"], ["trainer.epochs"]),
    ],
)
def test_refused_before_anything_is_written(
    changes: list[str], complaints: list[str], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(home, tmp_path, capsys, *[word for change in changes for word in ("--set", change)])
    for complaint in complaints:
        assert complaint in err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--device", "nonsense"], "--device nonsense: not available"),
        (["--threads", "0"], "--threads: expected at least 1, got 0"),
        (["--cell", "a=b"], "--cell a=b: no such cell; this recipe has base"),
    ],
)
def test_flags_that_cannot_be_met(
    flags: list[str], complaint: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint in refused(home, tmp_path, capsys, *flags)


def test_a_log_without_targets_is_refused(small: Small, tmp_path: Path) -> None:
    """Users of two events have no target: said before training, with the counts."""
    short = walks().group_by("user", maintain_order=True).head(2)
    with pytest.raises(DataError, match=r"the test part holds no target .*30 users with fewer than 3"):
        small(framed(short))
    assert not (tmp_path / "runs").exists()


def test_an_empty_training_part_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import attrs
    import numpy as np
    from recore_data.leave_last import LeaveLastSplit

    real = LeaveLastSplit.parts
    monkeypatch.setattr(
        LeaveLastSplit,
        "parts",
        lambda self, log: attrs.evolve(real(self, log), train=np.zeros(0, dtype=np.int64)),
    )
    with pytest.raises(DataError, match="the training part is empty"):
        prepare(recore.load(home / "tiny.yaml"), 0, Machine())


def test_without_validation_the_last_epoch_is_taken_and_it_is_said(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import attrs
    import numpy as np
    from recore_data.leave_last import LeaveLastSplit

    from recore.contracts import Holdout

    real, none = LeaveLastSplit.parts, np.zeros(0, dtype=np.int64)
    monkeypatch.setattr(
        LeaveLastSplit,
        "parts",
        lambda self, log: attrs.evolve(real(self, log), validation=Holdout(none, none, none)),
    )
    status, out, err = main(capsys, "run", home / "tiny.yaml", "--runs", tmp_path)
    assert (status, err) == (0, "")
    assert "no validation part: the weights of the last epoch are taken" in out
    record = json.loads((tmp_path / "tiny" / "latest" / "record.json").read_text())
    assert record["validation"] == {}
    assert record["best_epoch"] == 3
    assert record["card"]["protocol"]["checkpoint"] == "after fitting"


PLUGIN = '''
import attrs
from recore import Component, PositionClaims, hookimpl, option

@attrs.frozen
class Timed:
    """Reads a column."""
    name: str = option("time", help="The column.")
    def columns(self):
        return frozenset({self.name})
    def claims(self):
        return PositionClaims("nothing")

def build(options, context):
    import torch
    from recore.contracts import Placed
    class Position(torch.nn.Module):
        def place(self, x, batch, view):
            return Placed(x + view[options.name].to(x.dtype).unsqueeze(-1))
    return Position()

@hookimpl
def recore_positions():
    yield Component("timed", Timed, "this:build", summary="Reads a column.")
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "timed.py"
    path.write_text(PLUGIN)
    path.chmod(0o644)
    return path


def test_a_column_that_is_missing_is_named(
    home: Path, tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(home, tmp_path, capsys, "--plugin", str(plugin), "--set", "model.position={use: timed}")
    assert "position 'timed' reads the column 'time', which the data does not have" in err
    assert "columns: event, user, item" in err


def test_a_loose_plugin_travels_with_the_run(home: Path, tmp_path: Path, plugin: Path) -> None:
    """It is copied, readable whatever the umask, and used from there; the column is read in serving, too."""
    import os

    frame = walks().with_columns(pl.lit(1.0).alias("kind"))
    overlay = {
        **framed(frame),
        "model": {"position": {"use": "timed", "name": "kind"}},
        "trainer": {"epochs": 1},
    }
    overlay["data"]["columns"] = ["kind"]
    before = os.umask(0o077)
    try:
        recipe = recore.load(home / "tiny.yaml", overlay=overlay, plugins=[plugin])
        result = recore.run(recipe, runs=tmp_path / "runs")
        plugin.write_text("raise RuntimeError('the file is not what it was')")
        copied = result.folder / "plugins" / "timed.py"
        assert copied.stat().st_mode & 0o777 == 0o644
        opened = reopen(result.folder)
        assert opened.changed == []
        assert opened.prepared().examination("test").ask(opened.scorer, opened.prepared().evaluators)
    finally:
        os.umask(before)


def test_notifications_are_heard_and_may_fail(home: Path, tmp_path: Path) -> None:
    """Trackers hear a run, and one that fails is reported while the run goes on."""
    path = tmp_path / "tracker.py"
    path.write_text(
        PLUGIN
        + """
heard = []
@hookimpl
def recore_run_started(run, card):
    heard.append(("started", run.name))
@hookimpl
def recore_epoch_ended(run, metrics):
    heard.append(("epoch", metrics["epoch"]))
    raise RuntimeError("the tracker is down")
@hookimpl
def recore_run_ended(run, record):
    (run / "heard.json").write_text(__import__("json").dumps([*heard, ["ended", record["epochs"]]]))
"""
    )
    path.chmod(0o644)
    notes: list[str] = []

    class Listens:
        plan = epoch = done = staticmethod(lambda *arguments: None)
        note = staticmethod(notes.append)

    recipe = recore.load(home / "tiny.yaml", set=["trainer.epochs=2"], plugins=[path])
    result = recore.run(recipe, runs=tmp_path / "runs", reporter=Listens())
    heard = json.loads((result.folder / "heard.json").read_text())
    assert [entry[0] for entry in heard] == ["started", "epoch", "epoch", "ended"]
    assert sum("the tracker is down" in note for note in notes) == 2


def test_a_recipe_with_several_cells_is_for_the_command_line(home: Path) -> None:
    def wide(width: int) -> dict[str, Any]:
        return {"model": {"embedder": {"width": width}}}

    overlay = {"matrix": {"width": {"small": wide(4), "large": wide(8)}}}
    with pytest.raises(RecipeError, match="2 cells"):
        recore.load(home / "tiny.yaml", overlay=overlay)


def test_saving_within_an_epoch_is_rare() -> None:
    assert drive.SAVE_EVERY == 300
