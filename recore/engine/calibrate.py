"""How fast this machine is, in the terms in which parts state their costs: a second or two of timed operations.

Each rate is the median of a few repetitions at the sizes that will be met, with the threads that will be used, in
processor time of the main thread, which has its share of all work. `busy` is by how much the clock was slower than
that: other processes may have the cores, and then times are longer in proportion. Legend: `T` events of a batch,
`d` width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from recore.attention import PairTable, Term, attend
from recore.costs import Attention, Costs, Product
from recore.engine.machine import Machine
from recore.ragged import Layout, View, offsets_of

LARGEST = 8192  # rows, inner and columns of a timed product: larger ones run at the rate of these
FLOPS = 2**30  # of a timed product
ENOUGH = 0.02  # seconds of repetitions
TIMED_EVENTS = 16_384  # of attention
HELD = 8  # results at a time of element-wise operations: a step holds many, so pages are fresh
LOOKED = 1.0  # seconds over which `busy` is seen


@define
class Speed:
    """Rates of one machine, measured when first asked for and remembered."""

    machine: Machine
    known: dict[Any, float] = field(factory=dict)
    clock: float = 0.0  # seconds of all repetitions
    worked: float = 0.0  # those of the processor

    @property
    def dtype(self) -> torch.dtype:
        """That of weights and states."""
        kind: torch.dtype = getattr(torch, self.machine.precision)
        return kind

    def seconds(self, costs: Costs, size: float) -> dict[str, float]:
        """Seconds of one batch by what they are spent on, attention aside; `size`: bytes of a tensor `(T, d)`."""
        found = {
            "matrix products": sum(product.flops / self.product(product) for product in costs.products),
            "element-wise": costs.moved / self.bandwidth(size) if costs.moved else 0.0,
            "random rows": costs.gathered / self.gather() if costs.gathered else 0.0,
            "random numbers": costs.drawn * self.draw() if costs.drawn else 0.0,
            "exponentials": costs.exponentials * self.exponential() if costs.exponentials else 0.0,
            "calls": costs.calls * self.call(),
        }
        return {name: value for name, value in found.items() if value}

    def product(self, product: Product) -> float:
        """Operations a second of a product of that shape."""
        rows, inner, columns = (
            min(LARGEST, max(1, round(n))) for n in (product.rows, product.inner, product.columns)
        )
        # A short side keeps its length: it decides the rate.
        while 2 * rows * inner * columns > FLOPS:
            rows, inner, columns = (
                n // 2 if n == max(rows, inner, columns) else n for n in (rows, inner, columns)
            )

        def measure() -> float:
            left, right = self._random(rows, inner), self._random(inner, columns)
            return 2.0 * rows * inner * columns / self._time(lambda: left @ right)

        return self.once(("product", rows, inner, columns), measure)

    def bandwidth(self, size: float) -> float:
        """Bytes a second of an element-wise sum into a fresh tensor of `size` bytes, to a factor of two."""
        number = torch.finfo(self.dtype).bits // 8
        count = 2 ** max(10, min(24, round(size / number).bit_length()))

        def measure() -> float:
            left, right = self._random(count), self._random(count)
            seconds = self._time(lambda: [left + right for _ in range(HELD)]) / HELD
            return float(3.0 * count * number / seconds)

        return self.once(("bandwidth", count), measure)

    def gather(self) -> float:
        """Bytes a second of rows read from, and added at, random places of a table."""

        def measure() -> float:
            table = self._random(16_384, 64)
            index = torch.randint(len(table), (8192,)).to(self.machine.device)
            rows = table.index_select(0, index)
            seconds = self._time(lambda: table.index_add_(0, index, table.index_select(0, index)))
            return 2.0 * rows.numel() * rows.element_size() / seconds

        return self.once("gather", measure)

    def draw(self) -> float:
        """Seconds of a random number of 64 bits."""
        numbers = torch.empty(2**16, dtype=torch.int64, device=self.machine.device)
        own = torch.Generator(self.machine.device)
        return self.once("draw", lambda: self._time(lambda: numbers.random_(generator=own)) / len(numbers))

    def exponential(self) -> float:
        """Seconds of an exponential."""
        numbers = self._random(2**18)
        return self.once("exp", lambda: self._time(lambda: numbers.mul(-1.0).exp_()) / len(numbers))

    def call(self) -> float:
        """Seconds of a call on next to nothing, as the mean of one forward, which autograd notes, and one backward."""

        def measure() -> float:
            x = self._random(8).requires_grad_()

            def chain() -> None:
                y = x
                for _ in range(50):
                    y = y * 1.0
                torch.autograd.backward(y.sum())

            return self._time(chain) / 100

        return self.once("call", measure)

    def attention(
        self, asked: Attention, lengths: Sequence[int], layout: Layout, tiles: bool, training: bool
    ) -> float:
        """Seconds that one call of `attend` takes for each event of sequences of these lengths, of which as many
        are timed as fit into 16,384 events; without the plan, which layers share."""
        kind = (asked.heads, asked.width, asked.causal, asked.dropout, tiles, training)
        key = ("attention", *kind, hash(tuple(lengths)))

        def measure() -> float:
            chosen = _some(lengths)
            offsets = offsets_of(torch.tensor(chosen, dtype=torch.int64))
            events = int(offsets[-1])
            view = View({"token": torch.zeros(events, dtype=torch.int64)}, offsets)
            view = view.laid_out(layout).to(self.machine.device)
            shape = (events, asked.heads, max(1, asked.width // asked.heads))
            q, k, v = (self._random(*shape).requires_grad_(training) for _ in range(3))
            table = torch.zeros(129, asked.heads, dtype=self.dtype, device=self.machine.device)
            table.requires_grad_(training)
            terms: tuple[Term, ...] = (
                (PairTable("logit", table, index="distance", low=-64, high=64),) if tiles else ()
            )

            def once() -> None:
                with torch.set_grad_enabled(training):
                    out = attend(q, k, v, view, terms, causal=asked.causal, dropout=asked.dropout)
                if training:
                    torch.autograd.backward(out.sum())

            return self._time(once) / max(events, 1)

        return self.once(key, measure)

    def plan(self, lengths: Sequence[int], layout: Layout) -> float:
        """Seconds of planning attention once for sequences of these lengths."""
        from recore.attention.plan import plan_of

        offsets = offsets_of(torch.tensor(list(lengths), dtype=torch.int64))
        values = {"token": torch.zeros(int(offsets[-1]), dtype=torch.int64)}

        def once() -> None:
            plan_of(View(values, offsets).laid_out(layout).to(self.machine.device), None)

        return self.once(("plan", hash(tuple(lengths))), lambda: self._time(once))

    @property
    def busy(self) -> float:
        """Clock seconds for each second of work, 1 where nobody else wants the cores; seen over a second."""

        def look() -> float:
            left = self._random(256, 256)
            while self.clock < LOOKED:
                self.timed(lambda: left @ left)
            return max(1.0, self.clock / max(self.worked, 1e-9))

        return self.once("busy", look)

    def timed(self, what: Callable[[], object]) -> float:
        """Seconds of one call, now, without those in which others have the core; another device's by the clock."""
        begun, worked = time.perf_counter(), time.thread_time()
        what()
        if torch.device(self.machine.device).type == "cuda":
            torch.cuda.synchronize(self.machine.device)
        seconds, work = time.perf_counter() - begun, time.thread_time() - worked
        self.clock += seconds
        if torch.device(self.machine.device).type != "cpu":
            work = seconds
        self.worked += work
        return work

    def once(self, key: Any, measure: Callable[[], float]) -> float:
        """What was measured before under this key, or is now."""
        if key not in self.known:
            self.known[key] = measure()
        return self.known[key]

    def _time(self, what: Callable[[], object]) -> float:
        """The median of at least three, for at least 20 ms."""
        what()
        taken: list[float] = []
        while len(taken) < 3 or (sum(taken) < ENOUGH and len(taken) < 200):
            taken.append(self.timed(what))
        return max(statistics.median(taken), 1e-9)

    def _random(self, *shape: int) -> Tensor:
        own = torch.Generator().manual_seed(0)
        return torch.rand(*shape, generator=own, dtype=self.dtype).to(self.machine.device)


def _some(lengths: Sequence[int]) -> list[int]:
    """Of lengths as many, evenly spread from shortest to longest, as fit into `TIMED_EVENTS`."""
    ordered = sorted(length for length in lengths if length)
    total = sum(ordered)
    every = max(1, -(-total // TIMED_EVENTS))
    return ordered[every // 2 :: every] or ordered[-1:] or [1]
