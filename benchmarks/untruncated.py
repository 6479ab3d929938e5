"""Whole histories: an epoch of `ml-1m/sasrec-bce` on all events of every user beside one on the last 200, its memory,
and the memory of a learned bias at any length.

    python benchmarks/untruncated.py
    python benchmarks/untruncated.py --batches 4 --lengths 100 200        # to see that it runs

`untruncated` is the recipe with `model.history.last: all` and `recore-batchers:untruncated` (a budget of events to a
batch; the longest history of ML-1M has 2,277 training events), beside the recipe itself; both have positions `none`,
since `start-absolute` needs a bound. Contenders take turns batch by batch through whole epochs; what counts of each
is the sum over its batches of the smallest time that the batch took in any epoch (of a sample of batches: as much
more as an epoch has more). Peaks are resident memory, each of
a process of its own: reading the log, an epoch of training, torch and the interpreter all count.

`learned bias` is one forward and backward pass of attention with four heads and a learned number per head and
distance, over as many events in fewer, longer histories: were the gradient of the bias held as a mask, as a tensor
added to the logits holds it, memory would double with the length (`mask` is that gradient alone).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch
from positions import histories, least, runner, taken
from race import about, arguments, bar, finish, headline, recipe, table

from recore.attention import PairTable, attend
from recore.engine.machine import peak_memory_mib, reset_peak_memory
from recore.ragged import View, offsets_of
from recore.recipe import Recipe

LAST, WHOLE = "last 200", "untruncated"
TIMES, MOST = 2.5, 4 * 1024  # epochs, MiB
EVENTS, HEADS, WIDTH = 8_000, 4, 64
GROWTH = 1.5  # of the memory of a learned bias, from the least to the greatest length, with as many events


def changed(case: str, tokens: int) -> Recipe:
    """The recipe of a case."""
    model: dict[str, Any] = {"position": {"use": "recore-positions:none"}}
    overlay: dict[str, Any] = {"model": model}
    if case == WHOLE:
        model["history"] = {"last": "all"}
        overlay["batcher"] = {"use": "recore-batchers:untruncated", "tokens": tokens}
    return recipe("ml-1m/sasrec-bce", overlay)


def biased(length: int) -> None:
    """Attention with a learned bias over histories of one length."""
    offsets = offsets_of(torch.full((max(1, EVENTS // length),), length))
    view = View({"token": torch.arange(int(offsets[-1]))}, offsets)
    q, k, v = (torch.randn(view.events, HEADS, WIDTH // HEADS, requires_grad=True) for _ in range(3))
    bias = torch.randn(length, HEADS, requires_grad=True)
    out = attend(q, k, v, view, (PairTable("logit", bias),))
    torch.autograd.backward(out, torch.ones_like(out))
    assert bias.grad is not None


def measure(case: str, options: argparse.Namespace) -> None:
    """In a process of its own."""
    torch.set_num_threads(options.threads)
    begun = time.perf_counter()
    if case.isdigit():
        biased(64)  # libraries come in by the first call
        reset_peak_memory()
        before = peak_memory_mib()
        biased(int(case))
    else:
        before = peak_memory_mib()
        many = options.batches or 10**9
        one = runner(case, changed(case, options.tokens), many, options.threads, options.seed)
        taken([one], 0)
    print(json.dumps({"peak": peak_memory_mib(), "before": before, "seconds": time.perf_counter() - begun}))


def apart(case: str) -> dict[str, Any]:
    """The figures of a case, from a process of its own."""
    command = [sys.executable, *sys.argv, "--case", case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{case}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"name": case, **found}


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, data="ml-1m/ml-1m.txt")
    parser.add_argument("--tokens", type=int, default=16_384, help="of a batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="epochs of each, one more to warm up")
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=[500, 1000, 2000], help="of the learned bias"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with histories(6040 if options.batches is None else 128 * options.batches) as which:
        if options.case:
            return measure(options.case, options)
        found = about(options.threads, options.seed)
        found["histories"], found["tokens"], found["events"] = which, options.tokens, EVENTS
        print(headline(found), f"; histories: {which}", sep="")
        many = options.batches or 10**9
        runners = [
            runner(case, changed(case, options.tokens), many, options.threads, options.seed)
            for case in (LAST, WHOLE)
        ]
        rounds = taken(runners, options.rounds)
        seconds = {one.name: least(rounds[one.name]) * one.epoch / one.many for one in runners}
        found["epoch"] = [
            {
                "name": one.name,
                "batches": one.many,
                "predictions": one.predictions,
                "epoch": one.epoch,
                "seconds": seconds[one.name],
                "times_base": seconds[one.name] / seconds[LAST],
                "percent": 100 * seconds[one.name] / seconds[LAST],
                "peak": apart(one.name)["peak"],
            }
            for one in runners
        ]
    print(f"\nAn epoch, the smallest time of each batch in {options.rounds}")
    shown = {"": "name", "batches": "batches", "of": "epoch", "predictions": "predictions", "s": "seconds"}
    print(table(found["epoch"], {**shown, "times last 200": "times_base", "peak MiB": "peak"}))
    whole = found["epoch"][1]
    found["bars"] = [
        bar("an epoch of whole histories: times that of the last 200", whole["times_base"], TIMES),
        bar("MiB of an epoch of whole histories, in all", whole["peak"], MOST),
    ]
    found["bias"] = []
    for length in options.lengths:
        row = {"length": length, **apart(str(length))}
        mask = 4 * HEADS * EVENTS * length / 2**20
        found["bias"].append({**row, "own": row["peak"] - row["before"], "mask": mask})
    if len(options.lengths) > 1:
        print(f"\nA learned bias, {HEADS} heads, {EVENTS:,} events in all; MiB beyond the process before")
        print(table(found["bias"], {"length": "length", "MiB": "own", "mask": "mask", "s": "seconds"}))
        first, *_, last = found["bias"]
        name = f"MiB of a learned bias at length {last['length']:,}: times those at {first['length']:,}"
        found["bars"].append(bar(name, last["own"] / max(first["own"], 1.0), GROWTH))
    return finish(found, options.json)


if __name__ == "__main__":
    main()
