"""`recore update`: a new run from another run's weights, with new events, new items and items that retire."""

from __future__ import annotations

import argparse
from pathlib import Path

from recore.cli.machine_options import add_machine, add_output, machine_of


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser; light."""
    parser = subparsers.add_parser(
        "update",
        help="go on from a run's weights with new events and items",
        description="""\
Makes a new run that begins with the weights of a finished one and reads its log with new events behind it.

Items keep their ids; new ones get rows of their own behind them, drawn as the embedder draws any row; retired ones
leave the candidates and stay readable in histories. The optimiser's state goes on, with zeros for new rows; the
schedule begins anew. The recipe is the old run's, with --set laid over it. The new run's folder is like any other:
resume, evaluate, recommend and update take it.""",
    )
    parser.add_argument(
        "folder", type=Path, help="a finished run's folder; runs/<recipe>/latest is the newest"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="new events, and these only, in the form of the recipe's own data; for data without a path (`world`) a "
        "Parquet file in the log's own columns, user, item, time …",
    )
    parser.add_argument(
        "--retire", type=Path, metavar="FILE", help="items that leave the candidates, one id a line"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="as --set trainer.epochs=N")
    parser.add_argument(
        "--fit-all",
        action="store_true",
        help="train on all events and hold nothing out; needs --epochs, and gives no figures",
    )
    parser.add_argument(
        "--overlap",
        choices=["refuse", "drop", "keep"],
        default="refuse",
        help="new events that the log has already, by user, item and time (default: refuse)",
    )
    parser.add_argument(
        "--fresh-optimiser", action="store_true", help="leave the optimiser's state of the old run behind"
    )
    parser.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="lay a value over the old run's recipe, as in trainer.learning_rate=3e-4; data.… says how --data is read; "
        "may be repeated",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where run folders go")
    parser.add_argument("--record", type=Path, metavar="DIR", help="keep the record under this folder, too")
    add_machine(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Update."""
    from recore.cli.reporting import reporter
    from recore.engine.record import keep_record
    from recore.engine.update import Asked, update

    asked = Asked(
        data=args.data,
        retire=args.retire,
        sets=args.set,
        epochs=args.epochs,
        fit_all=args.fit_all,
        overlap=args.overlap,
        fresh_optimiser=args.fresh_optimiser,
    )
    folder = update(args.folder, asked, machine_of(args), args.runs, reporter(args.quiet, args.json))
    if args.quiet:
        print(folder.path)
    if args.record:
        keep_record(args.record, folder.json("record.json"))
    return 0
