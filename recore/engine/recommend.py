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
from recore.engine.ranks import list_block, tie_order
from recore.engine.rundir import PARTIAL, read_json, write_aside, write_json
from recore.engine.scored import scored
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


def recommend(
    scorer: Scorer,
    queries: Queries,
    limits: Limits,
    seed: int = 0,
    names: tuple[str, str] = ("user", "item"),
) -> pl.DataFrame:
    """`query`, `user` where known, `rank` from 1, `item`, `score`: up to k rows a query, best first. Fewer
    where fewer candidates are left; ties are broken by a hash of the item's own id and the seed. `names` are
    those of who asks and of what is listed: of an audience scorer the other way round."""
    return _Lists.of(scorer, limits, seed, names).frame(queries)


@frozen(eq=False)
class _Lists:
    """What all lists of a call have in common: `closed (V,)` items that are no candidates, the places `ties (V,)`
    of items among equals."""

    scorer: Scorer
    k: int
    keep_seen: bool
    closed: torch.Tensor | None
    ties: torch.Tensor
    names: tuple[str, str]

    @classmethod
    def of(cls, scorer: Scorer, limits: Limits, seed: int, names: tuple[str, str]) -> _Lists:
        """Looked up once, however many queries follow."""
        items = scorer.tokenizer.items
        ties = tie_order(scorer.tokenizer.items_of(np.arange(items)), seed)
        return cls(scorer, min(limits.k, items), limits.keep_seen, limits.closed(items), ties, names)

    def frame(self, queries: Queries) -> pl.DataFrame:
        """The lists of some queries, by `query` and `rank`."""
        top = torch.full((len(queries), self.k), -1, dtype=torch.int64)
        values = torch.zeros(len(queries), self.k)
        seen = None if self.keep_seen else self._seen(queries)
        for begin, end, scores in scored(self.scorer, queries):
            if self.closed is not None:
                scores = scores.masked_fill(self.closed.to(scores.device), float("-inf"))
            gone = None if seen is None else _slice(seen, begin, end)
            best = list_block(scores, gone, self.ties, self.k)
            values[begin:end] = scores.gather(1, best.clamp(min=0).to(scores.device)).cpu()
            top[begin:end] = best
        row, place = (top >= 0).nonzero(as_tuple=True)
        frame = pl.DataFrame(
            {
                "query": row.numpy(),
                "rank": (place + 1).numpy(),
                self.names[1]: self.scorer.tokenizer.items_of(top[row, place].numpy()),
                "score": values[row, place].numpy(),
            }
        )
        if queries.users is not None:
            frame = frame.insert_column(1, queries.users.gather(row.numpy()).alias(self.names[0]))
        return frame

    def _seen(self, queries: Queries) -> Ragged:
        item = torch.from_numpy(self.scorer.tokenizer.item_ids(queries.events["item"]).copy())
        return seen_items(View({"token": item, "item": item}, torch.from_numpy(queries.offsets)))


def _slice(ragged: Ragged, begin: int, end: int) -> Ragged:
    low, high = ragged.offsets[begin], ragged.offsets[end]
    return Ragged(ragged.values[low:high], ragged.offsets[begin : end + 1] - low)


def stream(
    scorer: Scorer,
    queries: Queries,
    limits: Limits,
    out: Path,
    about: Mapping[str, Any],
    seed: int = 0,
    wrote: Callable[[int, int], None] | None = None,
    names: tuple[str, str] = ("user", "item"),
) -> Iterator[Path]:
    """Write everybody's lists to `out/part-*.parquet`, going on where an earlier call stopped. `about` says
    what is asked of whom; a folder that holds the answer to another question is refused."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest_frame(digest, "histories", queries.events.select("item"))
    digest.update(np.ascontiguousarray(queries.offsets, dtype="<i8").tobytes())
    if queries.users is not None:
        digest_frame(digest, "users", queries.users.alias("user").to_frame())
    asked = {"of": list(names), "queries": len(queries), "part": USERS_AT_ONCE}
    manifest = {**about, **asked, "sha256": digest.hexdigest()}
    held = out / "about.json"
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is no folder; name another one")
    if not held.exists():
        if out.exists() and any(not entry.name.endswith(PARTIAL) for entry in out.iterdir()):
            raise DataError(f"{out} is not empty and holds no about.json; name another folder")
        write_json(held, manifest)
    elif read_json(held) != manifest:
        raise DataError(f"{out} holds the answer to another question (see {held}); name another folder")
    count = -(-len(queries) // USERS_AT_ONCE)
    lists = _Lists.of(scorer, limits, seed, names)
    for number in range(count):
        path = out / f"part-{number:05d}.parquet"
        if not path.exists():
            begin = number * USERS_AT_ONCE
            frame = lists.frame(queries.block(begin, begin + USERS_AT_ONCE)).with_columns(
                pl.col("query") + begin
            )
            write_aside(path, frame.write_parquet)
        if wrote is not None:
            wrote(number + 1, count)
        yield path
