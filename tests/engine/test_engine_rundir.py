"""The folder of a run: all or nothing, nothing half, nothing that executes on load."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import recore
from recore.api import Result
from recore.engine import checkpoint, rundir
from recore.engine.rundir import RunFolder, read_json, remove, write_aside, write_json
from recore.errors import RunFolderError

ROOT = Path(recore.__file__).parent

# ---- files ---------------------------------------------------------------------------------------------------


def fail(error: BaseException) -> Any:
    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    return write


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("x"), KeyboardInterrupt()]
)
def test_the_old_file_stays_when_writing_fails(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})
    expected = RunFolderError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        write_aside(path, fail(error))
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
    if isinstance(error, OSError):
        assert f"{path} cannot be written: No space left on device" in str(caught.value)


def test_a_folder_is_written_aside_too(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "a").write_text("1")

    ended = subprocess.Popen(["true"])
    ended.wait()
    killed = tmp_path / f".made.{rundir._host()}-{ended.pid}-0.partial"
    killed.mkdir()
    (killed / "old").write_text("0")
    write_aside(tmp_path / "made", write)
    assert [entry.name for entry in (tmp_path / "made").iterdir()] == ["a"]
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_aside(tmp_path / "made", write)  # is not overwritten
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    """Two that write one file do not disturb each other; what is under way elsewhere is left alone, too."""
    alive = tmp_path / f".x.json.{rundir._host()}-{os.getppid()}-0.partial"
    elsewhere = tmp_path / ".x.json.00000000-1-0.partial"
    other = tmp_path / ".other.json.00000000-1-0.partial"
    for path in (alive, elsewhere, other):
        path.write_text("half")

    def twice(beside: Path) -> None:
        write_json(tmp_path / "x.json", {"by": "the second"})
        beside.write_text('{"by": "the first"}')

    write_aside(tmp_path / "x.json", twice)
    assert read_json(tmp_path / "x.json") == {"by": "the first"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "x.json",
        *(path.name for path in (alive, elsewhere, other)),
    }
    rundir.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})


def test_json_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in (b"{", b"\xff\xfe", b""):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(RunFolderError, match=r"x\.json is not valid JSON"):
            read_json(tmp_path / "x.json")
    with pytest.raises(RunFolderError, match=r"y\.json cannot be read"):
        read_json(tmp_path / "y.json")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "z.json", {"a": float("nan")})
    assert not (tmp_path / "z.json").exists()


def test_remove_takes_links_and_not_what_they_point_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_text("")
    (tmp_path / "link").symlink_to("kept")
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert (tmp_path / "kept" / "a").exists()
    assert not (tmp_path / "link").is_symlink()


# ---- the folder ----------------------------------------------------------------------------------------------


def start(path: Path) -> None:
    """What makes a folder a run."""
    path.mkdir()
    write_json(path / "run.json", {"format": rundir.FORMAT})


def test_publishing_is_all_or_nothing(tmp_path: Path) -> None:
    folder = RunFolder.new(tmp_path, "some/recipe", "base", "abcd")
    assert not tmp_path.joinpath("some").exists()

    def fails(path: Path) -> None:
        start(path)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        folder.publish(fails)
    assert not tmp_path.joinpath("some").exists()
    folder.publish(start)
    latest = tmp_path / "some" / "recipe" / "latest"
    assert latest.is_symlink()
    assert RunFolder.open(latest) == RunFolder(folder.path.resolve())


def test_latest_is_the_newest_and_names_do_not_collide(tmp_path: Path) -> None:
    made = []
    for _ in range(3):
        folder = RunFolder.new(tmp_path, "recipe", "axis=a,other=b", "abcd").publish(start)
        made.append(folder.path)
        assert RunFolder.open(folder.path.parent / "latest").path == folder.path.resolve()
    assert len(set(made)) == 3
    assert {path.parent for path in made} == {tmp_path / "recipe" / "axis=a,other=b"}


def test_a_dangling_latest_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("gone")
    with pytest.raises(RunFolderError, match="no run folder"):
        RunFolder.open(tmp_path / "latest")


def test_what_a_finished_run_holds(whole: Result) -> None:
    """As the module's docstring lists it; the best weights once."""
    import recore.engine.rundir as module

    found = {path.name for path in whole.folder.iterdir()}
    assert found == {
        *("recipe.yaml", "run.json", "card.json", "metrics.jsonl", "record.json", "users-test.parquet"),
        *("tokenizer", "items.parquet", "checkpoints", "model", "trainer", "sha256.json", ".lock"),
    }
    for name in found - {".lock"}:
        assert name in (module.__doc__ or "")


def test_nothing_that_can_execute_is_read() -> None:
    """No pickle, no torch.load, no eval, no exec, but the exec of a loose plugin, which is code by intent."""
    words = re.compile(
        r"\b(pickle|cPickle|dill|joblib|marshal|shelve)\b|torch\.load\(|\bread_pickle\b|(?<![.\w])eval\("
    )
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 80
    found = {}
    for file in files:
        code = "\n".join(line.split("#")[0] for line in file.read_text(encoding="utf-8").splitlines())
        code = re.sub(r'"""[\s\S]*?"""', "", code)
        if words.search(code):
            found[file.relative_to(ROOT).as_posix()] = words.findall(code)
    assert found == {}


# ---- checkpoints ---------------------------------------------------------------------------------------------

_text = st.text(st.sampled_from("ab/~.# é\n\0"), max_size=5).filter(lambda key: key != "tensor")
_dtypes = st.sampled_from(
    [torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16, torch.uint8]
)
_tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    ),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    _dtypes,
    st.integers(0, 9),
)
_plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.sampled_from('a"é\n\0'))
)
_states = st.recursive(
    _plain | _tensors,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, types too."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@settings(deadline=None, max_examples=60)
@example(state={"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "a~1b": torch.full((1,), 2.0)})
@given(state=st.dictionaries(_text, _states, max_size=4))
def test_state_survives(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    run = tmp_path_factory.mktemp("state")
    checkpoint.save(run, 3, state)
    loaded = checkpoint.load(run)
    assert same(state, loaded)


def test_parts_of_tensors_survive(tmp_path: Path) -> None:
    """Views, transposed and shared tensors, whose memory is not laid out as safetensors wants it."""
    base = torch.arange(12.0).view(3, 4)
    state = {
        "t": base.T,
        "row": base[1],
        "strided": base[:, ::2],
        "again": base,
        "expanded": base[:, :1].expand(3, 4),
    }
    checkpoint.save(tmp_path, 1, state)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"a": {"tensor": 1}}, {"a": b"bytes"}, torch.nn.Linear(1, 1)]
)
def test_what_cannot_be_kept_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="state at"):
        checkpoint.save(tmp_path, 1, {"x": value})
    assert checkpoint.load(tmp_path) is None


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        checkpoint.save(tmp_path, step, {"step": step, "x": torch.ones(2)})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000030"]
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 30
    content = json.loads((tmp_path / "checkpoints" / "000000030" / "state.json").read_text())
    assert set(content) == {"format", "run", "sha256", "state"}


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*arguments: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    checkpoint.save(tmp_path, 1, {"x": torch.ones(2)})
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunFolderError, match="No space left"):
        checkpoint.save(tmp_path, 2, {"x": torch.zeros(2)})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded["x"], torch.ones(2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000001"]
