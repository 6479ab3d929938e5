"""Building: a part becomes the object that its factory makes, checked against the contract of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve

from recore.component import Context, Part
from recore.errors import PluginError, Problem
from recore.kinds import KINDS
from recore.plugins import Plugins
from recore.recipe.compose import asked
from recore.recipe.tree import a

Builder = Callable[[Part[Any], Context], Any]


def make_builder(plugins: Plugins) -> Builder:
    """What `Context.builder` is: imports the factory of a part, calls it with the part's options and with a
    context at the part's place, and checks what comes.

    Raises PluginError where the factory cannot be imported or its object lacks something; an exception of the
    plugin's own passes with a note that says which part of which recipe was being built.
    """

    def build(part: Part[Any], context: Context) -> Any:
        factory = plugins.factory(part)
        with asked(part, "building"):
            built = factory(part.options, evolve(context, path=part.path, builder=build))
        lacking = missing_members(part.kind, built)
        if lacking:
            message = (
                f"{part.kind} {part.name!r} was built as {a(type(built).__name__)}, which lacks "
                f"{', '.join(lacking)} of the contract {KINDS[part.kind].contract.__name__}"
            )
            raise PluginError(Problem(message, part.where, part.path))
        return built

    return build


def import_factories(parts: Iterable[Part[Any]], plugins: Plugins) -> None:
    """Import the factory of every part, before anything is built. Raises PluginError with all that cannot be."""
    problems = []
    for part in parts:
        try:
            plugins.factory(part)
        except PluginError as error:
            problems += [evolve(problem, where=part.where, path=part.path) for problem in error.problems]
    if problems:
        raise PluginError(problems)


def missing_members(kind: str, built: object) -> list[str]:
    """The members of a kind's contract that an object does not have."""
    contract = KINDS[kind].contract
    names = {name for name in (*vars(contract), *getattr(contract, "__annotations__", ())) if name[0] != "_"}
    return sorted(name for name in names if not hasattr(type(built), name) and not hasattr(built, name))
