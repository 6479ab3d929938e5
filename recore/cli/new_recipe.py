"""`recore new-recipe`: look at a log and write a commented recipe for it."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recore.newrecipe.make import Made

DESCRIPTION = """\
Looks at a file of events (CSV, TSV, `::`, pipes, spaces, Parquet, JSON lines, a line per user; gzipped or not),
says what it saw, and writes a recipe for it in which every choice has its reason. The recipe is checked, and what
it will cost is estimated; nothing is trained.

What a column means is taken from its name, else from what it holds, and is said. Where two readings are equally
good nothing is written, and the flags that settle it are named.
"""


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """The parser; light."""
    parser = subparsers.add_parser(
        "new-recipe", help="look at a log and write a recipe for it", description=DESCRIPTION
    )
    parser.add_argument("data", type=Path, metavar="FILE", help="the log")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the recipe; by default <name>.yaml, here")
    parser.add_argument("--force", action="store_true", help="write over a recipe that is there")
    for role in ("user", "item", "time", "rating"):
        parser.add_argument(
            f"--{role}",
            metavar="COL",
            help=f"the column of the {role}: its name, or its number without names",
        )
    parser.add_argument(
        "--no-time", action="store_true", help="take no column as the time: the rows are in order"
    )
    parser.add_argument("--time-format", metavar="FORMAT", help="how dates are written, as in %%d/%%m/%%Y")
    parser.add_argument("--separator", metavar="S", help=r"what stands between fields; \t is a tab")
    parser.add_argument("--no-header", action="store_true", help="the first line is data, not names")
    parser.add_argument(
        "--form",
        choices=("table", "pairs", "lines"),
        help="a table of events, lines of `user item`, or a line per user",
    )
    parser.add_argument("--encoding", choices=("utf-8", "latin-1"), default="utf-8", help="of a text file")
    parser.add_argument(
        "--no-estimate", action="store_true", help="do not estimate what the recipe will need"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, write, check, estimate."""
    from recore.newrecipe.look import Flags
    from recore.newrecipe.make import new_recipe

    separator = arguments.separator
    flags = Flags(
        user=arguments.user,
        item=arguments.item,
        time=arguments.time,
        rating=arguments.rating,
        separator="\t" if separator in (r"\t", "tab") else separator,
        form=arguments.form,
        header=False if arguments.no_header else None,
        encoding=arguments.encoding,
        time_format=arguments.time_format,
        timed=not arguments.no_time,
    )
    made = new_recipe(arguments.data, flags, arguments.out, arguments.force)
    show(made)
    if not arguments.no_estimate:
        _estimate(made)
    _next(made)
    return 0


def _estimate(made: Made) -> None:
    """What the recipe will need. That it cannot be told does not undo the recipe."""
    from recore.cli.estimate import show as show_estimate
    from recore.engine.estimate import estimate
    from recore.engine.machine import Machine
    from recore.errors import RecoreError

    try:
        show_estimate(estimate(made.recipe, made.recipe.seeds[0], Machine()), None, False)
    except RecoreError as error:
        print(f"not estimated: {error}")


def show(made: Made) -> None:
    """What was seen, what was chosen and why."""
    from recore.cli.common import table

    print(f"{made.look.path}\n")
    print(table(_seen(made), indent="  "))
    print("\nchosen\n")
    for name, value, why in _chosen(made):
        print(f"  {name:<9} {value}")
        print(textwrap.fill(why, 100, initial_indent=" " * 12, subsequent_indent=" " * 12))
    print(f"\n{made.out}: written and checked\n", flush=True)


def _next(made: Made) -> None:
    """What to do now."""
    import shlex

    out = shlex.quote(str(made.out))
    print("next:")
    for command, what in (
        (f"recore run {out} --set trainer.epochs=1", "one epoch, to see that all is well"),
        (f"recore run {out}", "train and test"),
        (f"recore recommend runs/{out.removesuffix('.yaml')}/latest --help", "ask the model that came of it"),
    ):
        print(f"  {command:<60} {what}")


def _seen(made: Made) -> list[tuple[str, str]]:
    from recore.newrecipe.write import roles_told

    found = made.found
    rows = [("form", made.look.in_words())]
    rows += [(role, f"{name}: {why}") for role, name, why in roles_told(made.roles)]
    if made.roles.moments is not None:
        rows.append(("", made.roles.moments.in_words()))
    if made.roles.time is None:
        rows.append(("time", "none: the order of the file is the order; across users unknown"))
    rows += [("note", note) for note in made.roles.notes]
    if 10 * found.items > 9 * found.events:
        rows.append(("note", f"nearly every event has an item of its own: is {made.roles.item!r} the item?"))
    rows += [
        ("events", f"{found.events:,}"),
        ("users", f"{found.users:,} ({found.short:,} with fewer than 3 events)"),
        ("items", f"{found.items:,} ({found.rare_items:,} with fewer than 5 events)"),
        (
            "history",
            f"median {found.lengths[50]}, 95% up to {found.lengths[95]:,}, longest {found.lengths[100]:,} "
            "training events",
        ),
        ("ties", f"{found.tied:,} events at the time of another of their user")
        if found.times
        else ("ties", "-"),
        (
            "repeats",
            f"{found.repeats:.1%} of events; {found.repeated_targets:,} of {found.tested:,} test targets",
        ),
        ("cold", f"{found.cold_targets:,} of {found.tested:,} test targets are items that training lacks"),
    ]
    return rows


def _chosen(made: Made) -> list[tuple[str, str, str]]:
    chosen = made.chosen
    named = (
        ("loss", chosen.loss),
        ("sampler", chosen.sampler),
        ("history", chosen.history),
        ("width", chosen.width),
        ("dropout", chosen.dropout),
        ("batch", chosen.users),
        ("epochs", chosen.epochs),
        ("seen", chosen.seen),
        ("ties", chosen.ties),
        ("clocks", chosen.across),
    )
    return [(name, _plainly(choice.value), choice.why) for name, choice in named if choice is not None]


def _plainly(value: object) -> str:
    """A choice as a line shows it: options as `count 16, exclude history`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {option}" for key, option in value.items())
    return str(value)
