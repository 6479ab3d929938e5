"""Stopped at any moment, a run goes on and ends with the numbers of one that was not stopped."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from engine_helpers import Forked, Small, command, figures, main

from recore.api import Result
from recore.engine import drive
from recore.engine.drive import Interrupted
from recore.engine.run import resume
from recore.errors import RunFolderError
from recore.recipe import Recipe


class Killed(BaseException):
    """Stands for what ends a process within a statement."""


@contextmanager
def killed_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, after: bool
) -> Iterator[list[int]]:
    """The `call`-th call of `owner.name` raises, before or after it did its work. Gives the count of calls."""
    calls = [0]
    real = getattr(owner, name)

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not after:
            raise Killed
        result = real(*arguments, **keywords)
        if calls[0] == call:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counted)
        yield calls


def only(root: Path) -> Path:
    """The one run folder under a root."""
    (found,) = {path.parent.resolve() for path in root.glob("*/*/run.json")}
    return found


def test_stopped_at_every_rename(
    small: Small, tmp_path: Path, whole: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of a run appears by a rename: stop before each of them, and go on."""
    expected = figures(whole.folder)
    with killed_at(monkeypatch, Path, "replace", -1, after=False) as calls:
        small()
    assert calls[0] > 15
    resumed = 0
    for call in range(1, calls[0] + 1):
        root = tmp_path / str(call)
        with pytest.raises(Killed), killed_at(monkeypatch, Path, "replace", call, after=False):
            small(runs=root)
        if not list(root.glob("*/*/run.json")):
            # Before the folder is published there is nothing, half or whole.
            assert [path for path in root.rglob("*") if not path.is_dir()] == []
            continue
        resumed += 1
        assert figures(resume(only(root)).path) == expected, call
        assert not list(root.rglob("*.partial")), call
    assert resumed >= calls[0] - 4


@pytest.mark.parametrize("step", [1, 3, 5, 9])
def test_stopped_within_an_epoch(
    step: int, small: Small, tmp_path: Path, whole: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a checkpoint after every step, a run that is stopped at step n goes on from there."""
    monkeypatch.setattr(drive, "SAVE_EVERY", 0.0)
    from recore.sequential import SequentialTraining

    with pytest.raises(Killed), killed_at(monkeypatch, SequentialTraining, "stepped", step, after=False):
        small()
    folder = only(tmp_path / "runs")
    held = [path.name for path in (folder / "checkpoints").iterdir()] if step > 1 else []
    assert held == ([f"{step - 1:09d}"] if step > 1 else [])
    notes = Notes()
    assert figures(resume(folder, reporter=notes).path) == figures(whole.folder)
    assert any(f"at step {step - 1}" in note for note in notes.heard) == (step > 1)


def test_without_a_checkpoint_within_the_epoch_it_goes_back_to_the_last(
    small: Small, tmp_path: Path, whole: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recore.sequential import SequentialTraining

    with pytest.raises(Killed), killed_at(monkeypatch, SequentialTraining, "stepped", 6, after=True):
        small()
    assert figures(resume(only(tmp_path / "runs")).path) == figures(whole.folder)


class Notes:
    """A reporter that keeps what it is told, and does something at the end of an epoch."""

    def __init__(self, at_epoch: Callable[[int], None] = lambda number: None) -> None:
        self.heard: list[str] = []
        self.at_epoch = at_epoch

    def note(self, text: str) -> None:
        self.heard.append(text)

    def plan(self, plan: Any) -> None:
        self.heard.append("plan")

    def epoch(self, line: Any) -> None:
        self.at_epoch(line["epoch"])

    def done(self, record: Any, folder: Path) -> None:
        self.heard.append("done")


def test_ctrl_c_ends_the_step_and_says_how_to_go_on(small: Small, tmp_path: Path, whole: Result) -> None:
    def press(number: int) -> None:
        if number == 2:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="recore resume") as caught:
        small(reporter=Notes(press))
    folder = only(tmp_path / "runs")
    assert str(folder) in str(caught.value)
    assert caught.value.exit_status == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert figures(resume(folder).path) == figures(whole.folder)


def test_ctrl_c_while_measuring_test_says_how_to_go_on(
    small: Small, tmp_path: Path, whole: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recore.engine import run as engine

    def pressed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "make_record", pressed)
        with pytest.raises(Interrupted, match="recore resume"):
            small()
    assert figures(resume(only(tmp_path / "runs")).path) == figures(whole.folder)


def test_sigint_to_a_process(home: Path, tmp_path: Path, whole: Result) -> None:
    """The real thing: status 130, a message, and a folder from which it goes on."""
    process = command(
        "run", home / "tiny.yaml", "--runs", tmp_path, "--json", "--set", "trainer.epochs=400", cwd=tmp_path
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "epoch":
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert f"recore resume {only(tmp_path)}" in err
    assert "Traceback" not in err
    assert (only(tmp_path) / "checkpoints").is_dir()
    assert not (only(tmp_path) / "record.json").exists()


KILL = """
import os, signal
from {module} import {owner}
real, calls = {owner}.{name}, [0]
def counted(*arguments, **keywords):
    calls[0] += 1
    if calls[0] == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **keywords)
{owner}.{name} = counted
"""


@pytest.mark.parametrize(
    ("module", "owner", "name", "call"),
    [
        ("recore.sequential", "SequentialTraining", "backward", 2),
        ("recore.sequential", "SequentialModel", "save", 2),
        ("pathlib", "Path", "replace", 14),
        ("recore.engine.evaluate", "Examination", "ask", 4),
    ],
)
def test_sigkill(
    module: str, owner: str, name: str, call: int, home: Path, tmp_path: Path, whole: Result, forked: Forked
) -> None:
    kill = KILL.format(module=module, owner=owner, name=name, call=call)
    status, _, _ = forked("run", home / "tiny.yaml", "--runs", tmp_path, before=kill)
    assert status == -signal.SIGKILL
    folder = only(tmp_path)
    assert not (folder / "record.json").exists()
    status, out, err = forked("resume", folder, "--quiet")
    assert status == 0, err
    assert out.strip() == str(folder)
    assert figures(folder) == figures(whole.folder)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_finished_run_is_left_as_it_is(whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*")}
    status, out, _ = main(capsys, "resume", whole.folder)
    assert status == 0
    assert "finished already" in out
    assert {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*")} == stamps


# ---- what is refused -----------------------------------------------------------------------------------------


@pytest.fixture
def stopped(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after its second epoch."""

    def press(number: int) -> None:
        if number == 2:
            raise Killed

    with pytest.raises(Killed):
        small(reporter=Notes(press))
    return only(tmp_path / "runs")


def newest(folder: Path, name: str) -> Path:
    return max((folder / "checkpoints").iterdir()) / name


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def damage(folder: Path, how: str) -> str:
    """Damage a run; gives what the complaint must name."""
    tensors, state = newest(folder, "state.safetensors"), newest(folder, "state.json")
    if how == "a byte of a tensor":
        flip(tensors, tensors.stat().st_size - 1)
    elif how == "a digit of the state":
        text = state.read_text()
        assert '"epoch": 2' in text
        state.write_text(text.replace('"epoch": 2', '"epoch": 1'))
    elif how == "half of the tensors":
        tensors.write_bytes(tensors.read_bytes()[: tensors.stat().st_size // 2])
    elif how == "half of the state":
        state.write_text(state.read_text()[:200])
    elif how == "no tensors":
        tensors.unlink()
    elif how == "another format of the checkpoint":
        state.write_text(json.dumps({**json.loads(state.read_text()), "format": 99}))
        return "format 99"
    elif how == "another format of the run":
        run = folder / "run.json"
        run.write_text(json.dumps({**json.loads(run.read_text()), "format": 99}))
        return "format 99"
    elif how == "a metrics file cut off":
        metrics = folder / "metrics.jsonl"
        metrics.write_text(metrics.read_text()[:-30])
        return "metrics.jsonl"
    elif how == "a line of metrics gone":
        metrics = folder / "metrics.jsonl"
        metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
        return "metrics.jsonl"
    elif how == "weights gone":
        (weights,) = (folder / "models").iterdir()
        shutil.rmtree(weights)
        return "best weights"
    return str(tensors.parent)


@pytest.mark.parametrize(
    "how",
    [
        "a byte of a tensor",
        "a digit of the state",
        "half of the tensors",
        "half of the state",
        "no tensors",
        "another format of the checkpoint",
        "another format of the run",
        "a metrics file cut off",
        "a line of metrics gone",
        "weights gone",
    ],
)
def test_a_damaged_run_is_refused(how: str, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = damage(stopped, how)
    status, _, err = main(capsys, "resume", stopped)
    assert status == 2
    assert named in err
    assert "Traceback" not in err
    assert not (stopped / "record.json").exists()


@pytest.mark.parametrize("command_name", ["resume", "evaluate", "recommend"])
def test_what_is_no_run_is_refused(
    command_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--users", "all"] if command_name == "recommend" else []
    for path in (tmp_path, tmp_path / "nothing" / "latest"):
        status, _, err = main(capsys, command_name, path, *more)
        assert status == 2
        assert f"{path} is no run folder" in err


def test_other_data_is_refused(home: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = home / "log.csv"
    kept = log.read_bytes()
    try:
        lines = kept.splitlines(keepends=True)
        log.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b"i", b"i0")]))
        with pytest.raises(RunFolderError, match="data") as caught:
            resume(stopped)
    finally:
        log.write_bytes(kept)
    assert caught.value.exit_status == 2
    resume(stopped)


def test_other_code_of_a_plugin_is_refused(
    stopped: Path, whole: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on with the code that it began with, and says which plugin has another one."""
    real = Recipe.provenance

    def now(self: Recipe, **other: str) -> list[dict[str, Any]]:
        return [{**entry, **(other if entry["name"] == "recore-sasrec" else {})} for entry in real(self)]

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "provenance", partialmethod(now, sha256="0" * 64))
        with pytest.raises(RunFolderError, match=r"recore-sasrec .*edited"):
            resume(stopped)
        patch.setattr(Recipe, "provenance", partialmethod(now, sha256="0" * 64, version="9.9"))
        with pytest.raises(RunFolderError, match=r"recore-sasrec .*\(now 9\.9"):
            resume(stopped)
    assert figures(resume(stopped).path) == figures(whole.folder)


def test_two_processes_cannot_go_on_with_one_run(stopped: Path) -> None:
    from recore.engine.rundir import RunFolder

    with RunFolder.open(stopped).held(), pytest.raises(RunFolderError, match="another process"):
        resume(stopped)


def test_a_resumed_run_takes_as_many_threads_as_it_had(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    about = json.loads((stopped / "run.json").read_text())
    assert about["options"]["threads"] is None
    assert about["machine"]["cores"] == torch.get_num_threads()
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    resume(stopped)
    assert set(set_to) == {about["machine"]["cores"]}


def test_time_before_a_stop_counts(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds and events of the part of an epoch before the stop are in its line."""
    from recore.sequential import SequentialTraining

    monkeypatch.setattr(drive, "SAVE_EVERY", 0.0)
    real = SequentialTraining.stepped

    def slow(self: SequentialTraining, batches: Any, step: int) -> None:
        time.sleep(0.1 if step == 1 else 0.0)
        real(self, batches, step)

    monkeypatch.setattr(SequentialTraining, "stepped", slow)
    with pytest.raises(Killed), killed_at(monkeypatch, SequentialTraining, "backward", 3, after=False):
        small()
    first = Result(resume(only(tmp_path / "runs")).path, {}).folder / "metrics.jsonl"
    assert json.loads(first.read_text().splitlines()[0])["seconds"] >= 0.1
