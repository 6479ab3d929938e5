"""The runs behind the results pages: every cell starts, trains and is measured, and the pages render from them."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import yaml

import recore
from recore.engine.rundir import write_json
from recore.statistics import paired

ROOT = Path(recore.__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = ("positions", "padding", "truncation")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RESULTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def grid() -> ModuleType:
    return script("grid")


@pytest.fixture(scope="module")
def render() -> ModuleType:
    return script("render")


# ---- every page, quick ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_cell_runs_and_the_page_renders(grid: ModuleType, page: str, tmp_path: Path) -> None:
    records = grid.quick([page], tmp_path / "records", tmp_path / "runs")
    named = {f"{cell.name}/{cell.cell}" for _, cell in grid.composed(page, sets=grid.QUICK)}
    assert {f"{record['recipe']}/{record['cell']}" for record in records} == named
    for record in records:
        assert record["users"] == len(record["by_user"]["places"]) > 0
        assert math.isfinite(record["test"]["ndcg@10"])
        assert record["epochs"] == 1
    assert grid.render(page, "--records", tmp_path / "records", "--to", tmp_path) == 0
    text = (tmp_path / f"{page}.md").read_text(encoding="utf-8")
    assert "not run" not in text


def test_the_pages_show_every_cell_that_is_declared(grid: ModuleType) -> None:
    for page in PAGES:
        text = (RESULTS / f"{page}.md").read_text(encoding="utf-8")
        shown = set()
        for match in re.finditer(r"<!-- grid (\S+)\n(.*?)-->", text, re.DOTALL):
            shown |= {f"{match[1]}/{cell}" for cell in yaml.safe_load(match[2])["cells"]}
        named = {f"{cell.name}/{cell.cell}" for _, cell in grid.composed(page, sets=grid.QUICK)}
        assert shown == named


# ---- what is kept of users -----------------------------------------------------------------------------------


def test_places_give_the_metrics_again_and_pairs_as_statistics_does(
    grid: ModuleType, render: ModuleType
) -> None:
    ranks = [1, 2, 10, 11, 400, 3, 1, 7]
    frames = [
        pl.DataFrame(
            {
                "user": list(range(8)),
                "length": [5, 1, 9, 30, 2, 2, 70, 8],
                "rank": given,
                "ndcg@10": [1 / math.log2(1 + rank) if rank <= 10 else 0.0 for rank in given],
            }
        )
        for given in (ranks, ranks[::-1])
    ]
    card = {"protocol": {"metrics": {}}}
    records = [
        {
            "recipe": "r",
            "cell": cell,
            "seed": 0,
            "card": card,
            "by_user": grid.by_user(frame.sample(8, shuffle=True)),
        }
        for cell, frame in zip("ab", frames, strict=True)
    ]
    assert records[0]["by_user"]["places"] == "12A00317"
    assert records[0]["by_user"]["quartile"] == "21341143"
    assert render.gains(records[0], "ndcg@10") == pytest.approx(frames[0]["ndcg@10"].to_list())
    middle, low, high = render.paired(records[:1], records[1:], "ndcg@10")
    exact = paired(frames[0], frames[1], "ndcg@10")
    assert middle == pytest.approx(exact.difference, abs=1e-12)
    difference = (frames[0]["ndcg@10"] - frames[1]["ndcg@10"]).to_list()
    assert high - middle == pytest.approx(1.96 * float(pl.Series(difference).std() or 0) / math.sqrt(8))
    assert low < middle < high
    shortest = render.paired(records[:1], records[1:], "q1.ndcg@10")
    shortest_three = [difference[1], difference[4], difference[5]]
    assert len(render.gains(records[0], "ndcg@10", "1")) == 3
    assert shortest[0] == pytest.approx(sum(shortest_three) / 3)


def test_over_seeds_each_users_mean_is_paired(render: ModuleType) -> None:
    def record(cell: str, seed: int, places: str) -> dict[str, Any]:
        by_user = {"sha256": "same", "places": places, "quartile": "1" * len(places)}
        card = {"protocol": {"metrics": {}, "target time": "not given"}}
        return {
            "recipe": "r",
            "cell": cell,
            "seed": seed,
            "card": card,
            "by_user": by_user,
            "test": {"hr@10": 0.5},
        }

    ours = [record("a", 0, "1100"), record("a", 1, "1000"), record("a", 2, "1111")]
    theirs = [record("b", 0, "0000"), record("b", 1, "0001")]
    middle, _, high = render.paired(ours, theirs, "hr@10")
    assert middle == pytest.approx((1 + 0.5 + 0 - 0.5) / 4)  # the seed that only one has is left out
    assert high - middle == pytest.approx(1.96 * math.sqrt(((0.75**2) * 2 + 0.25**2 * 2) / 3) / 2)
    assert render.in_grid("each.paired.hr@10", ours, theirs).count("(") == 2
    assert render.in_grid("seeds", ours, []) == "0, 1, 2"
    assert render.in_grid("test.hr@10", [], theirs) == "not run"
    assert render.in_grid("paired.hr@10", theirs, theirs) == ""
    other = record("b", 0, "0000")
    other["card"]["protocol"]["target time"] = "given"
    with pytest.raises(ValueError, match="r/a and r/b are not comparable: target time differ"):
        render.paired(ours, [other], "hr@10")


# ---- resumable -----------------------------------------------------------------------------------------------

RECIPE = """\
recore: 1
extends: {base}
data: {{users: 12, items: 30, events: 8.0, longest: 16, births: 0.0, retirements: 0.0}}
trainer: {{epochs: 2, patience: ~}}
matrix:
  position:
    none: {{model: {{position: {{use: recore-positions:none}}}}}}
    start: {{}}
"""


@pytest.fixture
def small(grid: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE.format(base=ROOT / "recipes" / "sasrec.yaml"), encoding="utf-8")
    entry = {"recipe": str(recipe), "seeds": [0, 1], "minutes": 1}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"page": [entry]}), encoding="utf-8")
    monkeypatch.setattr(grid, "HERE", tmp_path)
    return tmp_path


def named(run: Any) -> str:
    return f"{run.cell}/seed-{run.seed}"


def test_the_first_seed_of_everything_comes_first(grid: ModuleType, small: Path) -> None:
    runs = grid.runs_of("page")
    assert [named(run) for run in runs] == [
        "position=none/seed-0",
        "position=start/seed-0",
        "position=none/seed-1",
        "position=start/seed-1",
    ]
    assert [named(run) for run in grid.runs_of("page", "start/seed-1")] == ["position=start/seed-1"]
    assert [named(run) for run in grid.runs_of("page", "*none*")] == [
        "position=none/seed-0",
        "position=none/seed-1",
    ]


def test_a_run_that_ended_is_kept_and_one_that_stopped_is_taken_up(
    grid: ModuleType, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, runs = small / "records", small / "runs"
    said: list[tuple[object, ...]] = []

    def command(*arguments: object) -> None:
        from recore.cli.main import main

        said.append(arguments)
        assert main([str(one) for one in arguments]) == 0

    monkeypatch.setattr(grid, "command", command)
    run = grid.runs_of("page")[0]
    record = grid.carry_out(run, runs, records, 1)
    assert said[0][0] == "run"
    assert run.record(records).is_file()
    assert not grid.differences(run, record)
    folder = grid.folders(run, runs)[0]

    run.record(records).unlink()
    assert grid.carry_out(run, runs, records, 1) == record  # from its folder
    assert len(said) == 1

    # Stopped before the end: the folder is taken up.
    (folder / "record.json").rename(small / "record.json")
    monkeypatch.setattr(grid, "command", lambda *_: (small / "record.json").rename(folder / "record.json"))
    again = grid.carry_out(run, runs, records, 1)
    assert grid.folders(run, runs) == [folder]
    assert again == record

    # Another recipe by now: the folder's record is not taken for it.
    changed = json.loads(json.dumps(dict(run.tree)))
    changed["trainer"]["epochs"] = 3
    other = grid.Run(run.source, run.recipe, run.cell, run.seed, changed, 1.0)
    assert grid.differences(other, record) == ["trainer.epochs"]
    assert grid.expected(other, records) == pytest.approx(
        grid.START + 3 * (again["seconds_per_epoch"] + again["validation_seconds_per_epoch"]) / 60
    )
    assert grid.expected(other, small / "none") == 1.0


def test_what_fails_is_begun_anew(grid: ModuleType, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, runs = grid.runs_of("page")[0], small / "runs"
    stale = runs / run.recipe / run.cell / "20200101-000000-00000000"
    monkeypatch.setattr(grid, "folders", lambda *_: [path for path in [stale] if path.exists()])
    write_json(stale / "run.json", {"seed": 0})
    said = []

    def command(*arguments: object) -> None:
        said.append(arguments[0])
        if arguments[0] == "resume":
            raise RuntimeError("began with other code")
        raise RuntimeError("enough seen")

    monkeypatch.setattr(grid, "command", command)
    with pytest.raises(RuntimeError, match="enough seen"):
        grid.carry_out(run, runs, small / "records", 1)
    assert said == ["resume", "run"]
    assert not stale.exists()
