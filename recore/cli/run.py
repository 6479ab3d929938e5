"""`recore run`: a recipe from the log to the record, for each of its cells and seeds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recore.cli.common import add_recipe_arguments
from recore.cli.machine_options import add_machine, add_output, machine_of

if TYPE_CHECKING:
    from recore.recipe import Recipe


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser; light."""
    parser = subparsers.add_parser(
        "run",
        help="train and measure what a recipe says",
        description="Runs a recipe: reads its data, trains, measures on test once, and writes a run folder. "
        "A recipe with a matrix or several seeds gives one run folder for each.",
    )
    parser.add_argument("recipe", help="a recipe file, or the name of a shipped one (see `recore recipes`)")
    add_recipe_arguments(parser)
    parser.add_argument(
        "--seed", type=int, action="append", metavar="N", help="only these seeds, not the recipe's"
    )
    parser.add_argument("--cell", action="append", metavar="NAME", help="only these cells of the matrix")
    parser.add_argument(
        "--fit-all",
        action="store_true",
        help="train on all events, for the epochs that --epochs-from chose; nothing is held out, so there are no "
        "test figures",
    )
    parser.add_argument(
        "--epochs-from", type=Path, metavar="RUN", help="with --fit-all: a finished run of the same recipe"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where run folders go")
    parser.add_argument("--record", type=Path, metavar="DIR", help="keep the record under this folder, too")
    add_machine(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run every cell and seed."""
    from recore.cli.reporting import reporter, summary
    from recore.engine.record import keep_record
    from recore.engine.run import run as run_one
    from recore.errors import RecipeError
    from recore.recipe import load_cells

    cells = load_cells(args.recipe, sets=args.set, loose=args.plugin)
    if args.cell:
        unknown = set(args.cell) - {cell.cell for cell in cells}
        if unknown:
            known = ", ".join(cell.cell for cell in cells)
            raise RecipeError(f"--cell {', '.join(sorted(unknown))}: no such cell; this recipe has {known}")
        cells = [cell for cell in cells if cell.cell in args.cell]
    fit_all = _fit_all(args, cells)
    machine = machine_of(args)
    records = []
    for cell in cells:
        for seed in args.seed or cell.seeds:
            folder = run_one(cell, seed, machine, args.runs, reporter(args.quiet, args.json), fit_all)
            records.append(folder.json("record.json"))
            if args.quiet:
                print(folder.path, flush=True)
            if args.record:
                keep_record(args.record, records[-1])
    if len(records) > 1 and not args.quiet and not args.json:
        summary(records)
    return 0


def _fit_all(args: argparse.Namespace, cells: Sequence[Recipe]) -> dict[str, Any] | None:
    """What --fit-all and --epochs-from say together, or None. Raises RecipeError."""
    from recore.errors import RecipeError

    if args.epochs_from is None and not args.fit_all:
        return None
    if not args.fit_all:
        raise RecipeError("--epochs-from says how long --fit-all trains; give both")
    if args.epochs_from is None and not any(cell.trainer for cell in cells):
        return {"epochs": None, "from": None}  # nothing is trained in epochs
    if args.epochs_from is None:
        raise RecipeError("--fit-all holds nothing out that could end training; give --epochs-from RUN too")
    from recore.engine.fit_all import epochs_from

    return epochs_from(args.epochs_from, cells)
