"""Training on everything: for the epochs that validation chose, on the schedule as written, without figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from engine_helpers import Small, main, walks

import recore
from recore.api import Result
from recore.engine import drive
from recore.engine.machine import Machine
from recore.engine.run import reopen, resume, run
from recore.errors import RecoreError

OVERLAY = {
    "trainer": {"learning_rate": 0.05, "epochs": 6, "schedule": "linear", "patience": 2},
    "model": {"encoder": {"dropout": 0.5}},
}


@pytest.fixture(scope="module")
def chosen(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run whose best epoch is not its last."""
    made = recore.run(
        recore.load(home / "tiny.yaml", overlay=OVERLAY), runs=tmp_path_factory.mktemp("chosen")
    )
    assert 1 <= made.record["best_epoch"] < 6
    return made


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def everything(chosen: Result, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes of it. Shared: do not write into its folder."""
    root = tmp_path_factory.mktemp("everything")
    sets = ["trainer.learning_rate=0.05", "trainer.epochs=6", "trainer.schedule=linear", "trainer.patience=2"]
    sets.append("model.encoder.dropout=0.5")
    from recore.cli.main import main as command_line

    given = [word for text in sets for word in ("--set", text)]
    arguments = ["run", home / "tiny.yaml", *given, "--fit-all", "--epochs-from", chosen.folder]
    assert command_line([str(word) for word in [*arguments, "--runs", root, "--quiet"]]) == 0
    return (root / "tiny" / "latest").resolve()


def test_everything_trains_for_the_chosen_epochs(chosen: Result, everything: Path) -> None:
    best = chosen.record["best_epoch"]
    lines = lines_of(everything)
    assert [line["epoch"] for line in lines] == list(range(1, best + 1))
    assert {line["of"] for line in lines} == {best}
    assert all(line["validation"] == {} for line in lines)
    # The schedule is that of six epochs, as written, not of those that are trained.
    counts = lines[0]["step"]
    rates = [0.05 * (1 - (epoch + (counts - 1) / counts) / 6) for epoch in range(best)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates)
    prepared = reopen(everything).prepared()
    assert len(prepared.parts.train) == len(prepared.log) == len(walks())
    assert len(prepared.parts.validation) == len(prepared.parts.test) == 0


def test_its_record_has_no_figures_and_says_why(chosen: Result, everything: Path) -> None:
    record = json.loads((everything / "record.json").read_text("utf-8"))
    assert [record[key] for key in ("test", "validation", "intervals", "groups", "users")] == [
        {},
        {},
        {},
        {},
        0,
    ]
    told = record["fit_all"]
    assert told["epochs"] == record["epochs"] == record["best_epoch"] == chosen.record["best_epoch"]
    assert told["from"] == str(chosen.folder)
    assert told["from_weights"] == chosen.opened.weights_digest()
    assert told["validation"] == chosen.record["validation"]
    protocol = record["card"]["protocol"]
    assert protocol["split"]["name"] == "none: all events train, nothing is held out"
    assert protocol["checkpoint"] == f"after {told['epochs']} epochs, a number given beforehand"
    assert not (everything / "users-test.parquet").exists()
    assert chosen.record["fit_all"] is None


def test_it_answers_and_cannot_be_measured(everything: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = main(capsys, "recommend", everything, "--users", "=u1,u2", "-k", 4, "--json")
    assert status == 0
    assert len(printed.splitlines()) == 8
    for part in ("test", "validation"):
        status, _, told = main(capsys, "evaluate", everything, "--part", part)
        assert status == 2
        assert told.strip() == (
            f"this run trained on all events (--fit-all), so it has no {part} part; measure the run that chose its "
            "epochs"
        )


def test_stopped_it_goes_on_to_the_same_weights(
    chosen: Result, everything: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any of its epochs, too: after the last one nothing is trained any more."""
    told = json.loads((everything / "record.json").read_text("utf-8"))["fit_all"]
    recipe = recore.load(home / "tiny.yaml", overlay=OVERLAY)

    class Killed(BaseException):
        pass

    real = drive._Loop.end_epoch
    for epoch in range(1, told["epochs"] + 1):

        def ends(self: Any, report: Any, scorer: Any, after: int = epoch) -> None:
            real(self, report, scorer)
            if report.epoch + 1 == after:
                raise Killed

        root = tmp_path / str(epoch)
        with monkeypatch.context() as patch:
            patch.setattr(drive._Loop, "end_epoch", ends)
            with pytest.raises(Killed):
                run(recipe, 0, Machine(), root, fit_all=told)
        folder = resume((root / "tiny" / "latest").resolve()).path
        weights = [path / "model" / "model.safetensors" for path in (folder, everything)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        assert len(lines_of(folder)) == told["epochs"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--fit-all"], ["--fit-all holds nothing out that could end training; give --epochs-from RUN too"]),
        (["--epochs-from", "RUN"], ["--epochs-from says how long --fit-all trains; give both"]),
        (["--fit-all", "--epochs-from", "nowhere"], ["nowhere is no run folder: it has no run.json"]),
    ],
    ids=["alone", "without", "nowhere"],
)
def test_refused(
    arguments: list[str],
    expected: list[str],
    whole: Result,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [whole.folder if word == "RUN" else word for word in arguments]
    status, _, told = main(capsys, "run", home / "tiny.yaml", *given, "--runs", tmp_path / "runs")
    assert (status, told.strip().splitlines()) == (2, expected)
    assert not (tmp_path / "runs").exists()


def test_another_recipe_is_told_option_by_option(
    whole: Result, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--set", "model.history.last=5", "--set", "trainer.epochs=4"]
    given += ["--fit-all", "--epochs-from", str(whole.folder)]
    status, _, told = main(capsys, "run", home / "tiny.yaml", *given, "--runs", tmp_path / "runs")
    assert status == 2
    head = f"--epochs-from: the recipe is another than that of {whole.folder}: "
    assert told.splitlines() == [f"{head}model.history.last: 6 → 5", f"{head}trainer.epochs: 3 → 4"]


def test_epochs_that_no_validation_chose(
    whole: Result,
    everything: Path,
    home: Path,
    small: Small,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, told = main(
        capsys,
        "run",
        everything / "recipe.yaml",
        "--fit-all",
        "--epochs-from",
        everything,
        "--runs",
        tmp_path / "x",
    )
    assert status == 2
    assert f"--epochs-from: {everything} chose no epoch on a validation part" in told
    copy = tmp_path / "copy"
    shutil.copytree(whole.folder, copy)
    (copy / "record.json").unlink()
    status, _, told = main(
        capsys, "run", home / "tiny.yaml", "--fit-all", "--epochs-from", copy, "--runs", tmp_path / "x"
    )
    assert (status, told.strip()) == (
        2,
        f"--epochs-from: {copy} is not finished; go on with: recore resume {copy}",
    )


def test_from_python_it_has_no_test_figures(everything: Path) -> None:
    result = recore.open_run(everything)
    assert result.test == {}
    assert result.recommend([["i01"]], k=2).height == 2
    with pytest.raises(RecoreError, match="has no test part"):
        result.users()
