"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_samplers.options import Uniform


@hookimpl
def recore_samplers() -> Iterator[Component]:
    """`uniform`."""
    yield Component(
        "uniform",
        Uniform,
        "recore_samplers.uniform:build",
        summary="K items uniformly with replacement, own items kept, excluded, or only the target excluded.",
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III-E (history, K = 1)",
    )
