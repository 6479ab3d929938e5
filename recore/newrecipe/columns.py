"""Which column is the user, the item, the time, the rating: settled by flags, else by name, else by content.

What content says: ids repeat; times lie between 1973 and 2100, are dates, or rise within each user; ratings are few
small numbers. Of two columns of ids the user's is the one that the file is grouped by, or the one whose events lie
closer together in time. Where nothing tells them apart the file is refused.
"""

from __future__ import annotations

from typing import Final

import polars as pl
from attrs import define, field, frozen

from recore.errors import DataError, Problem, nearest
from recore.newrecipe import words
from recore.newrecipe.look import Flags, Look
from recore.newrecipe.moments import Moments, read_moments
from recore.newrecipe.words import Role

CLOSER: Final = 1.5  # times closer in time than the other column, to be the user's
SEEN: Final = 3  # values that a message shows


@frozen
class Roles:
    """The columns, by name (or `column n`), each with why; `moments` says how the times are written. `session`:
    what stands as the user is a session. `notes`: what else there is to know."""

    user: str
    item: str
    time: str | None
    rating: str | None
    why: dict[Role, str]
    moments: Moments | None = None
    session: bool = False
    notes: list[str] = field(factory=list)


@define
class _Found:
    look: Look
    flags: Flags
    chosen: dict[Role, str]
    why: dict[Role, str]
    notes: list[str]
    session: bool = False

    @property
    def left(self) -> list[str]:
        """Columns that have no role yet."""
        return [name for name in self.look.names if name not in self.chosen.values()]

    def take(self, role: Role, name: str, why: str) -> None:
        self.chosen[role] = name
        self.why[role] = why


def find_columns(look: Look, flags: Flags) -> Roles:
    """The roles of a file's columns. Raises DataError, with what was seen and the flags that settle it."""
    found = _Found(look, flags, {}, {}, list(look.notes))
    problems = _settled(found)
    if problems:
        raise DataError(problems)
    if look.header:
        problems = [problem for role in ("user", "item", "rating") for problem in _named(found, role)]
        if problems:
            raise DataError(problems)
    if "time" not in found.chosen and flags.timed:
        _find_time(found)
    _find_rating(found)
    _find_ids(found)
    if "time" not in found.chosen and flags.timed:
        _find_rising(found)
    _tell_others(found)
    moments = _moments(found)
    return Roles(
        user=found.chosen["user"],
        item=found.chosen["item"],
        time=found.chosen.get("time"),
        rating=found.chosen.get("rating"),
        why=found.why,
        moments=moments,
        session=found.session,
        notes=found.notes,
    )


def _settled(found: _Found) -> list[Problem]:
    """The roles that flags settle."""
    problems = []
    names = found.look.names
    for role, said in found.flags.columns().items():
        name = said if said in names else f"column {said}" if not found.look.header else said
        exact = [one for one in names if one.strip() == name.strip() or one.rpartition(":")[0] == name]
        if not exact:
            what = f"{found.look.path}: --{role} {said}: no such column; it has {', '.join(names)}"
            problems.append(Problem(what, hint=nearest(said, names)))
            continue
        found.take(role, exact[0], f"--{role}")
    taken = list(found.chosen.values())
    if twice := sorted({name for name in taken if taken.count(name) > 1}):
        problems.append(Problem(f"{found.look.path}: {', '.join(twice)} cannot be two things at once"))
    return problems


def _named(found: _Found, role: Role) -> list[Problem]:
    """A role by the names of columns."""
    if role in found.chosen:
        return []
    names = words.by_name(found.left, words.ROLES[role])
    if not names and role == "user":
        names = words.by_name(found.left, words.SESSION)
        found.session = len(names) == 1
    if len(names) == 1:
        kind = "session" if found.session and role == "user" else role
        found.take(role, names[0], f"named as {words_for(kind)}")
        return []
    if not names:
        return []
    if role == "rating":
        found.notes.append(f"{' and '.join(names)} may be ratings; none is read (--rating COL reads one)")
        return []
    shown = "; ".join(f"{name} ({_values(found.look.sample[name])})" for name in names)
    return [
        Problem(
            f"{found.look.path}: {len(names)} columns may be the {role}: {shown}",
            hint=f"say --{role} COL",
        )
    ]


def words_for(kind: str) -> str:
    """`user` → `a user`."""
    return f"{'an' if kind[0] in 'aeio' else 'a'} {kind}"


# ---- time ------------------------------------------------------------------------------------------------


def _find_time(found: _Found) -> None:
    """By name, of those the one that reads as times; else by content, where exactly one column does."""
    sample = found.look.sample
    for tiers in (words.TIME, words.TIME[1:]) if found.look.header else ():
        named = words.by_name(found.left, tiers)
        good = [name for name in named if read_moments(sample[name]) is not None]
        if len(good) > 1:
            shown = "; ".join(f"{name} ({_values(sample[name])})" for name in good)
            what = f"{found.look.path}: {len(good)} columns may be the time: {shown}"
            raise DataError(Problem(what, hint="say --time COL"))
        if good:
            found.take("time", good[0], "named as a time")
            return
    named = words.by_name(found.left, words.TIME) if found.look.header else []
    if named:  # the dataset will say which of its values are none
        found.take("time", named[0], "named as a time")
        return
    good = [name for name in found.left if (read := read_moments(sample[name])) is not None and read.sure]
    if len(good) == 1:
        found.take("time", good[0], "guessed by content: its values are times")
    elif len(good) > 1:
        shown = "; ".join(f"{name} ({_values(sample[name])})" for name in good)
        raise DataError(
            Problem(
                f"{found.look.path}: {len(good)} columns hold times: {shown}",
                hint="say --time COL, or --no-time",
            )
        )


def _find_rising(found: _Found) -> None:
    """A column of numbers that never falls within a user and is no mere row number."""
    sample, user = found.look.sample, found.chosen["user"]
    rising = []
    for name in found.left:
        numbers = sample[name].cast(pl.Float64, strict=False)
        if numbers.null_count() or numbers.n_unique() < max(3, len(numbers) // 100):
            continue
        steps = pl.DataFrame({"u": sample[user], "x": numbers}).with_columns(
            step=pl.col("x").diff().over("u")
        )
        falls = (steps["step"] < 0).any()
        row_numbers = bool((numbers.diff().drop_nulls() == 1).all())
        if not falls and not row_numbers and (steps["step"] > 0).any():
            rising.append(name)
    if len(rising) == 1:
        found.take("time", rising[0], "guessed by content: it rises within each user")
    elif rising:
        shown = ", ".join(rising)
        raise DataError(
            Problem(
                f"{found.look.path}: {shown} all rise within each user, so any may be the time",
                hint="say --time COL, or --no-time",
            )
        )


def _moments(found: _Found) -> Moments | None:
    """How the chosen times are written; None where there are none, or they do not read."""
    name = found.chosen.get("time")
    if name is None:
        return None
    read = read_moments(found.look.sample[name], found.flags.time_format)
    if read is not None and read.other is not None:
        raise DataError(
            Problem(
                f"{found.look.path}: column {name!r} ({_values(found.look.sample[name])}) reads as "
                f"{read.format} and as {read.other} alike",
                hint=f"say --time-format '{read.format}' or --time-format '{read.other}'",
            )
        )
    return read


# ---- rating, ids -----------------------------------------------------------------------------------------


def _find_rating(found: _Found) -> None:
    """By content, where there are no names: few different small numbers."""
    if "rating" in found.chosen or found.look.header or found.look.form != "table":
        return
    likely = [name for name in found.left if _rating_like(found.look.sample[name])]
    others = [name for name in found.left if name not in likely]
    wanted = 2 - sum(role in found.chosen for role in ("user", "item"))
    if len(likely) == 1 and len(others) >= wanted:
        found.take("rating", likely[0], "guessed by content: few different small numbers")


def _rating_like(column: pl.Series) -> bool:
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() or numbers.n_unique() > min(21, max(len(numbers) // 4, 2)):
        return False
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]  # of floats, never null
    return low >= 0 and high <= 10


def _find_ids(found: _Found) -> None:
    """User and item where names did not tell."""
    missing: list[Role] = [role for role in ("user", "item") if role not in found.chosen]
    if not missing:
        return
    sample = found.look.sample
    likely = [name for name in found.left if _id_like(sample[name])]
    if len(likely) != len(missing):
        raise DataError(_untold(found, missing, likely))
    if len(missing) == 1:
        found.take(missing[0], likely[0], "guessed by content: the only other column of ids")
        return
    first, second = likely
    told = _which_is_user(found, first, second)
    if told is None:
        raise DataError(_untold(found, missing, likely, "nothing in them tells the user from the item"))
    user, why = told
    found.take("user", user, f"guessed by content: {why}")
    found.take("item", second if user == first else first, "guessed by content: the other column of ids")


def _id_like(column: pl.Series) -> bool:
    """Ids repeat, are not all alike, and are integers or text."""
    if column.dtype.is_float() or column.dtype.is_nested() or column.null_count() == len(column):
        return False
    different = column.n_unique()
    fractions = column.dtype == pl.String and column.str.contains(r"^-?\d*\.\d+$").mean() == 1.0
    return not fractions and (1 < different < len(column) or len(column) < 3)


def _which_is_user(found: _Found, first: str, second: str) -> tuple[str, str] | None:
    sample = found.look.sample
    grouped = [name for name in (first, second) if _grouped(sample[name])]
    if found.look.form == "lines":
        return first, "each line begins with it"
    if len(grouped) == 1:
        return grouped[0], "the rows of each of its values stand together"
    time = found.chosen.get("time")
    read = read_moments(sample[time], found.flags.time_format) if time is not None else None
    if read is None:
        return None
    spans = {name: _span(sample[name], read.values) for name in (first, second)}
    near, far = sorted(spans, key=lambda name: spans[name])
    if spans[far] < CLOSER * spans[near]:
        return None
    return near, f"its events lie {spans[far] / max(spans[near], 1e-9):.1f} times closer together in time"


def _grouped(column: pl.Series) -> bool:
    """Whether equal values stand together, and there are several of some."""
    runs = int((column != column.shift()).fill_null(True).sum())
    return runs == column.n_unique() < len(column)


def _span(ids: pl.Series, values: pl.Series) -> float:
    """How far apart in time the events of one value lie: the mean deviation within, over all of it."""
    frame = pl.DataFrame({"id": ids, "at": values}).drop_nulls()
    frame = frame.filter(pl.len().over("id") > 1)
    if not frame.height:
        return 1.0
    within = frame.select((pl.col("at") - pl.col("at").mean().over("id")).abs().mean()).item()
    overall = frame.select((pl.col("at") - pl.col("at").mean()).abs().mean()).item()
    return float(within) / float(overall) if overall else 1.0


def _untold(found: _Found, missing: list[Role], likely: list[str], why: str = "") -> Problem:
    sample = found.look.sample
    seen = "; ".join(
        f"{name}: {_values(sample[name])}, {sample[name].n_unique():,} different" for name in found.look.names
    )
    several = f"{len(likely)} columns may be: {', '.join(likely)}" if likely else "no column looks like one"
    example = " ".join(
        f"--{role} {[*likely, 'COL', 'COL'][n].removeprefix('column ')}" for n, role in enumerate(missing)
    )
    return Problem(
        f"{found.look.path}: which column is the {' and which the '.join(missing)} cannot be told: "
        f"{why or several} (saw {sample.height:,} rows; {seen})",
        hint=f"say which, as in {example}" + ("" if found.look.header else "; columns count from 1"),
    )


def _tell_others(found: _Found) -> None:
    """What stands in columns that are not read, where it matters."""
    sample = found.look.sample
    for name in found.left:
        if words.plain(name) in words.EVENT_KIND and 1 < sample[name].n_unique() <= 50:
            kinds = sample[name].value_counts(sort=True).head(4).rows()
            shown = ", ".join(f"{kind} {count / sample.height:.0%}" for kind, count in kinds)
            found.notes.append(f"column {name!r} holds kinds of events ({shown}); all kinds are taken alike")
    if not found.session and found.look.header:
        for name in words.by_name(found.left, words.SESSION):
            found.notes.append(
                f"column {name!r} holds sessions: --user {name!r} makes each a history of its own"
            )
    if found.session:
        found.notes.append(f"{found.chosen['user']!r} holds sessions: each is a history of its own")


def _values(column: pl.Series) -> str:
    """The first different values."""
    shown = column.drop_nulls().unique(maintain_order=True).head(SEEN).to_list()
    return ", ".join(str(value)[:30] for value in shown) + ", …"
