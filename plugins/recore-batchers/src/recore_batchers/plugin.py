"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_batchers.options import ByLength, Padded, Ragged, Untruncated, Windows


@hookimpl
def recore_batchers() -> Iterator[Component]:
    """`ragged`, `padded`, `by-length`, `untruncated` and `windows`."""
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
    yield Component(
        "by-length",
        ByLength,
        "recore_batchers.by_length:build",
        summary="Every context a row of its own, contexts of one length to a batch: one prediction a row, no padding.",
    )
    yield Component(
        "untruncated",
        Untruncated,
        "recore_batchers.untruncated:build",
        summary="Whole histories of any length, as many as fit into a budget of events.",
    )
    yield Component(
        "windows",
        Windows,
        "recore_batchers.windows:build",
        summary="Long histories in overlapping windows: no event dropped, each a target once, after enough context.",
    )
