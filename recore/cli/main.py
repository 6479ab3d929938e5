"""`recore`: finds the subcommand, runs it, and ends with a status that tells.

0: done. 1: it failed. 2: what was asked for is wrong (a recipe, a plugin, data, an argument).
130: interrupted; 143 by SIGTERM, 129 by SIGHUP. Only the module of the subcommand that is asked for is imported,
and torch only by those that compute.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

import recore
from recore.errors import RecoreError, nearest
from recore.threads import wait_briefly

COMMANDS = (
    "run",
    "resume",
    "update",
    "evaluate",
    "recommend",
    "new-recipe",
    "check",
    "estimate",
    "show",
    "plugins",
    "recipes",
    "schema",
)

EPILOG = """\
first steps:
  recore recipes                               the recipes that come with it
  recore run RECIPE                            train and test one
  recore run RECIPE --set trainer.epochs=3     the same with one detail changed
  recore new-recipe events.csv                 write a recipe for a log of your own
  recore check my.yaml                         check a recipe without running it
  recore show position                         the parts of a kind that are installed
"""


class _Parser(argparse.ArgumentParser):
    """Keeps the layout of texts, and does not guess abbreviated options."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        keywords.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        keywords.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]  # handed through as they are


def available() -> list[str]:
    """The subcommands of the core."""
    return [name for name in COMMANDS if importlib.util.find_spec(module_of(name)) is not None]


def module_of(name: str) -> str:
    """`new-recipe` → `recore.cli.new_recipe`."""
    return f"recore.cli.{name.replace('-', '_')}"


def parser_for(names: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse._SubParsersAction[_Parser]]:
    """The parser with some subcommands of the core."""
    parser = _Parser(
        prog="recore",
        description="A sequential recommender taken apart into named parts, "
        "each of which proves what it claims.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"recore {recore.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in names:
        importlib.import_module(module_of(name)).add(subparsers)
    return parser, subparsers


def add_plugin_commands(subparsers: argparse._SubParsersAction[_Parser]) -> list[str]:
    """Let plugins add theirs; gives what went wrong, in words."""
    from recore.plugins import discover

    plugins = discover()
    problems = plugins.notify("recore_commands", {"subcommands": subparsers})
    return [str(problem) for problem in problems]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; gives the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wait_briefly()
    try:
        return _main(arguments)
    except RecoreError as error:
        print(error, file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(arguments: list[str]) -> int:
    names = available()
    asked = arguments[0] if arguments else "--help"
    if asked in names:
        parser, _ = parser_for([asked])
    else:
        parser, subparsers = parser_for(names)
        if asked != "--version":
            for problem in add_plugin_commands(subparsers):
                print(f"warning: {problem}", file=sys.stderr)
        known = list(subparsers.choices)
        if not asked.startswith("-") and asked not in known:
            print(f"recore: unknown command {asked!r} ({nearest(asked, known)})", file=sys.stderr)
            return 2
    parsed = parser.parse_args(arguments or ["--help"])
    if not hasattr(parsed, "run"):
        parser.print_help()
        return 2
    status: int | None = parsed.run(parsed)
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
