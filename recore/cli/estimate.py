"""`recore estimate`: what a recipe will need on this machine; of a run, beside what it really used."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recore.cli.common import add_recipe_arguments
from recore.cli.machine_options import add_machine, machine_of

if TYPE_CHECKING:
    from rich.console import Console

    from recore.engine.estimate import Estimate

DESCRIPTION = """\
Estimates parameters, memory and time of a recipe on this machine: the data is read, the model built, a few batches
drawn and some operations timed (seconds); no step is taken and nothing is written. docs/reference/estimate.md has the
formula. For a run's folder, shows the estimate beside what the run measured.
"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser; light."""
    parser = subparsers.add_parser(
        "estimate", help="estimate parameters, memory and time of a recipe", description=DESCRIPTION
    )
    parser.add_argument("recipe", help="a recipe file, the name of a shipped one, or the folder of a run")
    add_recipe_arguments(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="this seed, not the recipe's first")
    parser.add_argument("--cell", action="append", metavar="NAME", help="only these cells of the matrix")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    add_machine(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Estimate every cell, or the recipe of a run."""
    if Path(args.recipe).is_dir():
        return _beside_run(args)
    from recore.engine.estimate import estimate
    from recore.errors import RecipeError
    from recore.recipe import load_cells

    cells = load_cells(args.recipe, sets=args.set, loose=args.plugin)
    unknown = set(args.cell or ()) - {cell.cell for cell in cells}
    if unknown:
        known = ", ".join(cell.cell for cell in cells)
        raise RecipeError(f"--cell {', '.join(sorted(unknown))}: no such cell; this recipe has {known}")
    for cell in cells:
        if not args.cell or cell.cell in args.cell:
            seed = cell.seeds[0] if args.seed is None else args.seed
            show(estimate(cell, seed, machine_of(args)), None, args.json)
    return 0


def _beside_run(args: argparse.Namespace) -> int:
    """The estimate of a run's own recipe, on its own number of threads, beside its metrics."""

    from recore.engine.estimate import estimate, used
    from recore.engine.machine import Machine
    from recore.engine.run import recipe_of
    from recore.engine.rundir import RunFolder
    from recore.errors import RecipeError

    if args.set or args.plugin or args.cell or args.seed is not None:
        raise RecipeError(
            f"{args.recipe} is a run: its recipe and seed are its own (leave out --set, --plugin, --seed and "
            "--cell, or give a recipe)"
        )
    folder = RunFolder.open(Path(args.recipe))
    about = folder.json("run.json")
    machine = Machine(**{**about["options"], "threads": args.threads or about["machine"]["cores"]})
    made = estimate(recipe_of(folder), about["seed"], machine)
    show(made, used(folder), args.json)
    return 0


def show(made: Estimate, measured: Mapping[str, Any] | None, as_json: bool) -> None:
    """Print an estimate, and where a run is known what it measured."""
    if as_json:
        content = {**made.as_json(), **({} if measured is None else {"measured": measured})}
        print(json.dumps(content, ensure_ascii=False), flush=True)
        return
    import sys

    from rich.console import Console

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    _head(console, made)
    _time(console, made)
    _memory(console, made)
    if measured is not None:
        _beside(console, made, measured)
    if made.busy > 1.2:
        _line(
            console,
            "busy",
            f"other processes have the cores: times here are {made.busy:.1f} times those of an idle machine",
            "yellow",
        )
    for line in made.advice:
        _line(console, "large", line, "yellow")
    for line in made.notes:
        _line(console, "note", line, "yellow")
    console.print(f"estimated in {made.took:.1f} s; nothing was written\n", style="dim")


def _line(console: Console, name: str, text: str, style: str = "cyan") -> None:
    from rich.text import Text

    console.print(Text.assemble((f"{name:<10}", style), text))


def _head(console: Console, made: Estimate) -> None:
    from rich.text import Text

    cell = "" if made.cell == "base" else f", cell {made.cell}"
    console.print(Text(f"estimate of {made.recipe}{cell}, seed {made.seed}", style="bold"))
    machine, data = made.machine, made.data
    threads = f"{machine['cores']} thread{'s' * (machine['cores'] != 1)}"
    _line(
        console,
        "machine",
        f"{machine['processor']}, {threads}, {machine['device']}, {machine['precision']}",
    )
    _line(console, "data", f"{data['users']:,} users, {data['items']:,} items, {data['events']:,} events")
    for view, load in made.sizes["of a batch"].items():
        of = "" if view == "user" else f" of the view {view!r}"
        batches = f"{made.sizes['batches']:,} an epoch, each with " if view == "user" else "each with "
        _line(
            console,
            "batches" if view == "user" else "",
            f"{batches}{load['sequences']:,.0f} histories, {load['events']:,.0f} events, "
            f"{load['predictions']:,.0f} predictions{of}",
        )
    for view, count in made.sizes["questions"].items():
        candidates = made.sizes["candidates"][view]
        of = "" if view == "user" else f" of the view {view!r}"
        _line(console, "questions", f"{count:,} each epoch, each ranks {candidates:,} candidates{of}")
    detail = ", ".join(f"{path} {count:,}" for path, count in made.parameters.items())
    _line(console, "params", f"{made.sizes['parameters']:,}" + (f" ({detail})" if detail else ""))
    console.print()


def seconds(value: float) -> str:
    """`0.03 s`, `12.4 s`, `3:05`, `1:02:03`."""
    from recore.cli.reporting import clock

    if value >= 120:
        return clock(value)
    return f"{value:.1f} s" if value >= 1 else f"{value:.2g} s" if value >= 0.001 else "0 s"


def mib(value: float) -> str:
    """`310 MiB`, `3.1 GiB`."""
    return f"{value / 1024:.1f} GiB" if value >= 1024 else f"{value:.0f} MiB"


def _time(console: Console, made: Estimate) -> None:
    from rich.table import Table

    table = Table("time of an epoch", box=None, header_style="bold")
    for name in ("seconds", "share"):
        table.add_column(name, justify="right")
    table.add_column("mostly")
    total = made.epoch
    for group, value in made.seconds.items():
        share = f"{value / total:.0%}" if total else ""
        table.add_row(f"  {group}", seconds(value), share, mostly(made, group))
    table.add_row("  an epoch", seconds(total), "", "", style="bold")
    console.print(table)
    once = ", ".join(f"{name} {seconds(value)}" for name, value in made.once.items())
    _line(console, "once", f"{seconds(sum(made.once.values()))}: {once}")
    if made.epochs:
        _line(
            console,
            "total",
            f"{seconds(made.total)} if all {made.epochs} epochs are run ({made.epochs} × {seconds(total)}, and "
            "what is done once)",
        )
    console.print()


def mostly(made: Estimate, group: str) -> str:
    """What most of a group's time is spent on."""
    spent: dict[str, float] = dict(made.evaluating) if group == "evaluation" else {}
    for row in made.rows:
        if row.group == group:
            for name, value in row.seconds.items():
                spent[name] = spent.get(name, 0.0) + value
    total = sum(spent.values())
    first = sorted(spent.items(), key=lambda one: -one[1])[:2]
    return ", ".join(f"{name} {value / total:.0%}" for name, value in first if value >= 0.1 * total)


def _memory(console: Console, made: Estimate) -> None:
    from rich.table import Table

    table = Table("memory", box=None, header_style="bold")
    for name in ("size", "share"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, value in made.memory.items():
        if name in ("peak", "reading the data"):
            continue
        passing = name in made.passing
        counts = not passing or name == made.at_peak
        share = f"{value / made.peak:.0%}" if counts and made.at_peak != "reading the data" else ""
        remark = "" if not passing else "at the peak" if counts else "at another time"
        table.add_row(f"  {name}", mib(value), share, remark, style="" if counts else "dim")
    if made.at_peak == "reading the data":
        table.add_row("  reading the data", mib(made.peak), "", "at the peak")
    table.add_row("  peak", mib(made.peak), "", "", style="bold")
    console.print(table)
    console.print()


def _beside(console: Console, made: Estimate, measured: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table("beside the run", box=None, header_style="bold")
    for name in ("estimated", "measured", "estimated / measured"):
        table.add_column(name, justify="right")
    training = made.epoch - made.seconds["evaluation"]
    rows = [
        ("training, each epoch", training, measured["seconds"], seconds),
        ("evaluation, each epoch", made.seconds["evaluation"], measured["validation_seconds"], seconds),
        ("an epoch", made.epoch, measured["epoch"], seconds),
        ("peak memory", made.peak, measured["peak_memory_mib"], mib),
    ]
    for name, guess, real, shown in rows:
        ratio = f"{guess / real:.2f}" if real else ""
        table.add_row(f"  {name}", shown(guess), shown(real), ratio)
    console.print(table)
    _line(console, "run", f"{measured['epochs']} of at most {made.epochs} epochs")
    if measured["other machine"]:
        _line(console, "note", f"the run was on another machine: {measured['other machine']}", "yellow")
    console.print()
