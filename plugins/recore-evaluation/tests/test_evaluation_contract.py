"""The kit's checks of evaluators, run against `ranking`."""

from __future__ import annotations

from collections.abc import Callable

from recore_evaluation.options import Ranking
from recore_evaluation.plugin import recore_evaluators

from recore.testing import load_checks, parametrize_with_checks, part_of

(COMPONENT,) = recore_evaluators()
NARROW = Ranking(k=(3,), metrics=("recall", "ndcg"), seen="none", quartiles=False)
PARTS = [
    part_of("evaluator", COMPONENT, "recore-evaluation"),
    part_of(
        "evaluator",
        COMPONENT,
        "narrow",
        Ranking(k=(3,), metrics=("recall", "ndcg"), seen="none", quartiles=False),
    ),
]


@parametrize_with_checks(PARTS)
def test_ranking_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_checks() -> None:
    assert len(load_checks()["evaluator"]) >= 8
