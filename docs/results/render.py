"""Render the results pages from run records: `python docs/results/render.py` (`--check` only compares).

A page is Markdown written by hand, in which two kinds of comment are filled in and never typed:

    <!-- table                        a table, a row per record; `cells: all` takes every cell and seed
    rows: [ml-1m/sasrec-ce]
    columns: {NDCG@10: test.ndcg@10, 95%: interval.ndcg@10, epochs: epochs}
    -->
    …
    <!-- end -->

    <!-- value ml-1m/sasrec-ce/base/seed-0 test.ndcg@10 -->…<!-- end -->     one number in running text

Measurements of `benchmarks/` that are no runs stand in JSON files beside the pages, and are shown likewise:

    <!-- json updates.json            a table, a row per entry of the list `rows`
    rows: days
    columns: {day: day, update: update/ndcg@10}
    -->
    …
    <!-- end -->

    <!-- value updates.json total/update/ndcg@10 -->…<!-- end -->           places in them are written with slashes

A column names a place in the record: `test.…`, `validation.…`, `interval.…` (low to high), `group.NAME.METRIC`,
`paired.METRIC` (difference and interval), `label.…` (text given in the table's `labels:`, by row), or a key.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
TABLE = re.compile(r"<!-- table\n(?P<spec>.*?)-->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
JSON = re.compile(r"<!-- json (?P<file>\S+)\n(?P<spec>.*?)-->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
VALUE = re.compile(r"<!-- value (?P<record>\S+) (?P<place>\S[^>]*?) -->(?P<body>.*?)<!-- end -->")
FORMAT = 1


def load_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Records by `<recipe>/<cell>/seed-<n>`. Raises ValueError for another format or a misplaced record."""
    found = {}
    for path in sorted(folder.rglob("seed-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        name = path.relative_to(folder).with_suffix("").as_posix()
        if record.get("format") != FORMAT:
            raise ValueError(f"{path}: format {record.get('format')}, expected {FORMAT}")
        if name != f"{record['recipe']}/{record['cell']}/seed-{record['seed']}":
            raise ValueError(f"{path}: holds {record['recipe']}/{record['cell']}/seed-{record['seed']}")
        found[name] = record
    return found


def number(value: Any) -> str:
    """A number as the pages show it: four digits below one, three significant ones above, tiny ones by their
    power of ten."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if 0 < abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:,.1f}"


def lookup(record: Mapping[str, Any], place: str, labels: Mapping[str, str] | None = None) -> str:
    """The text of one place in a record."""
    head, _, rest = place.partition(".")
    if head == "label":
        return str((labels or {}).get(rest, ""))
    if head == "interval":
        low, high = record["intervals"][rest]
        return f"{number(low)} to {number(high)}"
    if head == "group":
        group, _, metric = rest.rpartition(".")
        return number(record["groups"][group][metric])
    if head == "paired":
        entry = record.get("paired", {}).get(rest)
        if entry is None:
            return ""
        return f"{entry['difference']:+.4f} ({entry['low']:+.4f} to {entry['high']:+.4f})"
    if head in ("test", "validation"):
        return number(record[head][rest])
    value: Any = record
    for key in place.split("."):
        value = value[key]
    return number(value)


def table(spec: Mapping[str, Any], records: Mapping[str, dict[str, Any]]) -> str:
    """A Markdown table. Raises KeyError when a record that it names is missing."""
    columns: Mapping[str, str] = spec["columns"]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(' --- ' for _ in columns)}|"]
    for row in spec["rows"]:
        names = [name for name in records if name == row or name.startswith(f"{row}/")]
        if not names:
            raise KeyError(f"no record of {row!r}")
        labels = (spec.get("labels") or {}).get(row, {})
        lines += [
            f"| {' | '.join(lookup(records[name], place, labels) for place in columns.values())} |"
            for name in names
        ]
    return "\n".join(lines) + "\n"


def place_in(file: str, path: str) -> Any:
    """What stands at a path, `a/b/0`, of a JSON file beside the pages."""
    value: Any = json.loads((HERE / file).read_text(encoding="utf-8"))
    for key in filter(None, path.split("/")):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def json_table(file: str, spec: Mapping[str, Any]) -> str:
    """A Markdown table of a list in a JSON file. Raises KeyError where a column is missing."""
    columns: Mapping[str, str] = spec["columns"]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(' --- ' for _ in columns)}|"]
    rows: str = spec["rows"]
    for row in range(len(place_in(file, rows))):
        cells = [number(place_in(file, f"{rows}/{row}/{path}")) for path in columns.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def render(page: str, records: Mapping[str, dict[str, Any]]) -> str:
    """The page with every table and value filled in."""

    def filled(match: re.Match[str]) -> str:
        body = table(yaml.safe_load(match["spec"]), records)
        return f"<!-- table\n{match['spec']}-->\n{body}<!-- end -->"

    def value(match: re.Match[str]) -> str:
        file, place = match["record"], match["place"]
        held = file.endswith(".json")
        text = number(place_in(file, place)) if held else lookup(records[file], place)
        return f"<!-- value {match['record']} {match['place']} -->{text}<!-- end -->"

    def from_json(match: re.Match[str]) -> str:
        body = json_table(match["file"], yaml.safe_load(match["spec"]))
        return f"<!-- json {match['file']}\n{match['spec']}-->\n{body}<!-- end -->"

    return VALUE.sub(value, JSON.sub(from_json, TABLE.sub(filled, page)))


def main(arguments: list[str]) -> int:
    """Render all pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description="Render the results pages from run records.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when a page is out of date"
    )
    check: bool = parser.parse_args(arguments).check
    records = load_records(HERE / "records")
    stale = []
    for page in sorted(HERE.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = render(before, records)
        if before != after:
            stale.append(page.name)
            if not check:
                page.write_text(after, encoding="utf-8")
    if stale:
        print(("out of date: " if check else "rendered: ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
