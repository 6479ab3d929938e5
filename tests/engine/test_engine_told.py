"""What a run tells while it goes on: for people, for pipes, for programs, or nothing."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from engine_helpers import main
from rich.console import Console

from recore.api import Result
from recore.cli.reporting import JsonLines, Lines, clock, figures


@pytest.fixture
def told(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    status, out, err = main(capsys, "run", home / "tiny.yaml", "--runs", tmp_path)
    assert (status, err) == (0, "")
    return out


def test_the_plan_comes_first(told: str, whole: Result, tmp_path: Path) -> None:
    plan = told[: told.index("epoch   1/3")]
    card = whole.record["card"]["protocol"]
    assert "recipe  tiny, seed 0" in plan
    assert "30 users, 24 items, 237 events" in plan
    assert "no times: file order; order across users unknown" in plan
    assert f"fingerprint {card['data']['fingerprint'][:16]}" in plan
    assert "177 training events, 30 validation targets, 30 test targets" in plan
    for part in ("recore-data:events 0.1.0", "recore-sasrec:sasrec 0.1.0", "recore-losses:ce 0.1.0"):
        assert part in plan
    total = sum(whole.record["parameters"].values())
    assert f"params  {total:,} (embedder 192," in plan
    assert "cpu, float32" in plan
    assert str(tmp_path) in plan


def test_a_line_for_every_epoch(told: str) -> None:
    lines = [line for line in told.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3
    form = re.compile(
        r"epoch   \d/3  ce \d\.\d{4}  valid ndcg@10 \d\.\d{4}  hr@10 \d\.\d{4} [* ] "
        r"[\d,]+ events/s  \d+\.\d s  at most \d+:\d\d left"
    )
    for line in lines:
        assert form.fullmatch(line), line
    assert "at most 0:00 left" in lines[-1]
    assert any("*" in line for line in lines)


def test_figures_and_card_come_last(told: str, whole: Result) -> None:
    end = told[told.index("epoch   3/3") :]
    low, high = whole.record["intervals"]["ndcg@10"]
    assert "test, 30 users" in end
    found = re.search(r"ndcg@10 +(\S+) +(\S+) to (\S+)", end[end.index("metric") :])
    assert found is not None
    assert found.groups() == (f"{whole.test['ndcg@10']:.4f}", f"{low:.4f}", f"{high:.4f}")
    for word in ("leave-last", "seen items filtered: history", "best validation ndcg@10", "pessimistic"):
        assert word in end
    assert end.splitlines()[-1].startswith("folder ")


def test_a_pipe_gets_plain_lines(told: str) -> None:
    assert "\x1b" not in told
    # Nothing is wrapped at the width of a terminal that is not there.
    assert any(len(line) > 100 for line in told.splitlines())


def test_quiet_prints_the_folder_only(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = main(capsys, "run", home / "tiny.yaml", "--runs", tmp_path, "--quiet")
    assert (status, err) == (0, "")
    (line,) = out.splitlines()
    assert (Path(line) / "record.json").is_file()


def test_json_is_a_line_each(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = main(capsys, "run", home / "tiny.yaml", "--runs", tmp_path, "--json")
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["plan", "epoch", "epoch", "epoch", "done"]
    assert events[0]["sizes"]["test targets"] == 30
    assert set(events[1]["losses"]) == {"ce"}
    assert events[-1]["record"]["test"]["ndcg@10"] >= 0
    assert (Path(events[-1]["folder"]) / "record.json").is_file()


def test_several_runs_end_with_a_table_of_all(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.yaml").write_text(
        f"recore: 1\nextends: {home / 'tiny.yaml'}\n"
        "matrix: {width: {narrow: {model: {embedder: {width: 4}}}, wide: {model: {embedder: {width: 8}}}}}\n"
        "seeds: [0, 1]\ntrainer: {epochs: 1}\n"
    )
    runs = tmp_path / "runs"
    status, out, err = main(
        capsys, "run", tmp_path / "two.yaml", "--runs", runs, "--record", tmp_path / "records"
    )
    assert (status, err) == (0, "")
    rows = [line.split() for line in out[out.index("all runs") :].splitlines()[2:]]
    assert [row[:2] for row in rows if row] == [
        [f"width={width}", seed] for width in ("narrow", "wide") for seed in ("0", "1")
    ]
    assert all(re.fullmatch(r"\d\.\d{4}", row[2]) for row in rows if row)
    kept = sorted(path.relative_to(tmp_path / "records").as_posix() for path in tmp_path.rglob("seed-*.json"))
    assert kept == [f"two/width={width}/seed-{seed}.json" for width in ("narrow", "wide") for seed in (0, 1)]
    assert len(list(runs.glob("two/width=*/latest"))) == 2
    # And only what is asked for.
    status, out, _ = main(
        *(capsys, "run", tmp_path / "two.yaml", "--runs", runs, "--quiet"),
        *("--cell", "width=wide", "--seed", "5"),
    )
    assert status == 0
    record = json.loads((Path(out.strip()) / "record.json").read_text())
    assert (record["cell"], record["seed"]) == ("width=wide", 5)


def test_a_terminal_gets_colours() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, highlight=False)
    figures(console, {"ndcg@10[uniform100]": 0.5}, {}, "test")
    assert "ndcg@10[uniform100]" in written.getvalue()
    Lines(console).note("a [note]")
    assert "\x1b[33ma [note]" in written.getvalue()


def test_a_stop_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    line: dict[str, Any] = {
        "epoch": 2,
        "of": 100,
        "losses": {"a": 1.0},
        "validation": {"mrr": 0.25},
        "best": False,
        "stop": "no better mrr",
        "events_per_second": 1234,
        "seconds": 30.0,
        "validation_seconds": 10.0,
    }
    Lines().epoch(line)
    out = capsys.readouterr().out
    assert "valid mrr 0.2500" in out
    assert "at most 1:05:20 left" in out
    assert "stopped: no better mrr" in out
    JsonLines().note("ünïcode")
    assert json.loads(capsys.readouterr().out) == {"event": "note", "text": "ünïcode"}


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75, "1:15"), (3600, "1:00:00"), (59.7, "1:00")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
