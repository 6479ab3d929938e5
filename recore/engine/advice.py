"""Which parts of a recipe are large, and what to change: a line for each."""

from __future__ import annotations

from collections.abc import Mapping

from recore.engine.tally import COPIES, GROUPS, MIB, Tally

SHARE, LEAST, MOST = 0.25, 128.0, 2048.0  # of memory: from a quarter and 128 MiB, or from 2 GiB
OF_TIME = 0.5  # from half of an epoch


def advice(
    tally: Tally, seconds: Mapping[str, float], memory: Mapping[str, float], at_peak: str
) -> list[str]:
    """A line for each part that takes much of the whole, and what to change."""
    found = []
    for size, what, instead in _large(tally, memory, at_peak):
        share = size / memory["peak"]
        if (share >= SHARE and size >= LEAST) or size >= MOST:
            remedy = f": {instead}" if instead else ""
            found.append(f"{share:.0%} of memory, {size_of(size)}, is {what}{remedy}")
    total = sum(seconds.values())
    for group in GROUPS:
        share = seconds[group] / total if total else 0.0
        if share < OF_TIME:
            continue
        row = max((row for row in tally.rows if row.group == group), key=lambda row: row.total, default=None)
        if group == "evaluation":
            of = max(tally.asked.values(), key=lambda one: one.queries * one.items)
            found.append(
                f"{share:.0%} of the time of an epoch is evaluation, {of.queries:,} questions against "
                f"{of.items:,} candidates: a cheaper encoder or loss saves little"
            )
        elif row is not None and row.total:
            remedy = f": {row.instead}" if row.instead else ""
            calls = row.seconds.get("calls", 0.0) / row.total
            if calls > OF_TIME:
                remedy = ": small steps, mostly the overhead of calls; take more histories to a batch"
            found.append(
                f"{share:.0%} of the time of an epoch is {row.large or 'the work'} of {row.kind} "
                f"{row.use!r}{remedy}"
            )
    for view, load in tally.drawn.mean.items():
        if load.events and load.cells > 1.5 * load.events:
            found.append(
                f"{1 - load.events / load.cells:.0%} of the rows that the view {view!r} computes are padding: a "
                "batcher that asks for no rectangle computes none of them"
            )
    return found


def _large(tally: Tally, memory: Mapping[str, float], at_peak: str) -> list[tuple[float, str, str]]:
    """MiB, what it is, and what to change, largest first."""
    found = []
    state = sum(row.always for row in tally.rows) / max(tally.whole.parameters, 1.0)
    copies = COPIES * tally.number if at_peak == "a checkpoint" else 0
    brief = max(tally.rows, key=lambda row: row.brief, default=None)
    for row in tally.rows:
        trained = row.parameters * (2 * tally.number + state + copies) / MIB
        named = f"{row.kind} {row.use!r}"
        written = " (and its copies while a checkpoint is written)" if copies else ""
        what = "the embedding table" if row.kind == "embedder" else "the parameters"
        found.append((trained, f"{what} of {named} with gradient and moments{written}", row.instead))
        if at_peak == "a training step":
            size = (row.kept + (row.brief if row is brief else 0.0)) / MIB
            found.append((size, f"{row.large or 'what the backward pass needs'} of {named}", row.instead))
    if at_peak == "an evaluation":
        for what, size in tally.asking().items():
            found.append((size / MIB, f"the {what} of an evaluation's block", ""))
    found.append(
        (
            memory["log, histories, questions"],
            "the log, its histories and the questions",
            "a shorter log (transforms), or fewer columns",
        )
    )
    return sorted(found, key=lambda one: -one[0])


def size_of(mib: float) -> str:
    """`1.5 GiB`, `120 MiB`."""
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
