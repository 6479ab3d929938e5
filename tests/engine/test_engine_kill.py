"""SIGKILL at any moment: what is left is whole, goes on, and ends with the same numbers."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engine_helpers import Forked, Small, figures
from moments import Listening, Moments, hidden, put_back

import recore
from recore.engine import checkpoint, drive, rundir
from recore.engine.run import resume
from recore.engine.rundir import RunFolder, write_json
from recore.errors import RunFolderError

SHORT: Mapping[str, Any] = {"batcher": {"users": 16}, "trainer": {"epochs": 2}}  # two steps an epoch
SEED = 20_240_601
KILLS = 2


def runs_in(root: Path) -> list[Path]:
    """The run folders under a root."""
    found = {path.parent.resolve() for path in root.glob("*/*/run.json")}
    return sorted(path for path in found if not path.name.startswith("."))


@pytest.fixture(scope="module")
def often() -> Any:
    """A checkpoint after every step."""
    before, drive.SAVE_EVERY = drive.SAVE_EVERY, 0.0
    yield
    drive.SAVE_EVERY = before


@pytest.fixture(scope="module")
def moments(home: Path, often: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Moments, Path]:
    """A short run, copied before every call that changes the file system; and its folder."""
    root = tmp_path_factory.mktemp("moments")
    with Moments(root / "runs") as found:
        recore.run(recore.load(home / "tiny.yaml", overlay=SHORT), runs=root / "runs")
    (folder,) = runs_in(root / "runs")
    return found, folder


def goes_on(root: Path, expected: dict[str, Any], told: object) -> None:
    """What is left under `root` goes on, or nothing is there; nothing else stays behind."""
    left = runs_in(root)
    if not left:
        assert [path for path in root.rglob("*") if path.is_file() and ".partial" not in str(path)] in (
            [],
            [root / "tiny" / ".lock"],
        ), told
        return
    (folder,) = left
    assert figures(resume(folder).path) == expected, told
    assert [path for path in folder.rglob("*") if path.name.endswith(".partial")] == [], told


def test_killed_at_every_call(moments: tuple[Moments, Path], tmp_path: Path) -> None:
    """Every state that a SIGKILL could leave, files under way cut in half: it goes on to the same numbers."""
    found, folder = moments
    expected = figures(folder)
    distinct = found.distinct()
    opened = [call for call in found.calls if call.startswith("open ") and not hidden(call)]
    assert {path.rpartition("/")[2] for path in opened} == {".lock"}  # nothing is written where it is read
    assert len(found.calls) > 90
    assert len(distinct) > 25
    for number, copy in distinct:
        root = put_back(copy, tmp_path / str(number))
        goes_on(root, expected, f"killed before call {number}: {found.calls[number]}")
        shutil.rmtree(root)


def test_killed_twice(moments: tuple[Moments, Path], tmp_path: Path) -> None:
    """Killed, killed again while it goes on, and so on once more."""
    found, folder = moments
    expected = figures(folder)
    draw = random.Random(SEED)
    states = [(number, copy) for number, copy in found.distinct() if any("run.json" in path for path in copy)]
    for number, copy in draw.sample(states, 4):
        root = put_back(copy, tmp_path / f"{number}")
        told = [f"killed before call {number}: {found.calls[number]}"]
        left = runs_in(root)
        if left:
            with Moments(root) as again:
                resume(left[0])
            if again.copies:
                second, copy = draw.choice(again.distinct())
                told.append(f"then before call {second}: {again.calls[second]}")
                root = put_back(copy, tmp_path / f"{number}-{second}")
        goes_on(root, expected, "; ".join(told))


class Order(Listening):
    """In which order files reach the disk: flushes, renames and removals."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root)
        self.told: list[tuple[str, str]] = []
        real = os.fsync

        def flushed(handle: int) -> None:
            self.told.append(("flush", os.readlink(f"/proc/self/fd/{handle}")))
            real(handle)

        monkeypatch.setattr(os, "fsync", flushed)

    def heard(self, event: str, path: str) -> None:
        self.told.append((event, path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_all_is_on_the_disk_before_its_name_is_and_before_the_last_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut: files and folder, then the name, then the folder that holds the name, then the old ones."""
    checkpoint.save(tmp_path, 1, {"step": 1})
    with Order(tmp_path, monkeypatch) as order:
        checkpoint.save(tmp_path, 2, {"step": 2})
    folder = tmp_path / "checkpoints"
    told = [
        (event, "aside" + path.partition(".partial")[2] if ".000000002." in path else path)
        for event, path in order.told
    ]
    named = told.index(("os.rename", str(folder / "000000002")))
    before = [path for event, path in told[:named] if event == "flush"]
    assert sorted(before[:2]) == ["aside/state.json", "aside/state.safetensors"]
    assert before[2:] == ["aside"]
    after = [entry for entry in told[named + 1 :] if entry[0] != "open"]
    assert after[0] == ("flush", str(folder))
    assert after[1][0] == "os.rename"
    assert ".000000001." in after[1][1]


# ---- the real thing ------------------------------------------------------------------------------------------

KILLER = """
import os, signal, time
from recore.engine import drive, run
from recore.engine.rundir import RunFolder
drive.SAVE_EVERY = 0.0
def killed_after(seconds):
    victim = os.getpid()
    if os.fork() == 0:
        time.sleep(seconds)
        if os.getppid() == victim:
            os.kill(victim, signal.SIGKILL)
        os._exit(0)
real = {owner}.{name}
def begun(*arguments, **keywords):
    given = real(*arguments, **keywords)
    killed_after({seconds})
    return given
{owner}.{name} = begun
"""


def test_sigkill_at_random_moments(
    home: Path, moments: tuple[Moments, Path], tmp_path: Path, forked: Forked
) -> None:
    """Real processes, killed after a random time of training; the one that goes on is killed, too."""
    expected = figures(moments[1])
    draw = random.Random(SEED)
    sets = ["--set", "batcher.users=16", "--set", "trainer.epochs=2"]
    told = []
    for number in range(KILLS):
        root = tmp_path / str(number)
        first, second = draw.uniform(0.0, 0.4), draw.uniform(0.0, 0.4)
        start = KILLER.format(owner="RunFolder", name="publish", seconds=first)
        again = KILLER.format(owner="run", name="other_code", seconds=second)
        status, _, err = forked("run", home / "tiny.yaml", "--runs", root, *sets, before=start)
        assert status in (0, -signal.SIGKILL), err
        (folder,) = runs_in(root)
        before = status
        status, _, err = forked("resume", folder, before=again)
        assert status in (0, -signal.SIGKILL), err
        told.append(
            f"killed {first:.3f} s after the start ({before}), {second:.3f} s into the resume ({status})"
        )
        status, _, err = forked("resume", folder)
        assert status == 0, err
        assert figures(folder) == expected, told
        assert not list(root.rglob("*.partial")), told
    print(*told, sep="\n")


@pytest.fixture
def heard() -> Iterator[None]:
    """Hangups are heard here, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_step_and_the_status_tells_which(
    signum: signal.Signals, small: Small, tmp_path: Path, moments: tuple[Moments, Path]
) -> None:
    from recore.engine.drive import Interrupted
    from recore.engine.report import Silent

    class Presses(Silent):
        def epoch(self, line: Mapping[str, Any]) -> None:
            if line["epoch"] == 1:
                signal.raise_signal(signum)

    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(Interrupted) as caught:
        small(SHORT, reporter=Presses())
    (folder,) = runs_in(tmp_path / "runs")
    assert str(caught.value) == f"stopped after step 2 of epoch 1; go on with: recore resume {folder}"
    assert caught.value.exit_status == 128 + signum
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert figures(resume(folder).path) == figures(moments[1])


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_test_is_measured(
    signum: signal.Signals,
    small: Small,
    tmp_path: Path,
    moments: tuple[Moments, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from recore.engine import run as engine
    from recore.engine.drive import Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(engine, "make_record", lambda *arguments: signal.raise_signal(signum))
        with pytest.raises(Interrupted) as caught:
            small(SHORT)
    (folder,) = runs_in(tmp_path / "runs")
    assert str(caught.value) == f"interrupted; go on with: recore resume {folder}"
    assert caught.value.exit_status == 128 + signum
    assert figures(resume(folder).path) == figures(moments[1])


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """Under nohup a closed terminal does not stop a run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with drive.stoppable(), drive.interrupts() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked == []
    finally:
        signal.signal(signal.SIGHUP, before)


# ---- two at once ---------------------------------------------------------------------------------------------


def fill(path: Path) -> None:
    """What makes a folder a run."""
    path.mkdir()
    time.sleep(0.002)
    write_json(path / "run.json", {"format": rundir.FORMAT, "by": threading.get_ident()})


def test_runs_that_begin_within_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    name = RunFolder(tmp_path / "recipe" / "20240101-000000-abcd")
    made: list[RunFolder] = []
    together = threading.Barrier(6)

    def begin() -> None:
        together.wait()
        made.append(name.publish(fill))

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(folder.path.name for folder in made) == [
        "20240101-000000-abcd",
        *(f"20240101-000000-abcd-{number}" for number in range(2, 7)),
    ]
    assert len({folder.json("run.json")["by"] for folder in made}) == 6
    newest = RunFolder.open(tmp_path / "recipe" / "latest")
    assert newest.path in {folder.path.resolve() for folder in made}
    assert {path.name for path in (tmp_path / "recipe").iterdir()} == {
        "latest",
        *(folder.path.name for folder in made),
    }


def test_a_second_process_is_told_to_wait(
    moments: tuple[Moments, Path], tmp_path: Path, forked: Forked
) -> None:
    copy = next(copy for copy in moments[0].copies if any("/checkpoints/" in path for path in copy))
    (folder,) = runs_in(put_back(copy, tmp_path / "runs"))
    with RunFolder.open(folder).held():
        status, out, err = forked("resume", folder)
        assert (status, out) == (2, "")
        assert err == f"{folder} is being run by another process; wait for it\n"
    assert figures(resume(folder).path) == figures(moments[1])


def test_one_that_waited_for_nothing_finds_the_run_finished(
    moments: tuple[Moments, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process finishes between our look at the folder and our lock."""
    copy = next(copy for copy in moments[0].copies if any("/checkpoints/" in path for path in copy))
    (folder,) = runs_in(put_back(copy, tmp_path / "runs"))
    real = RunFolder.held

    def held(self: RunFolder) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "held", real)
            resume(folder)
        return real(self)

    monkeypatch.setattr(RunFolder, "held", held)
    assert figures(resume(folder).path) == figures(moments[1])


# ---- elsewhere, later ----------------------------------------------------------------------------------------


def test_moved_linked_and_with_a_clock_that_runs_back(
    moments: tuple[Moments, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = next(copy for copy in reversed(moments[0].copies) if not any("model/" in path for path in copy))
    (folder,) = runs_in(put_back(copy, tmp_path / "runs"))
    moved = tmp_path / "elsewhere" / "a run with spaces"
    moved.parent.mkdir()
    folder.rename(moved)
    (tmp_path / "link").symlink_to(moved)
    for path in moved.rglob("*"):
        os.utime(path, (10**9, 10**9))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert figures(resume(Path("link")).path) == figures(moments[1])


def test_what_a_killed_start_left_is_gone_with_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "recipe" / ".20240101-000000-abcd.00000000-1-0.partial"
    left.mkdir(parents=True)
    (left / "run.json").write_text("half")
    folder = RunFolder.new(tmp_path, "recipe", "base", "abcd").publish(fill)
    assert {path.name for path in folder.path.parent.iterdir()} == {"latest", folder.path.name}


def test_a_half_removed_folder_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while old weights or an old checkpoint are removed: no half of them is taken for a whole."""
    (tmp_path / "epoch-0001").mkdir()
    (tmp_path / "epoch-0001" / "a").write_text("")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    rundir.remove(tmp_path / "epoch-0001")
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    assert not list(tmp_path.glob("epoch-*"))


def test_a_lock_that_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunFolderError) as caught, rundir.locked(tmp_path / ".lock"):
        pass
    assert str(caught.value) == (
        f"{tmp_path / '.lock'} cannot be locked: No locks available (use another file system)"
    )
    assert caught.value.exit_status == 1


def test_the_benchmark_sees_a_difference(moments: tuple[Moments, Path], tmp_path: Path) -> None:
    """benchmarks/kill.py compares what it says: one bit of the weights, one figure of one user, one epoch."""
    spec = importlib.util.spec_from_file_location(
        "kill", Path(__file__).parents[2] / "benchmarks" / "kill.py"
    )
    assert spec is not None
    assert spec.loader is not None
    kill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kill)
    _, folder = moments
    expected = kill.figures(folder)
    assert kill.differences(expected, kill.figures(folder)) == []
    other = shutil.copytree(folder, tmp_path / "run")
    weights = other / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    users = pl.read_parquet(other / "users-test.parquet")
    users.with_columns(pl.col("rank") + 1).write_parquet(other / "users-test.parquet")
    (other / "metrics.jsonl").write_text(
        (other / "metrics.jsonl").read_text().replace('"epoch": 2', '"epoch": 3')
    )
    assert kill.differences(expected, kill.figures(other)) == ["epochs", "users", "model/model.safetensors"]
    assert kill.state_of(tmp_path) == "finished"
