"""`recore check`: compose recipes without running them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from recore.cli.common import add_recipe_arguments, table
from recore.errors import Problem, RecipeError
from recore.plugins import Plugins, discover
from recore.recipe import Recipe, load_cells

DESCRIPTION = """\
Check recipes without running them: every key, option, type and part, and what the parts need of each other,
in every cell of a matrix. No data is read. All problems are printed at once, and the exit status is 2.
"""


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "check", help="check recipes without running them", description=DESCRIPTION
    )
    parser.add_argument("recipe", nargs="+", help="a file, or the name of a shipped recipe")
    add_recipe_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check each recipe; 2 when one has problems."""
    plugins = discover(loose=arguments.plugin)
    problems: list[Problem] = []
    for name in arguments.recipe:
        try:
            recipes = load_cells(name, arguments.set, plugins=plugins)
        except RecipeError as error:
            problems += error.problems
            continue
        print(summary(name, recipes, plugins))
    for problem in dict.fromkeys(problems):
        print(problem, file=sys.stderr)
    return 2 if problems else 0


def summary(name: str, recipes: list[Recipe], plugins: Plugins) -> str:
    """That it is well, with its parts and their distributions; of further cells, what differs."""
    first = recipes[0]
    cells = "" if len(recipes) == 1 else f", {len(recipes)} cells"
    seeds = f", seeds {', '.join(map(str, first.seeds))}" if len(first.seeds) > 1 else ""
    lines = [f"{name}: ok{cells}{seeds}"]
    before: list[tuple[str, str, str]] = []
    for recipe in recipes:
        rows = _rows(recipe, plugins)
        if len(recipes) > 1:
            lines.append(f"  {recipe.cell}")
        lines.append(table([row for row in rows if row not in before], indent="  "))
        before = before or rows
    return "\n".join(line for line in lines if line)


def _rows(recipe: Recipe, plugins: Plugins) -> list[tuple[str, str, str]]:
    rows = []
    for part in recipe.parts():
        provider = plugins.provider(part.provider)
        marks = "" if provider is None else _marks(provider.editable, provider.loose is not None)
        label = part.provider if provider is None else provider.label
        rows.append((part.path, part.name, f"{label}{marks}"))
    return rows


def _marks(editable: bool, loose: bool) -> str:
    return " (editable)" if editable else " (loose file)" if loose else ""
