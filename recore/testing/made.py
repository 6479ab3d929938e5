"""A part of anything that can be called: for tests, notebooks and planted faults, without a component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from recore.claims import Claims
from recore.component import Component, Context, Facts, Part


@frozen(eq=False)
class Made:
    """Options that are the factory themselves: `make(context)` gives the built object."""

    make: Callable[[Context], Any]
    said: Claims = field(factory=Claims)
    facts: Facts = field(factory=Facts)

    def claims(self) -> Claims:
        """As given."""
        return self.said

    def provides(self) -> Facts:
        """As given."""
        return self.facts


def build(options: Made, context: Context) -> Any:
    """Factory."""
    return options.make(context)


def made_part(
    kind: str,
    make: Callable[[Context], Any],
    claims: Claims | None = None,
    facts: Facts | None = None,
    name: str = "made",
) -> Part[Any]:
    """A part of a kind whose object is `make(context)`."""
    component = Component(name, Made, "recore.testing.made:build", "Made by a callable.")
    return Part(kind, component, "this", Made(make, claims or Claims(), facts or Facts()), path=kind)
