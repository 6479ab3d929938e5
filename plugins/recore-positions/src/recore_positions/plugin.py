"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_positions.options import NoPosition, RelativeBias, StartAbsolute, WindowAbsolute


@hookimpl
def recore_positions() -> Iterator[Component]:
    """Where events stand."""
    yield Component(
        "none",
        NoPosition,
        "recore_positions.nothing:build",
        summary="Contributes nothing.",
        claims=NoPosition().claims(),
    )
    yield Component(
        "window-absolute",
        WindowAbsolute,
        "recore_positions.absolute:build_window",
        summary="A learned vector per column of the padded rectangle, SASRec's own.",
        claims=WindowAbsolute().claims(),
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III-A",
    )
    yield Component(
        "start-absolute",
        StartAbsolute,
        "recore_positions.absolute:build_start",
        summary="A learned vector per place counted from the start of the history that is read.",
        claims=StartAbsolute().claims(),
        source="Kang & McAuley 2018, section III-A, as codes that pad on the right have it",
    )
    yield Component(
        "relative-bias",
        RelativeBias,
        "recore_positions.relative:build",
        summary="A learned number per head and distance to the prediction, added to attention logits.",
        claims=RelativeBias().claims(),
        source="Raffel et al. 2020 (T5), section 2.1; Shaw et al. 2018",
    )
