"""Recommendations: the scoring path of training and evaluation, asked for lists.

Lists are written in the data's own ids, in parts that are written aside and renamed; a run that was stopped
goes on at the next part. Memory is bounded by the part and by the block of scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from attrs import field, frozen

from recore.contracts.data import Tokenizer
from recore.contracts.scoring import Queries, Scorer
from recore.data import Ids
from recore.digest import digest_frame
from recore.engine import evaluate
from recore.engine.ranks import rank_block, tie_order
from recore.engine.rundir import read_json, write_aside, write_json
from recore.errors import DataError
from recore.histories import seen_items
from recore.ragged import Ragged, View

USERS_AT_ONCE = 8_192  # queries in a part of an output


@frozen
class Limits:
    """What may be recommended. `candidates` and `exclude` are item ids of the table; None: all, none."""

    k: int = 10
    keep_seen: bool = False
    candidates: Ids | None = None
    exclude: Ids = field(factory=lambda: np.zeros(0, dtype=np.int64))

    def closed(self, items: int) -> torch.Tensor | None:
        """True for items that are no candidates `(V,)`, or None when all are."""
        if self.candidates is None and not len(self.exclude):
            return None
        mask = torch.zeros(items, dtype=torch.bool)
        if self.candidates is not None:
            mask[:] = True
            mask[torch.from_numpy(self.candidates)] = False
        mask[torch.from_numpy(self.exclude)] = True
        return mask


def known_ids(given: pl.Series, tokenizer: Tokenizer, what: str) -> Ids:
    """Item ids of the data's own ids. Raises DataError naming the first that are unknown."""
    ids = tokenizer.item_ids(as_ids(given, tokenizer))
    if (ids < 0).any():
        unknown = [str(value) for value in given.filter(pl.Series(ids < 0)).head(5)]
        raise DataError(f"{what}: {int((ids < 0).sum())} unknown items, the first: {', '.join(unknown)}")
    return ids


def as_ids(given: pl.Series, tokenizer: Tokenizer) -> pl.Series:
    """Ids as the data types them: text from a command line or a file may stand for integers, and integers for
    text. Text that cannot be such an id becomes a missing one, which is unknown.

    Raises DataError for what is neither integers nor text.
    """
    wanted = tokenizer.items_of(np.zeros(1, dtype=np.int64)).dtype
    if given.dtype == wanted or (not len(given) and given.dtype == pl.Null):
        return given.cast(wanted)
    if given.dtype.is_integer() or given.dtype == pl.String:
        text = given.cast(pl.String).str.strip_chars() if wanted.is_integer() else given
        return text.cast(wanted, strict=False)
    raise DataError(f"expected item ids, integers or text, got {given.dtype}")


def recommend(scorer: Scorer, queries: Queries, limits: Limits, seed: int = 0) -> pl.DataFrame:
    """`query`, `user` where known, `rank` from 1, `item`, `score`: up to k rows a query, best first. Fewer
    where fewer candidates are left; ties are broken by a hash of the item's own id and the seed."""
    tokenizer = scorer.tokenizer
    ties = tie_order(tokenizer.items_of(np.arange(tokenizer.items)), seed)
    closed = limits.closed(tokenizer.items)
    k = min(limits.k, tokenizer.items)
    step = max(1, evaluate.SCORES_AT_ONCE // max(tokenizer.items, 1))
    return pl.concat(
        _block(scorer, queries.block(begin, begin + step), k, limits.keep_seen, closed, ties, begin)
        for begin in range(0, max(len(queries), 1), step)  # without queries: one empty block
    )


def _block(
    scorer: Scorer,
    queries: Queries,
    k: int,
    keep_seen: bool,
    closed: torch.Tensor | None,
    ties: torch.Tensor,
    first: int,
) -> pl.DataFrame:
    tokenizer = scorer.tokenizer
    scores = scorer.score(scorer.encode(queries)).cpu()
    if closed is not None:
        scores = scores.masked_fill(closed, float("-inf"))
    seen: Ragged | None = None
    if not keep_seen:
        item = torch.from_numpy(tokenizer.item_ids(queries.events["item"]).copy())
        seen = seen_items(View({"token": item, "item": item}, torch.from_numpy(queries.offsets)))
    nothing = torch.full((len(queries),), -1, dtype=torch.int64)
    top = rank_block(scores, nothing, seen=seen, order=ties, k=k).top
    row, place = (top >= 0).nonzero(as_tuple=True)
    picked = top[row, place]
    frame = pl.DataFrame(
        {
            "query": (row + first).numpy(),
            "rank": (place + 1).numpy(),
            "item": tokenizer.items_of(picked.numpy()),
            "score": scores[row, picked].float().numpy(),
        }
    )
    if queries.users is not None:
        frame = frame.insert_column(1, queries.users.gather(row.numpy()).alias("user"))
    return frame


def stream(
    scorer: Scorer,
    queries: Queries,
    limits: Limits,
    out: Path,
    about: Mapping[str, Any],
    seed: int = 0,
    wrote: Callable[[int, int], None] | None = None,
) -> Iterator[Path]:
    """Write everybody's lists to `out/part-*.parquet`, going on where an earlier call stopped. `about` says
    what is asked of whom; a folder that holds the answer to another question is refused."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest_frame(digest, "histories", queries.events.select("item"))
    digest.update(np.ascontiguousarray(queries.offsets, dtype="<i8").tobytes())
    if queries.users is not None:
        digest_frame(digest, "users", queries.users.alias("user").to_frame())
    manifest = {**about, "queries": len(queries), "part": USERS_AT_ONCE, "sha256": digest.hexdigest()}
    held = out / "about.json"
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is no folder; name another one")
    if not held.exists():
        if out.exists() and any(out.iterdir()):
            raise DataError(f"{out} is not empty and holds no about.json; name another folder")
        write_json(held, manifest)
    elif read_json(held) != manifest:
        raise DataError(f"{out} holds the answer to another question (see {held}); name another folder")
    count = -(-len(queries) // USERS_AT_ONCE)
    for number in range(count):
        path = out / f"part-{number:05d}.parquet"
        if not path.exists():
            begin = number * USERS_AT_ONCE
            frame = recommend(scorer, queries.block(begin, begin + USERS_AT_ONCE), limits, seed)
            frame = frame.with_columns(pl.col("query") + begin)
            write_aside(path, frame.write_parquet)
        if wrote is not None:
            wrote(number + 1, count)
        yield path
