"""The dataset `events`: formats, types, times, tables, errors."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recore_data import times
from recore_data.events import build
from recore_data.options import Events, Table

from recore import Context, DataError
from recore.data import Interactions

EXAMPLES = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXTS = st.sampled_from(["a", "a b", "é", 'q"q', "x,y", "7", "007", "two\nlines", "日本"])
NUMBERS = st.integers(-5, 5) | st.sampled_from([2**62])


def load(options: Events) -> Interactions:
    return build(options, Context()).load(Context())


def problems(options: Events, path: Path | None = None) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(options)
    assert caught.value.exit_status == 2
    return [str(problem).replace(f"{path}/", "") for problem in caught.value.problems]


@st.composite
def logs(draw: st.DrawFn, plain: bool = False) -> pl.DataFrame:
    """Events with ids of either type, times of either type, a rating and a feature."""
    rows = draw(st.integers(1, 8))

    def some(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    texts = TEXTS.filter(lambda text: "\n" not in text) if plain else TEXTS
    ids = st.sampled_from([NUMBERS, texts])
    moments = st.sampled_from([st.integers(0, 3), st.floats(-1e9, 1e9).map(lambda number: number + 0.0)])
    return pl.DataFrame(
        {
            "who": some(draw(ids)),
            "what": some(draw(ids)),
            "when": some(draw(moments)),
            "stars": some(st.integers(1, 5)),
            "mood": some(texts),
        }
    )


NAMES: dict[str, Any] = {
    "user": "who",
    "item": "what",
    "time": "when",
    "rating": "stars",
    "columns": ["mood"],
}


def write(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".tsv":
        frame.write_csv(path, separator="\t", quote_style="never")
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)
    return path


@EXAMPLES
@given(logs())
def test_files_of_all_formats_and_frames_hold_the_same_log(tmp_path: Path, frame: pl.DataFrame) -> None:
    whole = load(Events(frame=frame, **NAMES))
    expected = Interactions.from_frame(
        frame.rename({"who": "user", "what": "item", "when": "time", "stars": "rating"})
    )
    assert whole.events.equals(expected.events)
    assert whole.fingerprint() == expected.fingerprint()
    for ending in ("csv", "parquet", "jsonl"):
        log = load(Events(write(frame, tmp_path / f"log.{ending}"), **NAMES))
        same = whole.events
        if ending == "csv":  # text does not say what is a number: a column of `7`, `-1` is one of integers
            same = _as_text_says(same, frame)
        assert log.events.equals(same), ending


def _as_text_says(events: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    for new, old in (("user", "who"), ("item", "what"), ("mood", "mood")):
        if all(value == "7" for value in frame[old]):
            events = events.with_columns(pl.col(new).cast(pl.Int64))
        elif new == "mood" and all(value in ("7", "007") for value in frame[old]):
            events = events.with_columns(pl.col(new).cast(pl.Float64))
    return events


@EXAMPLES
@given(logs(plain=True))
def test_a_tsv_quotes_nothing(tmp_path: Path, frame: pl.DataFrame) -> None:
    log = load(Events(write(frame, tmp_path / "log.tsv"), **NAMES))
    csv = load(Events(write(frame, tmp_path / "log.csv"), **NAMES))
    assert log.events.equals(csv.events)


@EXAMPLES
@given(logs(), st.integers(0, 8), st.sampled_from(["csv", "parquet", "jsonl"]))
def test_several_files_are_one_log(tmp_path: Path, frame: pl.DataFrame, cut: int, ending: str) -> None:
    folder = tmp_path / "parts"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    pieces = [piece for piece in (frame[:cut], frame[cut:]) if piece.height]
    paths = [write(piece, folder / f"part {n}.{ending}") for n, piece in enumerate(pieces)]
    whole = load(Events(write(frame, tmp_path / f"log.{ending}"), **NAMES))
    for meant in (paths, folder / "*", folder / f"part ?.{ending}", [folder / "*"]):
        assert load(Events(meant, **NAMES)).events.equals(whole.events)


def test_pandas_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "user": pandas.Series([1, 2, 1], dtype="int32"),
            "item": ["a b", "é", "a b"],
            "time": pandas.to_datetime(["2020-01-02", "2020-01-01", "2020-01-01"]),
            "rating": [1.0, 2.5, 3.0],
            "creator": pandas.array([7, None, 8], dtype="Int64"),
            "tag": ["x", None, "y"],
        }
    )
    frame.index = [5, 5, 9]  # counts for nothing
    log = load(Events(frame=frame, time="time", rating="rating", creator="creator", columns=["tag"]))
    day = 86400
    start = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
    assert log.events.rows() == [
        (2, 1, "a b", start, 3.0, 8, "y"),
        (0, 1, "a b", start + day, 1.0, 7, "x"),
        (1, 2, "é", start, 2.5, None, None),
    ]
    gone = pandas.DataFrame({"user": [1, None], "item": ["a", None]})
    hint = "integers become floats in pandas where some are missing"
    assert problems(Events(frame=gone)) == [
        "the frame: column 'user': 1 of 2 rows have no user: row 2: None (remove them, or fill them in)",
        f"the frame: column 'user': expected integers or strings as users, got Float64 ({hint})",
        "the frame: column 'item': 1 of 2 rows have no item: row 2: None (remove them, or fill them in)",
    ]
    mixed = pandas.DataFrame({"user": [1, "a"], "item": [1, 2]})
    assert "holds values of several types" in problems(Events(frame=mixed))[0]
    twice = pandas.DataFrame([[1, 2, 3]], columns=["user", "item", "item"])
    assert problems(Events(frame=twice)) == ["the frame has several columns 'item'"]


def test_pandas_is_not_imported() -> None:
    assert "pandas" not in sys.modules or "pandas" in str(sys.modules["pandas"])
    with pytest.raises(DataError, match=r"expected a polars or pandas frame, got builtins\.dict"):
        load(Events(frame={"user": [1], "item": [1]}))


def test_lazy_frames_and_a_parquet_file_as_frame(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, 1], "item": ["a", "b"]})
    whole = load(Events(frame=frame)).events
    assert load(Events(frame=frame.lazy())).events.equals(whole)
    frame.write_parquet(tmp_path / "no ending")
    assert load(Events(frame=tmp_path / "no ending")).events.equals(whole)


# ---- times -----------------------------------------------------------------------------------------------


@EXAMPLES
@given(
    st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=5), st.booleans()
)
def test_dates_and_times_are_seconds_since_1970(moments: list[datetime], whole: bool) -> None:
    if whole:
        moments = [moment.replace(microsecond=0) for moment in moments]
    seconds = [(moment - datetime(1970, 1, 1)).total_seconds() for moment in moments]
    for column in (
        pl.Series("t", moments),
        pl.Series("t", [moment.isoformat() for moment in moments]),
        pl.Series("t", [moment.isoformat(" ") + "Z" for moment in moments]),
        pl.Series("t", moments, dtype=pl.Datetime("us", "Europe/Paris")),
    ):
        made = times.parse(column)
        if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone:
            expected = column.dt.epoch("us").to_numpy() / 1e6
        else:
            expected = np.asarray(seconds)
        assert made.null_count() == 0
        assert np.array_equal(made.to_numpy().astype(np.float64), expected)
        if whole:
            assert made.dtype == pl.Int64


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["5", " 7 "], [5, 7]),
        (["5", "7.5"], [5.0, 7.5]),
        (["1e3", "-2"], [1000.0, -2.0]),
        (["1970-01-02", "1970-01-01"], [86400, 0]),
        (["1970-01-01T00:01", "1970-01-01 00:00:02"], [60, 2]),
        (["1970-01-01T01:00:00+01:00", "1970-01-01T00:00:01.5Z"], [0.0, 1.5]),
        (["1970-01-01T01:00:00+0100", "1970-01-01 00:01Z"], [0, 60]),
    ],
)
def test_times_as_they_are_written(written: list[str], expected: list[float]) -> None:
    made = times.parse(pl.Series("t", written))
    assert made.to_list() == expected
    assert made.dtype == (pl.Int64 if isinstance(expected[0], int) else pl.Float64)


def test_times_of_a_format_of_their_own() -> None:
    made = times.parse(pl.Series("t", ["02/01/1970 01:00", "x"]), "%d/%m/%Y %H:%M")
    assert made.to_list() == [90000, None]
    assert times.parse(pl.Series("t", ["02/01/1970"]), "%d/%m/%Y").to_list() == [86400]


@pytest.mark.parametrize(
    ("written", "none"),
    [
        (["99999999999999999998", "99999999999999999999"], [0, 1]),  # one float for both
        (["1500000000123456789", "1.5"], [1]),
        (["9007199254740992", "1.5"], []),
    ],
)
def test_integers_that_a_float_cannot_hold_are_no_floats(written: list[str], none: list[int]) -> None:
    made = times.parse(pl.Series("time", written))
    assert made.is_null().arg_true().to_list() == none


def test_times_of_other_types() -> None:
    assert times.parse(pl.Series([date(1970, 1, 2)])).to_list() == [86400]
    assert times.parse(pl.Series([1.5, float("inf"), float("nan")])).to_list() == [1.5, None, None]
    fine = pl.Series("t", [1_000_000_001], dtype=pl.Datetime("ns"))
    with pytest.raises(DataError, match="column 't' has times finer than microseconds"):
        times.parse(fine)
    assert times.parse(pl.Series("t", [2_000_000_000], dtype=pl.Datetime("ns"))).to_list() == [2]
    with pytest.raises(DataError, match="column 't': expected numbers, dates or text as times, got Boolean"):
        times.parse(pl.Series("t", [True]))


def test_the_policy_for_ties_is_passed_on(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1] * 30, "item": range(30), "time": [5] * 30})
    one = load(Events(frame=frame, time="time", ties="hash"))
    other = load(Events(frame=frame.reverse(), time="time", ties="hash"))
    assert one.events.equals(other.events)
    assert one.ties == "hash"
    assert load(Events(frame=frame, time="time")).events["item"].to_list() == list(range(30))


def test_order_across_users_can_be_denied() -> None:
    frame = pl.DataFrame({"user": [1], "item": [1], "time": [1]})
    assert load(Events(frame=frame, time="time")).order_across_users
    assert not load(Events(frame=frame, time="time", order_across_users=False)).order_across_users
    assert not load(Events(frame=frame)).order_across_users


# ---- tables ----------------------------------------------------------------------------------------------


def test_tables_of_items_and_users(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n1,007\n2,12\n")
    (tmp_path / "items.csv").write_text("id,name,by,price\n7,x,2,1.5\n12,y,,2\n")
    (tmp_path / "users.tsv").write_text('user\tcity\n1\tA "B"\n2\t\n')
    log = load(
        Events(
            tmp_path / "log.csv",
            items=Table(tmp_path / "items.csv", title="name", creator="by", columns=["price"]),
            users=Table(tmp_path / "users.tsv", id="user", columns=["city"]),
        )
    )
    assert log.items is not None
    assert log.users is not None
    # The log's ids are strings, since 007 is among them; so are those of the table.
    assert log.items.rows() == [("7", "x", 2, 1.5), ("12", "y", None, 2.0)]
    assert log.items.columns == ["item", "title", "creator", "price"]
    assert log.users.rows() == [(1, 'A "B"'), (2, None)]
    assert log.counts["items of the log that the table of items lacks"] == 1
    assert log.counts["users of the log that the table of users lacks"] == 0


def test_problems_of_tables_are_told_together(tmp_path: Path) -> None:
    events = pl.DataFrame({"user": [1], "item": [2]})
    items = Table(frame=pl.DataFrame({"id": ["2"], "title": [5]}), title="title")
    users = Table(frame=pl.DataFrame({"name": ["2"]}))
    assert problems(Events(frame=events, items=items, users=users)) == [
        "the frame: the ids of items are String, but those of the log are Int64: none would match",
        "the frame has only one column, 'name' (is this the right file?)",
    ]
    missing = Table(frame=pl.DataFrame({"id": [1, None], "b": [1, 2]}))
    assert problems(Events(frame=events, items=missing)) == [
        "the frame: column 'item': 1 of 2 items are missing: row 2: None"
    ]
    named = Table(frame=pl.DataFrame({"id": [2], "title": [5]}), title="title")
    log = load(Events(frame=events, items=named))
    assert log.items is not None
    assert log.items.rows() == [(2, "5")]


# ---- errors ----------------------------------------------------------------------------------------------


def test_missing_files_and_columns_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,stamp\n1,2,3\n")
    (tmp_path / "b.csv").write_text("userid,item,stamp\n1,2,3\n")
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    assert problems(Events(paths, user="userid", item="item", time="time"), tmp_path) == [
        "a.csv has no column 'userid' (did you mean 'user_id'?)",
        "a.csv has no column 'item' (did you mean 'item_id'?)",
        "a.csv has no column 'time' (known: item_id, stamp, user_id)",
        "b.csv has no column 'time' (known: item, stamp, userid)",
        "c.csv is not there (did you mean 'b.csv'?)",
    ]


def test_a_wrong_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user;item\n1;2\n")
    assert problems(Events(tmp_path / "a.csv"), tmp_path) == [
        "a.csv has only one column, 'user;item' (the separator may be ';': set `separator:`)"
    ]
    assert load(Events(tmp_path / "a.csv", separator=";")).events.rows() == [(0, 1, 2)]
    (tmp_path / "a.dat").write_text("1::2\n1::3\n")
    options = Events(tmp_path / "a.dat", separator="::", format="csv", header=["user", "item"])
    assert load(options).events.rows() == [(0, 1, 2), (1, 1, 3)]
    options = Events(tmp_path / "a.dat", separator="::", format="csv", header=["user", "item", "time"])
    assert problems(options, tmp_path) == ["a.dat: `header` names 3 columns, but the file has 2"]


def test_bad_rows_are_shown(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "user,item,time,rating,p\n1,2,3,4,0.5\n,2,soon,nan,0\n3,,3,four,1\n4,5,later,,2\n5,5,never,1,1\n6,6,no,1,1\n"
    )
    (tmp_path / "b.csv").write_text("user,item,time,rating,p\n7,,3,4,x\n")
    options = Events([tmp_path / "a.csv", tmp_path / "b.csv"], time="time", rating="rating", propensity="p")
    name = "a.csv and 1 more files"
    fill = "(remove them, or fill them in)"
    what = "expected numbers or ISO 8601"
    hint = "(set `time_format:` if dates are written in another way)"
    late = "row 2 of a.csv: 'soon'; row 4 of a.csv: 'later'; row 5 of a.csv: 'never'"
    stars = "row 2 of a.csv: 'nan'; row 3 of a.csv: 'four'"
    assert problems(options, tmp_path) == [
        f"{name}: column 'user': 1 of 7 rows have no user: row 2 of a.csv: None {fill}",
        f"{name}: column 'item': 2 of 7 rows have no item: row 3 of a.csv: None; row 1 of b.csv: None {fill}",
        f"{name}: column 'time': 4 of 7 times are none, {what}: {late} {hint}",
        f"{name}: column 'rating': 1 of 7 rows have no rating: row 4 of a.csv: None {fill}",
        f"{name}: column 'rating': 2 of 7 rows have a rating that is no number: {stars}",
        f"{name}: column 'p': 1 of 7 rows have a propensity that is no number: row 1 of b.csv: 'x'",
    ]
    rest = pl.DataFrame({"user": [1, 1], "item": [1, 2], "p": [0.0, 1.0], "r": [float("nan"), 1.0]})
    assert problems(Events(frame=rest, propensity="p", rating="r")) == [
        "the frame: column 'r': 1 of 2 rows have a rating that is no number: row 1: nan",
        "the frame: column 'p': 1 of 2 propensities are not above 0 and up to 1: row 1: 0.0",
    ]


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    def told(name: str, text: str, **options: Any) -> str:
        (tmp_path / name).write_text(text)
        (only,) = problems(Events(tmp_path / name, **options), tmp_path)
        return only

    assert told("a.csv", "") == "a.csv is empty"
    assert told("a.csv", "user,item\n") == "a.csv holds column names but no rows"
    assert told("a.csv", "user,item,item\n1,2,3\n") == (
        "a.csv has several columns 'item' (give them names of their own)"
    )
    assert told("a.csv", "user,item\n1,2\n1,2,3\n1,2\n") == (
        "a.csv: 1 of 3 lines do not have the 2 fields of the first: line 3 has 3 (fields that hold the separator "
        "belong in quotation marks)"
    )
    assert told("a.parquet", "no").startswith("a.parquet cannot be read as parquet: ")
    assert told("a.jsonl", "{no").startswith("a.jsonl cannot be read as jsonl: ")
    assert told("a.dat", "user,item\n1,2\n") == (
        "a.dat: its ending does not say what it is (set `format:` to one of csv, tsv, parquet, jsonl)"
    )
    assert problems(Events(tmp_path / "*.xyz"), tmp_path) == ["no file fits *.xyz"]
    assert problems(Events([])) == ["expected a file or several, got an empty list"]
    twice = [tmp_path / "a.csv", tmp_path / "*.csv"]
    assert problems(Events(twice), tmp_path) == ["a.csv would be read twice"]


def test_columns_of_other_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1], "item": ["a"], "note": [5], "who": [None], "stars": ["1.5"]})
    stars = frame["stars"].cast(pl.Decimal(scale=1))
    log = load(Events(frame=frame.with_columns(stars), text="note", creator="who", rating="stars"))
    assert log.events.select("text", "creator", "rating").rows() == [("5", None, 1.5)]
    assert problems(Events(frame=frame, rating="note", time="stars", propensity="stars")) == [
        "the frame: column 'stars': expected numbers as propensity, got String",
    ]
    none = frame.with_columns(time=pl.lit(None), rating=pl.lit(None), flag=True)
    fill = "(remove them, or fill them in)"
    assert problems(Events(frame=none, time="time", rating="rating")) == [
        f"the frame: column 'time': 1 of 1 rows have no time: row 1: None {fill}",
        f"the frame: column 'rating': 1 of 1 rows have no rating: row 1: None {fill}",
    ]
    assert problems(Events(frame=none, time="flag")) == [
        "the frame: column 'flag': expected numbers, dates or text as times, got Boolean"
    ]


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    numbers = write(pl.DataFrame({"user": [1], "item": [1]}), tmp_path / "a.parquet")
    texts = write(pl.DataFrame({"user": [1], "item": ["x"]}), tmp_path / "b.parquet")
    narrow = write(
        pl.DataFrame({"user": [1], "item": [2]}, schema={"user": pl.Int8, "item": pl.Int64}),
        tmp_path / "c.parquet",
    )
    csv = write(pl.DataFrame({"user": [1], "item": [1]}), tmp_path / "d.csv")
    assert load(Events([numbers, narrow])).events["item"].to_list() == [1, 2]
    assert problems(Events([numbers, texts]), tmp_path) == [
        "column 'item' is Int64 in a.parquet, but String in b.parquet (give them one type)"
    ]
    assert problems(Events([numbers, csv])) == ["expected files of one kind, got text files among others"]


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="expected one of `path` and `frame`, got neither"):
        Events()
    with pytest.raises(ValueError, match="expected one of `path` and `frame`, got both"):
        Table(Path("x"), frame=pl.DataFrame())
    with pytest.raises(ValueError, match="rating: taken"):
        Events(Path("x"), columns=["rating"])
    with pytest.raises(ValueError, match="title: taken"):
        Table(Path("x"), columns=["title"])
    with pytest.raises(ValueError, match="each column once"):
        Table(Path("x"), columns=["a", "a"])
