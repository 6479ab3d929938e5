"""From a log to tensors: histories of the data's own ids become a View of tokens and item ids.

The one place where ids are looked up, for training, evaluation and serving alike.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from recore.contracts.data import Tokenizer
from recore.contracts.scoring import Queries, Query
from recore.data import Interactions
from recore.errors import DataError
from recore.ragged import Ragged, View, offsets_of

Ids = npt.NDArray[np.int64]


def tokenise(events: pl.DataFrame, offsets: Ids, tokenizer: Tokenizer, columns: Iterable[str] = ()) -> View:
    """A View of histories laid end to end, cut at `offsets (B+1,)`. Unknown items keep their place or are
    dropped, as the tokenizer states; retired ones stay readable (`token`) and are nobody's target any more
    (`item` −1). `columns` are further numeric columns of the log.

    Raises DataError for a column that is missing or not numeric.
    """
    items = events["item"]
    made = {
        "token": torch.from_numpy(np.ascontiguousarray(tokenizer.encode(items))),
        "item": torch.from_numpy(np.ascontiguousarray(tokenizer.item_ids(items))),
        "event": _column(events, "event")
        if "event" in events.columns
        else torch.full((events.height,), -1, dtype=torch.int64),
    }
    for name in sorted(set(columns) - set(made)):
        made[name] = _column(events, name)
    view = View(made, torch.from_numpy(np.ascontiguousarray(offsets)))
    if tokenizer.unknown == "drop" and not bool((known := view["item"] >= 0).all()):
        kept = torch.zeros(len(view), dtype=torch.int64).index_add_(0, view.sequence, known.long())
        view = view.take(known.nonzero().squeeze(-1), offsets_of(kept))
    if len(tokenizer.retired):
        retired = torch.isin(view["item"], torch.from_numpy(np.asarray(tokenizer.retired, dtype=np.int64)))
        view = view.with_columns(item=view["item"].masked_fill(retired, -1))
    return view


def _column(events: pl.DataFrame, name: str) -> Tensor:
    if name not in events.columns:
        # Training data was asked for its columns before: it is the events of a question that lack one.
        hint = "give it with every event" + (" (`Query.times`)" if name == "time" else "")
        raise DataError(
            f"a part of the model reads the column {name!r}, which these events do not have (columns: "
            f"{', '.join(events.columns)}): {hint}"
        )
    column = events[name]
    if column.dtype.is_integer() or column.dtype == pl.Boolean:
        return torch.from_numpy(column.cast(pl.Int64).to_numpy().copy())
    if column.dtype.is_float():
        return torch.from_numpy(column.cast(pl.Float64).to_numpy().copy())
    raise DataError(f"a part needs the column {name!r} as numbers, but it holds {column.dtype}")


def seen_items(view: View) -> Ragged:
    """Per history its distinct item ids in ascending order, unknown items left out."""
    known = view["item"] >= 0
    sequence, item = view.sequence[known], view["item"][known]
    width = int(item.max()) + 1 if len(item) else 1
    keys = torch.unique(sequence * width + item)
    counts = torch.bincount(keys // width, minlength=len(view))
    return Ragged(keys % width, offsets_of(counts))


def queries_of(queries: list[Query], dtype: pl.DataType | None = None) -> Queries:
    """Queries written one by one as one frame; `dtype` is that of the data's item ids."""
    lengths = [len(query.history) for query in queries]
    items = [item for query in queries for item in query.history]
    frame = pl.DataFrame({"item": pl.Series("item", items, dtype=dtype, strict=dtype is not None)})
    if queries and all(query.times is not None for query in queries):
        times = [float(time) for query in queries for time in query.times or ()]
        if len(times) != len(items):
            raise DataError(f"a query has {len(items)} items in its histories but {len(times)} times")
        frame = frame.with_columns(pl.Series("time", times, dtype=pl.Float64))
    users = [query.user for query in queries]
    target = [query.time for query in queries]
    return Queries(
        frame,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        None if not users or any(user is None for user in users) else pl.Series("user", users),
        None if not target or any(time is None for time in target) else np.asarray(target),
    )


def queries_from(interactions: Interactions, start: Ids, stop: Ids, target: Ids | None = None) -> Queries:
    """Queries whose histories are row slices of a log: query `n` sees the rows `start[n]` to `stop[n]`.
    `target (n,)` rows give the user and the time of what is to be predicted; without them the user is the
    one of the last row seen."""
    lengths = stop - start
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)
    events = interactions.events[rows]
    at = target if target is not None else np.maximum(stop - 1, 0)
    time = None
    if target is not None and "time" in interactions.events.columns:
        time = interactions.events["time"].gather(target).to_numpy()
    return Queries(events, offsets, interactions.events["user"].gather(at), time)


def cut_queries(queries: Queries, count: int) -> Queries:
    """The same questions with only the last `count` events of each history."""
    lengths = np.diff(queries.offsets)
    if not len(lengths) or lengths.max() <= count:
        return queries
    kept = np.minimum(lengths, count)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    rows = np.arange(offsets[-1]) + np.repeat(queries.offsets[1:] - kept - offsets[:-1], kept)
    return Queries(queries.events[rows], offsets, queries.users, queries.time)
