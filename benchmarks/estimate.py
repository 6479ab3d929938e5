"""`recore estimate` beside what runs really use: memory, time, and the split of the time.

    RECORE_DATA=… python benchmarks/estimate.py --json docs/results/records/estimate.json
    python benchmarks/estimate.py --case sasrec --threads 1

For each case, one after another, each step in a process of its own:

    estimated   recore estimate --json
    measured    recore run, for a few epochs (their mean; peak memory of the whole run, test included)
    split       some steps and a validation with timers around calls: batches, encoder, sampler, loss, optimiser,
                evaluation. The encoder's backward pass begins when the gradient of its hidden states is there.

Bounds to hold: memory within 30%, time of an epoch within a factor of two. Data: `world` is simulated, the others need
$RECORE_DATA. Seed 0. Keep the machine otherwise idle: times are wall-clock.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEAUTY = [
    "data={use: recore-data:sequences, path: $RECORE_DATA/beauty/Beauty.txt, form: lines}",
    "model.history.last=50",
]
BCE = ["loss={use: recore-losses:bce}", "sampler={use: recore-samplers:uniform, count: 64}"]
CASES: dict[str, tuple[str, list[str], int]] = {  # name → recipe, what is set, epochs
    "sasrec": ("sasrec", [], 6),
    "relative-bias": ("relative-bias", [], 6),
    "duality": ("duality", [], 6),
    "ml-1m/sasrec-bce": ("ml-1m/sasrec-bce", [], 2),
    "ml-1m/sasrec-ce": ("ml-1m/sasrec-ce", [], 2),
    "ml-1m padded": (
        "ml-1m/sasrec-bce",
        ["batcher={use: recore-batchers:padded, side: right, users: 128}"],
        1,
    ),
    "beauty ce": ("ml-1m/sasrec-ce", BEAUTY, 2),
    "beauty bce, 64 negatives": ("ml-1m/sasrec-ce", [*BEAUTY, *BCE], 2),
}
GROUPS = ("batches", "encoder", "sampler", "loss", "optimiser", "evaluation")
STEPS = 12


def recore(*arguments: str) -> str:
    """Run `recore …` in a fresh process; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "recore.cli.main", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"recore {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout


def measure(name: str, threads: int) -> dict[str, Any]:
    """Estimated, measured and split of one case."""
    recipe, sets, epochs = CASES[name]
    flags = ["--threads", str(threads), *(word for one in sets for word in ("--set", one))]
    guess = json.loads(recore("estimate", recipe, "--json", *flags))
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        stop = f"trainer.epochs={epochs}"
        run = Path(recore("run", recipe, "--quiet", "--runs", folder, *flags, "--set", stop).strip())
        wall = time.perf_counter() - begun
        record = json.loads((run / "record.json").read_text("utf-8"))
    split = json.loads(
        subprocess.run(
            [sys.executable, __file__, "--split", name, "--threads", str(threads)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    )
    real = {
        "epoch": record["seconds_per_epoch"] + record["validation_seconds_per_epoch"],
        "evaluation": record["validation_seconds_per_epoch"],
        "peak_memory_mib": record["peak_memory_mib"],
        "wall": wall,
        "epochs": epochs,
    }
    return {
        "case": name,
        "sets": sets,
        "estimated": {
            key: guess[key] for key in ("epoch", "peak_memory_mib", "seconds", "memory", "advice", "took")
        },
        "measured": real,
        "split": split,
        "ratio": {
            "epoch": guess["epoch"] / real["epoch"],
            "memory": guess["peak_memory_mib"] / real["peak_memory_mib"],
            "wall": (guess["epoch"] * epochs + sum(guess["once"].values())) / wall,
        },
        "machine": record["machine"],
    }


def split(name: str, threads: int) -> dict[str, float]:
    """Seconds of an epoch by group, from timers around calls of some steps and a validation."""
    from recore.threads import wait_briefly

    wait_briefly()
    import torch

    from recore.engine.machine import Machine
    from recore.engine.prepare import prepare
    from recore.engine.trial import trial
    from recore.recipe import load_cells

    recipe, sets, _ = CASES[name]
    prepared = prepare(load_cells(recipe, sets=sets)[0], 0, Machine(threads=threads))
    made = trial(prepared)
    training: Any = made.training
    model: Any = made.model
    assert prepared.trainer is not None
    assert made.validation is not None
    assert made.scorer is not None
    spent: defaultdict[str, float] = defaultdict(float)
    clock = time.perf_counter
    marks: dict[str, float] = {}

    def timed(label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            begun = clock()
            try:
                return call(*arguments, **keywords)
            finally:
                spent[label] += clock() - begun

        return wrapped

    def forward(*arguments: Any, **keywords: Any) -> Any:
        begun = clock()
        hidden = own(*arguments, **keywords)
        spent["encoder"] += clock() - begun
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: marks.update(hidden=clock()))
        return hidden

    def backward(total: Any) -> None:
        begun = clock()
        marks["hidden"] = begun
        engine(total)
        spent["loss"] += marks["hidden"] - begun
        spent["encoder"] += clock() - marks["hidden"]

    own, model.forward = model.forward, forward
    engine, torch.autograd.backward = torch.autograd.backward, backward  # type: ignore[assignment]  # a timer
    training.draw = timed("batches", training.draw)
    training.backward = timed("step", training.backward)
    for entry in training.losses:
        entry.loss.loss = timed("loss", entry.loss.loss)
        if entry.sampler is not None:
            entry.sampler.draw = timed("sampler", entry.sampler.draw)
    steps = prepared.trainer.steps(training)
    next(steps), next(steps)
    spent.clear()
    count, begun = min(STEPS, training.batches(0) - 2), clock()
    for _ in range(count):
        next(steps)
    whole = clock() - begun
    found = {group: spent[group] for group in GROUPS}
    # What the step does besides, norms and the optimiser itself.
    found["optimiser"] = whole - sum(found.values())
    found = {group: value * training.batches(0) / count for group, value in found.items()}
    asked = [e for e in prepared.evaluators if e.wants.each_epoch]
    made.validation.ask(made.scorer, asked)
    begun = clock()
    made.validation.ask(made.scorer, asked)
    found["evaluation"] = clock() - begun
    return found


def table(results: list[dict[str, Any]]) -> None:
    """Print the results."""
    print(f"{'case':26} {'epoch: estimated':>16} {'measured':>9} {'ratio':>6} {'MiB: estimated':>15} "
          f"{'measured':>9} {'ratio':>6}  split, estimated / measured seconds")  # fmt: skip
    for one in results:
        guess, real, ratio = one["estimated"], one["measured"], one["ratio"]
        parts = "  ".join(
            f"{group} {guess['seconds'][group]:.2f}/{one['split'][group]:.2f}" for group in GROUPS
        )
        print(f"{one['case']:26} {guess['epoch']:14.2f} s {real['epoch']:7.2f} s {ratio['epoch']:6.2f} "
              f"{guess['peak_memory_mib']:15.0f} {real['peak_memory_mib']:9.0f} {ratio['memory']:6.2f}  "
              f"{parts}")  # fmt: skip
        for line in guess["advice"]:
            print(f"{'':26} {line}")


def main() -> None:
    """All cases, or those asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--split", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.split:
        print(json.dumps(split(arguments.split, arguments.threads)))
        return
    results = []
    for name in arguments.case or CASES:
        results.append(measure(name, arguments.threads))
        print(f"{name}: {results[-1]['ratio']}", file=sys.stderr, flush=True)
    print(results[0]["machine"])
    table(results)
    if arguments.json:
        content = {"seed": 0, "machine": results[0]["machine"], "cases": results}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
