"""What a recipe sets for a log, each with its reason in the log's own numbers.

The rules are few and stated; none of them was tuned on the log at hand, and the recipe's comments say so where it
matters.

Legend: `V` items, `d` width, `N` predictions an epoch.
"""

from __future__ import annotations

import math
import time
from typing import Any, Final, Literal

from attrs import frozen

from recore.newrecipe.findings import Findings

CE_ITEMS: Final = 100_000  # items up to which every one of them is scored in training
HISTORIES: Final = (10, 20, 30, 50, 75, 100, 150, 200)  # lengths of history to choose from
REPEATS: Final = 0.1  # share of repeated targets from which items seen stay candidates
NEGATIVES: Final = 16  # negatives a prediction where not all items are scored


@frozen
class Choice:
    """A value and why."""

    value: Any
    why: str


@frozen
class Choices:
    """Everything that a recipe sets and that the log decides."""

    history: Choice
    width: Choice
    dropout: Choice
    users: Choice
    loss: Choice
    sampler: Choice | None
    epochs: Choice
    patience: Choice
    seen: Choice
    ties: Choice | None
    across: Choice | None


def choose(found: Findings, speed: float) -> Choices:
    """The choices for a log; `speed`: float32 operations a second that this machine does, for the estimates in
    comments."""
    history = _history(found)
    width = _width(found)
    seen = _seen(found)
    loss, sampler = _loss(found, int(history.value), int(width.value), str(seen.value), speed)
    epochs, patience = _epochs(found)
    return Choices(
        history=history,
        width=width,
        dropout=_dropout(found),
        users=_users(found),
        loss=loss,
        sampler=sampler,
        epochs=epochs,
        patience=patience,
        seen=seen,
        ties=_ties(found),
        across=_across(found),
    )


def _history(found: Findings) -> Choice:
    bound = found.lengths[95]
    last = next((length for length in HISTORIES if length >= bound), HISTORIES[-1])
    longest = found.lengths[100]
    why = f"95% of the training histories have at most {bound:,} events, the longest {longest:,}"
    if longest > last:
        why += f"; of a longer one the last {last} are read, and the record counts them"
    return Choice(last, why)


def _width(found: Findings) -> Choice:
    for most, width in ((50_000, 48), (5_000_000, 64)):
        if found.events <= most:
            return Choice(
                width, f"{found.events:,} events: {width} numbers an item, {found.items * width:,} in all"
            )
    return Choice(128, f"{found.events:,} events can teach more than 64 numbers an item")


def _dropout(found: Findings) -> Choice:
    if found.mean < 20:
        return Choice(0.4, f"short histories (mean {found.mean:.1f}) are learned by heart quickly")
    return Choice(0.2, f"long histories (mean {found.mean:.1f})")


def _users(found: Findings) -> Choice:
    wanted = found.users / 50
    users = int(min(512, max(32, 2 ** round(math.log2(max(wanted, 1))))))
    return Choice(users, f"{found.users:,} histories: {math.ceil(found.users / users):,} steps an epoch")


def _loss(found: Findings, last: int, width: int, seen: str, speed: float) -> tuple[Choice, Choice | None]:
    items, count = found.items, found.predictions(last)
    scores = 6 * count * items * width  # forward, and backward to states and to items
    table = 16 * items * width / 2**20  # weights, gradient, two moments of the optimiser, 4 bytes each
    seconds = scores / speed
    cost = (
        f"{items:,} items × {count:,} predictions × {width} × 6 = {_flops(scores)} an epoch, "
        f"about {_clock(seconds)} here"
    )
    memory = f"the table of items with gradient and optimiser {table:,.0f} MiB"
    if items <= CE_ITEMS:
        why = (
            f"`ce` scores every item: {cost}. It does so in blocks, so that beside {memory} at most 256 MiB of "
            f"scores are held. The rule: `ce` up to {CE_ITEMS:,} items, where published figures have it well above "
            "`bce` with one negative; above, `bce` with drawn negatives"
        )
        return Choice("ce", why), None
    exclude: Literal["target", "history"] = "target" if seen == "none" else "history"
    why = (
        f"above {CE_ITEMS:,} items full cross-entropy costs too much ({cost}; {memory}), so each target stands "
        f"against {NEGATIVES} drawn items, {items / (NEGATIVES + 1):,.0f} times fewer scores"
    )
    own = (
        "a user's own items may be drawn, since they come again"
        if seen == "none"
        else "own items are no negatives"
    )
    sampler = Choice(
        {"count": NEGATIVES, "exclude": exclude},
        f"more negatives come nearer to `ce` and cost in proportion; {own}",
    )
    return Choice("bce", why), sampler


def _epochs(found: Findings) -> tuple[Choice, Choice]:
    rows = ((100_000, 200, 10), (2_000_000, 100, 10), (20_000_000, 40, 5))
    epochs, patience = next((row[1:] for row in rows if found.events <= row[0]), (15, 3))
    steps = (
        f"the most; the larger the log (here {found.events:,} events), the fewer; `patience` stops earlier"
    )
    return Choice(epochs, steps), Choice(patience, "epochs in a row without a better validation figure")


def _seen(found: Findings) -> Choice:
    again, of = found.repeated_targets, found.tested
    share = again / of
    told = f"{again:,} of {of:,} test targets ({share:.1%}) are items that their user had before"
    if share >= REPEATS:
        return Choice("none", f"{told}; with `history` none of these could be met")
    if again:
        return Choice("history", f"{told}: these are counted as missed; `none` would let items come again")
    return Choice("history", "no target is an item that its user had before")


def _ties(found: Findings) -> Choice | None:
    if not found.times or not found.tied:
        return None
    told = f"{found.tied:,} events share their time with another of the same user"
    if found.in_order:
        return Choice("file", f"{told}; the rows are in order of time, so theirs decides")
    return Choice(
        "hash", f"{told}, and the rows are not in order of time, so a hash decides, not their place"
    )


def _across(found: Findings) -> Choice | None:
    if found.clocks:
        return Choice(False, "every user's times begin at the same value: each has a clock of their own")
    return None


def _flops(count: float) -> str:
    for size, name in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count / 1e6:.3g} MFLOP"


def _clock(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def speed_here() -> float:
    """Float32 operations a second of a product as the loss makes it, measured in a tenth of a second."""
    import torch

    left, right = torch.ones(256, 64), torch.ones(64, 4096)
    best = math.inf
    stop = time.perf_counter() + 0.1
    while time.perf_counter() < stop:
        begin = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - begin)
    return 2 * 256 * 64 * 4096 / best
