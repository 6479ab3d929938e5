"""Options of the evaluators. Free of torch and polars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs
from attrs import frozen

from recore import Costs, Facts, Load, option

Metric = Literal["ndcg", "hr", "mrr", "recall"]


def _cutoffs(instance: Any, attribute: attrs.Attribute[Any], value: Sequence[int]) -> None:
    if not value or any(k < 1 for k in value) or len(set(value)) < len(value):
        raise ValueError(f"expected one or more different whole numbers from 1, got {list(value)}")


def _metrics(instance: Any, attribute: attrs.Attribute[Any], value: Sequence[str]) -> None:
    if not value or len(set(value)) < len(value):
        raise ValueError(f"expected one or more different metrics, got {list(value)}")


@frozen
class Ranking:
    """Ranks each target among all items, and averages over targets.

    With r the pessimistic rank of the target among the candidates (every candidate other than the target
    whose score is at least the target's, less a stated bound for rounding, stands ahead of it), V the number
    of items, and [·] 1 where true and 0 elsewhere:

        hr@k     = [r ≤ min(k, V)]
        recall@k = [r ≤ min(k, V)]: with one relevant item a row, the same as hr@k
        ndcg@k   = [r ≤ min(k, V)] / log2(1 + r)   (Järvelin & Kekäläinen 2002; one relevant item: ideal 1)
        mrr@k    = [r ≤ min(k, V)] / r
        mrr      = 1 / r, given whenever `mrr` is asked for

    A row is a query and a target. Where a query has several targets each is a row of its own, the others
    being candidates like any item; totals are means over rows. A target that is no candidate (cold, retired,
    or in the history while seen items are no candidates) has r = V + 1: a miss at every k. Such targets are
    counted, never left out. Nothing is sampled.

    Quartiles of history length: q1 (shortest) to q4 by the 25th, 50th and 75th percentile of the lengths of
    the evaluated histories. Equal lengths stay in one group, the lower, so groups may be unequal, and one
    that would be empty is not listed.
    """

    k: tuple[int, ...] = option(
        (5, 10, 20),
        validator=_cutoffs,
        help="Cut-offs: metrics are named metric@k.",
    )
    metrics: tuple[Metric, ...] = option(
        ("ndcg", "hr", "mrr"),
        validator=_metrics,
        help="Which metrics, in the order of tables. recall@k equals hr@k here, and so is left out unless "
        "asked for.",
    )
    seen: Literal["history", "none"] = option(
        "history",
        help="Which items are no candidates: `history`, all items of the query's whole history (not of a cut "
        "window); `none`, all items stay.",
    )
    quartiles: bool = option(
        True, help="Whether the totals are given by quartile of history length too, for the record."
    )

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Beside the ranks, which the engine computes: a column for each metric, and totals by quartile."""
        metrics = len(self.metrics) * len(self.k) * (2 if self.quartiles else 1)
        return Costs(
            moved=100.0 * metrics * load.predictions,
            calls=20.0 * metrics,
            brief=8.0 * metrics * load.predictions,
        )
