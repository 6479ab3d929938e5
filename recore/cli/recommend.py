"""`recore recommend`: lists for one history, for some users, or for everybody."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from recore.contracts.scoring import Queries
    from recore.engine.run import Opened


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser; light."""
    parser = subparsers.add_parser(
        "recommend",
        help="what comes next for a history, a user or everybody",
        description="Asks a run what comes next. A user's history is the whole of the log, validation and test "
        "included. Items of the history are not recommended unless --keep-seen is given. With --audience the "
        "question is who is next for an item: users take the place of items, in --candidates and --exclude too.",
    )
    parser.add_argument("folder", type=Path, help="a run's folder; runs/<recipe>/latest is the newest")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--history", metavar="IDS", help='item ids, oldest first, separated by commas: "12, 7, 80"'
    )
    asked.add_argument(
        "--users", metavar="WHO", help="`all`, or a file with one user id a line, or ids after `=`: =u1,u2"
    )
    asked.add_argument(
        "--histories", type=Path, metavar="FILE", help="one history a line, item ids separated by commas"
    )
    asked.add_argument(
        "--item",
        metavar="ITEM",
        action="append",
        help="with --audience: an item, by its id or its whole title; may be repeated",
    )
    asked.add_argument(
        "--items",
        metavar="WHICH",
        help="with --audience: `all`, or a file with one item id a line, or =i1,i2",
    )
    parser.add_argument(
        "--audience", action="store_true", help="who is next for the items of --item or --items"
    )
    parser.add_argument(
        "--at",
        type=float,
        metavar="TIME",
        help="when what comes next happens, in the log's own units of time: for models that read it "
        "(`query_time: target`)",
    )
    parser.add_argument("-k", type=int, default=10, metavar="N", help="how many (default: 10)")
    parser.add_argument(
        "--keep-seen", action="store_true", help="items of the history may be recommended again"
    )
    parser.add_argument(
        "--candidates", type=Path, metavar="FILE", help="recommend only these items, one id a line"
    )
    parser.add_argument(
        "--exclude", type=Path, metavar="FILE", help="never recommend these items, one id a line"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write Parquet parts here; goes on where it stopped"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask."""
    import numpy as np
    from attrs import evolve

    from recore.api import with_titles
    from recore.cli.common import warn_of_other_code
    from recore.engine.audiences import NAMES, audience
    from recore.engine.recommend import Limits, known_ids, recommend, stream
    from recore.engine.run import reopen
    from recore.errors import RecoreError

    if args.k < 1:
        raise _bad(f"-k: expected at least 1, got {args.k}")
    if args.at is not None and (args.audience or not math.isfinite(args.at)):
        raise _bad(f"--at: expected a number, for lists of items, got {args.at}")
    if args.audience != (args.item is not None or args.items is not None):
        raise _bad("--audience goes with --item or --items, and they with it")
    opened = reopen(args.folder)
    warn_of_other_code(opened)
    scorer, names = opened.scorer, ("user", "item")
    if args.audience:
        scorer, queries = audience(opened, _items(args, opened))
        names = NAMES
    else:
        queries = _queries(args, opened)
    if args.at is not None:
        queries = evolve(queries, time=np.full(len(queries), args.at))
    tokenizer = scorer.tokenizer
    candidates = (
        None if args.candidates is None else known_ids(_lines(args.candidates), tokenizer, "--candidates")
    )
    exclude = (
        Limits().exclude if args.exclude is None else known_ids(_lines(args.exclude), tokenizer, "--exclude")
    )
    limits = Limits(args.k, args.keep_seen, candidates, exclude)
    if args.out is not None:
        about = {
            "run": str(opened.folder.path),
            "weights": opened.weights_digest(),
            "k": args.k,
            **({} if args.at is None else {"at": args.at}),
            "keep_seen": args.keep_seen,
            "candidates": None if candidates is None else sorted(candidates.tolist()),
            "exclude": sorted(exclude.tolist()),
        }
        for path in stream(scorer, queries, limits, args.out, about, opened.seed, names=names):
            print(path)
        return 0
    if len(queries) > 1_000:
        raise RecoreError(f"{len(queries):,} lists are too many to print; give --out DIR")
    frame = with_titles(recommend(scorer, queries, limits, opened.seed, names), opened.items)
    if args.json:
        print(frame.write_ndjson(), end="")
    else:
        _print(frame, queries, opened)
    return 0


def _items(args: argparse.Namespace, opened: Opened) -> pl.Series | None:
    """The items asked about, or None for all."""
    import polars as pl

    from recore.engine.audiences import named

    if args.item is not None:
        return named(args.item, opened)
    if args.items == "all":
        return None
    if args.items.startswith("="):
        return pl.Series("item", [entry.strip() for entry in args.items[1:].split(",")], dtype=pl.String)
    return _lines(Path(args.items)).str.strip_chars()


def _queries(args: argparse.Namespace, opened: Opened) -> Queries:
    import polars as pl

    from recore.contracts.scoring import Query
    from recore.engine.evaluate import places
    from recore.engine.recommend import as_ids
    from recore.histories import queries_from, queries_of

    tokenizer = opened.scorer.tokenizer
    if args.users is not None:
        log = opened.prepared().log
        offsets, users = log.offsets(), log.user_ids()
        if args.users != "all":
            given = (
                args.users[1:].split(",")
                if args.users.startswith("=")
                else _lines(Path(args.users)).to_list()
            )
            wanted = pl.Series("user", [entry.strip() for entry in given], dtype=pl.String)
            rows = places(users.cast(pl.String), wanted)
            strange = wanted.filter(pl.Series(rows < 0))
            if len(strange):
                first = ", ".join(strange.head(5))
                raise _bad(f"--users: {len(strange)} users are not in the data, the first: {first}")
            return queries_from(log, offsets[:-1][rows], offsets[1:][rows])
        return queries_from(log, offsets[:-1], offsets[1:])
    lines = [args.history] if args.history is not None else _lines(args.histories, blank=True).to_list()
    split = [[piece.strip() for piece in line.split(",") if piece.strip()] for line in lines]
    queries = queries_of([Query(history=history) for history in split], pl.String())
    typed = as_ids(queries.events["item"], tokenizer)
    unknown = pl.Series(tokenizer.item_ids(typed) < 0)
    if args.history is not None and unknown.any():
        names = ", ".join(queries.events["item"].filter(unknown).head(5))
        policy = "keep their places" if tokenizer.unknown == "keep" else "are left out"
        import sys

        print(f"note: unknown items {policy}: {names}", file=sys.stderr)
    return type(queries)(queries.events.with_columns(typed.alias("item")), queries.offsets)


def _lines(path: Path, blank: bool = False) -> pl.Series:
    import polars as pl

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return pl.Series([line for line in text.splitlines() if blank or line.strip()], dtype=pl.String)


def _bad(message: str) -> Exception:
    from recore.errors import DataError

    return DataError(message)


def _print(frame: pl.DataFrame, queries: Queries, opened: Opened) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    titles = _titles(opened)
    listed = "user" if frame.columns[1] == "item" else "item"
    names = ["rank", listed, *(["title"] if listed == "item" and "title" in frame.columns else []), "score"]
    for number in range(len(queries)):
        history = queries.events["item"][int(queries.offsets[number]) : int(queries.offsets[number + 1])]
        asks = "" if queries.users is None else queries.users[number]
        if listed == "user":
            who = f"item {asks}" + (f", {titles[asks]}" if asks in titles else "") + ": "
            shown = "; ".join(map(str, history.tail(5)))
        else:
            who = f"user {asks}: " if queries.users is not None else ""
            shown = "; ".join(str(titles.get(item, item)) for item in history.tail(5))
        more = f"… ({len(history)} events) " if len(history) > 5 else ""
        console.print(f"{who}after {more}{shown or 'nothing'}", style="bold", markup=False)
        table = Table(*names, box=None, pad_edge=False)
        for row in frame.filter(frame["query"] == number).iter_rows(named=True):
            cells = [f"{row[name]:.3f}" if name == "score" else str(row[name] or "") for name in names]
            table.add_row(*[Text(cell) for cell in cells])
        console.print(table)
        console.print()


def _titles(opened: Opened) -> dict[Any, str]:
    if opened.items is None or "title" not in opened.items.columns:
        return {}
    return dict(zip(opened.items["item"].to_list(), opened.items["title"].to_list(), strict=True))
