"""Options of all parts. Light: neither torch nor polars.

Relative paths in a recipe are relative to the recipe, and a leading `$RECORE_DATA/` is that variable's folder;
from Python they are relative to the working directory.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from attrs import frozen
from attrs.validators import ge, in_, optional

from recore import Facts, option
from recore.component import Frame

Format = Literal["csv", "tsv", "parquet", "jsonl"]
Ties = Literal["file", "hash"]

_FORMAT = (
    "`csv`, `tsv`, `parquet` or `jsonl`; by default what the file's ending says (`.csv`, `.tsv`, `.parquet`, "
    "`.jsonl`, `.ndjson`)."
)
_TIES = (
    "How equal times of one user are ordered: `file` (as the rows stand in the file) or `hash` (by a hash of "
    "user, item and time, so that any order of the rows gives the same histories)."
)


def _one_source(instance: Any, attribute: object, value: object) -> None:
    """`path` or `frame`."""
    if (instance.path is None) == (instance.frame is None):
        raise ValueError(f"expected one of `path` and `frame`, got {'neither' if value is None else 'both'}")


def _not_among(own: Iterable[str]) -> Any:
    """Further columns do not take the names of those that have an option of their own."""

    def check(instance: object, attribute: object, value: list[str]) -> None:
        if taken := sorted(set(value) & set(own)):
            raise ValueError(f"{', '.join(taken)}: taken; such columns are named by their own options")
        if len(set(value)) < len(value):
            raise ValueError("expected each column once")

    return check


_further_of_events = _not_among(("event", "user", "item", "time", "creator", "rating", "text", "propensity"))
_further_of_tables = _not_among(("item", "user", "title", "creator"))


@frozen
class Table:
    """A table of what is known of each item, or of each user: one row each, in the data's own ids. Columns:
    `title`, `creator`, and the features named in `columns`.
    """

    path: Path | None = option(None, help="The file.")
    frame: Frame | None = option(
        None,
        help="Instead of `path`, a polars or pandas frame (from Python), or a Parquet file.",
        validator=_one_source,
    )
    id: str = option("id", help="Name of the column with the ids.")
    title: str | None = option(None, help="Name of the column with the titles; recommendations print them.")
    creator: str | None = option(None, help="Name of the column with the creators.")
    columns: list[str] = option(
        factory=list, help="Names of further columns, kept under these names.", validator=_further_of_tables
    )
    format: Format | None = option(None, help=_FORMAT)
    separator: str | None = option(
        None, help="What stands between fields; by default a comma in `csv` and a tab in `tsv`."
    )
    encoding: Literal["utf-8", "latin-1"] = option("utf-8", help="Encoding of a text file.")
    header: list[str] | None = option(
        None, help="Names of the columns where the file has no line with names; then its first line is data."
    )
    numbers: Path | None = option(
        None,
        help="Where the log numbers things anew: a file with two columns and no names, id in the log and id "
        "in this table. Rows of the table that the log does not number are left out, and counted.",
    )


@frozen
class Sequences:
    """Histories as plain lines; fields are separated by spaces or tabs.

    The file's order is the order of events. There are no times, so the order across users is unknown, and what
    needs it (a split by time, for one) is refused. Ids are integers where all of a column are (`7`, not `007`),
    strings otherwise. Blank lines are skipped and counted.

    Raises an error that shows the first lines that are not of the form.
    """

    path: Path = option(help="The file.")
    form: Literal["pairs", "lines"] = option(
        "pairs",
        help="`pairs`: a line per event, `user item`. `lines`: a line per user, `user item item …`.",
        validator=in_(("pairs", "lines")),
    )
    items: Table | None = option(None, help="Titles, creators and features of items.")
    users: Table | None = option(None, help="Features of users.")

    def provides(self) -> Facts:
        """That there are no times, so that nothing orders events across users."""
        return Facts(timed=False, order_across_users=False)


@frozen
class Events:
    """A log as a table with one row per event: CSV, TSV, Parquet or JSON lines, one file or several that are
    read one after another, or a frame from Python. Columns are named, never guessed.

    Ids keep their type, integers or strings; in text files ids are integers where all of the column are (`7`,
    not `007`). Times are integers, floats, or dates and times, which become seconds since 1970 in UTC (whole
    ones where all are whole; without a zone they are taken as UTC). With times, users' events are sorted by
    them; without, the order of the rows is the order.

    No row is dropped: a missing id or time, a time that is none, a rating that is no number are errors that
    show the first such rows.
    """

    path: Path | list[Path] | None = option(
        None, help="The file, a pattern such as `log/*.csv` (files in the order of their names), or a list."
    )
    frame: Frame | None = option(
        None,
        help="Instead of `path`, a polars or pandas frame (from Python), or a Parquet file.",
        validator=_one_source,
    )
    user: str = option("user", help="Name of the column with the users.")
    item: str = option("item", help="Name of the column with the items.")
    time: str | None = option(None, help="Name of the column with the times. None: the rows are in order.")
    time_format: str | None = option(
        None, help="How dates and times are written, as in `%d/%m/%Y %H:%M`; by default as ISO 8601 has it."
    )
    rating: str | None = option(None, help="Name of the column with the ratings: numbers, none missing.")
    creator: str | None = option(None, help="Name of the column with who made the item.")
    text: str | None = option(None, help="Name of the column with text of the event.")
    propensity: str | None = option(
        None, help="Name of the column with how likely the item was shown: numbers above 0 and up to 1."
    )
    columns: list[str] = option(
        factory=list, help="Names of further columns, kept under these names.", validator=_further_of_events
    )
    ties: Ties = option("file", help=_TIES, validator=in_(("file", "hash")))
    order_across_users: bool = option(
        True,
        help="Whether times of different users can be compared; false where each user's clock is their own.",
    )
    format: Format | None = option(None, help=_FORMAT)
    separator: str | None = option(
        None, help="What stands between fields; by default a comma in `csv` and a tab in `tsv`."
    )
    encoding: Literal["utf-8", "latin-1"] = option("utf-8", help="Encoding of a text file.")
    header: list[str] | None = option(
        None, help="Names of the columns where a file has no line with names; then its first line is data."
    )
    items: Table | None = option(None, help="Titles, creators and features of items.")
    users: Table | None = option(None, help="Features of users.")

    def provides(self) -> Facts:
        """Whether there are times, and whether they order events across users."""
        timed = self.time is not None
        return Facts(timed=timed, order_across_users=timed and self.order_across_users)


@frozen
class MovieLens1M:
    """MovieLens-1M as its publisher packs it: `ratings.dat`, `movies.dat` and `users.dat`, with `::` between
    fields, in latin-1. Columns: `rating`, `time` (seconds since 1970); items have `title` and `genres`, users
    `gender`, `age`, `occupation`, `zip`.

    Many ratings share their time with another of the same user. The publisher's order within equal times is
    not the one of SASRec's `ml-1m.txt`, so figures on the two cannot be compared.

    The data may be used for research and not passed on; see its README. The tests of this part use a small
    archive of the same form.
    """

    path: Path = option(help="The publisher's `ml-1m.zip`, or the folder with the files in it.")
    fetch: bool = option(
        False,
        help="Whether to download the zip to `path` where nothing is there; its checksum must be the "
        "publisher's.",
    )
    ties: Ties = option("file", help=_TIES, validator=in_(("file", "hash")))

    def provides(self) -> Facts:
        """That there are times, and that they order events across users."""
        return Facts(timed=True, order_across_users=True)


@frozen
class KCore:
    """Only users and items with enough events: users with fewer than `users` events and items with fewer than
    `items` are dropped, together, until none is left to drop. What stays is the largest log in which all keep
    the thresholds, whatever the order of dropping. Events are counted, repeats included.
    """

    users: int = option(5, help="The fewest events of a user.", validator=ge(0))
    items: int = option(5, help="The fewest events of an item.", validator=ge(0))


@frozen
class RatingAtLeast:
    """Only events whose `rating` is at least `least`; needs that column."""

    least: float = option(help="The least rating that stays.")

    def problems(self, facts: Facts) -> list[str]:
        """Ratings have to be there."""
        return _needs("rating-at-least", "rating", facts)


@frozen
class Since:
    """Only events at or after a time; needs the column `time`. Give one of the two."""

    time: int | float | None = option(None, help="The first time that stays, as the data counts time.")
    date: str | None = option(
        None,
        help="The first date and time that stays, as in `2009-01-31` or `2009-01-31T12:00:00`, UTC, where the "
        "data's times are seconds since 1970.",
    )

    @date.validator
    def _one_of_two(self, attribute: object, value: str | None) -> None:
        if (self.time is None) == (value is None):
            raise ValueError(f"expected `time` or `date`, got {'neither' if value is None else 'both'}")
        try:
            datetime.fromisoformat(value or "1970-01-01")
        except ValueError as error:
            raise ValueError(f"expected a date as in 2009-01-31, got {value!r}") from error

    def problems(self, facts: Facts) -> list[str]:
        """Times have to be there."""
        return _needs("since", "time", facts)


@frozen
class CollapseRepeats:
    """Where a user has the same item several times in a row, only the first of these events stays. The item may
    come again later, after another.
    """


@frozen
class LeaveLast:
    """Each user's last event is the test target, the one before it the validation target, the rest trains. A
    target's history is all that its user did before it: of the test target, that includes the validation target.

    Users with fewer than 3 events have no targets: all their events train; they are counted. Counted too are
    targets whose item is not in training (cold), targets whose item their history has already (impossible where
    seen items are no candidates), and targets whose time an event of their history shares (which of the two
    came first is the tie policy's word).

    What it leaks: training holds other users' futures, events later than a target's. Figures say nothing about
    predicting a future that nobody has seen yet.

    Validation after each epoch costs users × items scores. `validate: 20000` draws so many users for it by a hash
    of their ids; of all others the event before the last trains, too. The test has a target of every user still.
    """

    validate: int | None = option(
        None, help="How many users have a validation target; by default all.", validator=optional(ge(1))
    )


def _needs(part: str, column: str, facts: Facts) -> list[str]:
    if facts.columns is None or column in facts.columns:
        return []
    return [
        f"transform {part!r} needs the column {column!r}; the data has {', '.join(sorted(facts.columns))}"
    ]
