"""How a run looks in a terminal: a plan, one line an epoch, a table of figures. Also plain, quiet and JSON.

A terminal gets colours and tables; a file or a pipe gets plain lines; `--json` gets one JSON object a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recore.engine.report import Reporter, Silent

SHOWN = ("ndcg@10", "hr@10")  # validation figures on an epoch's line, where they are measured


def reporter(quiet: bool, as_json: bool) -> Reporter:
    """The reporter that the flags ask for."""
    if as_json:
        return JsonLines()
    return Silent() if quiet else Lines()


def clock(seconds: float) -> str:
    """`75` → `1:15`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class JsonLines:
    """One JSON object a line on standard output: `{"event": …}`."""

    def _write(self, event: str, content: Mapping[str, Any]) -> None:
        print(json.dumps({"event": event, **content}, default=str, ensure_ascii=False), flush=True)

    def note(self, text: str) -> None:
        """`note`."""
        self._write("note", {"text": text})

    def plan(self, plan: Mapping[str, Any]) -> None:
        """`plan`."""
        self._write("plan", plan)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """`epoch`."""
        self._write("epoch", line)

    def done(self, record: Mapping[str, Any], folder: Path) -> None:
        """`done`."""
        self._write("done", {"folder": str(folder), "record": record})


@define
class Lines:
    """For people."""

    console: Console = field(factory=lambda: Console(highlight=False, soft_wrap=not sys.stdout.isatty()))

    def note(self, text: str) -> None:
        """A line."""
        self.console.print(Text(text, style="yellow"))

    def plan(self, plan: Mapping[str, Any]) -> None:
        """What will be done."""
        data, sizes = plan["data"], plan["sizes"]
        cell = "" if plan["cell"] == "base" else f", cell {plan['cell']}"
        self.console.print(Text(f"recipe  {plan['recipe']}{cell}, seed {plan['seed']}", style="bold"))
        self._pair(
            "data",
            f"{data['users']:,} users, {data['items']:,} items, {data['events']:,} events "
            f"(per user {data['shortest']} to {data['longest']}, mean {data['mean']})  {data['source']}",
        )
        tied = data.get("events whose time another of the same user has", 0)
        times = (
            f"times given, {tied:,} events tied, ties by {data['ties']}"
            if data["times"]
            else "no times: file order"
        )
        self._pair("", f"{times}; order across users {data['order across users']}")
        self._pair("", f"fingerprint {plan['fingerprint'][:16]}")
        for step in plan["transforms"]:
            dropped = (
                ", ".join(f"{count:,} {reason}" for reason, count in step["dropped"].items()) or "nothing"
            )
            left = ", ".join(f"{count:,} {what}" for what, count in step["left"].items())
            self._pair("", f"{step['use']}: dropped {dropped}; left {left}")
        self._pair("split", f"{plan['split']['name']}")
        self._pair("", ", ".join(f"{count:,} {what}" for what, count in sizes.items()))
        policies = {what: n for what, n in plan["split"].items() if what != "name" and n}
        if policies:
            self._pair("", ", ".join(f"{what}: {count:,}" for what, count in policies.items()))
        for number, part in enumerate(plan["parts"]):
            self._pair("parts" if number == 0 else "", f"{part['path']:<20} {part['use']} {part['version']}")
        counts = plan["parameters"]
        if counts:
            detail = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            self._pair("params", f"{sum(counts.values()):,} ({detail})")
        machine = plan["machine"]
        self._pair(
            "machine",
            f"{machine['processor']}, {machine['cores']} threads, {machine['device']}, {machine['precision']}",
        )
        self._pair("folder", plan["folder"])
        self.console.print()

    def _pair(self, name: str, value: str) -> None:
        self.console.print(Text.assemble((f"{name:<8}", "cyan"), value))

    def epoch(self, line: Mapping[str, Any]) -> None:
        """One line: losses, validation figures, speed, time left at most."""
        losses = "  ".join(f"{name} {value:.4f}" for name, value in line["losses"].items())
        validation = line["validation"]
        shown = [name for name in SHOWN if name in validation] or list(validation)[:2]
        figures = "  ".join(f"{name} {validation[name]:.4f}" for name in shown)
        each = line["seconds"] + line["validation_seconds"]
        left = clock(each * (line["of"] - line["epoch"]))
        text = Text.assemble(
            f"epoch {line['epoch']:>3}/{line['of']}  {losses}  "
            + (f"valid {figures} " if validation else ""),
            ("*" if line["best"] and validation else " ", "green"),
            f" {line['events_per_second']:,} events/s  {each:.1f} s  at most {left} left",
        )
        self.console.print(text)
        if line["stop"]:
            self.console.print(Text(f"stopped: {line['stop']}", style="yellow"))

    def done(self, record: Mapping[str, Any], folder: Path) -> None:
        """The table of test figures and the card in short."""
        self.console.print()
        if record["test"]:
            figures(self.console, record["test"], record["intervals"], f"test, {record['users']:,} users")
        else:
            self.console.print("no test figures: all events trained, nothing was held out")
        card(self.console, record["card"]["protocol"])
        self._pair("epochs", f"{record['epochs']}, best {record['best_epoch']}, "
                   f"{record['seconds_per_epoch']:.1f} s each, peak {record['peak_memory_mib']:,.0f} MiB")  # fmt: skip
        self._pair("folder", str(folder))


def figures(
    console: Console, totals: Mapping[str, float], intervals: Mapping[str, Any], caption: str
) -> None:
    """A table of metrics with their intervals."""
    table = Table("metric", title=caption, title_justify="left", box=None, title_style="bold")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right")
    for name, value in totals.items():
        low_high = intervals.get(name)
        table.add_row(
            Text(name), f"{value:.4f}", f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else ""
        )
    console.print(table)


def summary(records: Sequence[Mapping[str, Any]]) -> None:
    """A row for each of several runs."""
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    measured = records[0]["test"]
    names = [name for name in SHOWN if name in measured] or list(measured)[:2]
    table = Table("cell", "seed", title="all runs", title_justify="left", box=None, title_style="bold")
    for name in names:
        table.add_column(Text(name), justify="right")
        table.add_column("95% interval", justify="right")
    for record in records:
        cells = [str(record["cell"]), str(record["seed"])]
        for name in names:
            value, interval = record["test"].get(name), record["intervals"].get(name)
            cells.append("" if value is None else f"{value:.4f}")
            cells.append(f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "")
        table.add_row(*[Text(cell) for cell in cells])
    console.print()
    console.print(table)


def card(console: Console, protocol: Mapping[str, Any]) -> None:
    """The protocol card in short."""
    data = protocol["data"]
    for name, value in (
        ("split", protocol["split"]["name"]),
        ("ranked", f"{protocol['candidates']}; seen items filtered: {', '.join(protocol['seen filter'])}"),
        ("ties", f"data {data['ties']}; {protocol['rank ties']}"),
        ("time", f"order across users {data['order across users']}; target time {protocol['target time']}"),
        ("chosen", protocol["checkpoint"]),
    ):
        console.print(Text.assemble((f"{name:<8}", "cyan"), value))
