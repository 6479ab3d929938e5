"""Provenance: which code a plugin was when it was used, as name, version and a hash of its contents."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recore.plugins import Provider

CODE = (".py", ".so", ".pyd")


def provenance(provider: Provider) -> dict[str, Any]:
    """The record of a plugin: `name`, `version`, `sha256` of its code, `editable`, `loose`.

    The hash is over the names and bytes of its Python files and native extensions: those that the installer
    recorded; for an editable install those of the packages that its entry points are in, where their source
    is; for a loose file its bytes as they were run.
    """
    return {
        "name": provider.name,
        "version": provider.version,
        "sha256": content_hash(provider),
        "editable": provider.editable,
        "loose": provider.loose is not None,
    }


def content_hash(provider: Provider) -> str:
    """sha256, in hexadecimal, of the code of a plugin."""
    if provider.loose is not None:
        return hashlib.sha256(provider.source).hexdigest()
    files = [] if provider.editable else _recorded(provider)
    return _digest(files or _in_packages(provider.entries.values()))


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(files):
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _recorded(provider: Provider) -> list[tuple[str, Path]]:
    """The code files in the installer's record that are still there."""
    found = []
    for entry in (provider.metadata.files if provider.metadata is not None else None) or ():
        file = Path(str(entry.locate()))
        if entry.suffix in CODE and file.is_file():
            found.append((entry.as_posix(), file))
    return found


def _in_packages(references: Iterable[str]) -> list[tuple[str, Path]]:
    """The code files of the packages that these object references (`package.module:name`) are in."""
    found = set()
    for reference in references:
        for root, folder in _package(reference.split(":")[0].strip()):
            files = [folder] if folder.is_file() else [f for f in folder.rglob("*") if f.suffix in CODE]
            found |= {(file.relative_to(root).as_posix(), file) for file in files}
    return sorted(found)


def _package(module: str) -> list[tuple[Path, Path]]:
    """The outermost package of a module that is no namespace package, as (its parent, itself); a lone module
    as (its folder, its file)."""
    names = module.split(".")
    for length in range(1, len(names) + 1):
        name = ".".join(names[:length])
        loaded = sys.modules.get(name)
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        depth = length if origin.stem == "__init__" else length - 1
        own = origin.parent if origin.stem == "__init__" else origin
        root = origin.parent
        for _ in range(depth):
            root = root.parent
        return [(root, own)]
    return []
