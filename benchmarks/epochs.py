"""An epoch of ML-1M: the recipes `ml-1m/sasrec-bce` and `ml-1m/sasrec-ce` beside a textbook padded SASRec.

    python benchmarks/epochs.py                    # a whole epoch of each, then what the details cost
    python benchmarks/epochs.py --batches 12       # the first twelve batches of that epoch

All contenders train on the same histories, batch by batch, with as many threads, in float32, in this process.
The recipes are read from their files and trained by their own trainer: drawing the batch, drawing negatives, both
passes, the check of the gradient's norm and the optimiser are all within the clock. The textbook's rectangles and
negatives are made before the clock runs (`textbook.py` says what it is). `textbook, lean` is the same computation by
torch's fused attention and optimiser, without dropout in attention.

Then, over the first batches of the epoch: attention dropout on and off, padded and ragged, one thread; and over
whole epochs the cells of `ml-1m/batching` (batches at random, of like length, padded).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from race import (
    COLUMNS,
    Contender,
    about,
    arguments,
    bar,
    build,
    cells,
    finish,
    headline,
    needs,
    race,
    recipe,
    rows,
    table,
    textbook,
)

DATA = "ml-1m/ml-1m.txt"
DETAILS: dict[str, Mapping[str, Any]] = {
    "sasrec-bce": {},
    "… with attention dropout": {
        "model": {"encoder": {"dropouts": ["input", "attention", "hidden", "output"]}}
    },
    "… padded right": {"batcher": {"use": "recore-batchers:padded", "side": "right", "users": 128}},
    "… padded left": {"batcher": {"use": "recore-batchers:padded", "side": "left", "users": 128}},
}


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, data=DATA)
    parser.add_argument("--few", type=int, default=12, help="batches for what the details cost")
    parser.add_argument("--skip-details", action="store_true", help="only the recipes and the textbook")
    options = parser.parse_args()
    needs(DATA)
    bce = build(recipe("ml-1m/sasrec-bce"), options.threads, options.seed)
    ce = build(recipe("ml-1m/sasrec-ce"), options.threads, options.seed)
    batches = min(options.batches or bce.training.batches(0), bce.training.batches(0))
    few = min(options.few, batches)
    found = about(options.threads, options.seed, bce)
    print(headline(found))

    # A batch of each before the clock, on models that are thrown away: first calls choose kernels.
    for lean in (False, True):
        textbook(bce, "warm", lean, 1).step()
    build(recipe("ml-1m/sasrec-bce"), options.threads, options.seed).contender("warm").step()

    contenders = [
        textbook(bce, "textbook (bce)", False, batches),
        textbook(bce, "textbook, lean (bce)", True, batches),
        bce.contender("ml-1m/sasrec-bce"),
        ce.contender("ml-1m/sasrec-ce"),
    ]
    found["epoch"] = rows(race(contenders, batches), "textbook (bce)")
    for row, contender in zip(found["epoch"], contenders, strict=True):
        row["faster"] = 1 / row["times_base_paired"]
        begun = time.perf_counter()
        row["validation"] = contender.validate().get("ndcg@10")
        row["validation_seconds"] = time.perf_counter() - begun
    print(f"\nOne epoch, {batches} of {bce.training.batches(0)} batches of 128 histories, taking turns")
    shown = {
        **COLUMNS,
        "times as fast": "faster",
        "validation s": "validation_seconds",
        "NDCG@10": "validation",
    }
    print(table(found["epoch"], shown))
    named = {row["name"]: row for row in found["epoch"]}
    # The median over batches: one stall of a busy machine, seconds long, would decide a sum.
    share = {name: row["times_base_paired"] for name, row in named.items()}
    found["bars"] = [
        bar("an epoch with bce: share of the textbook's", share["ml-1m/sasrec-bce"], 1 / 3),
        bar("an epoch with ce: share of the textbook's with bce", share["ml-1m/sasrec-ce"], 1.0),
    ]
    if not options.skip_details:
        details(found, options.threads, options.seed, few, batches)
    finish(found, options.json)


def details(found: dict[str, Any], threads: int, seed: int, few: int, batches: int) -> None:
    """What one detail of the recipe costs, everything else alike."""
    many = [
        build(recipe("ml-1m/sasrec-bce", change), threads, seed).contender(name)
        for name, change in DETAILS.items()
    ]
    found["details"] = rows(race(many, few), "sasrec-bce")
    print(f"\nOne detail of sasrec-bce changed, {few} batches, the same histories")
    print(table(found["details"], COLUMNS))

    found["threads"] = []
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        some = [
            textbook(built := build(recipe("ml-1m/sasrec-bce"), count, seed), "textbook (bce)", False, few),
            textbook(built, "textbook, lean (bce)", True, few),
            built.contender("ml-1m/sasrec-bce"),
            build(recipe("ml-1m/sasrec-ce"), count, seed).contender("ml-1m/sasrec-ce"),
        ]
        found["threads"] += [{**row, "threads": count} for row in rows(race(some, few), "textbook (bce)")]
    torch.set_num_threads(threads)
    print(f"\nThreads, {few} batches")
    print(table(found["threads"], {"": "name", "threads": "threads", **COLUMNS}))

    orders: list[Contender] = [
        build(cell, threads, seed).contender(label) for label, cell in cells("ml-1m/batching").items()
    ]
    found["batching"] = rows(race(orders, min(batches, *(order.batches for order in orders))), "random")
    print("\nml-1m/batching (ce): a whole epoch of each order of the histories")
    print(table(found["batching"], COLUMNS))


if __name__ == "__main__":
    main()
