"""Data that is not what the recipe says: status 2, every problem in one go, and nothing is written.

Each case is a file as it lies on someone's disk; the whole message is asserted, through `recore run` (which reads
data; `recore check` reads none).
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engine_helpers import main, walks

GOOD = "user,item,time,rating\n" + "".join(
    f"{user},{item},{1000 + 10 * user + item},{1 + item % 5}\n" for user in range(4) for item in range(5)
)
TIMED = {"time": "time", "rating": "rating"}


def refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, **options: Any
) -> list[str]:
    """The complaints about a recipe whose data is this file of `tmp_path`; nothing else was said or written."""
    import yaml

    data = {"use": "recore-data:events", "path": name, "items": None, **options}
    recipe = {"recore": 1, "extends": str(home / "tiny.yaml"), "data": data}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True).replace("null", "~"))
    before = sorted(path.name for path in tmp_path.iterdir())
    status, out, err = main(capsys, "run", tmp_path / "mine.yaml", "--runs", tmp_path / "runs")
    assert (status, out) == (2, ""), (status, out, err)
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # no run folder, whole or half
    return err.replace(f"{tmp_path}/", "").splitlines()


HOLDS = "fields that hold the separator belong in quotation marks"
FILL = "(remove them, or fill them in)"
ISO = "expected numbers or ISO 8601"
FORMAT = "(set `time_format:` if dates are written in another way)"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "log.csv is empty", id="empty"),
        pytest.param(b"\n \n\n", "log.csv is empty", id="blank"),
        pytest.param(b"user,item,time,rating\n", "log.csv holds column names but no rows", id="header only"),
        pytest.param(
            GOOD.replace(",", ";").encode(),
            "log.csv has only one column, 'user;item;time;rating' (the separator may be ';': set `separator:`)",
            id="semicolons",
        ),
        pytest.param(
            GOOD.replace(",", "\t").encode(),
            "log.csv has only one column, 'user\\titem\\ttime\\trating' (the separator may be '\\t': set "
            "`separator:`)",
            id="tabs",
        ),
        pytest.param(
            GOOD.replace("3,4,1034,5", "3,4,1034,5,9").encode(),
            f"log.csv: 1 of 20 lines do not have the 4 fields of the first: line 21 has 5 ({HOLDS})",
            id="a line too long",
        ),
        pytest.param(
            GOOD.replace("0,1,1001,2", "0,1,1001").replace("3,4,1034,5", "3").encode(),
            "log.csv: 2 of 20 lines do not have the 4 fields of the first: line 3 has 3; line 21 has 1 (is the "
            f"file whole? {HOLDS})",
            id="lines too short",
        ),
        pytest.param(
            GOOD.replace("0,1,", '0,"1,').encode(),
            "log.csv cannot be read as csv: quotation marks do not pair",
            id="a quote that does not close",
        ),
        pytest.param(
            GOOD.replace("0,1,", "0,é,").encode("latin-1"),
            "log.csv is not utf-8: byte 35, in line 3, is 0xe9 (convert it to UTF-8, or set `encoding: latin-1` "
            "where that is what it is)",
            id="latin-1",
        ),
        pytest.param(
            GOOD.encode("utf-16"), "log.csv is UTF-16, not UTF-8 (convert it to UTF-8)", id="utf-16"
        ),
        pytest.param(
            b"user,item,time,rating\n1,2,3,4\n" + bytes(range(256)),
            "log.csv is no text: byte 30 is 0x00 (is this the right file, and is it whole?)",
            id="binary",
        ),
        pytest.param(
            b"\x89PNG\r\n\x1a\n" + bytes(99), "log.csv is a picture (expected a text file)", id="a picture"
        ),
        pytest.param(
            b"PK\x03\x04" + bytes(99),
            "log.csv is a zip archive (or a spreadsheet) (unpack it, or save it as CSV)",
            id="zip",
        ),
        pytest.param(
            gzip.compress(GOOD.encode())[:60],
            "log.csv is no whole gzip file: Compressed file ended before the end-of-stream marker was reached "
            "(copy or download it again)",
            id="half a gzip",
        ),
        pytest.param(
            GOOD.replace("\n", "\r").encode(),
            "log.csv ends its lines with a bare carriage return (convert them to newlines)",
            id="carriage returns",
        ),
        pytest.param(
            GOOD.replace("1000", "soon").replace("1011", "yesterday").replace("1034", "").encode(),
            [
                f"log.csv: column 'time': 1 of 20 rows have no time: row 20: None {FILL}",
                f"log.csv: column 'time': 2 of 20 times are none, {ISO}: row 1: 'soon'; row 7: 'yesterday' {FORMAT}",
            ],
            id="bad times",
        ),
        pytest.param(
            GOOD.replace("1000", "2020-13-01").encode(),
            f"log.csv: column 'time': 1 of 20 times are none, {ISO}: row 1: '2020-13-01' {FORMAT}",
            id="mixed types",
        ),
        pytest.param(
            GOOD.replace("1000,1", "1000,NaN").replace("1034,5", "1034,").encode(),
            [
                f"log.csv: column 'rating': 1 of 20 rows have no rating: row 20: None {FILL}",
                "log.csv: column 'rating': 1 of 20 rows have a rating that is no number: row 1: 'NaN'",
            ],
            id="NaN in a rating",
        ),
        pytest.param(
            GOOD.replace("0,1,1001", ",1,1001").replace("3,4,1034", "3,,1034").encode(),
            [
                f"log.csv: column 'user': 1 of 20 rows have no user: row 2: None {FILL}",
                f"log.csv: column 'item': 1 of 20 rows have no item: row 20: None {FILL}",
            ],
            id="ids that are missing",
        ),
    ],
)
def test_files_that_are_no_log(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, told: str | list[str]
) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    got = refused(home, tmp_path, capsys, "log.csv", **TIMED)
    if isinstance(told, str) and "do not pair" in told:  # polars's own words follow
        assert len(got) == 1
        assert got[0].startswith(told)
        assert got[0].endswith(
            "(where they are characters like any other, set `format: tsv` and `separator: ','`, which quotes "
            "nothing)"
        )
    else:
        assert got == ([told] if isinstance(told, str) else told)


def test_missing_columns_and_bad_rows_are_told_together(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two columns that are not there, a time that is none, and a table that is missing: one go, four lines."""
    (tmp_path / "log.csv").write_text(GOOD.replace("1000", "soon"))
    got = refused(
        *(home, tmp_path, capsys, "log.csv"),
        user="usr",
        time="time",
        rating="stars",
    )
    assert got == [
        "log.csv has no column 'usr' (did you mean 'user'?)",
        "log.csv has no column 'stars' (known: item, rating, time, user)",
        f"log.csv: column 'time': 1 of 20 times are none, {ISO}: row 1: 'soon' {FORMAT}",
    ]


def test_problems_of_several_files_are_told_together(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "b.csv").write_text(GOOD.replace("user", "usr", 1))
    got = refused(home, tmp_path, capsys, ["a.csv", "b.csv", "c.csv"])  # type: ignore[arg-type]  # a list, too
    assert got == [
        "a.csv is empty",
        "b.csv has no column 'user' (did you mean 'usr'?)",
        "c.csv is not there (did you mean 'b.csv'?)",
    ]


def test_a_file_that_is_missing_and_a_folder(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    (tmp_path / "days").mkdir()
    assert refused(home, tmp_path, capsys, "lgo.csv") == ["lgo.csv is not there (did you mean 'log.csv'?)"]
    assert refused(home, tmp_path, capsys, "no/log.csv") == ["no/log.csv is not there (nor its folder)"]
    assert refused(home, tmp_path, capsys, "days") == [
        "days is a folder, expected a file (for all files in it: days/*)"
    ]
    assert refused(home, tmp_path, capsys, "*.tsv") == ["no file fits *.tsv"]


def test_files_with_types(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = walks().with_columns(rating=pl.lit(float("nan")))
    frame.write_parquet(tmp_path / "log.parquet")
    rows = len(frame)
    assert refused(home, tmp_path, capsys, "log.parquet", rating="rating") == [
        f"log.parquet: column 'rating': {rows} of {rows} rows have a rating that is no number: row 1: nan; row 2: "
        "nan; row 3: nan"
    ]
    (tmp_path / "half.parquet").write_bytes((tmp_path / "log.parquet").read_bytes()[:200])
    (only,) = refused(home, tmp_path, capsys, "half.parquet")
    assert only.startswith("half.parquet cannot be read as parquet: ")
    (tmp_path / "none.parquet").write_bytes(b"")
    assert refused(home, tmp_path, capsys, "none.parquet") == ["none.parquet is empty"]
    (tmp_path / "log.csv").write_bytes((tmp_path / "log.parquet").read_bytes())
    assert refused(home, tmp_path, capsys, "log.csv") == ["log.csv is a Parquet file (set `format: parquet`)"]
    lines = '{"user": 1, "item": 2, "rating": 3}\n{"user": 1, "item": 3, "rating": "five"}\n'
    (tmp_path / "log.jsonl").write_text(lines)
    assert refused(home, tmp_path, capsys, "log.jsonl", rating="rating") == [
        "log.jsonl: column 'rating': 1 of 2 rows have a rating that is no number: row 2: 'five'"
    ]


@pytest.mark.parametrize(
    ("content", "form", "told"),
    [
        (b"", "pairs", "log.txt is empty"),
        (b"1 2\n1 3\n2 7 8\n", "pairs", "log.txt: expected lines of `user item`, but 1 of 3 lines have another number "
            "of fields: line 3 is '2 7 8' (3 fields) (for a line per user, `user item item …`, set `form: lines`)"),
        (b"1,2\n1,3\n", "pairs", "log.txt: expected lines of `user item`, but 2 of 2 lines have another number of "
            "fields: line 1 is '1,2' (1 fields); line 2 is '1,3' (1 fields) (columns with other marks between them "
            "are read by `events`)"),
        (b"1 2 3\n1 4 5\n", "lines", "log.txt: expected a line per user, but 1 users have several lines: line 1 is "
            "'1 2 3' (3 fields); line 2 is '1 4 5' (3 fields) (for a line per event, `user item`, set `form: pairs`)"),
        (b"1 2\n1 \xff\n", "pairs", "log.txt is not utf-8: byte 6, in line 2, is 0xff (convert it to UTF-8)"),
        (b"1 2\n\0\0\0\0", "pairs", "log.txt is no text: byte 4 is 0x00 (is this the right file, and is it whole?)"),
        (b"1 2\n" * 20_000 + b"\0\0", "pairs", "log.txt is no text: line 20001 holds a zero byte (is it whole?)"),
    ],
)  # fmt: skip
def test_sequences_that_are_none(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, form: str, told: str
) -> None:
    (tmp_path / "log.txt").write_bytes(content)
    (tmp_path / "mine.yaml").write_text(
        f"recore: 1\nextends: {home / 'tiny.yaml'}\ndata: {{use: recore-data:sequences, path: log.txt, form: {form}}}\n"
    )
    status, out, err = main(capsys, "run", tmp_path / "mine.yaml", "--runs", tmp_path / "runs")
    assert (status, out, err.replace(f"{tmp_path}/", "")) == (2, "", f"{told}\n")
    assert not (tmp_path / "runs").exists()


def test_the_same_log_in_many_dresses(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A byte order mark, CR LF, gzip, blank lines and quotation marks change nothing: one fingerprint."""
    import json

    dresses = {
        "plain.csv": GOOD.encode(),
        "bom.csv": b"\xef\xbb\xbf" + GOOD.encode(),
        "crlf.csv": GOOD.replace("\n", "\r\n").encode(),
        "packed.csv.gz": gzip.compress(GOOD.encode()),
        "named.csv": gzip.compress(GOOD.encode()),
        "blank.csv": GOOD.replace("\n", "\n\n").encode(),
        "quoted.csv": "\n".join(
            ",".join(f'"{field}"' for field in line.split(",")) for line in GOOD.splitlines()
        ).encode(),
    }
    prints = set()
    for name, content in dresses.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / "mine.yaml").write_text(
            f"recore: 1\nextends: {home / 'tiny.yaml'}\ntrainer: {{epochs: 1}}\n"
            f"data: {{path: {name}, items: ~, time: time, rating: rating}}\n"
        )
        status, out, err = main(capsys, "run", tmp_path / "mine.yaml", "--runs", tmp_path / "runs", "--quiet")
        assert (status, err) == (0, ""), (name, err)
        record = json.loads((Path(out.strip()) / "record.json").read_text())
        prints.add(record["card"]["protocol"]["data"]["fingerprint"])
        assert record["counts"].get("blank lines skipped", 0) == (21 if name == "blank.csv" else 0)
    assert len(prints) == 1
