"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_training.options import Standard


@hookimpl
def recore_trainers() -> Iterator[Component]:
    """The trainers."""
    yield Component(
        "standard",
        Standard,
        "recore_training.standard:build",
        summary="Adam or AdamW with warm-up, a schedule, clipping, accumulation and early stopping.",
        source="Kingma & Ba 2015 (Adam); Loshchilov & Hutter 2019 (AdamW)",
    )
