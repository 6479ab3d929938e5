"""Times of attention, forward and backward, by what is added to the logits.

    python benchmarks/attention.py [--rounds 15] [--threads 1 2]

Histories are 128 of 20 to 200 events (uniform), then 4 of 2,000; 64 wide; float32. Cases take turns, and the
smallest time of each counts: on a busy machine all are disturbed alike. `padded` is what most libraries do
(one rectangle, torch's causal kernel); `masked` is a learned bias per head and distance as most do it
(rectangles of like length, the bias gathered into a mask tensor, whose gradient is as large).
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from recore.attention import Buckets, KeyBias, PairTable, Rotate, Silu, attend
from recore.attention.plan import plan_of
from recore.ragged import Layout, View, offsets_of


def log_gap(row: Tensor, key: Tensor) -> Tensor:
    """HSTU's buckets of a time gap."""
    return ((row - key).abs().clamp(min=1).float().log() / 0.301).long().clamp(max=63)


def masked(q: Tensor, k: Tensor, v: Tensor, view: View, table: Tensor) -> Tensor:
    """A learned bias as a mask tensor, on the same rectangles as `attend` makes."""
    pieces = []
    for group in plan_of(view, None).groups:
        column = torch.arange(group.width)
        distance = (column[:, None] - column).clamp(0, len(table) - 1)
        bias = table[distance].permute(2, 0, 1).masked_fill(column[:, None] < column, -math.inf)
        mask = bias[None].expand(len(group), -1, -1, -1)
        queries, keys, values = (x[group.keys].transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        pieces.append(out.transpose(1, 2)[group.seen])
    return torch.cat(pieces)


def padded(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
    """One rectangle for all."""
    layout = Layout("right")
    queries, keys, values = (layout.rectangle(view.ragged(x)).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True).transpose(1, 2)
    return out.flatten(0, 1)[layout.flat(view.offsets)]


def cases(lengths: Tensor, heads: int, width: int = 64) -> dict[str, Callable[[], None]]:
    """One forward and backward pass each."""
    offsets = offsets_of(lengths)
    events, size, longest = int(offsets[-1]), width // heads, int(lengths.max())
    view = View({"token": torch.arange(events)}, offsets)
    q, k, v = (torch.randn(events, heads, size, requires_grad=True) for _ in range(3))
    seconds = torch.randint(0, 10**6, (events,)).sort().values
    bias = torch.randn(longest, heads, requires_grad=True)
    gaps = torch.randn(64, heads, requires_grad=True)
    vectors = [torch.randn(51, heads, size, requires_grad=True) for _ in range(2)]
    angle = torch.rand(events, size // 2)
    rotate = Rotate(angle.cos(), angle.sin())
    learned = PairTable("logit", bias)
    alibi = PairTable("logit", -torch.arange(longest)[:, None] * torch.rand(heads))
    key_alibi = KeyBias(view.place[:, None] * torch.rand(heads))
    times = PairTable("logit", gaps, Buckets(log_gap, seconds, seconds))
    shaw = (PairTable("key", vectors[0]), PairTable("value", vectors[1]))
    last = view.last

    def run(make: Callable[[], Tensor]) -> Callable[[], None]:
        def once() -> None:
            make().sum().backward()  # type: ignore[no-untyped-call]  # torch's own is untyped

        return once

    return {
        "none": run(lambda: attend(q, k, v, view)),
        "padded": run(lambda: padded(q, k, v, view)),
        "last rows only": run(lambda: attend(q[last], k, v, view, rows=last)),
        "rope": run(lambda: attend(q, k, v, view, (rotate,))),
        "alibi, fixed table": run(lambda: attend(q, k, v, view, (alibi,))),
        "alibi, key bias": run(lambda: attend(q, k, v, view, (key_alibi,))),
        "learned bias": run(lambda: attend(q, k, v, view, (learned,))),
        "learned bias, masked": run(lambda: masked(q, k, v, view, bias)),
        "time bias": run(lambda: attend(q, k, v, view, (times,))),
        "Shaw, 50 distances": run(lambda: attend(q, k, v, view, shaw)),
        "silu, learned bias": run(lambda: attend(q, k, v, view, (learned,), normalise=Silu())),
        "none, dropout": run(lambda: attend(q, k, v, view, dropout=0.1)),
    }


def smallest(many: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, the smallest of `rounds`, taking turns."""
    best = dict.fromkeys(many, math.inf)
    for _ in range(rounds):
        for name, once in many.items():
            start = time.perf_counter()
            once()
            best[name] = min(best[name], 1000 * (time.perf_counter() - start))
    return best


def processor() -> str:
    """The machine's own name of its processor, where it says one."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{processor()}, {capability}, torch {torch.__version__}, Python {platform.python_version()}")
    torch.manual_seed(0)
    batches = {
        "128 histories of 20 to 200": torch.randint(20, 201, (128,)),
        "4 histories of 2,000": torch.full((4,), 2000),
    }
    for label, lengths in batches.items():
        columns = [(threads, heads) for threads in options.threads for heads in (1, 4)]
        found = []
        for threads, heads in columns:
            torch.set_num_threads(threads)
            rounds = options.rounds if lengths.max() < 1000 else max(options.rounds // 4, 3)
            found.append(smallest(cases(lengths, heads), rounds))
        print(f"\n{label}: ms (times `none`)", flush=True)
        print(" " * 22 + "".join(f"{f'{t} thr, {h} heads':>20}" for t, h in columns))
        for name in found[0]:
            cells = (f"{times[name]:.1f} ({times[name] / times['none']:.2f})" for times in found)
            print(f"{name:<22}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
