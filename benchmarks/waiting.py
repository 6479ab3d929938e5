"""How torch's threads should wait: a step of ml-1m/sasrec-bce under each policy, on an idle machine and a busy one.

python benchmarks/waiting.py [--busy N ...] [--json FILE]

Each policy is measured in a process of its own, since OpenMP reads it once; `busy` other processes loop meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from recore.engine.machine import Machine
from recore.threads import WAITING

POLICIES: dict[str, dict[str, str]] = {
    "OpenMP's own": {},
    "sleep at once": {"OMP_WAIT_POLICY": "passive"},
    "spin briefly, then sleep (the command line's)": WAITING,
}


def measured(steps: int) -> float:
    """Milliseconds of a step, the median, in this process."""
    from race import build, recipe

    contender = build(recipe("ml-1m/sasrec-bce"), None, 0).contender("bce")
    times = []
    for _ in range(steps + 3):
        begun = time.perf_counter()
        contender.step()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[3:])


def main() -> None:
    """A row for each policy and load."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(measured(args.steps))
        return
    clean = {name: value for name, value in os.environ.items() if name not in WAITING}
    rows = []
    for busy in args.busy:
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            for name, policy in POLICIES.items():
                done = subprocess.run(
                    [sys.executable, __file__, "--one", "--steps", str(args.steps)],
                    env={**clean, **policy},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                rows.append({"busy": busy, "threads wait": name, "ms": float(done.stdout)})
                print(f"{busy} busy processes, {name}: {rows[-1]['ms']:.0f} ms a step", flush=True)
        finally:
            for loop in loops:
                loop.kill()
    if args.json:
        about = {"machine": Machine().describe(), "seed": 0}
        args.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
