"""Interactions: order under both tie policies, checks, counts, fingerprints."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recore.digest as digest_module
from recore.data import Interactions
from recore.digest import digest_frame, hash_rows
from recore.errors import DataError

EXAMPLES = settings(deadline=None, max_examples=50)

numbers = st.integers(-3, 3) | st.sampled_from([2**62, -(2**63), 2**63 - 1])
texts = st.sampled_from(["", " ", "a", "a b", "b\tc", "é", "e\u0301", "日本", "\x1f", "\x00", "007", "7"])
moments = st.integers(0, 4) | st.integers(-(2**40), 2**40)
clocks = st.sampled_from([0.0, -0.0, 0.5, 1e18, -2.25])


@st.composite
def frames(draw: st.DrawFn, timed: bool | None = None) -> pl.DataFrame:
    """A few events with ids of either type, times with many ties, a rating that may be missing, a list."""
    users, items = draw(st.sampled_from([numbers, texts])), draw(st.sampled_from([numbers, texts]))
    rows = draw(st.integers(1, 12))

    def some(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    columns: dict[str, Any] = {"user": some(users), "item": some(items)}
    if draw(st.booleans()) if timed is None else timed:
        columns["time"] = some(draw(st.sampled_from([moments, clocks])))
    frame = pl.DataFrame(columns)
    if draw(st.booleans()):
        frame = frame.with_columns(pl.Series("rating", some(clocks | st.none()), dtype=pl.Float64))
    if draw(st.booleans()):
        values = some(st.none() | st.lists(st.integers(0, 2), max_size=2))
        frame = frame.with_columns(pl.Series("tags", values, dtype=pl.List(pl.Int64)))
    return frame


def shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    return frame[np.random.default_rng(seed).permutation(frame.height)]


# ---- order -----------------------------------------------------------------------------------------------


@EXAMPLES
@given(frames())
def test_file_order_is_a_stable_sort_with_users_by_first_appearance(frame: pl.DataFrame) -> None:
    log = Interactions.from_frame(frame)
    rows = list(frame.select("user", "item").iter_rows())
    times = frame["time"].to_list() if "time" in frame.columns else [0] * len(rows)
    first: dict[Any, int] = {}
    for row, (user, _) in enumerate(rows):
        first.setdefault(user, row)
    order = sorted(range(len(rows)), key=lambda row: (first[rows[row][0]], times[row], row))
    assert log.events["event"].to_list() == order
    assert log.events.select("user", "item").rows() == [rows[row] for row in order]


@EXAMPLES
@given(frames(timed=True), st.integers(0, 2**16))
def test_hash_gives_the_same_log_for_any_order_of_the_rows(frame: pl.DataFrame, seed: int) -> None:
    one = Interactions.from_frame(frame, ties="hash")
    other = Interactions.from_frame(shuffled(frame, seed), ties="hash")
    assert one.events.equals(other.events)
    assert one.fingerprint() == other.fingerprint()
    assert dict(one.counts) == dict(other.counts)
    kept = frame.sort(pl.all(), nulls_last=True)
    assert one.events.select(frame.columns).sort(pl.all(), nulls_last=True).equals(kept)
    times = [history["time"].to_list() for history in one.events.partition_by("user")]
    assert all(history == sorted(history) for history in times)


@EXAMPLES
@given(frames(timed=True), st.integers(0, 2**16))
def test_hash_keeps_event_ids_with_their_rows(frame: pl.DataFrame, seed: int) -> None:
    given_ids = frame.with_row_index("event", offset=5)
    one = Interactions.from_frame(given_ids, ties="hash")
    assert one.events.equals(Interactions.from_frame(shuffled(given_ids, seed), ties="hash").events)
    back = one.events.sort("event").select(frame.columns)
    assert back.equals(Interactions.from_frame(frame).events.sort("event").select(frame.columns))


@EXAMPLES
@given(frames(timed=True))
def test_reading_one_column_more_moves_no_item(frame: pl.DataFrame) -> None:
    bare = frame.select("user", "item", "time")
    one, other = (Interactions.from_frame(f, ties="hash").events for f in (bare, frame))
    assert one.select("user", "item").equals(other.select("user", "item"))


def test_hash_does_not_follow_the_ids() -> None:
    frame = pl.DataFrame({"user": [0] * 200, "item": range(200), "time": [5] * 200})
    items = Interactions.from_frame(frame, ties="hash").events["item"].to_numpy()
    assert sorted(items) == list(range(200))
    assert abs(np.corrcoef(items, np.arange(200))[0, 1]) < 0.3
    assert Interactions.from_frame(frame, ties="file").events["item"].to_list() == list(range(200))


@EXAMPLES
@given(frames())
def test_offsets_cut_the_log_at_its_users(frame: pl.DataFrame) -> None:
    log = Interactions.from_frame(frame)
    offsets = log.offsets()
    users = log.user_ids().to_list()
    assert offsets.dtype == np.int64
    assert offsets[0] == 0
    assert offsets[-1] == len(log) == frame.height
    assert users == frame["user"].unique(maintain_order=True).to_list()
    for user, start, stop in zip(users, offsets, offsets[1:], strict=False):
        assert set(log.events["user"][int(start) : int(stop)].to_list()) == {user}
    assert log.summary()["users"] == len(users)


@EXAMPLES
@given(frames(), st.data())
def test_rows_keeps_what_it_is_asked_for(frame: pl.DataFrame, data: st.DataObject) -> None:
    log = Interactions.from_frame(frame)
    mask = data.draw(st.lists(st.booleans(), min_size=len(log), max_size=len(log)))
    rows = np.flatnonzero(np.asarray(mask, dtype=bool)).astype(np.int64)
    kept = log.rows(rows)
    assert kept.events.equals(log.events.filter(pl.Series(mask, dtype=pl.Boolean)))
    assert kept.offsets()[-1] == len(rows)


def test_order_across_users_is_known_with_times_only_and_can_be_denied() -> None:
    bare = pl.DataFrame({"user": [1], "item": [1]})
    timed = bare.with_columns(time=1)
    assert Interactions.from_frame(bare).order_across_users is False
    assert Interactions.from_frame(timed).order_across_users is True
    assert Interactions.from_frame(timed, order_across_users=False).order_across_users is False


@EXAMPLES
@given(frames())
def test_ties_and_repeats_are_counted(frame: pl.DataFrame) -> None:
    log = Interactions.from_frame(frame)
    rows = frame.rows(named=True)
    timed = "time" in frame.columns
    if timed:
        moments = [(row["user"], row["time"]) for row in rows]
        assert log.counts["events whose time another of the same user has"] == sum(
            moments.count(moment) > 1 for moment in moments
        )
    keys = [(row["user"], row["item"], row.get("time")) for row in rows]
    name = "events equal in user, item" + (" and time" if timed else "")
    assert log.counts[name] == sum(keys.count(key) > 1 for key in keys)


# ---- ids and checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int32, pl.UInt32, pl.UInt64, pl.Int64])
def test_integers_of_all_widths_are_held_as_int64(dtype: Any) -> None:
    frame = pl.DataFrame({"user": pl.Series([3, 1], dtype=dtype), "item": pl.Series([2, 2], dtype=dtype)})
    table = pl.DataFrame({"item": pl.Series([2], dtype=dtype), "title": ["two"]})
    log = Interactions.from_frame(frame, items=table)
    assert log.items is not None
    assert [log.events[name].dtype for name in ("event", "user", "item")] == [pl.Int64] * 3
    assert log.items["item"].dtype == pl.Int64
    assert log.fingerprint() == Interactions.from_frame(frame.cast(pl.Int64), items=table).fingerprint()


def test_categories_are_held_as_strings() -> None:
    frame = pl.DataFrame({"user": ["b", "a"], "item": ["x", "y"]})
    held = Interactions.from_frame(frame.cast({"user": pl.Categorical, "item": pl.Enum(["y", "x"])}))
    assert held.events.equals(Interactions.from_frame(frame).events)


def wrong(frame: pl.DataFrame, **rest: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        Interactions.from_frame(frame, **rest)
    assert caught.value.exit_status == 2
    return [str(problem) for problem in caught.value.problems]


def test_every_problem_is_told_at_once() -> None:
    frame = pl.DataFrame({"user": [1.0, None], "item": ["a", None], "time": [float("nan"), 1.0]})
    hint = "integers turned to floats are a sign of missing values"
    assert wrong(frame) == [
        "1 of 2 events have no user",
        "1 of 2 events have no item",
        f"column 'user' of the log: expected integers or strings, got Float64 ({hint})",
        "1 of 2 times are not finite numbers",
    ]


def test_problems_of_columns() -> None:
    good = pl.DataFrame({"user": [1, 2], "item": [1, 2]})
    assert wrong(good.select("user")) == ["the log has no column 'item'; it has user"]
    assert wrong(good.clear()) == ["the log holds no events"]
    assert wrong(good.with_columns(time=pl.lit("now"))) == ["times must be numbers, got String"]
    assert wrong(good.with_columns(event=1)) == ["column 'event' of the log: 1 event ids repeat"]
    assert wrong(good.with_columns(event=pl.Series([0, -1]))) == [
        "column 'event' of the log: expected ids from 0, got negative ones"
    ]
    large = pl.Series("item", [2**63, 1], dtype=pl.UInt64)
    assert wrong(good.with_columns(large)) == [
        "column 'item' of the log: 1 ids do not fit 64 signed bits (give them as strings)"
    ]


def test_problems_of_tables() -> None:
    good = pl.DataFrame({"user": [1, 2], "item": ["a", "b"]})
    items = pl.DataFrame({"item": ["a", "a"], "title": ["x", "y"]})
    users = pl.DataFrame({"user": ["1"], "age": [3]})
    assert wrong(good, items=items, users=users) == [
        "the table of items: 1 ids stand in several rows, as 'a'",
        "the table of users has string ids, but the log has integer ids: none would match",
    ]
    assert wrong(good, items=items.rename({"item": "id"})) == [
        "the table of items has no column 'item'; it has id, title"
    ]


# ---- fingerprints and hashes -----------------------------------------------------------------------------


@EXAMPLES
@given(frames(), st.data())
def test_a_fingerprint_changes_with_any_value_and_any_order(frame: pl.DataFrame, data: st.DataObject) -> None:
    log = Interactions.from_frame(frame)
    mark = log.fingerprint()
    assert mark == Interactions.from_frame(frame.clone()).fingerprint()
    row = data.draw(st.integers(0, frame.height - 1))
    changed = frame.with_row_index("_").with_columns(
        pl.when(pl.col("_") == row).then(pl.lit(None)).otherwise(pl.col("item")).alias("item")
    )
    item: Any = 99 if frame["item"].dtype == pl.Int64 else "other"
    assert Interactions.from_frame(changed.drop("_").fill_null(item)).fingerprint() != mark
    swapped = shuffled(frame, data.draw(st.integers(0, 99)))
    if not Interactions.from_frame(swapped).events.equals(log.events):
        assert Interactions.from_frame(swapped).fingerprint() != mark


def digest(frame: pl.DataFrame) -> str:
    made = hashlib.sha256()
    digest_frame(made, "events", frame)
    return made.hexdigest()


def test_unlike_frames_have_unlike_digests() -> None:
    columns: list[pl.Series] = [
        pl.Series([1, 2]),
        pl.Series([2, 1]),
        pl.Series([1, None]),
        pl.Series([1, 0]),
        pl.Series([1, -(2**62)]),
        pl.Series([1.0, 2.0]),
        pl.Series([1.0, None]),
        pl.Series([1.0, float("nan")]),
        pl.Series([True, False]),
        pl.Series(["1", "2"]),
        pl.Series(["12", ""]),
        pl.Series(["12", None]),
        pl.Series(["", "12"]),
        pl.Series(["1\x002", ""]),
        pl.Series([[1], [2]]),
        pl.Series([[1, 2], []]),
        pl.Series([[1, 2], None]),
        pl.Series([["1"], ["2"]]),
        pl.Series([[[1], [2]], [[]]]),
        pl.Series([[[1, 2]], [[]]]),
        pl.Series([{"a": 1, "b": 2}, {"a": 2, "b": 1}]),
        pl.Series([{"a": 2, "b": 1}, {"a": 1, "b": 2}]),
        pl.Series([{"a": 1, "b": 2}, None]),
        pl.Series([date(1970, 1, 2), date(1970, 1, 3)]),
        pl.Series([datetime(1970, 1, 2), datetime(1970, 1, 3)]),
        pl.Series([timedelta(days=1), timedelta(days=2)]),
        pl.Series([b"1", b"2"]),
        pl.Series([2**63, 2**64 - 1], dtype=pl.UInt64),
        pl.Series([None, None]),
    ]
    digests = [digest(pl.DataFrame({"c": column})) for column in columns]
    digests += [digest(pl.DataFrame({"d": columns[0]})), digest(pl.DataFrame({"c": [1], "d": [2]}))]
    assert len(set(digests)) == len(digests)


def test_like_frames_have_like_digests() -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.0, 1.0]})
    others = [
        frame.select("c", "b", "a"),
        frame.cast({"a": pl.UInt8, "b": pl.Categorical}),
        frame.with_columns(pl.Series("c", [-0.0, 1.0])),
        frame.cast({"a": pl.UInt64}),
        pl.concat([frame[:1], frame[1:]], rechunk=False),
    ]
    assert [digest(other) for other in others] == [digest(frame)] * len(others)


def test_tables_are_in_the_fingerprint() -> None:
    frame = pl.DataFrame({"user": [1], "item": [2]})
    items, users = pl.DataFrame({"item": [2]}), pl.DataFrame({"user": [1]})
    choices: list[dict[str, Any]] = [
        {},
        {"items": items},
        {"users": users},
        {"items": items, "users": users},
        {"items": items.with_columns(title=pl.lit("x"))},
    ]
    marks = [Interactions.from_frame(frame, **tables).fingerprint() for tables in choices]
    assert len(set(marks)) == len(marks)


FIXED = pl.DataFrame(
    {
        "user": ["u 1", "ü", "u 1", "ü"],
        "item": [7, 7, -1, 3],
        "time": [1.5, 0.0, 1.5, 0.0],
        "tags": [["a"], [], None, ["b", "c"]],
    }
)


def test_digests_are_the_same_in_every_process_and_version() -> None:
    """Written down once: a run of last year must be recognised."""
    log = Interactions.from_frame(FIXED, ties="hash")
    code = (
        "import polars as pl\nfrom recore.data import Interactions\n"
        f"frame = pl.DataFrame({FIXED.to_dict(as_series=False)!r})\n"
        "print(Interactions.from_frame(frame, ties='hash').fingerprint())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == log.fingerprint()
    assert log.events["item"].to_list() == ITEMS
    assert log.fingerprint() == FINGERPRINT
    assert [int(word) for word in hash_rows(FIXED, FIXED.columns)] == HASHES


ITEMS = [-1, 7, 3, 7]
FINGERPRINT = "990591ae68b23b75a4ca15a5a7b4030cbedc51763e3fa48d3fedb475316d890e"
HASHES = [7216969835907000558, 16779409094324729905, 2330321804958654604, 1391176590924707002]


@EXAMPLES
@given(frames(), st.integers(0, 2**16))
def test_row_hashes_follow_their_rows_and_nothing_else(frame: pl.DataFrame, seed: int) -> None:
    hashes = hash_rows(frame, frame.columns)
    order = np.random.default_rng(seed).permutation(frame.height)
    assert np.array_equal(hash_rows(frame[order], frame.columns[::-1]), hashes[order])
    rows = [str([v + 0.0 if isinstance(v, float) else v for v in row]) for row in frame.iter_rows()]
    assert len(set(rows)) == len(set(hashes.tolist()))


def test_row_hashes_tell_types_and_columns_apart() -> None:
    frames = [
        pl.DataFrame({"a": [1]}),
        pl.DataFrame({"a": ["1"]}),
        pl.DataFrame({"a": [1.0]}),
        pl.DataFrame({"a": [True]}),
        pl.DataFrame({"a": [None]}),
        pl.DataFrame({"a": [[1]]}),
        pl.DataFrame({"a": [{"b": 1}]}),
        pl.DataFrame({"b": [1]}),
        pl.DataFrame({"a": [1], "b": [1]}),
    ]
    assert len({int(hash_rows(frame, frame.columns)[0]) for frame in frames}) == len(frames)


def test_python_objects_are_refused_in_words() -> None:
    with pytest.raises(DataError, match="column 'a' holds Object, expected numbers, text"):
        digest(pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}))


def test_text_is_hashed_once_per_distinct_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing loops over rows in Python: 5,000,000 events have to be read in seconds."""
    asked: list[str] = []
    plain = digest_module._word

    def counted(text: str) -> np.uint64:
        asked.append(text)
        return plain(text)

    monkeypatch.setattr(digest_module, "_word", counted)
    rows = 20_000
    random = np.random.default_rng(0)
    frame = pl.DataFrame({"user": ["u"] * rows, "item": random.integers(0, 90, rows), "time": [1] * rows})
    log = Interactions.from_frame(frame.cast({"item": pl.String}), ties="hash")
    assert len(log) == rows
    assert 91 <= len(asked) < 120
