"""SIGKILL at random moments: each run is resumed, and its end compared bit by bit with one that was not killed.

    python benchmarks/kill.py RECIPE [--kills 30] [--set PATH=VALUE ...] [--json FILE]

A reference run goes through undisturbed. Then `--kills` kills are made: of each three, one at a random moment of
training and measuring, one while something is being written (a hidden file is under way), one of a process that
resumes. `--per-run N` lets a run suffer N kills before it is let through, so that many kills of a long recipe
need few runs. Compared are test and validation figures with intervals and groups, figures of each user, what
each epoch logged (but for times and memory), and every byte of weights and of the optimiser's state.

The moments come from `--seed` and are printed. Exit status 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recore.engine.machine import Machine
from recore.threads import WAITING

EPOCH = ("epoch", "step", "losses", "validation", "best", "stop", "learning_rate")
RECORD = ("test", "validation", "intervals", "groups", "best_epoch", "counts", "epochs")
OUTSIDE = 600.0  # seconds after which a process that should have ended is called hung


def summary(kills: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many there were, how many ended the same, and how many of each way."""
    ways = {way: sum(kill["way"] == way for kill in kills) for way in ("moment", "write", "resume")}
    return {"kills": len(kills), "same": sum(bool(kill["same"]) for kill in kills), **ways}


def main() -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("recipe", help="a recipe file, or the name of a shipped one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="as `recore run` has it"
    )
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="default: 30")
    parser.add_argument("--per-run", type=int, default=1, metavar="N", help="kills of one run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--threads", type=int, help="of each run")
    parser.add_argument(
        "--save-every", type=float, metavar="S", help="seconds between checkpoints in an epoch"
    )
    parser.add_argument(
        "--runs", type=Path, metavar="DIR", help="keep the runs here (default: a temporary folder)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here, too")
    args = parser.parse_args()
    if args.runs is not None:
        return work(args, args.runs.resolve())
    with tempfile.TemporaryDirectory(prefix="recore-kill-") as folder:
        return work(args, Path(folder))


def work(args: argparse.Namespace, root: Path) -> int:
    """All kills; 1 where one ended otherwise."""
    command = [
        "run",
        args.recipe,
        "--quiet",
        *(word for text in args.set for word in ("--set", text)),
        *([] if args.threads is None else ["--threads", str(args.threads)]),
    ]
    process = Process([*command, "--runs", root / "whole"], root / "whole", args.save_every)
    process.through()
    whole = folder_in(root / "whole")
    assert whole is not None
    expected, length = figures(whole), process.seconds_of_run
    print(f"{Machine(threads=args.threads).describe()}\nreference: {length:.1f} s from the folder to the end")
    draw = random.Random(args.seed)
    kills: list[dict[str, Any]] = []
    number = 0
    while len(kills) < args.kills:
        number += 1
        kills += one_run(args, command, root / f"killed-{number}", length, draw, expected, len(kills))
    same = sum(kill["same"] for kill in kills)
    print(f"{same} of {len(kills)} the same")
    if args.json is not None:
        about = {
            "recipe": args.recipe,
            "set": args.set,
            "seed": args.seed,
            "per_run": args.per_run,
            "save_every": args.save_every,
            "machine": Machine(threads=args.threads).describe(),
            "seconds": round(length, 1),
            "summary": summary(kills),
            "kills": kills,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return 0 if same == len(kills) else 1


def one_run(
    args: argparse.Namespace,
    command: list[str | Path],
    root: Path,
    length: float,
    draw: random.Random,
    expected: dict[str, Any],
    done: int,
) -> list[dict[str, Any]]:
    """A run that is killed up to `--per-run` times and then let through; a line for each kill."""
    kills: list[dict[str, Any]] = []
    while len(kills) < min(args.per_run, args.kills - done):
        way = ("moment", "write", "resume")[(done + len(kills)) % 3]
        held = folder_in(root)
        words: list[str | Path] = (
            ["resume", held, "--quiet"] if held is not None else [*command, "--runs", root]
        )
        if way == "resume" and held is None:  # first there must be something to resume
            first = Process(words, root, args.save_every)
            first.killed_at(draw.uniform(0.2, 0.8) * length)
            held = folder_in(root)
            words = ["resume", held, "--quiet"] if held is not None else words
        process = Process(words, root, args.save_every)
        if way == "write":
            process.killed_at(draw.uniform(0.0, 0.8) * length, then_writing=True)
        else:
            # A resumed run reads its data first; the rest of its life is at most that of a whole one.
            process.killed_at(draw.uniform(0.0, 1.0) * length, since_start=way == "resume")
        kills.append(
            {"way": way, "after": round(process.killed_after, 3), "state": state_of(root), "run": root.name}
        )
        if process.finished:
            break
    held = folder_in(root)
    last = Process(
        ["resume", held, "--quiet"] if held is not None else [*command, "--runs", root], root, args.save_every
    )
    last.through()
    folder = folder_in(root)
    assert folder is not None
    differ = differences(expected, figures(folder))
    left = [str(path.relative_to(folder)) for path in folder.rglob("*.partial")]
    for kill in kills:
        kill |= {"same": not differ and not left, "differ": differ, "left": left}
        word = "the same" if kill["same"] else f"DIFFERS in {', '.join([*differ, *left])}"
        print(
            f"{kill['run']:>12}  {kill['way']:<7} {kill['after']:8.3f} s  {kill['state']:<44} {word}",
            flush=True,
        )
    return kills


class Process:
    """`recore …` in a process of its own, watched."""

    def __init__(self, words: list[str | Path], root: Path, save_every: float | None) -> None:
        code = "import sys; from recore.cli.main import main; "
        if save_every is not None:
            code += f"from recore.engine import drive; drive.SAVE_EVERY = {save_every!r}; "
        self.root = root
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            env={**WAITING, **os.environ},  # as the command line has it
        )
        self.killed_after = 0.0
        self.seconds_of_run = 0.0
        self.finished = False

    def through(self) -> None:
        """Wait for its end."""
        self._until(lambda: folder_in(self.root) is not None)
        begun = time.monotonic()
        status = self.process.wait()
        self.seconds_of_run = time.monotonic() - begun
        self._ended(status)

    def killed_at(self, seconds: float, then_writing: bool = False, since_start: bool = False) -> None:
        """Kill it so many seconds after its folder is there; with `then_writing`, when something is under way."""
        if not since_start:
            self._until(lambda: folder_in(self.root) is not None)
        begun = time.monotonic()
        self._until(lambda: time.monotonic() - begun >= seconds)
        if then_writing:
            self._until(lambda: under_way(self.root), pause=0.0)
        self.killed_after = time.monotonic() - begun
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        status = self.process.wait()
        if status != -signal.SIGKILL:
            self.finished = True
            self._ended(status)

    def _until(self, there: Callable[[], bool], pause: float = 0.001) -> None:
        limit = time.monotonic() + OUTSIDE
        while not there() and self.process.poll() is None and time.monotonic() < limit:
            time.sleep(pause)

    def _ended(self, status: int) -> None:
        if status:
            self.errors.seek(0)
            sys.exit(f"a run ended with status {status}:\n{self.errors.read().decode()}")


def folder_in(root: Path) -> Path | None:
    """The one run folder under a root, wherever its recipe's name puts it."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "run.json" in files:
            return Path(folder)
    return None


def under_way(root: Path) -> bool:
    """Whether something is being written in the run folder."""
    folder = folder_in(root)
    places = [] if folder is None else [folder, folder / "checkpoints", folder / "models"]
    return any(name.endswith(".partial") for place in places if place.is_dir() for name in os.listdir(place))


def state_of(root: Path) -> str:
    """What a killed run left, in words."""
    folder = folder_in(root)
    if folder is None:
        return "before the folder"
    if (folder / "record.json").exists():
        return "finished"
    held = folder / "checkpoints"
    steps = sorted(path.name for path in held.iterdir() if path.name.isdecimal()) if held.is_dir() else []
    partial = list(folder.rglob("*.partial"))
    told = "no checkpoint" if not steps else f"checkpoint of step {int(steps[-1])}"
    told += ", trained" if (folder / "model").exists() else ""
    return told + (f", {partial[0].name.split('.')[1]} half-written" if partial else "")


def figures(folder: Path) -> dict[str, Any]:
    """What must be equal to the last bit."""
    record = json.loads((folder / "record.json").read_text("utf-8"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    found: dict[str, Any] = {f"record {key}": record[key] for key in RECORD}
    found["epochs"] = [{key: line[key] for key in EPOCH} for line in lines]
    users = folder / "users-test.parquet"
    found["users"] = pl.read_parquet(users).to_dict(as_series=False) if users.exists() else None
    for name in ("model", "trainer"):
        for path in sorted((folder / name).rglob("*")) if (folder / name).is_dir() else []:
            if path.is_file() and path.suffix == ".safetensors":
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what is not equal; NaN equals itself."""
    return [
        name
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name) and repr(one.get(name)) != repr(other.get(name))
    ]


if __name__ == "__main__":
    sys.exit(main())
