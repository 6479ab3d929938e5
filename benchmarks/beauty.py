"""Short histories: an epoch of Amazon Beauty (mean length 8.9, the last 50 events) with `bce`, ragged and padded.

    python benchmarks/beauty.py                 # a whole epoch
    python benchmarks/beauty.py --batches 20

`ml-1m/sasrec-bce` with the data, the length of the history and the batcher changed, nothing else: `ragged` (the
recipe's own), `padded` on either side. Under `padded` the encoder computes every cell of the rectangle of 50 columns
(norms, linear maps, feed-forward net, dropout, attention), as padded codes do; the loss is taken at real targets
only, so that without dropout, whose masks fall on other cells, all three would have the same gradients. Beside them
the textbook, whose embeddings and scores are rectangles, too (`textbook.py`). All see the same histories, batch by
batch.
"""

from __future__ import annotations

from typing import Any

from race import (
    COLUMNS,
    about,
    arguments,
    bar,
    build,
    finish,
    headline,
    needs,
    race,
    recipe,
    rows,
    table,
    textbook,
)

DATA = "beauty/Beauty.txt"
BATCHERS: dict[str, dict[str, Any]] = {
    "ragged": {"use": "recore-batchers:ragged", "order": "random", "users": 128},
    "padded right": {"use": "recore-batchers:padded", "side": "right", "users": 128},
    "padded left": {"use": "recore-batchers:padded", "side": "left", "users": 128},
}


def overlay(batcher: str) -> dict[str, Any]:
    """What is changed of `ml-1m/sasrec-bce`."""
    return {
        "data": {"use": "recore-data:sequences", "path": f"$RECORE_DATA/{DATA}", "form": "lines"},
        "model": {"history": {"last": 50}},
        "batcher": BATCHERS[batcher],
    }


def main() -> None:
    """Measure, print, write."""
    options = arguments(__doc__, data=DATA).parse_args()
    needs(DATA)
    built = {
        name: build(recipe("ml-1m/sasrec-bce", overlay(name)), options.threads, options.seed)
        for name in BATCHERS
    }
    ragged = built["ragged"]
    batches = min(options.batches or ragged.training.batches(0), ragged.training.batches(0))
    found = about(options.threads, options.seed, ragged)
    print(headline(found))
    warm = min(2, batches)
    race([one.contender(name) for name, one in warmed(options.threads, options.seed).items()], warm)
    contenders = [
        *(one.contender(name) for name, one in built.items()),
        textbook(ragged, "textbook", False, batches),
        textbook(ragged, "textbook, lean", True, batches),
    ]
    found["beauty"] = rows(race(contenders, batches), "ragged")
    for row, contender in zip(found["beauty"], contenders, strict=True):
        row["ragged_share"] = 1 / row["times_base_paired"]
        row["validation"] = contender.validate().get("ndcg@10")
    print(f"\nOne epoch, {batches} of {ragged.training.batches(0)} batches of 128 histories, taking turns")
    print(table(found["beauty"], {**COLUMNS, "ragged takes": "ragged_share", "NDCG@10": "validation"}))
    named = {row["name"]: row for row in found["beauty"]}
    fastest = min(
        (name for name in named if name.startswith("padded")), key=lambda name: float(named[name]["ms"])
    )
    found["bars"] = [
        bar(f"ragged: share of `{fastest}`, the faster padded", named[fastest]["ragged_share"], 1 / 3),
        bar("ragged: share of the textbook's", named["textbook"]["ragged_share"], 1 / 3),
    ]
    finish(found, options.json)


def warmed(threads: int, seed: int) -> dict[str, Any]:
    """One of each to be thrown away: first calls choose kernels."""
    return {name: build(recipe("ml-1m/sasrec-bce", overlay(name)), threads, seed) for name in BATCHERS}


if __name__ == "__main__":
    main()
