"""Full disks, closed folders and damaged files: the last good state stays, and the message is whole."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import Forked, Small, figures, main
from moments import Refusing

import recore
from recore.engine import checkpoint, drive
from recore.engine.report import Silent
from recore.engine.run import resume
from recore.engine.rundir import FORMAT, read_json, seal
from recore.errors import StorageError

SHORT: Mapping[str, Any] = {"batcher": {"users": 16}, "trainer": {"epochs": 2}}
SETS = ["--set", "batcher.users=16", "--set", "trainer.epochs=2"]
SEED = 20_240_602
KEPT = r"\(what was there before is untouched\)"
REMEDY = "(put it back from a copy, or run anew)"


def only(root: Path) -> Path:
    """The one run folder under a root."""
    found = {path.parent.resolve() for path in root.glob("*/*/run.json")}
    (folder,) = [path for path in found if not path.name.startswith(".")]
    return folder


@pytest.fixture(scope="module")
def ended(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that is finished."""
    root = tmp_path_factory.mktemp("ended")
    return recore.run(recore.load(home / "tiny.yaml", overlay=SHORT), runs=root).folder


class _Stopped(BaseException):
    pass


class _Stops(Silent):
    def epoch(self, line: Mapping[str, Any]) -> None:
        raise _Stopped


def stopped_after_an_epoch(home: Path, root: Path, seed: int = 0) -> Path:
    """A short run that was stopped after its first epoch."""
    with pytest.raises(_Stopped):
        recore.run(recore.load(home / "tiny.yaml", overlay=SHORT), seed=seed, runs=root, reporter=_Stops())
    return only(root)


@pytest.fixture(scope="module")
def held(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped_after_an_epoch(home, tmp_path_factory.mktemp("held"))


@pytest.fixture
def stopped(held: Path, tmp_path: Path) -> Path:
    """A copy of a run that was stopped after its first epoch."""
    return Path(shutil.copytree(held, tmp_path / "runs" / "tiny" / held.name)).resolve()


# ---- a disk that refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_from_some_call_on(
    number: int, home: Path, ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At random calls: a message that names the path, what was there stays, and it goes on when there is room."""
    monkeypatch.setattr(drive, "SAVE_EVERY", 0.0)
    recipe = recore.load(home / "tiny.yaml", overlay=SHORT)
    with Refusing(tmp_path / "whole", 10**9) as count:
        recore.run(recipe, runs=tmp_path / "whole")
    assert count.calls > 50
    expected = figures(ended)
    draw = random.Random(SEED + number)
    for first in [0, *draw.sample(range(1, count.calls), 4)]:
        root = tmp_path / str(first)
        with Refusing(root, first, number), pytest.raises(StorageError) as caught:
            recore.run(recipe, runs=root)
        assert caught.value.exit_status == 1
        told = rf"{re.escape(str(root))}\S* cannot be written: {os.strerror(number)} {KEPT}"
        assert re.fullmatch(told, str(caught.value)), (first, str(caught.value))
        if not list(root.glob("*/[0-9]*/run.json")):
            assert [path for path in root.rglob("*") if path.is_file()] == [], first
            continue
        folder = only(root)
        begun = (folder / "checkpoints").exists()
        stays = "stays as of its last checkpoint" if begun else "has no checkpoint yet"
        assert caught.value.__notes__ == [
            f"the run {stays}; when it can be written again, go on with: recore resume {folder}"
        ]
        assert figures(resume(folder).path) == expected, first
        assert not list(root.rglob("*.partial")), first


LIMIT = """
import resource
from recore.engine.rundir import RunFolder
real = RunFolder.publish
def publish(self, write):
    made = real(self, write)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, resource.RLIM_INFINITY))
    return made
RunFolder.publish = publish
"""


@pytest.mark.parametrize("size", [700, 9_000])
def test_a_system_that_refuses_to_write_more(
    size: int, home: Path, ended: Path, tmp_path: Path, forked: Forked
) -> None:
    """The real thing, through every library that writes: no file may grow beyond some bytes."""
    status, _, err = forked(
        "run", home / "tiny.yaml", "--runs", tmp_path, "--quiet", *SETS, before=LIMIT.format(bytes=size)
    )
    folder = only(tmp_path)
    first, second = err.splitlines()
    assert status == 1, err
    assert re.fullmatch(rf"{folder}/\S+ cannot be written: File too large {KEPT}", first)
    assert second.startswith("the run ")
    assert second.endswith(f"; when it can be written again, go on with: recore resume {folder}")
    assert figures(resume(folder).path) == figures(ended)


# ---- folders that are closed to us ---------------------------------------------------------------------------

BOUND = """
import ctypes, os
if os.geteuid() == 0:  # permissions bind root only when it has given up its capabilities
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None).capset(header, none):
        raise SystemExit("no capset")
"""


@pytest.fixture
def bound(forked: Forked) -> Forked:
    """`recore …` by someone whom permissions bind."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status, out, err = forked(*arguments, before=BOUND)
        if "no capset" in err or ("capset" in err and "AttributeError" in err):
            pytest.skip("permissions do not bind root here")
        return status, out, err

    return run


@pytest.fixture
def reopened(tmp_path: Path) -> Iterator[None]:
    """What a test closed can be removed in the end."""
    yield
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755)


def closed(path: Path) -> None:
    """Take everybody's right to write."""
    for entry in [path, *path.rglob("*")]:
        entry.chmod(0o555 if entry.is_dir() else 0o444)


UNTOUCHED = "cannot be written: Permission denied (what was there before is untouched)"


@pytest.mark.usefixtures("reopened")
def test_a_closed_place_for_runs(bound: Forked, home: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir(mode=0o555)
    status, out, err = bound("run", home / "tiny.yaml", "--runs", runs, *SETS)
    assert (status, out) == (1, "")
    assert err == f"{runs / 'tiny'} {UNTOUCHED}\n"
    assert list(runs.iterdir()) == []


@pytest.mark.usefixtures("reopened")
def test_a_closed_run_cannot_go_on_but_answers(
    bound: Forked, stopped: Path, ended: Path, tmp_path: Path
) -> None:
    """`resume` says why it cannot; `recommend` and `evaluate` write nothing, so they answer."""
    finished = Path(shutil.copytree(ended, tmp_path / "ended")).resolve()
    closed(stopped)
    closed(finished)
    status, out, err = bound("resume", stopped)
    assert (status, out) == (1, "")
    assert err == f"{stopped / '.lock'} {UNTOUCHED}\n"
    status, _, err = bound("resume", finished)
    assert (status, err) == (0, "")
    for folder in (stopped, finished):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        status, out, err = bound("recommend", folder, "--history", "i01, i02", "-k", "2", "--json")
        assert (status, err) == (0, "")
        assert len(out.splitlines()) == 2
        status, out, err = bound("evaluate", folder, "--json")
        unfinished = "note: this run is not finished; these are its best weights so far\n"
        assert (status, err) == (0, unfinished if folder == stopped else "")
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# ---- damaged files -------------------------------------------------------------------------------------------


def flipped(path: Path, draw: random.Random) -> None:
    """One bit is another one."""
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def truncated(path: Path, draw: random.Random) -> None:
    """The end is missing."""
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def emptied(path: Path, draw: random.Random) -> None:
    """Nothing is left."""
    path.write_bytes(b"")


def removed(path: Path, draw: random.Random) -> None:
    """It is not there."""
    path.unlink()


def replaced(path: Path, draw: random.Random) -> None:
    """Something else is there."""
    path.write_bytes(b"[" * 100_000)


HOW = (flipped, truncated, emptied, removed, replaced)
BEGUN = ("recipe.yaml", "run.json", "card.json", "items.parquet", "tokenizer/tokenizer.json")
BEGUN = (*BEGUN, "tokenizer/tokenizer_config.json")
WEIGHTS = ("model.safetensors", "trainer/state.json", "trainer/state.safetensors")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """The lines of a complaint with status 2, without a traceback; nothing was printed."""
    status, out, err = main(capsys, *arguments)
    assert (status, out) == (2, ""), (out, err)
    return err.splitlines()


def said(path: Path, how: Callable[..., None]) -> str:
    """What is said of a file that has a checksum."""
    if how is removed:
        return f"{path} cannot be read: No such file or directory {REMEDY}"
    return f"{path} is damaged: its checksum is not that with which it was written {REMEDY}"


@pytest.mark.parametrize("how", HOW)
def test_what_a_run_began_with_is_damaged(
    how: Callable[..., None], stopped: Path, ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file, each by itself, for whoever opens the run."""
    draw = random.Random(SEED)
    finished = Path(shutil.copytree(ended, tmp_path / "ended")).resolve()
    for folder, names in ((stopped, BEGUN), (finished, (*BEGUN, *(f"model/{name}" for name in WEIGHTS[:1])))):
        for name in names:
            path = folder / name
            kept = path.read_bytes()
            how(path, draw)
            told = [said(path, how)]
            asked = [("resume", folder), ("evaluate", folder), ("recommend", folder, "--history", "i01")]
            for words in asked:
                assert refused(capsys, *words) == told, (name, words)
            path.write_bytes(kept)
    assert figures(resume(stopped).path) == figures(ended)


@pytest.mark.parametrize("how", HOW)
def test_the_state_of_a_stopped_run_is_damaged(
    how: Callable[..., None], stopped: Path, ended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(SEED)
    (weights,) = (stopped / "models").iterdir()
    (state,) = (stopped / "checkpoints").iterdir()
    metrics = stopped / "metrics.jsonl"
    paths = [
        metrics,
        *(weights / name for name in WEIGHTS),
        state / "state.safetensors",
        state / "state.json",
    ]
    for path in paths:
        kept = path.read_bytes()
        how(path, draw)
        (told,) = refused(capsys, "resume", stopped)
        if path == metrics:
            assert told.startswith(f"{metrics} ")
            assert told.endswith(REMEDY) or "cannot be read: " in told
        elif path.name == "state.json" and path.parent == state:
            assert told.startswith(f"{path} ")
        else:
            assert told == said(path, how)
        assert not (stopped / "record.json").exists()
        path.write_bytes(kept)
    assert figures(resume(stopped).path) == figures(ended)


def test_everything_that_is_damaged_is_told_at_once(
    stopped: Path, ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = Path(shutil.copytree(ended, tmp_path / "ended")).resolve()
    names = ["card.json", "recipe.yaml", "tokenizer/tokenizer.json", "model/model.safetensors"]
    for name in names:
        emptied(finished / name, random.Random())
    assert refused(capsys, "evaluate", finished) == [said(finished / name, emptied) for name in names]
    (state,) = (stopped / "checkpoints").iterdir()
    text = (state / "state.json").read_text()
    (state / "state.json").write_text(text.replace('"epochs": 1', '"epochs": 2'))
    flipped(state / "state.safetensors", random.Random(0))
    assert refused(capsys, "resume", stopped) == [
        said(state / name, flipped) for name in ("state.json", "state.safetensors")
    ]


def test_the_checksums_are_damaged_or_gone(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stopped / "sha256.json"
    kept = path.read_bytes()
    for text in ("{}", "[]", '{"card.json": 3}'):
        path.write_text(text)
        assert refused(capsys, "resume", stopped) == [said(path, flipped)]
    path.unlink()
    assert refused(capsys, "resume", stopped) == [f"{path} cannot be read: No such file or directory"]
    path.write_bytes(b"[" * 100_000)
    assert refused(capsys, "resume", stopped) == [f"{path} is not valid JSON here: it is nested too deep"]
    path.write_bytes(kept[:50])
    (told,) = refused(capsys, "resume", stopped)
    assert told.startswith(f"{path} is not valid JSON: ")


def test_another_version_is_refused(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state,) = (stopped / "checkpoints").iterdir()
    for path, said_of in ((state / "state.json", None), (stopped / "run.json", stopped)):
        kept = path.read_text()
        for number in (FORMAT - 1, FORMAT + 1, 99):
            path.write_text(re.sub(rf'"format": {FORMAT}', f'"format": {number}', kept, count=1))
            told = (
                f"{stopped} was written in format {number}, this recore reads format {FORMAT}"
                if said_of
                else f"{path} has format {number}, this recore reads format {FORMAT}"
            )
            assert refused(capsys, "resume", stopped) == [told]
        path.write_text(kept)


def test_a_checkpoint_of_another_run_is_refused(
    home: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fits to the last tensor, and would end with other numbers."""
    other = stopped_after_an_epoch(home, tmp_path / "other", seed=1)
    (state,) = (stopped / "checkpoints").iterdir()
    shutil.rmtree(state)
    shutil.copytree(other / "checkpoints" / state.name, state)
    assert refused(capsys, "resume", stopped) == [
        f"{state} is a checkpoint of another run (put back this run's own, or run anew)"
    ]


def forged(stopped: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A checkpoint whose checksums hold, and whose content does not fit; gives its parent."""
    (state,) = (stopped / "checkpoints").iterdir()
    content = checkpoint.read(state)
    run = read_json(state / "state.json")["run"]
    change(content)
    shutil.rmtree(state)
    checkpoint.write(state, content, run)
    return state.parent


def wider(content: dict[str, Any]) -> None:
    name = next(iter(content["parts"]["model"]))
    content["parts"]["model"][name] = torch.zeros(3, 3)


def poorer(content: dict[str, Any]) -> None:
    del content["parts"]["model"][next(iter(content["parts"]["model"]))]


def richer(content: dict[str, Any]) -> None:
    content["parts"]["model"]["more"] = torch.zeros(1)


def spoiled(content: dict[str, Any]) -> None:
    content["parts"]["model"]["embedder.weight"][3, 2] = float("nan")


def without_model(content: dict[str, Any]) -> None:
    del content["parts"]["model"]
    content["parts"]["sampler.x"] = {}


def without_place(content: dict[str, Any]) -> None:
    del content["trainer"]["step"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            wider,
            [r"'model' cannot take up its state: Error\(s\) in loading state_dict for .*size mismatch.*"],
        ),
        (poorer, [r"'model' cannot take up its state: Error\(s\) .*Missing key\(s\).*"]),
        (richer, [r"'model' cannot take up its state: Error\(s\) .*Unexpected key\(s\).*\"more\".*"]),
        (spoiled, [r"parameters that are not finite: embedder\.weight"]),
        (
            without_model,
            [r"the checkpoint has no state of 'model'", r"'sampler\.x' is not of this run"],
        ),
        (without_place, [r"'trainer' cannot take up its state: .*has no step.*"]),
    ],
)
def test_a_checkpoint_that_does_not_fit(
    change: Callable[[dict[str, Any]], None],
    told: list[str],
    stopped: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = forged(stopped, change)
    lines = refused(capsys, "resume", stopped)
    assert len(lines) == len(told)
    for line, expected in zip(lines, told, strict=True):
        assert re.fullmatch(f"{re.escape(str(folder))}: {expected} {re.escape(REMEDY)}", line), line


def test_the_benign_stays_benign(stopped: Path, ended: Path) -> None:
    """Files of others in the folder, and what killed processes left, change nothing."""
    (stopped / "notes.txt").write_text("mine")
    for folder in (stopped, stopped / "checkpoints", stopped / "models"):
        (folder / ".epoch-0009.00000000-1-0.partial").mkdir()
    (stopped / "checkpoints" / "README").write_text("")
    assert figures(resume(stopped).path) == figures(ended)
    assert (stopped / "notes.txt").exists()
    assert not list(stopped.rglob("*.partial"))


def test_checksums_can_be_made_anew_by_whoever_means_it(stopped: Path, ended: Path) -> None:
    """They guard against accidents, not against people."""
    (stopped / "card.json").write_text((stopped / "card.json").read_text() + "\n")
    (state,) = (stopped / "checkpoints").iterdir()
    content = checkpoint.read(state)
    for name in ("checkpoints", "models", "metrics.jsonl", ".lock"):
        path = stopped / name
        path.rename(stopped.parent / name)
    seal(stopped)
    for name in ("checkpoints", "models", "metrics.jsonl", ".lock"):
        (stopped.parent / name).rename(stopped / name)
    shutil.rmtree(state)
    checkpoint.write(state, content, checkpoint._run_digest(stopped))
    assert figures(resume(stopped).path) == figures(ended)


# ---- a loss that stops being finite --------------------------------------------------------------------------

LOWER = "(lower trainer.learning_rate, or set trainer.clip)"


def test_a_loss_that_is_not_finite_is_told_whole(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step, part, remedy and what stays, once there is a checkpoint and before."""
    from recore_losses import ce

    for step, stays in ((1, "has no checkpoint yet"), (3, "stays as of its last checkpoint")):
        root = tmp_path / str(step)
        calls = [0]
        built = next(
            value for value in vars(ce).values() if isinstance(value, type) and hasattr(value, "loss")
        )
        real: Any = built.loss  # type: ignore[attr-defined]  # the one class there that has it

        def spoils(self: Any, *arguments: Any, calls: Any = calls, step: int = step, real: Any = real) -> Any:
            calls[0] += 1
            value = real(self, *arguments)
            return value if calls[0] < step else type(value)(value.total * float("inf"), value.weight)

        with monkeypatch.context() as patch:
            patch.setattr(built, "loss", spoils)
            lines = refused(capsys, "run", home / "tiny.yaml", "--runs", root, "--quiet", *SETS)
        assert lines == [
            f"step {step}: loss 'ce' is inf, expected a finite number {LOWER}",
            f"the run {stays}: {only(root)}",
        ]
        resume(only(root))


def test_a_parameter_that_is_not_finite_is_never_saved(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recore.sequential import SequentialTraining

    real = SequentialTraining.stepped

    def spoils(self: SequentialTraining, batches: Any, step: int) -> None:
        real(self, batches, step)
        if step == 3:
            with torch.no_grad():
                self.parameters["embedder.weight"][2, 1] = float("inf")

    monkeypatch.setattr(drive, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(SequentialTraining, "stepped", spoils)
    lines = refused(capsys, "run", home / "tiny.yaml", "--runs", tmp_path, "--quiet", *SETS)
    assert lines == [
        f"step 3: parameters that are not finite: embedder.weight {LOWER}",
        f"the run stays as of its last checkpoint: {only(tmp_path)}",
    ]
    assert [path.name for path in (only(tmp_path) / "checkpoints").iterdir()] == ["000000002"]


def test_a_trainer_that_reports_a_loss_that_is_not_finite(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of others may not look; the engine does."""
    import attrs
    from recore_training.standard import StandardTrainer

    from recore.errors import DivergenceError

    real = StandardTrainer._step
    monkeypatch.setattr(
        StandardTrainer,
        "_step",
        lambda self, *arguments: attrs.evolve(real(self, *arguments), losses={"ce": float("nan")}),
    )
    with pytest.raises(DivergenceError) as caught:
        small(SHORT)
    assert str(caught.value) == f"step 1: loss 'ce' is nan, expected a finite number {LOWER}"
    assert caught.value.exit_status == 2


# ---- plugins that are broken ---------------------------------------------------------------------------------

PLUGIN = '''
import attrs
from recore import Component, LossClaims, hookimpl, option

@attrs.frozen
class Options:
    """A loss."""

def build(options, context):
    raise ZeroDivisionError("in the factory")

@hookimpl
def recore_losses():
    yield Component("own", Options, "this:build", summary="A loss.", claims=LossClaims())
'''
USE = ["--set", "loss={use: own}"]


def with_plugin(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    path.chmod(0o644)
    return path


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "def build(options, context):",
            "def build(options, context)",
            "loss 'mine:own' cannot be used: mine is broken: running it raised SyntaxError: expected ':' "
            "(mine.py, line 9)",
        ),
        (
            "    yield Component",
            "    raise KeyError('oh')\n    yield Component",
            "loss 'mine:own' cannot be used: mine is broken: recore_losses raised KeyError: 'oh' [mine.py:14]",
        ),
        (
            "@attrs.frozen\n",
            "",
            "loss 'mine:own' cannot be used: mine is broken: recore_losses yields 'own' with options <class "
            "'_recore_loose_mine.Options'>, expected an attrs class",
        ),
        (
            "import attrs",
            "import attrs, no_such_module",
            "loss 'mine:own' cannot be used: mine is broken: running it raised ModuleNotFoundError: No module named "
            "'no_such_module' [mine.py:2]",
        ),
        (
            '"this:build"',
            '"this:bild"',
            "loss 'mine:own': its factory 'this:bild' cannot be imported: AttributeError: module "
            "'_recore_loose_mine' has no attribute 'bild'",
        ),
        (
            '"this:build"',
            '"no_such_module:build"',
            "loss 'mine:own': its factory 'no_such_module:build' cannot be imported: ModuleNotFoundError: No "
            "module named 'no_such_module'",
        ),
    ],
)
def test_a_recipe_whose_plugin_is_broken(
    old: str, new: str, told: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PLUGIN.count(old) == 1
    path = with_plugin(tmp_path, PLUGIN.replace(old, new))
    use = ["--set", "loss={use: mine:own}"]
    lines = refused(capsys, "run", home / "tiny.yaml", "--plugin", path, "--runs", tmp_path / "runs", *use)
    where = "--set loss={use: mine:own}"
    assert lines == [f"{where}: loss{'' if 'factory' in told else '.use'}: {told}"]
    assert not (tmp_path / "runs").exists()
    # Whoever does not use it is not hindered by it.
    assert main(capsys, "check", home / "tiny.yaml", "--plugin", path)[0] == 0


def test_a_factory_that_raises_keeps_its_traceback_and_leaves_no_run(
    home: Path, tmp_path: Path, forked: Forked
) -> None:
    path = with_plugin(tmp_path, PLUGIN)
    status, out, err = forked(
        "run", home / "tiny.yaml", "--plugin", path, "--runs", tmp_path / "runs", "--quiet", *USE
    )
    assert (status, out) == (1, "")
    assert f'File "{path}", line 10, in build' in err
    assert err.rstrip().splitlines()[-2:] == [
        "ZeroDivisionError: in the factory",
        "while building loss 'mine:own' (--set loss={use: own}: loss)",
    ]
    assert [entry for entry in (tmp_path / "runs").rglob("*") if not entry.is_dir()] == []


def test_a_run_that_fails_before_its_first_checkpoint_is_withdrawn(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And `latest` is again what it was."""
    from recore.sequential import SequentialTraining

    first = small(SHORT).folder.resolve()
    latest = tmp_path / "runs" / "tiny" / "latest"

    def fails(*arguments: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(SequentialTraining, "backward", fails)
        with pytest.raises(ZeroDivisionError):
            small(SHORT)
        assert latest.resolve() == first
        assert {path.name for path in latest.parent.iterdir()} == {"latest", first.name}
        # One that has something to go on with stays, and so does one that was only stopped.
        calls = [0]
        real = SequentialTraining.stepped

        def later(self: SequentialTraining, batches: Any, step: int) -> None:
            if step == 3:
                raise ZeroDivisionError
            real(self, batches, step)

        patch.undo()
        patch.setattr(SequentialTraining, "stepped", later)
        with pytest.raises(ZeroDivisionError):
            small(SHORT)
        assert latest.resolve() != first
        patch.setattr(SequentialTraining, "stepped", lambda *arguments: signal.raise_signal(signal.SIGTERM))
        assert calls == [0]
    assert figures(resume(latest).path) == figures(first)
