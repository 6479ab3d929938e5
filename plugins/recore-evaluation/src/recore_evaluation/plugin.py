"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_evaluation.options import Ranking


@hookimpl
def recore_evaluators() -> Iterator[Component]:
    """The evaluators."""
    yield Component(
        "ranking",
        Ranking,
        "recore_evaluation.ranking:build",
        summary="NDCG, HR, MRR and recall at k over all items, per user and by quartile of history length.",
        source="Järvelin & Kekäläinen 2002 (NDCG); Krichene & Rendle 2020 (why over all items)",
    )
