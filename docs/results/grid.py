"""Run what a results page rests on, over as many sessions as it takes:

    python docs/results/grid.py positions --list                what is there, what remains, for how long
    python docs/results/grid.py positions --minutes 120         run what remains, for about two hours, then render
    python docs/results/grid.py positions --only ml-100k        of it, what has this in its name
    python docs/results/grid.py positions --quick               all cells on a tiny log, into a temporary folder

`grid.yaml` beside this file declares the runs. Each is a fresh process, `recore run RECIPE --cell C --seed S`, its
folder under runs/; a run that was stopped is taken up, or begun anew where the code has changed since. Its record
goes to docs/results/records, with the places of the targets beside it, from which render.py makes paired intervals.
What has a record is not run again; where its recipe says something else by now, that is told, and `--anew` runs it.

Several of these may run at once: each takes the next run that none has taken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import yaml
from attrs import frozen
from recore_evaluation.ranking import quartiles

from recore.engine.record import keep_record, record_path
from recore.engine.rundir import locked, read_json, remove
from recore.errors import RecoreError, RunFolderError
from recore.recipe import Recipe, from_tree, load_cells

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECORDS = HERE / "records"
START = 0.2  # minutes of a run before its first epoch and after its last one
QUICK = (  # the log of `--quick`, laid over every recipe
    "data={use: recore-world:world, users: 12, items: 30, events: 8.0, longest: 16, topics: 4, births: 0.0, "
    "retirements: 0.0}",
)
NOT_TREATMENT = ("data", "transforms", "split", "evaluators", "seeds", "matrix", "requires", "recore")
FIRST = 10  # places of a target that are kept: NDCG and HR up to this cut-off


@frozen
class Run:
    """One recipe, cell and seed. `source`: the recipe as it is asked for, `recipe`: as records call it; `tree`: the
    recipe, resolved; `minutes`: what it was declared to take."""

    source: str
    recipe: str
    cell: str
    seed: int
    tree: Mapping[str, Any]
    minutes: float

    @property
    def name(self) -> str:
        """As records are called."""
        return f"{self.recipe}/{self.cell}/seed-{self.seed}"

    def record(self, records: Path) -> Path:
        """Where its record belongs."""
        return record_path(records, {"recipe": self.recipe, "cell": self.cell, "seed": self.seed})


# ---- what is declared ----------------------------------------------------------------------------------------


def declared() -> dict[str, list[dict[str, Any]]]:
    """Page → entries of `grid.yaml`."""
    pages: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "grid.yaml").read_text(encoding="utf-8"))
    return pages


def composed(page: str, only: str = "", sets: Sequence[str] = ()) -> Iterator[tuple[dict[str, Any], Recipe]]:
    """Each entry of a page with each of its cells. Raises RecipeError, ValueError for a cell that is not there."""
    entries = declared()[page]
    named = [
        one for one in entries if only and (only in one["recipe"] or only.startswith(one["recipe"] + "/"))
    ]
    for entry in named or entries:
        cells = {cell.cell: cell for cell in load_cells(entry["recipe"], sets=sets)}
        chosen = entry.get("cells") or list(cells)
        if missing := [name for name in chosen if name not in cells]:
            raise ValueError(f"grid.yaml, {page}: {entry['recipe']} has no cell {', '.join(missing)}")
        yield from ((entry, cells[name]) for name in chosen)


def runs_of(page: str, only: str = "") -> list[Run]:
    """What a page rests on, the first seed of everything first. `only`: what has this in its name."""
    found = [
        (number, Run(entry["recipe"], cell.name, cell.cell, seed, cell.tree, float(entry["minutes"])))
        for entry, cell in composed(page, only)
        for number, seed in enumerate(entry["seeds"])
    ]
    chosen = [
        (number, run) for number, run in found if not only or only in run.name or fnmatch(run.name, only)
    ]
    return [run for _, run in sorted(chosen, key=lambda pair: pair[0])]


# ---- what is there -------------------------------------------------------------------------------------------


def differences(run: Run, record: Mapping[str, Any]) -> list[str]:
    """Where the recipe says something else than the record's does, apart from its data."""
    before = _flat(record["card"]["treatment"]["recipe"])
    now = _flat({key: value for key, value in run.tree.items() if key not in NOT_TREATMENT})
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Leaves by their path, as JSON gives them back."""
    if isinstance(tree, Mapping):
        return {
            k: v for key, value in tree.items() for k, v in _flat(value, f"{path}.{key}".lstrip(".")).items()
        }
    return {path: json.loads(json.dumps(tree))}


def folders(run: Run, runs: Path) -> list[Path]:
    """Its folders, the newest first."""
    parent = runs / run.recipe if run.cell == "base" else runs / run.recipe / run.cell
    found = [path.parent for path in parent.glob("*/run.json") if not path.parent.is_symlink()]
    return sorted((path for path in found if read_json(path / "run.json")["seed"] == run.seed), reverse=True)


def expected(run: Run, records: Path) -> float:
    """Minutes, from records of the same cell, else of the same recipe, else as declared."""
    kept = [read_json(path) for path in (records / run.recipe).rglob("seed-*.json")]
    alike = [record for record in kept if record["cell"] == run.cell] or kept
    if not alike:
        return run.minutes
    epochs = run.tree["trainer"]["epochs"]
    seconds = median(each["seconds_per_epoch"] + each["validation_seconds_per_epoch"] for each in alike)
    return float(START + seconds * epochs / 60)


# ---- running -------------------------------------------------------------------------------------------------


def by_user(users: pl.DataFrame) -> dict[str, Any]:
    """The places of the targets, small enough to keep: a character for each row, in the order of `sha256`.
    `places`: 1 … 9 and A for 10, 0 for any beyond. `quartile`: of history length, as in the record's groups."""
    keys = [key for key in ("user", "event") if key in users.columns]
    users = users.sort(keys)
    text = users.select(keys).write_csv()
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "places": "".join("0123456789A"[rank] if rank <= FIRST else "0" for rank in users["rank"]),
        "quartile": "".join(str(1 + number) for number in quartiles(users["length"].to_numpy())),
    }


def keep(folder: Path, records: Path) -> Mapping[str, Any]:
    """Keep the record of a finished run, with the places of its targets."""
    record = {
        **read_json(folder / "record.json"),
        "by_user": by_user(pl.read_parquet(folder / "users-test.parquet")),
    }
    keep_record(records, record)
    return record


def command(*arguments: object) -> None:
    """A fresh process of recore. Raises RuntimeError with what it said when it fails."""
    line = [sys.executable, "-m", "recore.cli.main", *map(str, arguments)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        _, said = process.communicate()
    except BaseException:
        process.send_signal(signal.SIGTERM)  # it ends its step, writes a checkpoint, and can be taken up
        process.wait()
        raise
    if process.returncode:
        raise RuntimeError(said.strip())


def carry_out(run: Run, runs: Path, records: Path, threads: int) -> Mapping[str, Any]:
    """Take a run up, or begin it, to its end; its record is kept. Raises RunFolderError where another process has it,
    RuntimeError with recore's own words where it fails."""
    lock = runs / ".grid" / f"{run.name.replace('/', '--')}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, busy=f"{run.name} is being run by another process"):
        for folder in folders(run, runs):
            if (folder / "record.json").exists() and not differences(run, read_json(folder / "record.json")):
                return keep(folder, records)
            if (folder / "record.json").exists():
                continue
            try:
                command("resume", folder, "--quiet")
                return keep(folder, records)
            except RuntimeError as error:
                print(f"  begun anew: {str(error).splitlines()[-1]}", flush=True)
                remove(folder)
        where = ["--cell", run.cell, "--seed", run.seed, "--threads", threads, "--runs", runs]
        command("run", run.source, *where, "--quiet")
        return keep(folders(run, runs)[0], records)


def hours(minutes: float) -> str:
    """`75` → `1 h 15 min`."""
    whole = round(minutes)
    return f"{whole // 60} h {whole % 60:02d} min" if whole >= 60 else f"{whole} min"


def told(page: str, runs: Sequence[Run], records: Path) -> list[Run]:
    """Say what is there; gives what is not."""
    missing = [run for run in runs if not run.record(records).exists()]
    for run in runs:
        if run.record(records).exists() and (differ := differences(run, read_json(run.record(records)))):
            print(f"{run.name}: the record is of another recipe ({', '.join(differ)} differ); --anew runs it")
    left = sum(expected(run, records) for run in missing)
    print(
        f"{page}: {len(runs) - len(missing)} of {len(runs)} runs have records; the rest takes about {hours(left)}"
    )
    return missing


def run_page(page: str, args: argparse.Namespace, records: Path = RECORDS) -> int:
    """Run what remains of a page, as far as the minutes go. Gives how many failed."""
    all_runs = runs_of(page, args.only)
    missing = told(page, all_runs, records)
    if args.anew:
        missing = [
            run
            for run in all_runs
            if not run.record(records).exists() or differences(run, read_json(run.record(records)))
        ]
    if args.list:
        for run in missing:
            print(f"  {run.name}  about {hours(expected(run, records))}")
        return 0
    failed = 0
    for run in missing:
        takes = expected(run, records)
        if args.minutes is not None and (time.monotonic() - args.begun) / 60 + takes > args.minutes:
            print(
                f"stopped before {run.name}: it takes about {hours(takes)}, and {args.minutes:g} min were given"
            )
            break
        if run.record(records).exists() and not args.anew:  # another process was faster
            continue
        begun = time.monotonic()
        try:
            record = carry_out(run, args.runs, records, args.threads)
        except (RunFolderError, RuntimeError) as error:
            failed += not isinstance(error, RunFolderError)
            print(f"{run.name}: {error}", flush=True)
            continue
        figure = record["test"].get("ndcg@10", float("nan"))
        print(f"{run.name}: NDCG@10 {figure:.4f}, {(time.monotonic() - begun) / 60:.1f} min", flush=True)
    told(page, all_runs, records)
    return failed


def quick(pages: Sequence[str], records: Path, runs: Path, only: str = "") -> list[Mapping[str, Any]]:
    """Every cell of the pages on a tiny log, for one epoch, in this process; their records under `records`."""
    from recore.engine.machine import Machine
    from recore.engine.run import run as run_one

    kept = []
    for page in pages:
        for _, cell in composed(page, only, QUICK):
            tree = {**cell.tree, "trainer": {**cell.tree["trainer"], "epochs": 1}}
            once = from_tree(tree, cell.name, cell.file, cell.cell, plugins=cell.plugins)
            folder = run_one(once, 0, Machine(threads=1), runs)
            kept.append(keep(folder.path, records))
    return kept


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run what a results page rests on.")
    parser.add_argument("pages", nargs="+", choices=list(declared()), help="which pages")
    parser.add_argument(
        "--quick", action="store_true", help="all cells on a tiny log, into a temporary folder"
    )
    parser.add_argument("--list", action="store_true", help="only say what remains")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="what has this in its name, or a pattern with *"
    )
    parser.add_argument("--anew", action="store_true", help="also what has a record of another recipe")
    parser.add_argument(
        "--minutes", type=float, help="begin nothing that would not end within so many minutes"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads of a run (default: 1)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where run folders go")
    args = parser.parse_args(arguments)
    args.begun = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = 0
    try:
        if args.quick:
            with tempfile.TemporaryDirectory() as kept:
                folder = Path(kept)
                quick(args.pages, folder / "records", folder / "runs", args.only)
                return render(*args.pages, "--records", folder / "records", "--to", folder)
        for page in args.pages:
            failed += run_page(page, args)
    except (RecoreError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    if not args.list:
        render(*args.pages)
    return 1 if failed else 0


def render(*arguments: object) -> int:
    """Render pages from the records."""
    return subprocess.run(
        [sys.executable, str(HERE / "render.py"), *map(str, arguments)], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
