"""Time and memory of `recore-losses:ce` and `bce` beside the plain forms in torch.

    python benchmarks/ce.py                                   # 20,000 predictions, 3,416 items, 64 wide, 2 threads
    python benchmarks/ce.py --blocks 64 128 256 512 1024      # which block is fastest here
    python benchmarks/ce.py --items 500000 --rounds 1 --skip-plain

Each case is a forward and a backward pass over one step's predictions, in a process of its own so that its peak
memory can be read; printed are the fastest of all rounds (wall clock: keep the machine otherwise idle) and by how
much the peak resident memory grew beyond the hidden states and the table. Rounds of the cases alternate, so that
a slow spell of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from recore_losses.bce import BinaryCrossEntropy
from recore_losses.ce import CrossEntropy
from recore_losses.options import Ce
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from recore.contracts import Negatives, Table
from recore.ragged import Targets

Step = Callable[[], Tensor]


def steps(events: int, items: int, width: int) -> dict[str, Callable[[int], Step]]:
    """Case → its argument (a block, or a number of negatives) → a step that gives the loss."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(events, width, generator=random).requires_grad_()
    weight = (
        torch.randn(items, width, generator=random).mul_(0.1).requires_grad_()
    )  # no temporary: it is a peak
    ids = torch.randint(items, (events,), generator=random)
    targets = Targets(torch.arange(events), ids, torch.ones(events))
    table = Table(weight)

    def blocked(block: int) -> Step:
        loss = CrossEntropy(Ce(block=block))
        return lambda: loss.loss(hidden, targets, table, None).total

    def plain(_: int) -> Step:
        return lambda: cross_entropy(hidden @ weight.T, ids, reduction="sum")

    def binary(draws: int) -> Step:
        negatives = Negatives(torch.randint(items, (events, draws), generator=random))
        return lambda: BinaryCrossEntropy().loss(hidden, targets, table, negatives).total

    def plain_binary(draws: int) -> Step:
        pairs = torch.cat([ids[:, None], torch.randint(items, (events, draws), generator=random)], 1)

        def step() -> Tensor:
            scores = (weight[pairs] @ hidden[:, :, None]).squeeze(-1)
            return -logsigmoid(scores[:, 0]).sum() - logsigmoid(-scores[:, 1:]).sum()

        return step

    return {"ce": blocked, "plain ce": plain, "bce": binary, "plain bce": plain_binary}


def measure(case: str, argument: int, arguments: argparse.Namespace) -> None:
    """In a process of its own: milliseconds and MiB as JSON."""
    torch.set_num_threads(arguments.threads)
    step = steps(arguments.events, arguments.items, arguments.width)[case](argument)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fastest, until = float("inf"), time.perf_counter() + arguments.seconds
    while fastest == float("inf") or time.perf_counter() < until:
        begun = time.perf_counter()
        torch.autograd.backward(step())
        fastest = min(fastest, time.perf_counter() - begun)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([fastest * 1000, grown]))


def main() -> None:
    """Run all cases in turn and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000, help="predictions of a step")
    parser.add_argument("--items", type=int, default=3_416)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a case is repeated in a round")
    parser.add_argument("--blocks", type=int, nargs="+", default=[256])
    parser.add_argument("--negatives", type=int, nargs="+", default=[1])
    parser.add_argument("--skip-plain", action="store_true", help="leave out what needs N x V numbers")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        return measure(arguments.case[0], int(arguments.case[1]), arguments)
    cases = [("ce", block) for block in arguments.blocks]
    cases += [] if arguments.skip_plain else [("plain ce", 0)]
    cases += [(name, draws) for draws in arguments.negatives for name in ("bce", "plain bce")]
    best = {case: (float("inf"), 0.0) for case in cases}
    for _ in range(arguments.rounds):
        for name, argument in cases:
            command = [sys.executable, *sys.argv, "--case", name, str(argument)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            took, grown = json.loads(done.stdout)
            known = best[name, argument]
            best[name, argument] = (min(known[0], took), max(known[1], grown))
    print(f"{arguments.events} predictions, {arguments.items} items, {arguments.width} wide, "
          f"{arguments.threads} threads, torch {torch.__version__}")  # fmt: skip
    labels = {"ce": "block", "plain ce": "", "bce": "K", "plain bce": "K"}
    for (name, argument), (took, grown) in best.items():
        label = f"{name} ({labels[name]} {argument})" if labels[name] else name
        print(f"{label:24} {took:10.1f} ms {grown:10.0f} MiB")


if __name__ == "__main__":
    main()
