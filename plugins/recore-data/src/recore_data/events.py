"""The dataset `events`: a row per event, in files or in a frame, with the columns named."""

from __future__ import annotations

import polars as pl
from attrs import evolve, frozen

from recore import Context, DataError, Problem
from recore.data import Interactions
from recore_data import times
from recore_data.frames import Read, read
from recore_data.ids import typed
from recore_data.options import Events
from recore_data.tables import number, read_tables


def build(options: Events, context: Context) -> EventsDataset:
    """The dataset, unread."""
    return EventsDataset(options)


@frozen(eq=False)
class EventsDataset:
    """Keeps `recore.contracts.Dataset`."""

    options: Events

    def load(self, context: Context) -> Interactions:
        """Read all of it. Raises DataError with every problem that was found."""
        options = self.options
        got = read(options, options.path, named(options).values())
        events = _typed(got, options)
        items, users, counts = read_tables(options.items, options.users, events)
        if got.blank:
            counts = {**counts, "blank lines skipped": got.blank}
        return Interactions.from_frame(
            events,
            items=items,
            users=users,
            ties=options.ties,
            order_across_users=options.time is not None and options.order_across_users,
            counts=counts,
            source=got.name,
        )


def named(options: Events) -> dict[str, str]:
    """Column of the log → column of the source, in the order of the log."""
    own = ("user", "item", "time", "rating", "creator", "text", "propensity")
    columns = {name: getattr(options, name) for name in own}
    return {new: old for new, old in columns.items() if old is not None} | {
        name: name for name in options.columns
    }


def _typed(got: Read, options: Events) -> pl.DataFrame:
    """The columns of the log, each of its type. Raises DataError with the columns that are missing and the bad
    rows of all others."""
    problems = list(got.problems)
    made: list[pl.Series] = []
    for new, old in named(options).items():
        if old not in got.frame.columns:
            continue
        column = got.frame[old]
        if new in ("user", "item", "time", "rating", "propensity"):
            problems += got.bad(old, column.is_null(), f"rows have no {new}", "remove them, or fill them in")
        if new == "time":
            column, wrong = _times(got, old, options)
            problems += wrong
        elif new in ("rating", "propensity"):
            column, wrong = _numbers(got, old, new)
            problems += wrong
        elif new in ("user", "item", "creator"):
            column, wrong = _ids(got, old, new)
            problems += wrong
        elif new == "text":
            column = column.cast(pl.String)
        elif got.text:
            column = number(column)
        made.append(column.alias(new))
    if problems:
        raise DataError(problems)
    return pl.DataFrame(made)


def _ids(got: Read, old: str, new: str) -> tuple[pl.Series, list[Problem]]:
    column = typed(got.frame[old]) if got.text else got.frame[old]
    kind = column.dtype
    if kind.is_integer() or isinstance(kind, pl.String | pl.Categorical | pl.Enum):
        return column, []
    if isinstance(kind, pl.Null):
        return column, []  # missing throughout, which is said elsewhere where it matters
    hint = "integers become floats in pandas where some are missing" if kind.is_float() else "cast them"
    what = f"{got.name}: column {old!r}: expected integers or strings as {new}s, got {kind}"
    return column, [Problem(what, hint=hint)]


def _times(got: Read, old: str, options: Events) -> tuple[pl.Series, list[Problem]]:
    column = got.frame[old]
    if column.null_count() == len(column):
        return column, []
    try:
        made = times.parse(column, options.time_format)
    except DataError as error:
        return column, [
            evolve(problem, message=f"{got.name}: {problem.message}") for problem in error.problems
        ]
    expected = options.time_format or "numbers or ISO 8601"
    hint = "" if options.time_format else "set `time_format:` if dates are written in another way"
    wrong = made.is_null() & ~column.is_null()
    return made, got.bad(old, wrong, f"times are none, expected {expected}", hint)


def _numbers(got: Read, old: str, new: str) -> tuple[pl.Series, list[Problem]]:
    column = got.frame[old]
    made = column
    if got.text or _partly_numbers(column):
        column = column.str.strip_chars()
        made = typed(column)
        made = made if made.dtype.is_integer() else column.cast(pl.Float64, strict=False)
    elif isinstance(column.dtype, pl.Decimal):
        made = column.cast(pl.Float64)
    if not (made.dtype.is_integer() or made.dtype.is_float()):
        if column.null_count() == len(column):
            return column, []
        return column, [Problem(f"{got.name}: column {old!r}: expected numbers as {new}, got {made.dtype}")]
    wrong = (made.is_null() | ~made.is_finite()) & ~column.is_null()
    if problems := got.bad(old, wrong.fill_null(False), f"rows have a {new} that is no number"):
        return made, problems
    if new == "propensity":
        outside = ~((made > 0) & (made <= 1)).fill_null(True)
        return made, got.bad(old, outside, "propensities are not above 0 and up to 1")
    return made, []


def _partly_numbers(column: pl.Series) -> bool:
    """Text among which are numbers: what JSON lines that mix the two become."""
    if column.dtype != pl.String:
        return False
    numbers = column.cast(pl.Float64, strict=False).null_count()
    return column.null_count() < numbers < len(column)
