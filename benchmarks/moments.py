"""How old may what is known be? Users ranked by how recently they were seen, when what is known is that old.

python benchmarks/moments.py [RECIPE] [--set PATH=VALUE] [--json FILE]

The test targets of a recipe (by default the simulated log) are asked about in order of time: the next user for
an item, all users ranked by their last event before the moment, ties against the ranking. The moment is the time
of the first of a run of so many consecutive events, the question's own among them. Nothing is trained; seen users
stay candidates.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from recore.engine.machine import Machine
from recore.engine.prepare import prepare
from recore.recipe import load_cells

RUNS = (1, 4, 16, 64, 256)


def main() -> None:
    """Print a row per length of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="sasrec")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    (recipe,) = load_cells(args.recipe, sets=args.set)
    prepared = prepare(recipe, recipe.seeds[0], Machine(threads=1))
    log, parts = prepared.log.events, prepared.parts
    time = log["time"].to_numpy()
    user = log["user"].rank("dense").to_numpy().astype(np.int64) - 1
    known = np.concatenate([parts.train, parts.validation.target])
    known = known[np.argsort(time[known], kind="stable")]
    asked = parts.test.target[np.argsort(time[parts.test.target], kind="stable")]
    every = np.sort(np.concatenate([time[known], time[asked]]))
    rows = []
    for run in RUNS:
        first = np.searchsorted(every, time[asked], side="left")
        moments = every[(first // run) * run]
        last, place, gains = np.full(user.max() + 1, -np.inf), 0, []
        for row, moment in zip(asked, moments, strict=True):
            stop = int(np.searchsorted(time[known], moment, side="left"))
            new = known[place:stop]
            last[user[new]] = time[new]  # in order of time: the last one stays
            place = max(place, stop)
            rank = int((last >= last[user[row]]).sum())
            gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0.0)
        rows.append({"events in a run": run, "ndcg@10": float(np.mean(gains))})
        print(f"{run:4d} events to a moment: NDCG@10 of the most recent users {rows[-1]['ndcg@10']:.4f}")
    if args.json:
        about = {"recipe": recipe.name, "sets": args.set, "data": prepared.log.summary()}
        args.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
