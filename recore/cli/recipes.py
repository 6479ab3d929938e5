"""`recore recipes`: list the shipped recipes, and write one out to start from."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from recore.cli.common import table
from recore.errors import Problem, RecipeError, nearest
from recore.recipe.files import shipped
from recore.recipe.text import read_file

DESCRIPTION = """\
List the recipes that are installed; each can be run, checked and extended by its name.

  recore recipes                        list them
  recore recipes copy NAME              write it to this folder
  recore recipes copy FOLDER/NAME my.yaml
"""


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("recipes", help="list shipped recipes, copy one", description=DESCRIPTION)
    parser.set_defaults(run=run, action="list")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="list them (the default)")
    copy = actions.add_parser("copy", help="write a recipe out")
    copy.add_argument("name", help="its name in the list")
    copy.add_argument("destination", nargs="?", type=Path, help="a file or a folder (default: this folder)")


def run(arguments: argparse.Namespace) -> int:
    """List, or copy."""
    known = shipped()
    if arguments.action == "copy":
        target = copy(arguments.name, arguments.destination or Path(), known)
        print(f"wrote {target}; run it with: recore run {target}")
    else:
        print(table([(name, headline(file)) for name, file in known.items()], ("recipe", "what it is")))
    return 0


def headline(file: Path) -> str:
    """The first line of a recipe's opening comment, without its own name."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").partition(" — ")[2] or first.lstrip("# ")


def copy(name: str, destination: Path, known: dict[str, Path]) -> Path:
    """Write a shipped recipe to a file that does not exist yet. Raises RecipeError."""
    wanted = name.removesuffix(".yaml")
    if wanted not in known:
        raise RecipeError(Problem(f"no shipped recipe {name!r}", hint=nearest(wanted, known)))
    source = known[wanted]
    target = destination / source.name if destination.is_dir() else destination
    if target.exists():
        raise RecipeError(Problem("exists already", where=str(target), hint="name another file"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as stream:
        stream.write(_relocated(source, known))
    return target


def _relocated(source: Path, known: dict[str, Path]) -> str:
    """The text of a recipe, with a base beside it named as the shipped recipe that it is."""
    text = source.read_text(encoding="utf-8")
    node, _ = read_file(source, source.name)
    extends = (node.mapping or {}).get("extends") if node is not None else None
    if extends is None or not isinstance(extends.value, str):
        return text
    base = (source.parent / extends.value).resolve()
    names = [name for name, file in known.items() if file.resolve() == base]
    if not names:
        return text
    return re.sub(r"^extends:.*$", f"extends: {names[0]}.yaml", text, count=1, flags=re.MULTILINE)
