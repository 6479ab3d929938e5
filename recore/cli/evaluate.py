"""`recore evaluate`: a run's weights measured again, by the recipe's own evaluators. The run stays untouched."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser; light."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a run again",
        description="Reads the run's data again, checks that it is the same, and measures the run's weights with "
        "its evaluators. The run folder is not changed.",
    )
    parser.add_argument("folder", type=Path, help="a run's folder; runs/<recipe>/latest is the newest")
    parser.add_argument("--part", choices=["validation", "test"], default="test", help="default: test")
    parser.add_argument(
        "--users", type=Path, metavar="FILE", help="write the figures of each user to this Parquet file"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure."""
    import json
    import sys

    from rich.console import Console

    from recore.cli.common import warn_of_other_code
    from recore.cli.reporting import card, figures
    from recore.engine.record import intervals
    from recore.engine.run import reopen
    from recore.engine.rundir import write_aside

    opened = reopen(args.folder)
    warn_of_other_code(opened)
    prepared = opened.prepared()
    measured = prepared.examination(args.part).ask(opened.scorer, prepared.evaluators)
    frame = measured.frame
    ranges = intervals(frame, list(measured.totals), opened.seed)
    if not opened.folder.finished:
        print("note: this run is not finished; these are its best weights so far", file=sys.stderr)
    if args.users:
        write_aside(args.users, frame.write_parquet)
    if args.json:
        content = {"part": args.part, "totals": dict(measured.totals), "intervals": ranges}
        print(json.dumps({**content, "groups": measured.groups, "counts": measured.counts}, default=str))
        return 0
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    figures(console, measured.totals, ranges, f"{args.part}, {len(frame):,} users")
    card(console, prepared.card["protocol"])
    return 0
