"""Records, cards and pages: what a run leaves for those who compare, and that the pages tell the same."""

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
import torch
from engine_helpers import Small, framed, main, walks

import recore
from recore.api import Result
from recore.engine.machine import peak_memory_mib, reset_peak_memory
from recore.engine.ranks import TIE_BOUND
from recore.engine.record import intervals, keep_record, record_path
from recore.statistics import paired

ROOT = Path(recore.__file__).resolve().parents[1]
DOCUMENTED = ROOT / "docs" / "reference" / "records.md"
RESULTS = ROOT / "docs" / "results"


# ---- the record ----------------------------------------------------------------------------------------------


def documented() -> set[str]:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", DOCUMENTED.read_text(encoding="utf-8"), re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_documented_and_produced_keys_agree(whole: Result) -> None:
    assert documented() - {"paired", "by_user"} == set(whole.record)
    asked = {
        *("recipe", "cell", "seed", "card", "test", "validation", "intervals", "epochs", "seconds_per_epoch"),
        *("peak_memory_mib", "machine", "versions", "groups"),
    }
    assert asked <= set(whole.record)


def test_what_a_record_says(whole: Result) -> None:
    record = whole.record
    assert (record["format"], record["recipe"], record["cell"], record["seed"]) == (1, "tiny", "base", 0)
    assert set(record["test"]) == set(record["validation"]) == set(record["intervals"])
    for name, (low, high) in record["intervals"].items():
        assert 0 <= low <= record["test"][name] <= high <= 1
    assert record["users"] == 30
    assert record["epochs"] == 3
    assert 1 <= record["best_epoch"] <= 3
    assert sum(group["users"] for group in record["groups"].values()) == 30
    assert {"q1", "q2"} <= set(record["groups"]) <= {"q1", "q2", "q3", "q4"}
    assert re.search("`q1` … `q4`", DOCUMENTED.read_text(encoding="utf-8"))
    assert set(record["parameters"]) == {"embedder", "position0", "encoder"}
    assert record["parameters"]["embedder"] == 24 * 8
    assert record["peak_memory_mib"] > 50
    assert {plugin["name"] for plugin in record["versions"]["plugins"]} >= {"recore", "recore-sasrec"}
    assert len({plugin["sha256"] for plugin in record["versions"]["plugins"]}) > 9
    assert record["machine"]["precision"] == "float32"
    text = json.dumps(record)
    assert len(text) < 30_000
    assert json.loads(text) == json.loads((whole.folder / "record.json").read_text(encoding="utf-8"))


def test_the_two_halves_of_the_card(small: Small, whole: Result) -> None:
    """A treatment changes its half only; a change of protocol shows in the other."""
    other = small({"model": {"embedder": {"width": 4}}, "trainer": {"epochs": 1}})
    card, changed = whole.record["card"], other.record["card"]
    assert set(card) == {"protocol", "treatment"}
    assert card["protocol"] == changed["protocol"]
    assert changed["treatment"]["recipe"]["model"]["embedder"]["width"] == 4
    protocol = card["protocol"]
    assert len(protocol["data"]["fingerprint"]) == len(protocol["split"]["sha256"]) == 64
    assert protocol["seen filter"] == ["history"]
    assert protocol["data"]["order across users"] == "unknown"
    assert f"{TIE_BOUND:.3g}" in protocol["rank ties"]
    assert protocol["target time"] == "not given to the model"
    assert protocol["checkpoint"] == "best validation ndcg@10"
    assert set(protocol["metrics"]) == set(whole.test)

    ranking = {"use": "recore-evaluation:ranking", "k": [10], "seen": "none"}
    unlike = small({"evaluators": ranking, "trainer": {"epochs": 1}}).record["card"]
    assert unlike["protocol"]["seen filter"] == ["none"]
    assert "evaluators" not in unlike["treatment"]["recipe"]
    less = small({**framed(walks(users=29)), "trainer": {"epochs": 1}}).record["card"]
    assert less["protocol"]["data"]["fingerprint"] != protocol["data"]["fingerprint"]
    assert less["protocol"]["split"]["sha256"] != protocol["split"]["sha256"]


def test_transforms_are_on_the_card(small: Small) -> None:
    frame = pl.concat([walks(), pl.DataFrame({"user": ["u0"] * 2, "item": ["i90"] * 2})])
    result = small(
        {**framed(frame), "transforms": [{"use": "recore-data:collapse-repeats"}], "trainer": {"epochs": 1}}
    )
    (step,) = result.record["card"]["protocol"]["data"]["transforms"]
    assert step["use"] == "recore-data:collapse-repeats"
    assert sum(step["dropped"].values()) == 1
    assert step["left"]["events"] == frame.height - 1


# ---- targets that need a policy ------------------------------------------------------------------------------


def test_cold_repeated_and_short_are_counted_and_never_left_out(small: Small) -> None:
    events = walks().rows()
    events += [("cold", "i01"), ("cold", "i02"), ("cold", "i03"), ("cold", "never before")]
    events += [("again", "i01"), ("again", "i02"), ("again", "i03"), ("again", "i01")]
    events += [("short", "i01"), ("short", "i02")]
    frame = pl.DataFrame(events, schema=["user", "item"], orient="row")
    result = small({**framed(frame), "trainer": {"epochs": 1}})
    counts, users = result.record["counts"], result.users()
    assert counts["targets"] == result.record["users"] == 32
    assert counts["cold targets (never seen in training)"] == 1
    assert counts["test targets not in training (cold)"] == 1
    assert counts["targets in their own history (made impossible by the seen filter)"] == 1
    assert counts["test targets already in their history"] == 1
    assert counts["targets that are no candidates (rank V + 1)"] == 2
    assert counts["users with fewer than 3 events, all of which train"] == 1
    items = 24
    ranks = dict(users.select("user", "rank").iter_rows())
    assert ranks["cold"] == ranks["again"] == items + 1
    assert "short" not in ranks
    assert users.filter(pl.col("user") == "cold")["ndcg@10"].to_list() == [0.0]
    # Totals are means over all rows, those included.
    for name, value in result.test.items():
        assert value == math.fsum(users[name]) / 32

    kept = small(
        {
            **framed(frame),
            "trainer": {"epochs": 1},
            "evaluators": {"use": "recore-evaluation:ranking", "k": [10], "seen": "none"},
        }
    )
    ranks = dict(kept.users().select("user", "rank").iter_rows())
    assert ranks["again"] <= items
    assert ranks["cold"] == items + 1


def test_intervals_draw_users() -> None:
    """Rows of one user go together: with every row repeated the interval stays, it does not shrink."""
    frame = pl.DataFrame({"user": list(range(40)), "m": [0.0, 1.0] * 20})
    doubled = pl.concat([frame, frame])
    assert intervals(frame, ["m"], 0)["m"] == pytest.approx(intervals(doubled, ["m"], 0)["m"], abs=0.02)
    assert intervals(frame, ["m", "not there"], 0).keys() == {"m"}
    assert intervals(frame.head(0), ["m"], 0) == {}


def test_frames_of_two_runs_are_paired(small: Small, whole: Result) -> None:
    other = small(seed=3)
    found = paired(whole.users(), other.users(), "ndcg@10")
    assert found.users == 30
    assert found.difference == pytest.approx(whole.test["ndcg@10"] - other.test["ndcg@10"], abs=1e-12)


def test_two_evaluators_side_by_side(small: Small) -> None:
    result = small(
        {
            "trainer": {"epochs": 1},
            "evaluators": [
                {"use": "recore-evaluation:ranking", "k": [10], "metrics": ["ndcg"]},
                {"use": "recore-evaluation:ranking", "k": [3], "metrics": ["hr"]},
            ],
        }
    )
    assert set(result.test) == {"ndcg@10", "hr@3"} == set(result.record["intervals"])
    assert {"ndcg@10", "hr@3"} <= set(result.users().columns)
    assert {"ndcg@10", "hr@3"} <= set(result.record["groups"]["q1"])


def test_records_are_kept_where_they_belong(
    home: Path, whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {**whole.record, "recipe": "ml-1m/x", "cell": "order=random", "seed": 3}
    path = keep_record(tmp_path, record)
    assert path == tmp_path / "ml-1m" / "x" / "order=random" / "seed-3.json" == record_path(tmp_path, record)
    assert json.loads(path.read_text(encoding="utf-8")) == record
    assert main(capsys, "resume", whole.folder, "--quiet", "--record", tmp_path)[0] == 0
    assert (tmp_path / "tiny" / "base" / "seed-0.json").is_file()


def test_peak_memory_is_of_this_run() -> None:
    reset_peak_memory()
    before = peak_memory_mib()
    torch.ones(100 * 2**18).sum()  # 100 MiB
    assert peak_memory_mib() > before + 90
    reset_peak_memory()
    if Path("/proc/self/clear_refs").exists():
        assert peak_memory_mib() < before + 90


# ---- pages ---------------------------------------------------------------------------------------------------


def renderer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render", RESULTS / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = """\
# A page

<!-- table
rows: [tiny]
columns:
  NDCG@10: test.ndcg@10
  of: label.name
  valid: validation.hr@10
  95%: interval.ndcg@10
  q1: group.q1.mrr@5
  threads: machine.cores
labels: {tiny: {name: a name}}
-->
<!-- end -->

In words: <!-- value tiny/base/seed-0 test.ndcg@10 -->?<!-- end -->.
"""


@pytest.fixture
def pages(tmp_path: Path, whole: Result, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, Path]:
    render = renderer()
    monkeypatch.setattr(render, "HERE", tmp_path)
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    keep_record(tmp_path / "records", whole.record)
    return render, tmp_path / "page.md"


def test_pages_are_rendered_once_and_checked(
    pages: tuple[ModuleType, Path], whole: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    render, page = pages
    assert render.main(["--check"]) == 1
    assert "out of date: page.md" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == PAGE
    assert render.main([]) == 0
    once = page.read_text(encoding="utf-8")
    assert render.main([]) == 0
    assert page.read_text(encoding="utf-8") == once
    assert render.main(["--check"]) == 0
    figure = f"{whole.test['ndcg@10']:.4f}"
    low, high = whole.record["intervals"]["ndcg@10"]
    assert f"In words: <!-- value tiny/base/seed-0 test.ndcg@10 -->{figure}<!-- end -->." in once
    (line,) = [line for line in once.splitlines() if line.startswith(f"| {figure} |")]
    row = [cell.strip() for cell in line.split("|")[1:-1]]
    assert row[1] == "a name"
    assert row[3] == f"{low:.4f} to {high:.4f}"
    page.write_text(once.replace(figure, "0.9999", 1), encoding="utf-8")
    assert render.main(["--check"]) == 1


def test_a_table_of_a_measurement(pages: tuple[ModuleType, Path]) -> None:
    render, page = pages
    held = {
        "days": [{"day": 3, "kept": "yes", "run": {"x": 0.5}}, {"day": 4, "kept": "no", "run": {"x": 12.0}}]
    }
    (page.parent / "days.json").write_text(json.dumps(held), encoding="utf-8")
    text = (
        "<!-- json days.json\nrows: days\ncolumns: {day: day, x: run/x, kept: kept}\n-->\nold\n<!-- end -->\n"
    )
    page.write_text(text + "<!-- value days.json days/1/run/x --><!-- end -->", encoding="utf-8")
    assert render.main([]) == 0
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[-6:] == [
        "| day | x | kept |",
        "| --- | --- | --- |",
        "| 3 | 0.5000 | yes |",
        "| 4 | 12.0 | no |",
        "<!-- end -->",
        "<!-- value days.json days/1/run/x -->12.0<!-- end -->",
    ]
    page.write_text(text.replace("run/x", "run/y"), encoding="utf-8")
    with pytest.raises(KeyError, match="y"):
        render.main([])


def test_a_record_that_does_not_belong_is_refused(pages: tuple[ModuleType, Path], whole: Result) -> None:
    render, page = pages
    records = page.parent / "records"
    path = records / "tiny" / "base" / "seed-0.json"
    path.write_text(json.dumps({**whole.record, "format": 2}))
    with pytest.raises(ValueError, match="format 2"):
        render.load_records(records)
    path.write_text(json.dumps({**whole.record, "seed": 7}))
    with pytest.raises(ValueError, match="holds tiny/base/seed-7"):
        render.load_records(records)


def test_a_row_without_a_record_is_an_error(pages: tuple[ModuleType, Path]) -> None:
    render, page = pages
    page.write_text(PAGE.replace("rows: [tiny]", "rows: [nothing]"), encoding="utf-8")
    with pytest.raises(KeyError, match="nothing"):
        render.main([])


def test_the_pages_of_the_repository_agree_with_their_records() -> None:
    """Each page is what its records make of it; a page that asks for a record which is not there is red."""
    render = renderer()
    records: dict[str, Any] = render.load_records(RESULTS / "records")
    pages = sorted(RESULTS.glob("*.md"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert render.render(text, records) == text, f"{page.name}: run docs/results/render.py"
    for name, record in records.items():
        assert documented() >= set(record), name
        assert documented() - {"paired", "by_user", "fit_all", "update"} <= set(record), name
