"""Add a paired comparison to a record, while both run folders are there:

    python docs/results/pair.py runs/ml-1m/sasrec-bce/latest runs/ml-1m/sasrec-ce/latest

writes `paired` (first minus second, over the same users) into the first run's record under docs/results/records.
Two runs whose protocol cards differ are refused: their figures do not mean the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import attrs
import polars as pl

from recore.engine.record import record_path
from recore.engine.rundir import read_json, write_json
from recore.errors import DataError, RecoreError
from recore.statistics import paired

RECORDS = Path(__file__).resolve().parent / "records"


def pair(first: Path, second: Path, metrics: list[str], records: Path) -> Path:
    """The record of the first run, with `paired`. Raises DataError when the protocols differ."""
    ours, theirs = (read_json(run / "record.json") for run in (first, second))
    protocols = ours["card"]["protocol"], theirs["card"]["protocol"]
    differ = [key for key in protocols[0] if key != "metrics" and protocols[0][key] != protocols[1].get(key)]
    # A run may measure more than the other; what is compared must mean the same in both.
    differ += [m for m in metrics if protocols[0]["metrics"].get(m) != protocols[1]["metrics"].get(m)]
    if differ:
        raise DataError(f"{first} and {second} are not comparable: {', '.join(differ)} differ")
    frames = [pl.read_parquet(run / "users-test.parquet") for run in (first, second)]
    against = record_path(Path(), theirs).with_suffix("").as_posix()
    path = record_path(records, ours)
    record = read_json(path)
    record["paired"] = {
        metric: {"against": against, **attrs.asdict(paired(frames[0], frames[1], metric, seed=ours["seed"]))}
        for metric in metrics
    }
    write_json(path, record)
    return path


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Add a paired comparison to a record.")
    parser.add_argument("first", type=Path, help="the run whose record gets it")
    parser.add_argument("second", type=Path, help="the run that it is compared with")
    parser.add_argument("--metric", action="append", help="default: ndcg@10 and hr@10")
    parser.add_argument("--records", type=Path, default=RECORDS, help="the folder of records")
    args = parser.parse_args(arguments)
    try:
        print(pair(args.first, args.second, args.metric or ["ndcg@10", "hr@10"], args.records))
    except RecoreError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
