"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_objectives.options import NextItem


@hookimpl
def recore_objectives() -> Iterator[Component]:
    """`next-item`."""
    yield Component(
        "next-item",
        NextItem,
        "recore_objectives.next_item:build",
        summary="Each event predicts the item of the event after it.",
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III-A",
    )
