"""The dataset `sequences`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recore_data.options import Sequences, Table
from recore_data.sequences import build

from recore import Context, DataError
from recore.contracts import Dataset
from recore.data import Interactions

EXAMPLES = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
IDS = st.sampled_from(["1", "2", "30", "-4", "0"]) | st.sampled_from(
    ["a", "é", "007", "+7", "1.0", "\u00a0", "日本"]
)


def load(path: Path, text: str, form: Literal["pairs", "lines"] = "pairs", **tables: Table) -> Interactions:
    path.write_bytes(text.encode())
    made = build(Sequences(path, form=form, **tables), Context())
    assert isinstance(made, Dataset)
    return made.load(Context())


def problems(path: Path, text: str, form: Literal["pairs", "lines"] = "pairs", **tables: Table) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(path, text, form, **tables)
    return [str(problem).replace(str(path), "FILE") for problem in caught.value.problems]


def typed(ids: list[str]) -> list[Any]:
    """The rule, slowly: integers where all are written as integers are."""
    try:
        numbers = [int(text) for text in ids]
    except ValueError:
        return ids
    return numbers if [str(number) for number in numbers] == ids else ids


@EXAMPLES
@given(
    st.lists(st.tuples(IDS, IDS), min_size=1, max_size=12),
    st.sampled_from([" ", "\t", "  ", " \t "]),
    st.sampled_from(["\n", "\r\n", " \n", "\n\n"]),
    st.booleans(),
)
def test_pairs_are_read_in_the_order_of_the_file(
    tmp_path: Path, pairs: list[tuple[str, str]], between: str, end: str, mark: bool
) -> None:
    text = ("\ufeff" if mark else "") + "".join(f"{user}{between}{item}{end}" for user, item in pairs)
    log = load(tmp_path / "log.txt", text)
    users, items = (typed(list(column)) for column in zip(*pairs, strict=True))
    expected = {
        user: [i for u, i in zip(users, items, strict=True) if u == user] for user in dict.fromkeys(users)
    }
    assert {
        history["user"][0]: history["item"].to_list() for history in log.events.partition_by("user")
    } == expected
    assert log.user_ids().to_list() == list(expected)
    assert log.order_across_users is False
    assert "time" not in log.events.columns


@EXAMPLES
@given(st.dictionaries(IDS, st.lists(IDS, min_size=1, max_size=5), min_size=1, max_size=5))
def test_both_forms_hold_the_same(tmp_path: Path, histories: dict[str, list[str]]) -> None:
    lines = "\n".join(" ".join([user, *items]) for user, items in histories.items())
    pairs = "\n".join(f"{user} {item}" for user, items in histories.items() for item in items)
    one = load(tmp_path / "lines.txt", lines, "lines")
    assert one.events.equals(load(tmp_path / "pairs.txt", pairs).events)


def test_one_type_of_id_per_column(tmp_path: Path) -> None:
    log = load(tmp_path / "log.txt", "1 7\n2 x\n")
    assert log.events.schema == {"event": pl.Int64, "user": pl.Int64, "item": pl.String}
    assert load(tmp_path / "log.txt", "1 007\n2 8\n").events["item"].to_list() == ["007", "8"]


def test_blank_lines_are_counted(tmp_path: Path) -> None:
    counts = load(tmp_path / "log.txt", "1 1\n\n \t\n1 2\n").counts
    assert counts["blank lines skipped"] == 2
    assert "blank lines skipped" not in load(tmp_path / "log.txt", "1 1\n1 2\n").counts


def test_a_line_per_user_read_as_pairs(tmp_path: Path) -> None:
    (only,) = problems(tmp_path / "f", "1 1 2 3\n2 4 5\n3 6\n")
    assert only == (
        "FILE: expected lines of `user item`, but 2 of 3 lines have another number of fields: line 1 is "
        "'1 1 2 3' (4 fields); line 2 is '2 4 5' (3 fields) (for a line per user, `user item item …`, set "
        "`form: lines`)"
    )


def test_a_line_per_event_read_as_lines(tmp_path: Path) -> None:
    (only,) = problems(tmp_path / "f", "1 1\n1 2\n2 4\n", "lines")
    assert only == (
        "FILE: expected a line per user, but 1 users have several lines: line 1 is '1 1' (2 fields); line 2 is "
        "'1 2' (2 fields) (for a line per event, `user item`, set `form: pairs`)"
    )


def test_other_lines_that_do_not_fit(tmp_path: Path) -> None:
    (only,) = problems(tmp_path / "f", "user,item\n1,2\n")
    assert only == (
        "FILE: expected lines of `user item`, but 2 of 2 lines have another number of fields: line 1 is "
        "'user,item' (1 fields); line 2 is '1,2' (1 fields) (columns with other marks between them are read by "
        "`events`)"
    )
    (only,) = problems(tmp_path / "f", "1 2\n2\n", "lines")
    assert only == (
        "FILE: expected `user item item …`, but 1 of 2 lines hold a user and no item: line 2 is '2' (1 fields) "
        "(remove these lines)"
    )
    assert problems(tmp_path / "f", "") == ["FILE is empty"]
    assert problems(tmp_path / "f", "\n \n") == ["FILE is empty"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "Beauty.txt").write_bytes(b"1 \xff\n")
    with pytest.raises(
        DataError, match=r"Beauty.txt is not utf-8: byte 2, in line 1, is 0xff \(convert it to UTF-8\)"
    ):
        build(Sequences(tmp_path / "Beauty.txt"), Context()).load(Context())
    with pytest.raises(DataError, match=r"beauty.txt is not there \(did you mean 'Beauty.txt'\?\)"):
        build(Sequences(tmp_path / "beauty.txt"), Context()).load(Context())
    with pytest.raises(DataError, match="is a folder, expected a file"):
        build(Sequences(tmp_path), Context()).load(Context())
    with pytest.raises(DataError, match=r"is not there \(nor its folder\)"):
        build(Sequences(tmp_path / "no" / "f"), Context()).load(Context())
    with pytest.raises(DataError, match="set RECORE_DATA to the folder of your data sets"):
        build(Sequences(Path("$RECORE_DATA/f")), Context()).load(Context())


def test_titles_by_the_tables_own_numbers(tmp_path: Path) -> None:
    """As SASRec's ml-1m.txt, which numbers the movies anew."""
    (tmp_path / "movies.dat").write_bytes(
        '10::Toy: a "Story"::x|y\n20::Café::z\n30::None::\n'.encode("latin-1")
    )
    (tmp_path / "numbers.txt").write_text("1 20\n2 10\n")
    movies = Table(
        tmp_path / "movies.dat",
        id="id",
        title="name",
        columns=["genres"],
        format="csv",
        separator="::",
        encoding="latin-1",
        header=["id", "name", "genres"],
        numbers=tmp_path / "numbers.txt",
    )
    log = load(tmp_path / "log.txt", "1 1\n1 2\n1 3\n", items=movies)
    assert log.items is not None
    assert log.items.rows() == [(2, 'Toy: a "Story"', "x|y"), (1, "Café", "z")]
    assert log.counts["rows of the table of items that the log does not number"] == 1
    assert log.counts["items of the log that the table of items lacks"] == 1
    (tmp_path / "numbers.txt").write_text("1 20\n1 10\n")
    assert "an id in the log stands in several lines" in problems(tmp_path / "f", "1 1\n", items=movies)[0]
    (tmp_path / "numbers.txt").write_text("1 20\n2\n")
    assert "but line 2 is '2'" in problems(tmp_path / "f", "1 1\n", items=movies)[0]
