"""Checkpoints: nested state as safetensors plus JSON, with a checksum; nothing that can execute on load.

A checkpoint is a folder `checkpoints/<step>`, written aside and renamed. The one before it is removed only
after the new one is there.
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

from recore.engine.rundir import FORMAT, read_json, remove, write_aside
from recore.errors import RunFolderError


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
    tensors, plain = flatten(state)

    def write(folder: Path) -> None:
        folder.mkdir()
        save_file(tensors, folder / "state.safetensors")
        content = {
            "format": FORMAT,
            "sha256": {
                "tensors": hashlib.sha256((folder / "state.safetensors").read_bytes()).hexdigest(),
                "state": _digest(plain),
            },
            "state": plain,
        }
        (folder / "state.json").write_text(json.dumps(content), encoding="utf-8")

    path = run / "checkpoints" / f"{step:09d}"
    if not path.exists():
        write_aside(path, write)
    for other in _all(run):
        if other != path:
            remove(other)


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _all(run: Path) -> list[Path]:
    folder = run / "checkpoints"
    return sorted(p for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def load(run: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run, or None. Raises RunFolderError when it is damaged."""
    found = _all(run)
    if not found:
        return None
    path = found[-1]
    content = read_json(path / "state.json")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        held = content.get("format") if isinstance(content, dict) else None
        raise RunFolderError(f"checkpoint {path} has format {held}, this recore reads format {FORMAT}")
    try:
        data = (path / "state.safetensors").read_bytes()
        held = {"tensors": hashlib.sha256(data).hexdigest(), "state": _digest(content.get("state"))}
        if held != content.get("sha256"):
            raise RunFolderError(f"checkpoint {path} is damaged: its checksums do not match (run anew)")
        tensors = load_tensors(data)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"checkpoint {path} cannot be read: {error} (run anew)") from error
    state: dict[str, Any] = restore(tensors, content["state"])
    return state
