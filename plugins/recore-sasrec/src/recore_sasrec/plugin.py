"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_sasrec.options import Sasrec


@hookimpl
def recore_encoders() -> Iterator[Component]:
    """One hidden state per event."""
    yield Component(
        "sasrec",
        Sasrec,
        "recore_sasrec.encoder:build",
        summary="The self-attentive blocks of SASRec, with the details of paper and codes as options.",
        claims=Sasrec().claims(),
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III",
    )
