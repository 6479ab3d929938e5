"""`recore new-recipe`: strangers' files in many dialects become recipes that run, or are refused with what was seen.

The same log is written in many forms; whatever recipe comes out has to read exactly that log.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from engine_helpers import main
from hypothesis import given, settings
from hypothesis import strategies as st

import recore
from recore.component import Context
from recore.newrecipe.choose import CE_ITEMS, choose
from recore.newrecipe.findings import Findings
from recore.newrecipe.look import Flags, look
from recore.newrecipe.moments import read_moments
from recore.newrecipe.words import by_name, plain, typed_header
from recore.recipe import make_builder

Row = tuple[int, int, int, int]
Make = Callable[..., tuple[int, str, str]]


def log(users: int = 40, items: int = 25, seed: int = 0) -> list[Row]:
    """User, item, rating, time: grouped by user, in order of time within each, items by their popularity."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for user in range(users):
        at = int(random.integers(1_500_000_000, 1_600_000_000))
        for _ in range(int(random.integers(3, 12))):
            at += int(random.integers(1, 4000))
            rows.append((user + 100, int(random.zipf(1.5)) % items + 1, int(random.integers(1, 6)), at))
    return rows


GROUPED = log()
SHUFFLED = [GROUPED[n] for n in np.random.default_rng(1).permutation(len(GROUPED))]
HEADER = ("userId", "movieId", "rating", "timestamp")


def text(rows: Sequence[Sequence[Any]], separator: str = ",", header: Sequence[str] = (), **how: Any) -> str:
    """Rows as delimited text."""
    if len(separator) > 1:
        return "".join(separator.join(map(str, row)) + "\n" for row in [*([header] if header else []), *rows])
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n", **how)
    writer.writerows([*([header] if header else []), *rows])
    return out.getvalue()


@pytest.fixture
def new(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Make:
    """`new(name, content, *flags)`: the command in an empty folder: status, output, complaints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECORE_DATA", raising=False)

    def make(name: str, content: str | bytes, *flags: str) -> tuple[int, str, str]:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        before = {path.name for path in tmp_path.iterdir()}
        status, out, err = main(capsys, "new-recipe", name, "--out", "mine.yaml", "--no-estimate", *flags)
        # One file more, whole, or none; nothing is left aside.
        assert {path.name for path in tmp_path.iterdir()} == before | (
            {"mine.yaml"} if status == 0 else set()
        )
        return status, out, err

    return make


def read(recipe: Path) -> pl.DataFrame:
    """The log that a recipe reads."""
    loaded = recore.load(recipe)
    context = Context(facts=loaded.facts, builder=make_builder(loaded.plugins))
    interactions: Any = context.build(loaded.data).load(context)
    events: pl.DataFrame = interactions.events
    return events


def option(name: str) -> Any:
    """An option of the dataset that the recipe chose."""
    return getattr(recore.load("mine.yaml").data.options, name)


def triples(events: pl.DataFrame) -> list[tuple[Any, ...]]:
    """User, item, time of each event, in order of the user's id and the time."""
    columns = ["user", "item", *(["time"] if "time" in events.columns else [])]
    return sorted(events.select(pl.col(columns).cast(pl.Int64)).rows())


WANTED = sorted((user, item, at) for user, item, _, at in GROUPED)


# ---- dialects --------------------------------------------------------------------------------------------

DIALECTS: dict[str, tuple[str, bytes]] = {
    "comma": ("a.csv", text(GROUPED, header=HEADER).encode()),
    "tab": ("a.tsv", text(GROUPED, "\t", HEADER).encode()),
    "semicolon": ("a.csv", text(GROUPED, ";", HEADER).encode()),
    "pipe": ("a.txt", text(GROUPED, "|", ("user", "item", "stars", "ts")).encode()),
    "two colons": ("ratings.dat", text(GROUPED, "::").encode()),
    "tab, no names, shuffled": ("u.data", text(SHUFFLED, "\t").encode()),
    "comma, no names, shuffled": ("a.csv", text(SHUFFLED).encode()),
    "spaces": ("a.txt", text(GROUPED, " ").encode()),
    "RecBole": (
        "a.inter",
        text(GROUPED, "\t", ("user_id:token", "item_id:token", "rating:float", "timestamp:float")).encode(),
    ),
    "Amazon": ("a.csv", text(GROUPED, header=("reviewerID", "asin", "overall", "unixReviewTime")).encode()),
    "shop": ("a.csv", text(GROUPED, header=("Customer ID", "SKU", "Score", "Created_At")).encode()),
    "visitors": ("a.csv", text(GROUPED, header=("visitorid", "itemid", "stars", "timestamp")).encode()),
    "sessions": ("a.csv", text(GROUPED, header=("session_id", "track_id", "rating", "time")).encode()),
    "another order": (
        "a.csv",
        text([(at, item, user) for user, item, _, at in GROUPED], header=("ts", "product_id", "uid")).encode(),
    ),
    "no names, item first": ("a.csv", text([(i, u, at) for u, i, _, at in SHUFFLED]).encode()),
    "byte order mark, CR LF": (
        "a.csv",
        b"\xef\xbb\xbf" + text(GROUPED, header=HEADER).replace("\n", "\r\n").encode(),
    ),
    "gzip": ("a.csv.gz", gzip.compress(text(GROUPED, header=HEADER).encode())),
    "everything quoted": ("a.csv", text(GROUPED, header=HEADER, quoting=csv.QUOTE_ALL).encode()),
    "tabs, quoted": ("a.tsv", text(GROUPED, "\t", HEADER, quoting=csv.QUOTE_ALL).encode()),
    "blank lines at the end": ("a.csv", (text(GROUPED, header=HEADER) + "\n\n").encode()),
    "a column of row numbers": (
        "a.csv",
        text([(n, *row) for n, row in enumerate(GROUPED)], header=("", *HEADER)).encode(),
    ),
    "text with separators": (
        "a.csv",
        text([(*row, 'a, "b";\n| c') for row in GROUPED], header=(*HEADER, "review")).encode(),
    ),
    "JSON lines": (
        "a.jsonl",
        "".join(
            json.dumps({"reviewerID": u, "asin": i, "overall": float(r), "unixReviewTime": at}) + "\n"
            for u, i, r, at in GROUPED
        ).encode(),
    ),
    "JSON lines, gzip": (
        "a.json.gz",
        gzip.compress(
            "".join(json.dumps({"user": u, "item": i, "ts": at}) + "\n" for u, i, _, at in GROUPED).encode()
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DIALECTS))
def test_dialects_are_read_as_the_log_that_they_hold(new: Make, name: str) -> None:
    status, out, err = new(*DIALECTS[name])
    assert (status, err) == (0, ""), err
    assert triples(read(Path("mine.yaml"))) == WANTED
    assert "mine.yaml: written and checked" in out
    if "no names" in name or name in ("two colons", "spaces"):
        # A guess is stated, in the recipe too.
        assert "guessed by content" in out
        assert "guessed by content" in Path("mine.yaml").read_text()
    else:
        assert "guessed" not in out


def test_parquet(new: Make) -> None:
    held = io.BytesIO()
    pl.DataFrame(GROUPED, schema=["user", "item", "rating", "when"], orient="row").with_columns(
        pl.from_epoch("when")
    ).write_parquet(held)
    for name in ("a.parquet", "a.data"):
        status, out, err = new(name, held.getvalue(), "--force")
        assert (status, err) == (0, "")
        assert triples(read(Path("mine.yaml"))) == WANTED
        assert "dates and times" in out


@pytest.mark.parametrize("form", ["pairs", "lines", "pairs by tab", "pairs, item first"])
def test_sequences(new: Make, form: str) -> None:
    wanted = [(user, item) for user, item, _, _ in GROUPED]
    if form == "lines":
        found: dict[int, list[int]] = {}
        for user, item in wanted:
            found.setdefault(user, []).append(item)
        content = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in found.items())
    elif form == "pairs, item first":
        content = "".join(f"{item} {user}\n" for user, item in wanted)
    else:
        content = text(wanted, "\t" if "tab" in form else " ")
    status, out, err = new("a.txt", content)
    assert (status, err) == (0, "")
    events = read(Path("mine.yaml"))
    assert [(int(user), int(item)) for user, item in events.select("user", "item").rows()] == wanted
    assert "none: the order of the file is the order; across users unknown" in out
    use = recore.load("mine.yaml").data.name
    assert use == ("recore-data:events" if "first" in form else "recore-data:sequences")


def test_lines_of_one_length_are_a_question(new: Make) -> None:
    random = np.random.default_rng(0)
    content = "".join(f"{user} {' '.join(map(str, random.integers(1, 9, 4)))}\n" for user in range(20))
    assert new("a.txt", content) == (
        2,
        "",
        "a.txt: every line has 5 fields, the first of which never repeats: a table of events, or a line per user "
        "(`user item item …`)? (say --form table or --form lines)\n",
    )
    status, _, _ = new("a.txt", content, "--form", "lines")
    assert status == 0
    assert read(Path("mine.yaml")).height == 80


# ---- times -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "told", "format"),
    [
        (lambda at: at, "seconds since 1970", None),
        (lambda at: at * 1000 + 7, "milliseconds since 1970", None),
        (
            lambda at: datetime.fromtimestamp(at, UTC).isoformat(),
            "dates and times, as ISO 8601 has them",
            None,
        ),
        (
            lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d"),
            "dates without a time of day, as ISO 8601 has them",
            None,
        ),
        (
            lambda at: datetime.fromtimestamp(at, UTC).strftime("%d/%m/%Y %H:%M"),
            "dates and times, written %d/%m/%Y %H:%M",
            "%d/%m/%Y %H:%M",
        ),
        (
            lambda at: datetime.fromtimestamp(at, UTC).strftime("%m/%d/%Y"),
            "dates without a time of day, written %m/%d/%Y",
            "%m/%d/%Y",
        ),
        (
            lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y%m%d"),
            "dates without a time of day, written %Y%m%d",
            "%Y%m%d",
        ),
        (lambda at: (at - 1_500_000_000) // 60, "numbers of a clock of their own", None),
    ],
)
def test_times_as_they_are_written(
    new: Make, written: Callable[[int], Any], told: str, format: str | None
) -> None:
    rows = [(user, item, written(at)) for user, item, _, at in GROUPED]
    status, out, err = new("a.csv", text(rows, header=("user", "item", "time")))
    assert (status, err) == (0, "")
    assert told in out
    assert option("time_format") == format
    if "without a time of day" in told:  # ties are what dates without a time of day bring
        assert "events share their time with another of the same user" in out
        assert option("ties") == "file"


def test_a_date_that_reads_in_two_ways_is_a_question(new: Make) -> None:
    rows = [(user, item, f"0{1 + item % 9}/0{1 + user % 9}/2011") for user, item, _, _ in GROUPED]
    content = text(rows, header=("customer", "sku", "date"))
    status, out, err = new("a.csv", content)
    assert (status, out) == (2, "")
    assert err.startswith("a.csv: column 'date' (0")
    assert err.endswith(
        "reads as %d/%m/%Y and as %m/%d/%Y alike (say --time-format '%d/%m/%Y' or --time-format '%m/%d/%Y')\n"
    )
    assert new("a.csv", content, "--time-format", "%d/%m/%Y")[0] == 0
    assert option("time_format") == "%d/%m/%Y"


def test_rows_out_of_order_and_clocks_of_their_own(new: Make) -> None:
    """Ties in a file that is not in order of time are broken by a hash; where every user's clock begins anew,
    nothing orders events of different users."""
    rows = [(user, item, at // 3600 * 3600) for user, item, _, at in SHUFFLED]
    assert new("a.csv", text(rows, header=("user", "item", "time")))[0] == 0
    assert option("ties") == "hash"
    starts = {user: min(at for who, _, _, at in GROUPED if who == user) for user, _, _, _ in GROUPED}
    rows = [(user, item, at - starts[user]) for user, item, _, at in GROUPED]
    status, out, _ = new("a.csv", text(rows, header=("user", "item", "time")), "--force")
    assert status == 0
    assert option("order_across_users") is False
    assert "each has a clock of their own" in out


def test_an_unnamed_column_that_rises_is_the_time(new: Make) -> None:
    rows = [(user, item, at - 1_500_000_000) for user, item, _, at in GROUPED]
    status, out, _ = new("a.csv", text(rows))
    assert status == 0
    assert "column 3: guessed by content: it rises within each user" in out


@given(at=st.integers(100_000_001, 4_199_999_999), unit=st.sampled_from(["s", "ms", "us", "ns"]))
@settings(deadline=None, max_examples=50)
def test_units_of_numbers(at: int, unit: str) -> None:
    size = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    found = read_moments(pl.Series([str(at * size)]))
    # 8 digits that are a date are one: 2001 01 01 seconds is August 1970, before the earliest time.
    assert found is not None
    assert found.unit == unit


# ---- refused ---------------------------------------------------------------------------------------------

IDS_ONLY = [(f"u{user}", f"i{item}") for user, item, _, _ in GROUPED]


@pytest.mark.parametrize(
    ("name", "content", "flags", "told"),
    [
        ("a.csv", b"", (), "a.csv is empty"),
        ("a.csv", b"user,item\n", (), "a.csv holds column names but no rows"),
        ("a.csv", bytes(range(256)), (), "a.csv is no text: byte 0 is 0x00 (is this the right file, and is it whole?)"),
        ("a.csv", text(GROUPED).encode("utf-16"), (), "a.csv is UTF-16, not UTF-8 (convert it to UTF-8)"),
        ("a.csv", "user,item\nü,1\n".encode("latin-1"), (), "a.csv is not utf-8: byte 10, in line 2, is 0xfc (convert "
            "it to UTF-8, or say --encoding latin-1 where that is what it is)"),
        ("a.csv", b"hello\nworld\n", (), "a.csv: no separator is to be seen: line 1 is 'hello' (expected a comma, tab, "
            "semicolon, pipe, `::` or space)"),
        ("a.csv", text(IDS_ONLY, header=("who", "what")), (), "a.csv: whether the first line holds names cannot be "
            "told: ['who', 'what'] (say --user COL --item COL where it does, or --no-header)"),
        ("a.csv", text(GROUPED, header=HEADER), ("--user", "usr"), "a.csv: --user usr: no such column; it has userId, "
            "movieId, rating, timestamp (did you mean 'userId'?)"),
        ("a.csv", text(GROUPED, header=HEADER), ("--user", "movieId", "--item", "movieId"),
            "a.csv: movieId cannot be two things at once"),
        ("a.csv", text(GROUPED, header=HEADER), ("--separator", ";"), "a.csv: the separator ';' is not in its first "
            "line, 'userId,movieId,rating,timestamp'"),
        ("a.csv", text(GROUPED, header=HEADER) + "1,2\n", (), f"a.csv: 1 of the first {len(GROUPED) + 2} lines do "
            f"not have the 4 fields of the others (comma between them): line {len(GROUPED) + 2} has 2 (fields that "
            "hold the separator belong in quotation marks; is the file whole?)"),
        ("a.csv", "user,item\n" + "".join(f"{u},{i}\n" for u in range(9) for i in (1, 2)), (), "a.csv: no user has 3 "
            "events, one each to train on, to validate and to test; the most is 2 (is this column the user? "
            "--user COL)"),
        ("a.txt", "".join(" ".join(map(str, [7, *range(n)])) + "\n" for n in (2, 3, 4)), (), "a.txt: lines have "
            "different numbers of fields (line 1 has 3; line 2 has 4; line 3 has 5), and the first field repeats, so "
            "it is no user's line (expected a table, or a line per user `user item item …`)"),
        ("a.csv", text([(u, i, i % 5) for u, i, _, _ in GROUPED], header=("user", "track_id", "artist_id")), (),
            "a.csv: 2 columns may be the item: track_id (2, 14, 5, …); artist_id (2, 4, 0, …) (say --item COL)"),
    ],
)  # fmt: skip
def test_refused_with_what_was_seen(
    new: Make, name: str, content: str | bytes, flags: tuple[str, ...], told: str
) -> None:
    assert new(name, content, *flags) == (2, "", f"{told}\n")


def test_two_columns_of_ids_that_nothing_tells_apart(new: Make) -> None:
    content = text([(user, item) for user, item, _, _ in SHUFFLED])
    status, out, err = new("a.csv", content)
    assert (status, out) == (2, "")
    assert err.startswith(
        "a.csv: which column is the user and which the item cannot be told: nothing in them tells the user from the "
        f"item (saw {len(SHUFFLED)} rows; column 1: "
    )
    assert err.endswith("(say which, as in --user 1 --item 2; columns count from 1)\n")
    assert new("a.csv", content, "--user", "1", "--item", "2")[0] == 0
    assert read(Path("mine.yaml"))["user"].min() == 100
    assert new("a.csv", content, "--user", "2", "--item", "1", "--force")[0] == 0
    assert read(Path("mine.yaml"))["item"].min() == 100


def test_two_separators_that_fit_alike(new: Make) -> None:
    content = "".join(f"a{user};{item},c\n" for user, item, _, _ in GROUPED)
    status, _, err = new("a.csv", content)
    assert status == 2
    assert err.startswith("a.csv: two separators fit equally well: ")
    assert err.endswith("(say --separator S)\n")


def test_what_the_dataset_refuses_is_refused(new: Make) -> None:
    """The whole file is read by the part that will read it, and its words are the words."""
    bad = text(GROUPED, header=HEADER).replace(str(GROUPED[3][3]), "soon").replace(str(GROUPED[9][3]), "")
    assert new("a.csv", bad) == (
        2,
        "",
        f"a.csv: column 'timestamp': 1 of {len(GROUPED)} rows have no timestamp: row 10: None (remove them, or fill "
        "them in)\n".replace("no timestamp", "no time")
        + f"a.csv: column 'timestamp': 1 of {len(GROUPED)} times are none, expected numbers or ISO 8601: row 4: "
        "'soon' (set `time_format:` if dates are written in another way)\n"
        "no recipe was written (options such as `time_format:` are flags here: --time-format, --encoding, "
        "--separator)\n",
    )


def test_ratings_that_are_missing_are_left_out(new: Make) -> None:
    rows: list[tuple[Any, ...]] = [
        (*row[:2], "" if n == 5 else row[2], row[3]) for n, row in enumerate(GROUPED)
    ]
    status, out, _ = new("a.csv", text(rows, header=HEADER))
    assert status == 0
    assert option("rating") is None
    assert (
        f"ratings are not read: a.csv: column 'rating': 1 of {len(rows)} rows have no rating: row 6: None"
        in out
    )
    status, _, err = new("a.csv", text(rows, header=HEADER), "--rating", "rating", "--force")
    assert status == 2
    assert "rows have no rating" in err


def test_places_that_cannot_be_written(
    new: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = text(GROUPED, header=HEADER)
    assert new("a.csv", content)[0] == 0
    Path("mine.yaml").write_text("mine")

    def told(*arguments: str) -> tuple[int, str]:
        status, _, err = main(capsys, "new-recipe", *arguments, "--no-estimate")
        return status, err

    there = "mine.yaml is there already (--force writes over it, --out FILE elsewhere)\n"
    assert told("a.csv", "--out", "mine.yaml") == (2, there)
    assert Path("mine.yaml").read_text() == "mine"
    assert told("a.csv", "--out", "a.csv", "--force") == (2, "a.csv is the data itself (say --out FILE)\n")
    assert told("a.csv", "--out", "no/x.yaml") == (2, "no is no folder\n")
    assert told("a.csv", "--out", ".") == (2, ". is a folder, expected a file (say --out FILE)\n")
    assert told("b.csv") == (2, "b.csv is not there (did you mean 'a.csv'?)\n")
    assert told("a.csv")[0] == 0
    assert Path("a.yaml").is_file()  # the default: the stem, in the working folder

    # A disk that is full after the first bytes: the recipe that was there stays.
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "recore.newrecipe.make.os.fdopen", lambda handle, *more, **how: (os.close(handle), Full())[1]
    )
    assert told("a.csv", "--out", "mine.yaml", "--force") == (
        2,
        "mine.yaml cannot be written: No space left on device\n",
    )
    assert Path("mine.yaml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.yaml", "mine.yaml"]


# ---- what is chosen --------------------------------------------------------------------------------------


def found(**changes: Any) -> Findings:
    """Findings of a middling log, some of them changed."""
    plain_log: dict[str, Any] = {
        "events": 100_000, "users": 2_000, "items": 5_000, "training": 96_000, "tested": 2_000, "mean": 50.0,
        "lengths": {50: 40, 90: 80, 95: 110, 100: 900}, "short": 0, "rare_users": 0, "rare_items": 0, "times": True,
        "first": 0.0, "last": 1.0, "tied": 0, "equal": 0, "in_order": True, "clocks": False, "repeats": 0.0, "runs": 0,
        "repeated_targets": 0, "cold_targets": 0, "ratings": None, "histories": np.full(2_000, 48),
    }  # fmt: skip
    return Findings(**{**plain_log, **changes})


def test_the_loss_by_the_size_of_the_catalogue() -> None:
    small = choose(found(items=CE_ITEMS), 1e11)
    assert (small.loss.value, small.sampler) == ("ce", None)
    # 100,000 items × 2,000 · 47 predictions × 64 × 6 operations, at 1e11 a second.
    assert (
        "100,000 items × 94,000 predictions × 64 × 6 = 3.61 TFLOP an epoch, about 36 s here" in small.loss.why
    )
    assert "98 MiB" in small.loss.why  # 16 bytes × 100,000 × 64
    large = choose(found(items=CE_ITEMS + 1), 1e11)
    assert large.loss.value == "bce"
    assert large.sampler is not None
    assert large.sampler.value == {"count": 16, "exclude": "history"}
    again = choose(found(items=10**6, repeated_targets=1_000), 1e11)
    assert again.sampler is not None
    assert again.sampler.value["exclude"] == "target"


def test_the_other_choices() -> None:
    chosen = choose(found(), 1e11)
    assert chosen.history.value == 150  # 95% have at most 110
    assert choose(found(lengths={50: 1, 90: 3, 95: 4, 100: 9}), 1e11).history.value == 10
    assert choose(found(lengths={50: 1, 90: 3, 95: 4_000, 100: 9_000}), 1e11).history.value == 200
    assert chosen.seen.value == "history"
    assert choose(found(repeated_targets=199), 1e11).seen.value == "history"
    assert choose(found(repeated_targets=200), 1e11).seen.value == "none"
    assert chosen.ties is None
    assert [choose(found(events=n), 1e11).epochs.value for n in (10**5, 10**6, 10**7, 10**8)] == [
        200,
        100,
        40,
        15,
    ]
    assert [choose(found(users=n), 1e11).users.value for n in (10, 3_000, 10**6)] == [32, 64, 512]


def test_repeats_and_ratings_are_told(new: Make) -> None:
    rows = [(user, item, 1 + n % 5, at) for n, (user, item, _, at) in enumerate(GROUPED)]
    status, out, _ = new("a.csv", text(rows, header=HEADER))
    assert status == 0
    words = Path("mine.yaml").read_text()
    assert "Ratings from 1 to 5 are explicit" in words
    assert "#   - {use: recore-data:rating-at-least, least: 4}" in words
    assert "#   - {use: recore-data:collapse-repeats}" in words
    assert "seen: none" in words  # zipf: most targets were there before
    assert "of 40 test targets" in out
    # What stands ready in comments is right when it is taken out of them.
    ready = words.replace("# transforms:", "transforms:").replace("#   - {use", "  - {use")
    Path("ready.yaml").write_text(ready)
    assert [part.name for part in recore.load("ready.yaml").transforms] == [
        "recore-data:rating-at-least",
        "recore-data:collapse-repeats",
        "recore-data:k-core",
    ]


def test_every_part_goes_by_its_qualified_name(new: Make) -> None:
    import re

    assert new("a.csv", text(GROUPED, header=HEADER))[0] == 0
    uses = re.findall(r"use: ([\w:-]+)", Path("mine.yaml").read_text())
    assert len(uses) >= 12
    assert all(re.fullmatch(r"recore-[a-z]+:[a-z-]+", use) for use in uses)


def test_awkward_names(new: Make) -> None:
    """Names with spaces, colons, quotes and letters of other scripts come through the YAML as they are."""
    header = ('user id: "é"', "’item’ #1", "no", "2020-01-01")
    status, _, err = new(
        "a, b [1] ü.csv", text(GROUPED, header=header),
        "--user", header[0], "--item", header[1], "--rating", "no", "--time", "2020-01-01",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert triples(read(Path("mine.yaml"))) == WANTED


@given(name=st.text(min_size=1, max_size=12))
@settings(deadline=None, max_examples=100)
def test_scalars_come_back(name: str) -> None:
    """Whatever text is written into the recipe is read back as that text."""
    from recore.newrecipe.write import scalar
    from recore.recipe import read_text

    if any(ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 or 0xD800 <= ord(sign) < 0xE000 for sign in name):
        return
    node, problems = read_text(f"key: {scalar(name)}", "x")
    assert problems == []
    assert node is not None
    assert node.mapping is not None
    assert node.mapping["key"].value == name


def test_kinds_of_events_and_sessions_are_told(new: Make) -> None:
    rows = [(user, user // 2, item, ("view", "buy")[stars > 3], at) for user, item, stars, at in GROUPED]
    status, out, _ = new(
        "a.csv", text(rows, header=("session_id", "visitorid", "itemid", "event", "timestamp"))
    )
    assert status == 0
    assert option("user") == "visitorid"
    assert "column 'event' holds kinds of events (view " in out
    assert "column 'session_id' holds sessions: --user 'session_id' makes each a history of its own" in out
    assert new("a.csv", Path("a.csv").read_bytes(), "--user", "session_id", "--force")[0] == 0
    assert triples(read(Path("mine.yaml"))) == WANTED


def test_names() -> None:
    assert [plain(name) for name in ("user_id:token", " User ID", "userId", "USER-ID")] == ["userid"] * 4
    assert typed_header(["a:token", "b:float_seq"])
    assert not typed_header(["a:token", "b"])
    from recore.newrecipe.words import ITEM, USER

    assert by_name(["user_name", "user_id"], USER) == ["user_id"]
    assert by_name(["title", "movieId"], ITEM) == ["movieId"]
    assert by_name(["title"], ITEM) == ["title"]


def test_a_look_reads_the_beginning_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than what is looked at is cut at a line, and reads alike."""
    monkeypatch.setattr("recore.newrecipe.look.HEAD", 2_000)
    (tmp_path / "a.csv").write_text(text(GROUPED, header=HEADER))
    seen = look(tmp_path / "a.csv", Flags())
    assert 50 < seen.sample.height < len(GROUPED)
    assert [tuple(map(int, row)) for row in seen.sample.rows()] == GROUPED[: seen.sample.height]


# ---- it runs ---------------------------------------------------------------------------------------------


def test_what_is_written_runs(new: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert new("my events.csv", text(GROUPED, header=HEADER))[0] == 0
    assert main(capsys, "check", "mine.yaml")[0] == 0
    status, out, err = main(capsys, "run", "mine.yaml", "--set", "trainer.epochs=1", "--quiet")
    assert (status, err) == (0, "")
    record = json.loads((Path(out.strip()) / "record.json").read_text())
    assert record["users"] == 40


def test_a_large_catalogue_runs(
    new: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other loss, with the rule's number made small."""
    monkeypatch.setattr("recore.newrecipe.choose.CE_ITEMS", 10)
    assert new("a.csv", text(GROUPED, header=HEADER))[0] == 0
    recipe = recore.load("mine.yaml")
    assert [part.name for part in recipe.parts() if part.kind in ("loss", "sampler")] == [
        "recore-losses:bce",
        "recore-samplers:uniform",
    ]
    status, _, err = main(capsys, "run", "mine.yaml", "--set", "trainer.epochs=1", "--quiet")
    assert (status, err) == (0, "")


# ---- real data -------------------------------------------------------------------------------------------

REAL = {
    "ml-100k/ml-100k.inter": {
        "use": "recore-data:events", "time": "timestamp:float", "ties": "hash", "last": 200, "loss": "ce",
        "seen": "history", "events": 100_000, "epoch": True,
    },
    "android/events.csv": {
        "use": "recore-data:events", "time": "time", "ties": "file", "last": 30, "loss": "ce", "seen": "history",
        "events": 28_343, "epoch": True,
    },
    "nyc/events.csv": {
        "use": "recore-data:events", "time": "minute", "ties": "file", "last": 200, "loss": "ce", "seen": "none",
        "events": 147_938, "epoch": False,
    },
    "ml-1m/ml-1m.txt": {
        "use": "recore-data:sequences", "last": 200, "loss": "ce", "seen": "history", "events": 999_611, "epoch": False,
    },
    "beauty/Beauty.txt": {
        "use": "recore-data:sequences", "form": "lines", "last": 20, "loss": "ce", "seen": "history",
        "events": 198_502, "epoch": False,
    },
    "beauty-bert4rec/beauty.txt": {
        "use": "recore-data:sequences", "form": "pairs", "last": 20, "loss": "ce", "seen": "history",
        "events": 353_962, "epoch": False,
    },
}  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize("name", list(REAL))
def test_real_data(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe is written and checks; on the small logs an epoch runs."""
    path = Path(os.environ.get("RECORE_DATA", "")) / name
    if "RECORE_DATA" not in os.environ or not path.exists():
        pytest.skip(f"RECORE_DATA does not lead to {name}")
    monkeypatch.chdir(tmp_path)
    status, out, err = main(capsys, "new-recipe", path, "--no-estimate")
    assert (status, err) == (0, "")
    wanted, (written,) = REAL[name], tmp_path.glob("*.yaml")
    assert f"{wanted['events']:,}" in out
    assert f"$RECORE_DATA/{name}" in written.read_text()  # as portable as the data
    recipe = recore.load(written)
    assert recipe.data.name == wanted["use"]
    for key in ("time", "ties", "form"):
        if key in wanted:
            assert getattr(recipe.data.options, key) == wanted[key]
    assert recipe.facts.history == wanted["last"]
    parts = {part.path.partition(".")[0]: part for part in recipe.parts()}
    assert parts["loss"].name == f"recore-losses:{wanted['loss']}"
    assert parts["evaluators"].options.seen == wanted["seen"]
    assert main(capsys, "check", written)[0] == 0
    if wanted["epoch"]:
        status, out, err = main(capsys, "run", written, "--set", "trainer.epochs=1", "--quiet")
        assert (status, err) == (0, "")
        assert (Path(out.strip()) / "record.json").is_file()
