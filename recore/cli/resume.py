"""`recore resume`: take a run up where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from recore.cli.machine_options import add_output


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser; light."""
    parser = subparsers.add_parser(
        "resume",
        help="go on with a run that was stopped",
        description="Goes on with a run that was stopped or killed. It ends with the numbers that it would have "
        "had without the stop. Device, precision and threads are those that it began with.",
    )
    parser.add_argument("folder", type=Path, help="a run's folder; runs/<recipe>/latest is the newest")
    parser.add_argument("--record", type=Path, metavar="DIR", help="keep the record under this folder, too")
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Go on."""
    from recore.cli.reporting import reporter
    from recore.engine.record import keep_record
    from recore.engine.run import resume

    folder = resume(args.folder, reporter=reporter(args.quiet, args.json))
    if args.quiet:
        print(folder.path)
    if args.record:
        keep_record(args.record, folder.json("record.json"))
    return 0
