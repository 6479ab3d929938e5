"""Fields a line, counted two ways and by a slow oracle; and what the reader does with lines that are not even."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_data.events import build
from recore_data.options import Events
from recore_data.ragged_lines import count_fields, told

from recore import Context, DataError

FIELD = st.text("ab c1.", max_size=3)
ROWS = st.lists(st.lists(FIELD, max_size=5), min_size=1, max_size=12)


@given(rows=ROWS, separator=st.sampled_from([",", "\t", "::"]), header=st.booleans())
@settings(deadline=None, max_examples=100)
def test_fields_are_counted_line_by_line(rows: list[list[str]], separator: str, header: bool) -> None:
    lines = [separator.join(row) for row in rows]
    counted = count_fields("\n".join(lines) + "\n", separator, None, header)
    wanted = [0 if not line.strip(" \r") else len(line.split(separator)) for line in lines]
    assert counted.fields.to_list() == wanted[header:]
    assert counted.line.to_list() == list(range(1 + header, len(lines) + 1))
    assert counted.expected == wanted[0]
    odd = [count for count in wanted[header:] if count not in (0, wanted[0])]
    assert int(counted.wrong().sum()) == len(odd)
    assert bool(told("x", counted)) == bool(odd)


@given(rows=st.lists(st.lists(st.text('a,"\n', max_size=4), min_size=2, max_size=4), min_size=1, max_size=8))
@settings(deadline=None, max_examples=100)
def test_quoted_fields_may_hold_anything(rows: list[list[str]]) -> None:
    """Separators, quotation marks and ends of lines inside quotation marks are no fields and no lines."""
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    text = out.getvalue()
    counted = count_fields(text, ",", '"', header=False)
    assert counted.fields.to_list() == [len(row) for row in rows]
    lines = [1]
    for row in rows:
        lines.append(lines[-1] + 1 + sum(field.count("\n") for field in row))
    assert counted.line.to_list() == lines[:-1]


@pytest.mark.parametrize("columns", [["user", "item"], ["user", "item", "time"]])
def test_a_short_line_is_refused_though_what_it_lacks_is_not_read(tmp_path: Path, columns: list[str]) -> None:
    (tmp_path / "a.csv").write_text("user,item,time,note\n1,2,3,x\n1,3,4\n1,4,5,\n")
    with pytest.raises(DataError, match="1 of 3 lines do not have the 4 fields of the first: line 3 has 3"):
        build(Events(tmp_path / "a.csv", time=columns[2] if len(columns) > 2 else None), Context()).load(
            Context()
        )


def test_empty_last_fields_are_no_short_lines(tmp_path: Path) -> None:
    """RetailRocket's last column is empty nearly everywhere."""
    (tmp_path / "a.csv").write_text("user,item,transaction\n1,2,\n\n1,3,\n2,4,9\n")
    log = build(Events(tmp_path / "a.csv"), Context()).load(Context())
    assert log.events.select("user", "item").rows() == [(1, 2), (1, 3), (2, 4)]
    assert log.counts["blank lines skipped"] == 1
