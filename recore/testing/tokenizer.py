"""Checks of tokenizers: `docs/reference/contracts/tokenizer.md` in executable form."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from hypothesis import strategies as st

from recore.component import Part
from recore.contracts.data import Changes, Tokenizer
from recore.data import Interactions
from recore.testing.cases import Case
from recore.testing.checks import Evidence, for_all, require, states
from recore.testing.strategies import interactions, item_name

Ids = npt.NDArray[np.int64]


def _fit(part: Part[Any], case: Case, log: Interactions) -> tuple[Tokenizer, pl.Series]:
    """A tokenizer made of a log, and the log's distinct items."""
    made: Tokenizer = case.build(part, interactions=log, tokenizer=None, seen=None)
    return made, log.events["item"].unique(maintain_order=True)


def _text(log: Interactions) -> bool:
    return log.events["item"].dtype == pl.String


def _fresh(log: Interactions, count: int) -> list[Any]:
    """Ids that the log does not hold, of the same type."""
    held = set(log.events["item"].to_list())
    names: Iterator[Any] = (item_name(n) if _text(log) else 10 * n + 7 for n in range(1000))
    return [name for name, _ in zip((n for n in names if n not in held), range(count), strict=False)]


@contextmanager
def _reloaded(tokenizer: Tokenizer) -> Iterator[Tokenizer]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        yield type(tokenizer).from_pretrained(folder)


@states("tokenizer", 1, "Decoding the tokens of known items gives these items, in their own type.")
def check_round_trip(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        tokenizer, _ = _fit(part, case, log)
        items = log.events["item"]
        back = tokenizer.decode(tokenizer.encode(items))
        require(back.dtype == items.dtype, f"items of type {items.dtype} came back as {back.dtype}")
        wrong = [(a, b) for a, b in zip(items.to_list(), back.to_list(), strict=True) if a != b]
        require(not wrong, f"{wrong[:1] and wrong[0][0]!r} came back as {wrong[:1] and wrong[0][1]!r}")

    for_all(case, interactions(), holds)
    return Evidence("integer ids and awkward strings")


@states(
    "tokenizer",
    2,
    "Known items have the item ids 0 to V − 1, each its own; `items_of` gives them back, and V is `items`.",
)
def check_item_ids(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        tokenizer, items = _fit(part, case, log)
        ids = tokenizer.item_ids(items)
        require(
            sorted(ids.tolist()) == list(range(len(items))),
            f"{len(items)} items have the item ids {sorted(ids.tolist())}",
        )
        require(tokenizer.items == len(items), f"`items` is {tokenizer.items} with {len(items)} items known")
        back = tokenizer.items_of(ids).to_list()
        require(back == items.to_list(), f"the items {items.to_list()} came back as {back}")

    for_all(case, interactions(), holds)
    return Evidence()


@states(
    "tokenizer",
    3,
    "Special rows have distinct ids below `tokens` that no item has and that decode to null; `pad` and "
    "`unknown` are among them and do not train.",
)
def check_specials(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        tokenizer, items = _fit(part, case, log)
        specials = {special.name: special for special in tokenizer.specials}
        ids = [special.id for special in tokenizer.specials]
        require(len(set(ids)) == len(ids), f"the special rows have the ids {ids}")
        require(all(0 <= i < tokenizer.tokens for i in ids), f"ids {ids}, but `tokens` is {tokenizer.tokens}")
        for name in ("pad", "unknown"):
            require(name in specials, f"there is no {name!r} among {sorted(specials)}")
            require(not specials[name].trainable, f"{name!r} trains")
        tokens = tokenizer.encode(items)
        require(bool((tokens < tokenizer.tokens).all()), f"tokens {tokens} reach `tokens` {tokenizer.tokens}")
        taken = sorted(set(tokens.ravel().tolist()) & set(ids))
        named = ", ".join(
            f"{special.id} ({special.name})" for special in specials.values() if special.id in taken
        )
        require(not taken, f"items are encoded as the special ids {named}")
        shape = (len(ids), *tokens.shape[1:])
        decoded = tokenizer.decode(
            np.broadcast_to(np.asarray(ids).reshape(-1, *[1] * (tokens.ndim - 1)), shape)
        )
        require(decoded.null_count() == len(ids), f"special rows decode to {decoded.to_list()}")

    for_all(case, interactions(), holds)
    return Evidence()


@states(
    "tokenizer",
    4,
    "An unknown item becomes the `unknown` row and has item id −1; `unknown` says whether histories keep it.",
)
def check_unknown(part: Part[Any], case: Case) -> Evidence:
    policies: set[str] = set()

    def holds(log: Interactions) -> None:
        tokenizer, _ = _fit(part, case, log)
        policies.add(tokenizer.unknown)
        require(tokenizer.unknown in ("keep", "drop"), f"`unknown` is {tokenizer.unknown!r}")
        row = next(special.id for special in tokenizer.specials if special.name == "unknown")
        strange = _fresh(log, 3)
        mixed = pl.Series([strange[0], log.events["item"][0], *strange[1:]], dtype=log.events["item"].dtype)
        tokens, ids = tokenizer.encode(mixed), tokenizer.item_ids(mixed)
        at = np.asarray([0, 2, 3])
        require(
            bool((tokens[at] == row).all()),
            f"unknown items {strange} became the tokens {tokens[at].tolist()}; `unknown` is {row}",
        )
        require(ids[at].tolist() == [-1] * 3, f"unknown items {strange} have the item ids {ids[at].tolist()}")
        require(ids[1] >= 0, f"the known item {mixed[1]!r} has item id {ids[1]} among unknown ones")

    for_all(case, interactions(), holds)
    return Evidence(f"policy: {', '.join(sorted(policies))}")


def _same(one: Tokenizer, other: Tokenizer, items: pl.Series) -> None:
    for name in ("items", "tokens", "unknown"):
        mine, theirs = getattr(one, name), getattr(other, name)
        require(mine == theirs, f"`{name}` was {mine} and is {theirs}")
    require(
        [(s.name, s.id, s.trainable) for s in one.specials]
        == [(s.name, s.id, s.trainable) for s in other.specials],
        f"the special rows were {list(one.specials)} and are {list(other.specials)}",
    )
    require(one.retired.tolist() == other.retired.tolist(), f"retired: {one.retired} became {other.retired}")
    back, again = one.items_of(np.arange(one.items)), other.items_of(np.arange(one.items))
    require(back.dtype == again.dtype, f"items were {back.dtype} and are {again.dtype}")
    require(back.to_list() == again.to_list(), f"the items were {back.to_list()}, are {again.to_list()}")
    for name in ("encode", "item_ids"):
        mine, theirs = getattr(one, name)(items), getattr(other, name)(items)
        require(np.array_equal(mine, theirs), f"`{name}` of {items.to_list()} was {mine} and is {theirs}")


@states(
    "tokenizer",
    5,
    "What is saved and loaded is identical: ids, special rows, policy, retired items; also after a resize.",
)
def check_save_load(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        tokenizer, items = _fit(part, case, log)
        fresh = _fresh(log, 3)
        asked = pl.Series([*items.to_list(), *fresh], dtype=items.dtype)
        with _reloaded(tokenizer) as loaded:
            _same(tokenizer, loaded, asked)
        tokenizer.resize(Changes(added=fresh[:2], removed=[items[0]]))
        with _reloaded(tokenizer) as loaded:
            _same(tokenizer, loaded, asked)

    for_all(case, interactions(), holds)
    return Evidence()


@states("tokenizer", 6, "The same events give the same ids, whichever object is made of them.")
def check_deterministic(part: Part[Any], case: Case) -> Evidence:
    def holds(log: Interactions) -> None:
        one, items = _fit(part, case, log)
        _same(one, _fit(part, case, log)[0], items)

    for_all(case, interactions(), holds)
    return Evidence()


@st.composite
def _resizes(draw: st.DrawFn) -> tuple[Interactions, list[tuple[int, int]]]:
    """A log, and rounds of (items added, items removed)."""
    rounds = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=3))
    return draw(interactions()), rounds


@states(
    "tokenizer",
    7,
    "Adding and removing items keeps the ids of every other item; an id once given is never another's.",
)
def check_resize_keeps_ids(part: Part[Any], case: Case) -> Evidence:
    def holds(example: tuple[Interactions, list[tuple[int, int]]]) -> None:
        log, rounds = example
        tokenizer, items = _fit(part, case, log)
        given = {int(i): item for i, item in zip(tokenizer.item_ids(items), items.to_list(), strict=True)}
        live, spare = items.to_list(), _fresh(log, 10)
        for more, fewer in rounds:
            added, spare = spare[:more], spare[more:]
            removed, live = live[:fewer], [*live[fewer:], *added]
            tokenizer.resize(Changes(added=added, removed=removed))
            now = pl.Series(live, dtype=items.dtype)
            ids = tokenizer.item_ids(now).tolist()
            for item, i in zip(live, ids, strict=True):
                require(i >= 0, f"{item!r} lost its item id after {removed} were removed and {added} added")
                require(
                    given.setdefault(i, item) == item,
                    f"{item!r} has item id {i}, which {given.get(i)!r} has or had",
                )
            back = tokenizer.decode(tokenizer.encode(now)).to_list()
            require(back == live, f"{live} came back as {back} after {removed} were removed")

    for_all(case, _resizes(), holds)
    return Evidence()


@states(
    "tokenizer",
    8,
    "`resize` says where each row of the embedder came from, and which rows are retired; `retired` gives "
    "the item ids that never score again, ascending.",
)
def check_row_map(part: Part[Any], case: Case) -> Evidence:
    def holds(example: tuple[Interactions, list[tuple[int, int]]]) -> None:
        log, rounds = example
        tokenizer, items = _fit(part, case, log)
        live, spare, gone = items.to_list(), _fresh(log, 10), []
        for more, fewer in rounds:
            added, spare = spare[:more], spare[more:]
            removed, live = live[:fewer], live[fewer:]
            rows, kept = tokenizer.tokens, pl.Series(live, dtype=items.dtype)
            before, leaving = tokenizer.encode(kept), pl.Series(removed, dtype=items.dtype)
            gone += tokenizer.item_ids(leaving).tolist()
            retired = tokenizer.encode(leaving).ravel()
            moved = tokenizer.resize(Changes(added=added, removed=removed))
            require(
                len(moved.old) == tokenizer.tokens,
                f"the map has {len(moved.old)} rows, `tokens` is {tokenizer.tokens}",
            )
            require(bool((moved.old < rows).all()), f"the map {moved.old} points past the {rows} old rows")
            after = tokenizer.encode(kept)
            require(
                np.array_equal(moved.old[after], before),
                f"rows {after.tolist()} came from {moved.old[after].tolist()}, but were {before.tolist()}",
            )
            if before.ndim == 1:  # with several tokens an item, rows are shared and stay
                new = tokenizer.encode(pl.Series(added, dtype=items.dtype))
                require(bool((moved.old[new] == -1).all()), f"new rows {new} came from {moved.old[new]}")
                lost = set(retired.tolist()) - set(moved.old[moved.retired].tolist())
                require(not lost, f"the rows {sorted(lost)} of removed items are not among the retired")
            require(
                tokenizer.retired.tolist() == sorted(gone),
                f"`retired` is {tokenizer.retired.tolist()} after {sorted(gone)} were removed",
            )
            live += added

    for_all(case, _resizes(), holds)
    return Evidence()
