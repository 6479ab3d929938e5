"""What this distribution offers to recore. Light: neither torch, polars nor numpy here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_world.options import WorldOptions


@hookimpl
def recore_datasets() -> Iterator[Component]:
    """Where logs come from."""
    yield Component(
        "world",
        WorldOptions,
        "recore_world.dataset:build",
        summary="A simulator with a known truth: drifting tastes, logged exposure, choices that remember.",
    )
