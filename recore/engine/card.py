"""The protocol card: what the figures of a run mean.

Two halves. *protocol* must agree for two figures to be compared; *treatment* is what differs between them, the
thing under test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from recore.contracts.data import SplitParts
from recore.contracts.scoring import Evaluator
from recore.data import Interactions
from recore.engine.ranks import TIE_BOUND
from recore.recipe import Recipe


def split_hash(parts: SplitParts) -> str:
    """sha256 over the rows of all parts: the same split of the same log, the same hash."""
    digest = hashlib.sha256(parts.train.tobytes())
    for holdout in (parts.validation, parts.test):
        for rows in (holdout.target, holdout.start, holdout.stop):
            digest.update(rows.tobytes())
    return digest.hexdigest()


def protocol_card(
    recipe: Recipe,
    log: Interactions,
    steps: Sequence[Mapping[str, Any]],
    parts: SplitParts,
    evaluators: Sequence[Evaluator],
    metric: str | None,
    seed: int,
) -> dict[str, Any]:
    """The card of one run. `steps` are the transforms with what each left and dropped."""
    formulas: dict[str, str] = {}
    for evaluator in evaluators:
        formulas.update(evaluator.formulas)
    claims = [part.claims for part in recipe.parts()]
    target_time = any(getattr(claim, "query_time", "none") == "target" for claim in claims)
    protocol = {
        "data": {
            "fingerprint": log.fingerprint(),
            "ties": log.summary()["ties"],
            "order across users": "known" if log.order_across_users else "unknown",
            "transforms": [dict(step) for step in steps],
        },
        "split": {"name": parts.name, "sha256": split_hash(parts)},
        "candidates": "all items of the training part",
        "seen filter": sorted({evaluator.wants.seen for evaluator in evaluators}),
        "rank ties": f"pessimistic: an item within {TIE_BOUND:.3g} of the row's largest score counts as ahead",
        "target time": "given to the model" if target_time else "not given to the model",
        "checkpoint": f"best validation {metric}" if metric else "after fitting",
        "metrics": formulas,
    }
    evaluation_only = ("data", "transforms", "split", "evaluators", "seeds", "matrix", "requires", "recore")
    treatment = {
        "recipe": {key: value for key, value in recipe.tree.items() if key not in evaluation_only},
        "seed": seed,
        "data source": log.source,
    }
    return {"protocol": protocol, "treatment": treatment}
