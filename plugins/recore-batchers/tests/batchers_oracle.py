"""A slow oracle: every (context, target) pair of a plan, one by one, as planned and as an objective makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from recore.contracts import Batcher, Plan
from recore.ragged import View, offsets_of
from recore.rng import generator
from recore.testing.tiny.learning import TinyObjective

Pair = tuple[int, int, int]  # history, first event of the context, target: the context ends before the target
LONG = 2_277  # the longest history of MovieLens-1M
REACHES = (2, 3, 5, 9, 201)


def edges(reach: int | None) -> list[int]:
    """Lengths at which batchers go wrong: none, 1, 2, the bound and around it, a multiple of it, and 2,277."""
    bound = reach or 12
    return [1, 0, 2, bound - 1, bound, LONG, bound + 1, 2 * bound - 1, 2 * bound, 2 * bound + 1, 1, bound]


LENGTHS = st.lists(st.integers(0, 40), max_size=25)


def plan_of(batcher: Batcher, lengths: list[int], seed: int = 0, rank: int = 0, world: int = 1) -> Plan:
    return batcher.epoch(torch.tensor(lengths, dtype=torch.int64), generator(seed), rank, world)


def spans(plan: Plan, lengths: list[int]) -> list[list[tuple[int, int, int, int, float]]]:
    """Per batch: history, start, stop, target_from, weight of each entry."""
    found = []
    for a, b in zip(plan.groups.tolist(), plan.groups.tolist()[1:], strict=False):
        batch = []
        for e in range(a, b):
            history = int(plan.index[e])
            start = 0 if plan.start is None else int(plan.start[e])
            stop = lengths[history] if plan.stop is None else int(plan.stop[e])
            since = 0 if plan.target_from is None else int(plan.target_from[e])
            batch.append((history, start, stop, since, 1.0 if plan.weight is None else float(plan.weight[e])))
        found.append(batch)
    return found


def pairs(plan: Plan, lengths: list[int]) -> Counter[Pair]:
    """How often each pair is planned. The first event of an entry has no context."""
    counts: Counter[Pair] = Counter()
    for batch in spans(plan, lengths):
        for history, start, stop, since, _ in batch:
            counts.update((history, start, target) for target in range(start + max(since, 1), stop))
    return counts


def learned(plan: Plan, lengths: list[int]) -> Counter[Pair]:
    """How often an objective makes each pair of the plan's batches, read off the events in its inputs."""
    offsets = offsets_of(torch.tensor(lengths, dtype=torch.int64))
    events = torch.arange(int(offsets[-1]))
    log = View({"token": events, "item": events, "event": events}, offsets)
    counts: Counter[Pair] = Counter()
    for a, b in zip(plan.groups.tolist(), plan.groups.tolist()[1:], strict=False):
        index = plan.index[a:b]
        first = offsets[index]
        start = first if plan.start is None else first + plan.start[a:b]
        stop = offsets[index + 1] if plan.stop is None else first + plan.stop[a:b]
        since = None if plan.target_from is None else plan.target_from[a:b]
        inputs, targets = TinyObjective().training(log.cut(start, stop, index), torch.Generator(), since)
        rows = zip(targets.where.tolist(), targets.id.tolist(), strict=True)
        for row, target in rows:
            held = inputs["event"][int(inputs.offsets[inputs.sequence[row]]) : row + 1].tolist()
            history = int(index[inputs.sequence[row]])
            assert held == list(range(held[0], target)), (held, target)
            counts[history, held[0] - int(offsets[history]), target - int(offsets[history])] += 1
    return counts


def calls(what: Callable[[], object]) -> int:
    """How many calls of torch it makes."""
    made = [0]

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch states no types here
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made[0] += 1
            return func(*args, **(kwargs or {}))

    with Counting():  # type: ignore[no-untyped-call]
        what()
    return made[0]
