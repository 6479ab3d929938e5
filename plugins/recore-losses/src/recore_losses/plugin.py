"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_losses.options import Bce, Ce


@hookimpl
def recore_losses() -> Iterator[Component]:
    """`ce` and `bce`."""
    yield Component(
        "ce",
        Ce,
        "recore_losses.ce:build",
        summary="Cross-entropy over all items, in blocks, without an N × V matrix.",
        source="Klenitskiy & Vasilev 2023, Turning Dross Into Gold Loss, section 3",
    )
    yield Component(
        "bce",
        Bce,
        "recore_losses.bce:build",
        summary="Binary cross-entropy of each target against its negatives.",
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III-E",
    )
