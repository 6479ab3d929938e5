"""Render the results pages from run records: `python docs/results/render.py` (`--check` only compares).

A page is Markdown written by hand, in which two kinds of comment are filled in and never typed:

    <!-- table                        a table, a row per record; `cells: all` takes every cell and seed
    rows: [ml-1m/sasrec-ce]
    columns: {NDCG@10: test.ndcg@10, 95%: interval.ndcg@10, epochs: epochs}
    -->
    …
    <!-- end -->

    <!-- value ml-1m/sasrec-ce/base/seed-0 test.ndcg@10 -->…<!-- end -->     one number in running text

The cells of a matrix over their seeds, where grid.py ran them, and users' places are in the records:

    <!-- grid ml-100k/positions       a table, a row per cell in this order; one without a record says so
    against: position=none            the cell that others are compared with: of this recipe, or with its recipe
    cells: {position=none: no positions, position=rope: rotary}
    columns: {scheme: label, NDCG@10: test.ndcg@10, of each seed: each.test.ndcg@10, minus none: paired.ndcg@10}
    -->
    …
    <!-- end -->

    <!-- value ml-100k/positions/position=rope paired.ndcg@10 against ml-100k/positions/position=none -->…<!-- end -->

There a number is the mean over seeds, `each.PLACE` lists those of the seeds, `seeds` the seeds, and `paired.METRIC`
(`paired.q4.METRIC`: within a quartile) is the mean difference over users and seeds with a 95% interval over users,
normal, of each user's mean over seeds. Cells whose protocols differ are refused.

Measurements of `benchmarks/` that are no runs stand in JSON files beside the pages, and are shown likewise (also in
`docs/explanation/`):

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
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
TABLE = re.compile(r"<!-- table\n(?P<spec>.*?)-->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
GRID = re.compile(r"<!-- grid (?P<recipe>\S+)\n(?P<spec>.*?)-->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
JSON = re.compile(r"<!-- json (?P<file>\S+)\n(?P<spec>.*?)-->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
VALUE = re.compile(r"<!-- value (?P<record>\S+) (?P<place>\S[^>]*?) -->(?P<body>.*?)<!-- end -->")
FORMAT = 1
PLACES = "0123456789A"  # a user's place as grid.py keeps it; 0: beyond the tenth
GAINS: dict[str, Callable[[int], float]] = {  # of the place, by metric
    "ndcg@10": lambda place: 1 / math.log2(1 + place) if place else 0.0,
    "hr@10": lambda place: float(place > 0),
    "ndcg@5": lambda place: 1 / math.log2(1 + place) if 0 < place <= 5 else 0.0,
    "hr@5": lambda place: float(0 < place <= 5),
}


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


def raw(record: Mapping[str, Any], place: str) -> Any:
    """The number at one place in a record."""
    head, _, rest = place.partition(".")
    if head in ("test", "validation"):
        return record[head][rest]
    if head == "group":
        group, _, metric = rest.rpartition(".")
        return record["groups"][group][metric]
    value: Any = record
    for key in place.split("."):
        value = value[key]
    return value


def comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raises ValueError for records whose figures do not mean the same."""
    protocols = [record["card"]["protocol"] for record in (one, other)]
    differ = [key for key in protocols[0] if key != "metrics" and protocols[0][key] != protocols[1].get(key)]
    differ += ["users"] if one["by_user"]["sha256"] != other["by_user"]["sha256"] else []
    if differ:
        names = [f"{record['recipe']}/{record['cell']}" for record in (one, other)]
        raise ValueError(f"{' and '.join(names)} are not comparable: {', '.join(differ)} differ")


def gains(record: Mapping[str, Any], metric: str, quartile: str = "") -> list[float]:
    """A metric of each user, of those in a quartile where one is named."""
    held = record["by_user"]
    value = {character: GAINS[metric](place) for place, character in enumerate(PLACES)}
    both = zip(held["places"], held["quartile"], strict=True)
    return [value[place] for place, of in both if not quartile or of == quartile]


def paired(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], place: str) -> list[float]:
    """Mean difference over users and the seeds that both have, and the ends of its interval; empty without such
    seeds. `place`: METRIC or qN.METRIC."""
    quartile, _, metric = place.rpartition(".")
    others = {record["seed"]: record for record in theirs}
    columns: list[list[float]] = []
    for one in ours:
        if (other := others.get(one["seed"])) is not None:
            comparable(one, other)
            both = (gains(record, metric, quartile.removeprefix("q")) for record in (one, other))
            columns.append([a - b for a, b in zip(*both, strict=True)])
    if not columns:
        return []
    of_users = [mean(of_seeds) for of_seeds in zip(*columns, strict=True)]
    middle = math.fsum(of_users) / len(of_users)
    half = 1.96 * stdev(of_users) / math.sqrt(len(of_users)) if len(of_users) > 1 else math.inf
    return [middle, middle - half, middle + half]


def in_grid(
    place: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], label: str = ""
) -> str:
    """The text of one place of a cell, over its seeds; `theirs`: the cell that it is compared with."""
    if place == "label":
        return label
    if not ours:
        return "not run"
    if place == "seeds":
        return ", ".join(str(record["seed"]) for record in ours)
    if place.startswith("each."):
        return ", ".join(filter(None, (in_grid(place[5:], [record], theirs) for record in ours)))
    if place.startswith("paired."):
        same = theirs and {record["cell"] for record in ours} == {record["cell"] for record in theirs}
        same = same and ours[0]["recipe"] == theirs[0]["recipe"]
        found = [] if same else paired(ours, theirs, place.removeprefix("paired."))
        return f"{found[0]:+.4f} ({found[1]:+.4f} to {found[2]:+.4f})" if found else ""
    held = [raw(record, place) for record in ours]
    if all(isinstance(value, int | float) for value in held):
        return number(mean(held) if len(held) > 1 else held[0])
    return ", ".join(dict.fromkeys(map(str, held)))


def of_cell(name: str, records: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of all seeds of a cell, `<recipe>/<cell>`."""
    return [record for key, record in records.items() if key.rpartition("/")[0] == name]


def grid_table(recipe: str, spec: Mapping[str, Any], records: Mapping[str, dict[str, Any]]) -> str:
    """A Markdown table of the cells of a matrix. Raises ValueError for cells that cannot be compared."""
    columns: Mapping[str, str] = spec["columns"]
    against: str = spec.get("against", "")
    theirs = of_cell(f"{recipe}/{against}", records) or of_cell(against, records)
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(' --- ' for _ in columns)}|"]
    for cell, label in spec["cells"].items():
        ours = of_cell(f"{recipe}/{cell}", records) or of_cell(cell, records)
        texts = (in_grid(place, ours, theirs, str(label)) for place in columns.values())
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def in_text(name: str, place: str, records: Mapping[str, dict[str, Any]]) -> str:
    """One number in running text: of a record, of a cell over its seeds, or of a JSON file."""
    if name.endswith(".json"):
        return number(place_in(name, place))
    if name in records:
        return lookup(records[name], place)
    place, _, against = place.partition(" against ")
    return in_grid(place, of_cell(name, records), of_cell(against, records))


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
        text = in_text(match["record"], match["place"], records)
        return f"<!-- value {match['record']} {match['place']} -->{text}<!-- end -->"

    def from_json(match: re.Match[str]) -> str:
        body = json_table(match["file"], yaml.safe_load(match["spec"]))
        return f"<!-- json {match['file']}\n{match['spec']}-->\n{body}<!-- end -->"

    def from_grid(match: re.Match[str]) -> str:
        body = grid_table(match["recipe"], yaml.safe_load(match["spec"]), records)
        return f"<!-- grid {match['recipe']}\n{match['spec']}-->\n{body}<!-- end -->"

    return VALUE.sub(value, GRID.sub(from_grid, JSON.sub(from_json, TABLE.sub(filled, page))))


def main(arguments: list[str]) -> int:
    """Render all pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description="Render the results pages from run records.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when a page is out of date"
    )
    parser.add_argument("pages", nargs="*", help="names of pages, without .md (default: all)")
    parser.add_argument("--records", type=Path, help="records that are taken before those beside the pages")
    parser.add_argument(
        "--to", type=Path, help="write the pages into this folder, and leave those here alone"
    )
    args = parser.parse_args(arguments)
    check: bool = args.check
    records = load_records(HERE / "records")
    if args.records is not None:
        of_others = load_records(args.records)
        fresh = {name.rpartition("/")[0] for name in of_others}
        records = {
            name: one for name, one in records.items() if name.rpartition("/")[0] not in fresh
        } | of_others
    stale = []
    pages = sorted(HERE.glob("*.md"))
    if args.to is None:  # pages of explanation may be called alike
        pages += sorted(HERE.parent.joinpath("explanation").glob("*.md"))
    for page in pages:
        if args.pages and page.stem not in args.pages:
            continue
        before = page.read_text(encoding="utf-8")
        after = render(before, records)
        if args.to is not None:
            (args.to / page.name).write_text(after, encoding="utf-8")
        elif before != after:
            stale.append(page.name)
            if not check:
                page.write_text(after, encoding="utf-8")
    if stale:
        print(("out of date: " if check else "rendered: ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
