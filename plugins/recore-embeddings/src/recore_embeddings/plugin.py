"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_embeddings.options import PaddingSafe


@hookimpl
def recore_embedders() -> Iterator[Component]:
    """Vectors of events, and the table that scores."""
    yield Component(
        "padding-safe",
        PaddingSafe,
        "recore_embeddings.padding_safe:build",
        summary="A vector per item that embeds and scores; padding and unknown are zero by construction.",
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, sections III-A and III-D",
    )
