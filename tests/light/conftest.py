"""Tiny distributions with real metadata: a `.dist-info` folder and a module on the path, no installer."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from recore.plugins import Plugins, discover

HERE = Path(__file__).parent
TINY = ("tiny_parts", "tiny_parts_build")


class Site:
    """A folder on the path in which distributions are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def distribution(
        self,
        name: str,
        version: str,
        entries: str = "",
        files: dict[str, str] | None = None,
        record: bool = False,
    ) -> Path:
        """Write a distribution. `entries` is the text of `entry_points.txt`; gives its metadata folder."""
        for path, text in (files or {}).items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text), encoding="utf-8")
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(textwrap.dedent(entries), encoding="utf-8")
        if record:
            (info / "RECORD").write_text("".join(f"{path},,\n" for path in files or {}), encoding="utf-8")
        return info

    def plugin(self, name: str, version: str, module: str, text: str) -> Path:
        """A distribution with one entry module of the plugin API."""
        return self.distribution(name, version, f"[recore.v1]\nmain = {module}\n", {f"{module}.py": text})

    def run(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Python with this folder first on the path."""
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), **(env or {})},
        )

    def recore(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return self.run("-m", "recore.cli.main", *arguments, env=env)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty site."""
    return Site(tmp_path / "site")


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site on this process's path; modules that are imported from it are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(site.folder))
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        if str(site.folder.parent) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    importlib.invalidate_caches()


def write_tiny(site: Site) -> None:
    """Write the distribution `tiny-parts` 1.0, with a part of every kind."""
    for name in TINY:
        shutil.copy(HERE / f"{name}.py", site.folder)
    site.distribution("tiny-parts", "1.0", "[recore.v1]\ntiny = tiny_parts\n")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugins]:
    """The core and `tiny-parts`: whatever else is installed makes no difference."""
    site = Site(tmp_path_factory.mktemp("tiny"))
    write_tiny(site)
    sys.path.insert(0, str(site.folder))
    importlib.invalidate_caches()
    found = discover()
    only = tuple(one for one in found.distributions if one.name in ("recore", "tiny-parts"))
    yield Plugins(only, found.manager)
    sys.path.remove(str(site.folder))
    for name in TINY:
        sys.modules.pop(name, None)


@pytest.fixture
def tiny_site(site: Site) -> Site:
    """A site with `tiny-parts`, for subprocesses."""
    write_tiny(site)
    return site
