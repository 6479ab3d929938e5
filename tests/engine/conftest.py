"""A tiny recipe over a tiny log, runs of it, and processes that run the command line and may be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from engine_helpers import ITEMS, RECIPE, Forked, Small, walks

import recore
from recore.api import Result


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiny.yaml`, `log.csv` and `titles.csv`."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    walks().write_csv(folder / "log.csv")
    items = [f"i{item:02d}" for item in range(ITEMS)]
    titles = [f"The [bold] title of {item}, ünïcode" for item in items]
    pl.DataFrame({"item": items, "title": titles}).write_csv(folder / "titles.csv")
    return folder


@pytest.fixture
def small(home: Path, tmp_path: Path) -> Small:
    """`small(overlay, seed=…, …)`: a run of the tiny recipe with something laid over it."""

    def run(overlay: Mapping[str, Any] | None = None, runs: Path | None = None, **more: Any) -> Result:
        return recore.run(
            recore.load(home / "tiny.yaml", overlay=overlay), runs=runs or tmp_path / "runs", **more
        )

    return run


@pytest.fixture(scope="session")
def whole(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The tiny recipe, run without a stop. Shared: do not write into its folder."""
    return recore.run(recore.load(home / "tiny.yaml"), runs=tmp_path_factory.mktemp("whole"))


# ---- processes that are killed -------------------------------------------------------------------------------

_FORKS = """
import json, os, sys
import torch, torch._dynamo  # what takes long to import; nothing of recore, and nothing with threads
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(job["cwd"])
        torch.set_num_threads(1)
        exec(job["before"])
        from recore.cli.main import main
        status = main(job["argv"])
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(status)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="session")
def forked(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """`forked(*arguments, before=code)`: `recore …` in a process of its own, in which `before` is run first;
    exit status (−9 when killed), output, complaints. Cheaper than a fresh process, since it is forked off one
    that has imported torch."""
    server = subprocess.Popen(
        [sys.executable, "-c", _FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    streams = server.stdin, server.stdout
    folder = tmp_path_factory.mktemp("forked")

    def run(*arguments: str | Path, before: str = "") -> tuple[int, str, str]:
        job = {
            "argv": [str(argument) for argument in arguments],
            "before": before,
            "cwd": str(home),
            "out": str(folder / "out"),
            "err": str(folder / "err"),
        }
        streams[0].write(json.dumps(job) + "\n")
        streams[0].flush()
        status = int(streams[1].readline())
        return status, (folder / "out").read_text("utf-8"), (folder / "err").read_text("utf-8")

    yield run
    server.stdin.close()
    server.wait()
