"""Memory of full cross-entropy with a large catalogue: 500,000 items, 20,000 predictions a step.

    python benchmarks/memory.py [--items 500000] [--predictions 20000]

Each case runs in a process of its own, whose peak resident memory is read:

- `loss`: `recore-losses:ce` alone, forward and backward, from hidden states and a table as wide as the recipe's.
- `step`: one training step of `ml-1m/sasrec-ce`, on a made log of as many items, with batches of as many predictions:
  drawing the batch, both passes through all layers, the loss, the gradient's norm, Adam.

`beyond` is that peak less the table and the optimiser's two moments of it: the gradient of the table, hidden states,
all activations, the libraries and the interpreter itself count. `plain` is what the matrix of scores alone would
take in the usual form, and as much again for its gradient; it is not run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from race import about, arguments, bar, build, finish, headline, recipe, table

from recore.contracts import Table
from recore.engine.machine import peak_memory_mib, reset_peak_memory
from recore.ragged import Targets

WIDTH, ROWS = 64, 200  # the recipe's
MOST = 1.5 * 1024  # MiB


def loss_alone(items: int, predictions: int) -> None:
    """Forward and backward of the loss, with the optimiser's moments held."""
    from recore_losses.ce import CrossEntropy
    from recore_losses.options import Ce

    random = torch.Generator().manual_seed(0)
    weight = torch.empty(items, WIDTH).normal_(0, 0.1, generator=random).requires_grad_()
    moments = [torch.zeros_like(weight).add_(0.0) for _ in range(2)]
    hidden = torch.randn(predictions, WIDTH, generator=random).requires_grad_()
    ids = torch.randint(items, (predictions,), generator=random)
    targets = Targets(torch.arange(predictions), ids, torch.ones(predictions))
    value = CrossEntropy(Ce()).loss(hidden, targets, Table(weight), None)
    torch.autograd.backward(value.total / value.weight)
    assert weight.grad is not None
    assert len(moments) == 2


def whole_step(items: int, predictions: int, threads: int, seed: int) -> None:
    """Steps of the recipe; the second has the optimiser's moments from the beginning."""
    # A training history of 201 events gives 200 predictions; validation and test take two events more.
    length, users = ROWS + 3, -(-items // (ROWS + 1))
    item = torch.arange(users * length).view(users, length) % items + 1
    # What validation and test hold out is seen before, too: every item is in training.
    item[:, : ROWS + 1] = torch.arange(users * (ROWS + 1)).view(users, ROWS + 1) % items + 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.txt"
        with path.open("w") as file:
            for user, row in enumerate(item.tolist()):
                file.writelines(f"{user + 1} {one}\n" for one in row)
        built = build(
            recipe(
                "ml-1m/sasrec-ce",
                {
                    "data": {"use": "recore-data:sequences", "path": str(path)},
                    "batcher": {
                        "use": "recore-batchers:ragged",
                        "order": "random",
                        "users": max(1, predictions // ROWS),
                    },
                },
            ),
            threads,
            seed,
        )
    assert built.fit.tokenizer.items == items, built.fit.tokenizer.items
    batch = built.training.draw(0, 0)[0]
    assert batch.targets is not None
    assert len(batch.targets) == max(1, predictions // ROWS) * ROWS, len(batch.targets)
    # Reading the log is not what is measured.
    reset_peak_memory()
    contender = built.contender("step")
    contender.step()


def measure(case: str, options: argparse.Namespace) -> None:
    """In a process of its own."""
    torch.set_num_threads(options.threads)
    before = peak_memory_mib()
    begun = time.perf_counter()
    if case == "loss":
        loss_alone(options.items, options.predictions)
    else:
        whole_step(options.items, options.predictions, options.threads, options.seed)
    print(json.dumps({"peak": peak_memory_mib(), "imports": before, "seconds": time.perf_counter() - begun}))


def main() -> None:
    """Run both cases and print."""
    parser = arguments(__doc__, data=None)
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--predictions", type=int, default=20_000)
    parser.add_argument("--case", choices=["loss", "step"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        return measure(options.case, options)
    found = about(options.threads, options.seed)
    found["items"], found["predictions"], found["width"] = options.items, options.predictions, WIDTH
    print(headline(found))
    held = 3 * options.items * WIDTH * 4 / 2**20
    plain = 2 * options.items * options.predictions * 4 / 2**20
    found["memory"] = []
    for case in ("loss", "step"):
        command = [sys.executable, *sys.argv, "--case", case]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{case}: {done.stderr}")
        got = json.loads(done.stdout.splitlines()[-1])
        row = {"name": case, **got, "held": held, "beyond": got["peak"] - held, "plain": plain}
        found["memory"].append(row)
    print(f"\n{options.items:,} items, {options.predictions:,} predictions, {WIDTH} wide; MiB")
    shown = {
        "": "name",
        "peak": "peak",
        "table and moments": "held",
        "beyond": "beyond",
        "of it imports": "imports",
        "scores, plain": "plain",
        "s": "seconds",
    }
    print(table(found["memory"], shown))
    found["bars"] = [
        bar(f"MiB of `{row['name']}` beyond the table and its moments", row["beyond"], MOST)
        for row in found["memory"]
    ]
    return finish(found, options.json)


if __name__ == "__main__":
    main()
