"""`recore plugins`: what is installed, from where, whether it works, and which names collide."""

from __future__ import annotations

import argparse
import json
from typing import Any

from recore.cli.common import add_plugin_argument, table
from recore.plugins import Plugins, Provider, discover

DESCRIPTION = """\
List every distribution that offers parts: version, status, time to import, components, and what is wrong.

status: ok; warning (works, but something in it is never used or slows commands down); broken (it, or one of
its hooks, cannot be used); incompatible (made for another version of the plugin API). The exit status is 1
when one is broken or incompatible. RECORE_STRICT_PLUGINS=1 makes the first problem an error of every command.
"""


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("plugins", help="list what is installed", description=DESCRIPTION)
    parser.add_argument("--no-load", action="store_true", help="read metadata only; import no plugin")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list; 1 when a plugin cannot be used."""
    plugins = discover(load=not arguments.no_load, loose=arguments.plugin)
    if arguments.json:
        print(json.dumps([as_json(provider) for provider in plugins.distributions], indent=2))
    else:
        print(as_text(plugins))
    return int(any(provider.status in ("broken", "incompatible") for provider in plugins.distributions))


def as_json(provider: Provider) -> dict[str, Any]:
    """A provider as plain values."""
    return {
        "name": provider.name,
        "version": provider.version,
        "status": provider.status,
        "seconds": provider.seconds,
        "location": provider.location,
        "editable": provider.editable,
        "loose": provider.loose is not None,
        "entry_points": provider.entries,
        "components": [
            {"kind": found.kind, "name": found.component.name, "summary": found.component.summary}
            for found in provider.components
        ],
        "problems": [{"message": problem.message, "hint": problem.hint} for problem in provider.problems],
    }


def as_text(plugins: Plugins) -> str:
    """A table with each plugin's components beneath it, then collisions and problems."""
    header = ("plugin", "version", "status", "import", "from")
    lines = table([_row(provider) for provider in plugins.distributions], header).splitlines()
    shown = lines[:2]
    for line, provider in zip(lines[2:], plugins.distributions, strict=True):
        shown += [line, *_offered(provider, plugins.loaded)]
    pieces = ["\n".join(shown)]
    collisions = collisions_of(plugins)
    if collisions:
        pieces.append("\n".join(["names offered more than once:", *(f"  {line}" for line in collisions)]))
    problems = [problem for provider in plugins.distributions for problem in provider.problems]
    if problems:
        pieces.append("\n".join(["problems:", *(f"  {problem}" for problem in problems)]))
    return "\n\n".join(pieces)


def _row(provider: Provider) -> tuple[str, ...]:
    seconds = "" if provider.seconds is None else f"{1000 * provider.seconds:.0f} ms"
    mark = " (editable)" if provider.editable else " (loose file)" if provider.loose is not None else ""
    return (provider.name, provider.version, provider.status, seconds, provider.location + mark)


def _offered(provider: Provider, loaded: bool) -> list[str]:
    if not loaded:
        return [f"    entry point {name}: {reference}" for name, reference in provider.entries.items()]
    kinds: dict[str, list[str]] = {}
    for found in provider.components:
        kinds.setdefault(found.kind, []).append(found.component.name)
    return [f"    {kind}: {', '.join(names)}" for kind, names in kinds.items()]


def collisions_of(plugins: Plugins) -> list[str]:
    """Every bare name that several distributions offer, with how to choose."""
    lines = []
    for kind, offered in plugins.components.items():
        names = [found.component.name for found in offered]
        for name in sorted({name for name in names if names.count(name) > 1}):
            ways = " or ".join(f"`use: {found.name}`" for found in offered if found.component.name == name)
            lines.append(f"{kind} {name!r}: choose with {ways}")
    return lines
