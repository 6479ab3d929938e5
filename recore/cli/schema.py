"""`recore schema`: a JSON Schema of recipes, so that editors complete and check them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from recore.cli.common import add_plugin_argument
from recore.plugins import discover
from recore.recipe.schema import schema

DESCRIPTION = """\
Print a JSON Schema (2020-12) of recipes with all parts that are installed. To use it in an editor:

  recore schema > .recore.schema.json

and let recipes open with the line

  # yaml-language-server: $schema=.recore.schema.json
"""


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "schema", help="print a JSON Schema of recipes, for editors", description=DESCRIPTION
    )
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(schema(discover(loose=arguments.plugin)), indent=2, ensure_ascii=False))
    return 0
