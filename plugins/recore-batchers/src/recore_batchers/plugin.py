"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_batchers.options import Padded, Ragged


@hookimpl
def recore_batchers() -> Iterator[Component]:
    """`ragged` and `padded`."""
    yield Component(
        "ragged",
        Ragged,
        "recore_batchers.ragged:build",
        summary="Histories end to end without padding, at random or of like length, by users or by tokens.",
    )
    yield Component(
        "padded",
        Padded,
        "recore_batchers.padded:build",
        summary="Histories at random in a rectangle, padded on the left or on the right.",
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III-A (left)",
    )
