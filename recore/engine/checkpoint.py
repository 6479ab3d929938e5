"""Checkpoints: nested state as safetensors plus JSON, with a checksum; nothing that can execute on load.

A checkpoint is a folder `checkpoints/<step>`, written aside and renamed. The one before it is removed only
after the new one is there, on the disk. It says which run it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from recore.engine.rundir import (
    FORMAT,
    REMEDY,
    SEAL,
    damaged,
    file_digest,
    read_json,
    remove,
    write_aside,
)
from recore.errors import Problem, RunFolderError

STATE, TENSORS = "state.json", "state.safetensors"


def flatten(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by path, and the rest as JSON in which `{"tensor": path}` stands for each."""
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value.detach().cpu().contiguous().clone()
            return {"tensor": path}
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value) or "tensor" in value:
                raise TypeError(f"state at {path!r} must have string keys, none of them 'tensor'")
            return {key: walk(inner, f"{path}/{_escaped(key)}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [walk(inner, f"{path}/{number}") for number, inner in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(
            f"state at {path!r} is a {type(value).__name__}: only tensors and plain values are saved"
        )

    return tensors, walk(state, "")


def _escaped(key: str) -> str:
    """A key in which no slash stands, so that no two paths are alike (as in RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def restore(tensors: Mapping[str, Tensor], plain: Any) -> Any:
    """The inverse of `flatten`; sequences come back as lists."""
    if isinstance(plain, dict):
        if set(plain) == {"tensor"}:
            return tensors[plain["tensor"]]
        return {key: restore(tensors, inner) for key, inner in plain.items()}
    if isinstance(plain, list):
        return [restore(tensors, inner) for inner in plain]
    return plain


def save(run: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write checkpoint `step` of a run and remove the older ones."""
    path = run / "checkpoints" / f"{step:09d}"
    if not path.exists():
        write_aside(path, lambda folder: write(folder, state, _run_digest(run)))
    for other in _all(run):
        if other != path:
            remove(other)


def write(folder: Path, state: Mapping[str, Any], run: str = "") -> None:
    """A state in a folder of its own, which must not exist yet. `run` is what it belongs to."""
    tensors, plain = flatten(state)
    folder.mkdir()
    save_file(tensors, folder / TENSORS)
    content = {
        "format": FORMAT,
        "run": run,
        "sha256": {"tensors": file_digest(folder / TENSORS), "state": digest(plain)},
        "state": plain,
    }
    (folder / STATE).write_text(json.dumps(content), encoding="utf-8")


def digest(plain: Any) -> str:
    """The sha256 of plain values, the same before they are written as JSON and after they are read."""
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _run_digest(run: Path) -> str:
    """What tells a run from others: its checksums."""
    return file_digest(run / SEAL) if (run / SEAL).is_file() else ""


def _all(run: Path) -> list[Path]:
    folder = run / "checkpoints"
    return sorted(p for p in folder.iterdir() if p.name.isdecimal()) if folder.is_dir() else []


def load(run: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run, or None. Raises RunFolderError when it is damaged, or another run's."""
    found = _all(run)
    return read(found[-1], _run_digest(run)) if found else None


def read(path: Path, run: str = "") -> dict[str, Any]:
    """The state in a folder. Raises RunFolderError when it is damaged or of another format, with all that is
    wrong; also when it does not belong to `run`, where that is given."""
    content = read_json(path / STATE)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise RunFolderError(f"{path / STATE} has format {found}, this recore reads format {FORMAT}")
    sums = content.get("sha256")
    sums = sums if isinstance(sums, dict) else {}
    try:
        data = (path / TENSORS).read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise RunFolderError(Problem(f"{path / TENSORS} cannot be read: {why}", hint=REMEDY)) from error
    problems = []
    if digest(content.get("state")) != sums.get("state"):
        problems.append(damaged(path / STATE))
    if hashlib.sha256(data).hexdigest() != sums.get("tensors"):
        problems.append(damaged(path / TENSORS))
    if problems:
        raise RunFolderError(problems)
    if run and content.get("run") != run:
        raise RunFolderError(
            Problem(f"{path} is a checkpoint of another run", hint="put back this run's own, or run anew")
        )
    try:
        state: dict[str, Any] = restore(load_tensors(data), content["state"])
    except (SafetensorError, KeyError, TypeError) as error:
        # The checksums hold, so it was written like that.
        raise RunFolderError(Problem(f"{path} is no checkpoint: {error}", hint=REMEDY)) from error
    return state
