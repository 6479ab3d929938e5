"""Metrics of one relevant item from its rank, as formulas and as vectorised functions.

Legend: `n` rows, `r (n,)` pessimistic ranks from 1, V + 1 where the target is no candidate; `V` items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def _one(rank: Ids) -> Values:
    return np.ones(len(rank), dtype=np.float64)


def _discount(rank: Ids) -> Values:
    discounted: Values = 1.0 / np.log2(1.0 + rank)
    return discounted


def _reciprocal(rank: Ids) -> Values:
    reciprocal: Values = 1.0 / rank
    return reciprocal


GAINS: dict[str, tuple[Callable[[Ids], Values], str]] = {
    "hr": (_one, "[r ≤ min({k}, V)]"),
    "recall": (_one, "[r ≤ min({k}, V)], one relevant item a row"),
    "ndcg": (_discount, "[r ≤ min({k}, V)] / log2(1 + r), one relevant item a row"),
    "mrr": (_reciprocal, "[r ≤ min({k}, V)] / r"),
}
LEGEND = "r: pessimistic rank of the target among the candidates, V + 1 where it is none; mean over rows"


def names(metrics: Iterable[str], cutoffs: Iterable[int]) -> list[str]:
    """`metric@k` for all, in the order of the metrics, and `mrr` after the last `mrr@k`."""
    cutoffs = list(cutoffs)
    found = []
    for metric in metrics:
        found += [f"{metric}@{k}" for k in cutoffs]
        if metric == "mrr":
            found.append("mrr")
    return found


def formula(name: str) -> str:
    """The formula of `metric@k` or `mrr`, for the protocol card."""
    metric, _, k = name.partition("@")
    return f"{GAINS[metric][1].format(k=k) if k else '1 / r'}; {LEGEND}"


def values(name: str, rank: Ids, items: int) -> Values:
    """The metric `(n,)` of ranks `(n,)` among `items` V."""
    metric, _, k = name.partition("@")
    gain = GAINS[metric][0](rank)
    if not k:
        return gain
    # Not only k: rank V + 1 is a miss, also where k exceeds V.
    return np.where(rank <= min(int(k), items), gain, 0.0)
