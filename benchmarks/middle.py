"""Middle size: 5,000,000 events of 500,000 users and 200,000 items, read, trained on, and asked for lists.

    python benchmarks/middle.py /data/middle --json middle.json     # about 25 minutes on two cores, 1 GiB of disk
    python benchmarks/middle.py /data/middle --users 20000 --items 4000 --lists 18000     # a minute

FOLDER takes the log, which is written once, the run and the lists; name one outside the repository. Every stage is a
process of its own, timed by the wall clock, with its largest resident memory as the system counted it:

    write      `World.write`: the simulated world as CSV
    check      `recore check` of the recipe
    read       what `recore run` does before the model is built: read, check, split, tokenise (at most 60 s, 4 GiB)
    run        `recore run`: one epoch, 5,000 users validate, every user has a test target
    killed     `recore recommend RUN --users FILE -k 100 --out DIR`, ended by SIGKILL when half of the parts are there
    go on      the same command again (at most 6 GiB)
    compare    parts that were there are untouched; every user has k rows of unseen items; of some users the rows
               equal those that the one-history path gives for the history in the file (how many lists have two
               scores within the stated bound of each other in the other order is counted apart)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECIPE = """\
# The smallest model that scores every item from a history; its figures are not the point.
recore: 1
data: {use: recore-data:events, path: log.csv, time: time}
split: {use: recore-data:leave-last, validate: 5000}
tokenizer: {use: recore-tokenizers:items}
objective: {use: recore-objectives:next-item}
model:
  history: {last: 20}
  embedder: {use: recore-embeddings:padding-safe, width: 32}
  position: {use: recore-positions:start-absolute}
  encoder: {use: recore-sasrec:sasrec, layers: 1, heads: 1, dropout: 0.0}
batcher: {use: recore-batchers:ragged, users: 1024}
loss: {use: recore-losses:bce, sampler: {use: recore-samplers:uniform}}
trainer: {use: recore-training:standard, learning_rate: 1e-3, epochs: 1}
evaluators: {use: recore-evaluation:ranking, k: [10]}
"""
RECORE = [sys.executable, "-m", "recore.cli.main"]
BOUNDS = {
    "read": {"seconds": 60.0, "mib": 4096.0},
    "killed": {"mib": 6144.0},
    "go on": {"mib": 6144.0},
}  # what must hold at full size


# ---- stages that are no command of recore's, each in a process of its own --------------------------------------


def write(arguments: argparse.Namespace) -> dict[str, Any]:
    """The log."""
    from recore_world import World
    from recore_world.options import WorldOptions

    events = float(arguments.events)
    longest = min(100, arguments.items // 4)
    world = World(
        WorldOptions(
            users=arguments.users, items=arguments.items, events=events, longest=longest, seed=arguments.seed
        )
    )
    world.write(arguments.folder / "log.csv")
    return {"events": len(world), "bytes": (arguments.folder / "log.csv").stat().st_size}


def read(arguments: argparse.Namespace) -> dict[str, Any]:
    """All that comes before the model."""
    from recore.api import load
    from recore.engine.machine import Machine, versions
    from recore.engine.prepare import prepare

    machine = Machine(threads=arguments.threads)
    prepared = prepare(load(arguments.folder / "middle.yaml"), 0, machine)
    assert prepared.context.tokenizer is not None
    return {
        "machine": machine.describe(),
        "versions": versions(),
        "data": prepared.log.summary(),
        "split": dict(prepared.parts.counts),
        "training events": len(prepared.parts.train),
        "items numbered": prepared.context.tokenizer.items,
    }


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the lists hold, and the one-history path beside them."""
    import polars as pl

    from recore.api import open_run
    from recore.engine.ranks import TIE_BOUND

    lists = pl.read_parquet(arguments.folder / "lists" / "part-*.parquet")
    asked = (arguments.folder / "users.txt").read_text("utf-8").split()
    log = pl.read_csv(arguments.folder / "log.csv", columns=["user", "item", "time"])
    log = log.sort("time", maintain_order=True)
    per_user = lists.group_by("user", maintain_order=True).agg(pl.len(), pl.col("rank").max())
    chosen = sorted(random.Random(arguments.seed).sample(asked, min(arguments.compared, len(asked))))
    histories = log.filter(pl.col("user").is_in(chosen)).group_by("user").agg("item")
    by_user = dict(zip(histories["user"].to_list(), histories["item"].to_list(), strict=True))
    result = open_run(arguments.folder / "runs" / "middle" / "latest")
    equal, near, apart = 0, 0, 0.0
    for user in chosen:
        alone = result.recommend([by_user[user]], k=arguments.k)
        mine = lists.filter(pl.col("user") == user)
        same = alone["item"].to_list() == mine["item"].to_list()
        # An item is compared with itself, wherever it stands, and a place with the same place.
        both = alone.join(mine, on="item", suffix="_mine")
        scale = float(both["score"].abs().max() or 1.0)  # type: ignore[arg-type]  # a float column
        by_item = float((both["score"] - both["score_mine"]).abs().max() or 0.0) / scale  # type: ignore[arg-type]  # as above
        by_place = float((alone["score"] - mine["score"]).abs().max() or 0.0) / scale  # type: ignore[arg-type]  # as above
        apart = max(apart, by_item, by_place)
        equal += same
        near += not same and max(by_item, by_place) <= TIE_BOUND
    return {
        "users": per_user.height,
        "in the order asked": per_user["user"].to_list() == asked,
        "rows": lists.height,
        "every user has k": bool(
            ((per_user["len"] == arguments.k) & (per_user["rank"] == arguments.k)).all()
        ),
        "seen items in lists": lists.join(log, on=["user", "item"], how="semi").height,
        "compared one by one": len(chosen),
        "lists with the same items in the same order": equal,
        "lists where scores within the bound change places": near,
        "scores apart, of the largest": apart,
        "stated bound": TIE_BOUND,
    }


STAGES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "write": write,
    "read": read,
    "compare": compare,
}


# ---- measuring -------------------------------------------------------------------------------------------------


def measured(
    command: list[str], log: Path, until: Callable[[], bool] = lambda: False
) -> tuple[dict[str, Any], str]:
    """Run a command; SIGKILL it when `until` holds. Its seconds, largest resident memory and output."""
    begun = time.perf_counter()
    with log.open("w+", encoding="utf-8") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        killed = False
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if not killed and until():
                child.send_signal(signal.SIGKILL)
                killed = True
            time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if child.returncode != (-signal.SIGKILL if killed else 0):
        sys.exit(f"{' '.join(command)} ended with status {child.returncode}:\n{text[-3000:]}")
    took = {
        "seconds": round(time.perf_counter() - begun, 2),
        "processor seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "mib": round(usage.ru_maxrss / 1024, 1),
    }
    return took, text


def parts(folder: Path) -> dict[str, tuple[int, str]]:
    """When each part was written, and the digest of what it holds."""
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.glob("part-*.parquet"))
    }


def main() -> None:
    """All stages in turn, and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the log, the run and the lists go")
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=10, help="mean number of events of a user")
    parser.add_argument("--lists", type=int, default=100_000, help="how many users are asked for")
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument(
        "--compared", type=int, default=200, help="users whose lists are asked for one by one"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all of it here")
    parser.add_argument("--stage", choices=sorted(STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        return print("\x1e" + json.dumps(STAGES[arguments.stage](arguments)))

    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "middle.yaml").write_text(RECIPE, encoding="utf-8")
    users = random.Random(arguments.seed).sample(range(arguments.users), arguments.lists)
    (folder / "users.txt").write_text("".join(f"u{user}\n" for user in users), encoding="utf-8")
    took: dict[str, Any] = {}
    found: dict[str, Any] = {}

    def say(name: str) -> None:
        print(
            f"{name:8} {took[name]['seconds']:9.1f} s {took[name]['mib']:8.0f} MiB  "
            f"({took[name]['processor seconds']:.1f} s of processor)",
            flush=True,
        )

    def stage(name: str) -> None:
        took[name], text = measured([sys.executable, *sys.argv, "--stage", name], folder / f"{name}.log")
        found[name] = json.loads(text.rsplit("\x1e", 1)[1])
        say(name)

    def recore(name: str, *options: str, until: Callable[[], bool] = lambda: False) -> None:
        took[name], _ = measured([*RECORE, *options], folder / f"{name}.log", until)
        say(name)

    if not (folder / "log.csv").exists():
        stage("write")
    recore("check", "check", str(folder / "middle.yaml"))
    stage("read")
    run = folder / "runs" / "middle" / "latest"
    if not (run / "record.json").exists():
        options = ["--runs", str(folder / "runs"), "--quiet", "--threads", str(arguments.threads)]
        recore("run", "run", str(folder / "middle.yaml"), *options)
    lists = folder / "lists"
    shutil.rmtree(lists, ignore_errors=True)
    ask = ["recommend", str(run), "--users", str(folder / "users.txt"), "-k", str(arguments.k)]
    ask += ["--out", str(lists)]
    half = -(-arguments.lists // 8_192) // 2
    recore("killed", *ask, until=lambda: len(list(lists.glob("part-*.parquet"))) >= max(half, 1))
    before = parts(lists)
    recore("go on", *ask)
    after = parts(lists)
    stage("compare")
    met = {
        f"{name}: {what} at most {bound:g}": took[name][what] <= bound
        for name, bounds in BOUNDS.items()
        for what, bound in bounds.items()
    }
    went_on = {
        "parts there at the kill": len(before),
        "parts in the end": len(after),
        "parts touched again": sum(after.get(name) != held for name, held in before.items()),
    }
    lists_hold = found["compare"]
    met["killed before the end"] = 0 < len(before) < len(after)
    met["no part touched again"] = went_on["parts touched again"] == 0
    met["every user has k rows of unseen items"] = (
        lists_hold["users"] == arguments.lists
        and lists_hold["every user has k"]
        and lists_hold["in the order asked"]
        and lists_hold["seen items in lists"] == 0
    )
    equal = lists_hold["lists with the same items in the same order"]
    near = lists_hold["lists where scores within the bound change places"]
    met["rows equal the one-history path, scores within the bound"] = (
        equal + near == lists_hold["compared one by one"]
        and lists_hold["scores apart, of the largest"] <= lists_hold["stated bound"]
    )
    record = {
        "benchmark": "middle",
        "asked": {
            key: getattr(arguments, key)
            for key in ("users", "items", "events", "lists", "k", "threads", "seed")
        },
        **found["read"],
        "stages": took,
        "went on": went_on,
        "lists": lists_hold,
        "met": met,
    }
    print(json.dumps({"machine": record["machine"], "data": record["data"]}, indent=1))
    print(json.dumps({"went on": went_on, "lists": lists_hold, "met": met}, indent=1, ensure_ascii=False))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(0 if all(met.values()) else 1)


if __name__ == "__main__":
    main()
