"""Audiences: who is next for an item. The scorer of the transposed log, asked for lists of users."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recore.contracts.scoring import Dual, Queries, Scorer
from recore.data import Interactions
from recore.engine.evaluate import audience_queries, places
from recore.engine.recommend import as_ids
from recore.engine.run import Opened
from recore.errors import DataError

NAMES = ("item", "user")  # who asks, and what is listed


def audience(opened: Opened, items: pl.Series | None) -> tuple[Scorer, Queries]:
    """What to ask about items, in the data's own ids (None: all of the log), after everything that the log
    holds. Raises DataError where the run's model ranks no users, and for what is no item of the log."""
    scorer = opened.scorer
    if not isinstance(scorer, Dual):
        use = opened.recipe.model.name
        raise DataError(
            f"{opened.folder.path}: its model, {use}, ranks no users (train one that encodes the view `item`)"
        )
    log: Interactions = opened.prepared().log
    transposed = log.transposed()
    known = transposed.user_ids()
    asked = known if items is None else as_ids(items, scorer.tokenizer)
    strange = asked.is_null() if items is None else pl.Series(places(known, asked) < 0)
    if items is not None and strange.any():
        first = ", ".join(str(item) for item in items.filter(strange).head(5))
        raise DataError(f"{int(strange.sum())} items are not in the data, the first: {first}")
    return scorer.audience(log), audience_queries(transposed, asked.alias("item"), None)


def named(given: Sequence[str], opened: Opened) -> pl.Series:
    """Items by their ids or by their titles. Raises DataError for a title that several items have."""
    titles = opened.items if opened.items is not None and "title" in opened.items.columns else None
    if titles is None:
        return pl.Series("item", given, dtype=pl.String)
    ids = set(titles["item"].cast(pl.String).to_list())
    found = []
    for one in given:
        those = [] if one in ids else titles.filter(pl.col("title") == one)["item"].cast(pl.String).to_list()
        if len(those) > 1:
            raise DataError(f"{len(those)} items have the title {one!r}: {', '.join(those[:5])} (give an id)")
        found.append(those[0] if those else one)
    return pl.Series("item", found, dtype=pl.String)
