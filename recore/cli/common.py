"""What several subcommands share: arguments that choose a recipe, and tables as plain text."""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recore.engine.run import Opened


def add_plugin_argument(parser: argparse.ArgumentParser) -> None:
    """`--plugin FILE`, which may be repeated; `arguments.plugin` is a list."""
    parser.add_argument(
        "--plugin",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="also load this one Python file as a plugin; may be repeated",
    )


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """`--set PATH=VALUE`, which may be repeated (`arguments.set` is a list), and `--plugin`."""
    parser.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="lay a value over the recipe, as in model.history.last=50 (YAML; ~ removes); may be repeated",
    )
    add_plugin_argument(parser)


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = (), indent: str = "") -> str:
    """Columns side by side, nothing cut off; the last column is not padded."""
    lines = [list(header)] if header else []
    lines += [list(row) for row in rows]
    if not lines:
        return ""
    widths = [max(_width(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = []
    for line in lines:
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        shown.append((indent + "  ".join(cells)).rstrip())
    if header:
        shown.insert(1, indent + "  ".join("─" * width for width in widths))
    return "\n".join(shown)


def _width(text: str) -> int:
    """Columns that a text takes on a terminal: wide signs take two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def warn_of_other_code(opened: Opened) -> None:
    """Say on standard error which plugins are not the code with which the run began."""
    if opened.changed:
        print(f"note: other code than when the run began: {', '.join(opened.changed)}", file=sys.stderr)
