"""All benchmarks that have a bar to keep, one after the other: what `make bench` runs.

    python benchmarks/all.py --json docs/results/bench.json
    python benchmarks/all.py --few                 # a handful of batches each: whether all of it runs

Each runs in a process of its own. Those that need data sets are left out, with a word, where $RECORE_DATA does not
hold them. The exit status is 1 when a bar is missed, or a benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recore.threads import wait_briefly

HERE = Path(__file__).resolve().parent
FEW = {
    "epochs": ["--batches", "2", "--few", "1"],
    "beauty": ["--batches", "2"],
    "memory": ["--items", "3000", "--predictions", "400"],
    "positions": ["--sample", "1", "--rounds", "1", "--heads", "4", "--dropout", "0"],
    "untruncated": ["--batches", "1", "--rounds", "1", "--lengths"],
}
EPOCHS = ("epochs", "beauty", "untruncated")  # those that train whole epochs
ABSENT = 3  # the exit status of a benchmark whose data are not there


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="of torch (default: as torch chooses)")
    parser.add_argument("--batches", help="of an epoch, in those that train (default: whole epochs)")
    parser.add_argument("--few", action="store_true", help="a handful of batches, to see that it runs")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    wait_briefly()  # as the command line has it, for all contenders alike
    found: dict[str, Any] = {"format": 1}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name, few in FEW.items():
            print(f"\n=== {name} ===", flush=True)
            file = Path(folder) / f"{name}.json"
            command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file)]
            command += ["--threads", str(options.threads)] if options.threads else []
            if options.batches and name in EPOCHS:
                command += ["--batches", options.batches]
            status = subprocess.run([*command, *(few if options.few else [])], check=False).returncode
            if status == ABSENT:
                found[name] = None
            elif status:
                failed.append(name)
            else:
                found[name] = json.loads(file.read_text(encoding="utf-8"))
    bars = [entry for part in found.values() if isinstance(part, dict) for entry in part.get("bars", ())]
    found["bars"] = [{**entry, "kept": "yes" if entry["kept"] else "no"} for entry in bars]
    missed = [entry["name"] for entry in bars if not entry["kept"]]
    absent = [name for name, part in found.items() if part is None]
    print(f"\n{len(bars) - len(missed)} of {len(bars)} bars kept")
    print("\n".join(f"missed: {name}" for name in missed), end="\n" if missed else "")
    print(
        "\n".join(f"left out, its data are not there: {name}" for name in absent), end="\n" if absent else ""
    )
    print("\n".join(f"failed: {name}" for name in failed), end="\n" if failed else "")
    if options.json is not None and (failed or absent):
        print(f"not written, since some are missing: {options.json}")
    elif options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"written: {options.json}")
    return 1 if failed or (missed and not options.few) else 0


if __name__ == "__main__":
    sys.exit(main())
