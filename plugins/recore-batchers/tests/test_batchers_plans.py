"""Plans of `ragged` and `padded`: exactly once, ranks, budgets; the kit's checks of batchers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_batchers.options import USERS, Padded, Ragged
from recore_batchers.padded import PaddedBatcher
from recore_batchers.padded import build as build_padded
from recore_batchers.plugin import recore_batchers
from recore_batchers.ragged import RaggedBatcher, build

from recore import BatcherClaims, Context, Facts
from recore.contracts import Batcher, Plan
from recore.ragged import Layout
from recore.rng import generator
from recore.testing import load_checks, parametrize_with_checks, part_of

COMPONENTS = {component.name: component for component in recore_batchers()}
RAGGED = [
    Ragged(),
    Ragged(users=3),
    Ragged(tokens=40),
    Ragged(order="like-length", users=3),
    Ragged(order="like-length", tokens=40),
    Ragged(order="like-length", tokens=40, spread=0.0),
]
PARTS = [
    *(part_of("batcher", COMPONENTS["ragged"], f"recore-batchers{n}", made) for n, made in enumerate(RAGGED)),
    part_of("batcher", COMPONENTS["padded"], "recore-batchers"),
    part_of("batcher", COMPONENTS["padded"], "right", Padded(side="right", users=5)),
]
LENGTHS = st.lists(st.integers(0, 60), max_size=40).map(lambda n: torch.tensor(n, dtype=torch.int64))
BATCHERS: list[Batcher] = [*(RaggedBatcher(made) for made in RAGGED), PaddedBatcher(Padded(users=4))]


@parametrize_with_checks(PARTS)
def test_batchers_keep_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_checks_and_parts() -> None:
    assert len(load_checks()["batcher"]) >= 6
    assert set(COMPONENTS) == {"ragged", "padded", "by-length", "untruncated", "windows"}


def batches(plan: Plan) -> list[list[int]]:
    """The histories of each batch."""
    cuts = zip(plan.groups[:-1], plan.groups[1:], strict=True)
    return [plan.index[start:stop].tolist() for start, stop in cuts]


@pytest.mark.parametrize("batcher", BATCHERS)
@given(LENGTHS, st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_each_history_once_whole_in_full_batches(batcher: Batcher, lengths: torch.Tensor, seed: int) -> None:
    plan = batcher.epoch(lengths, generator(seed))
    held = batches(plan)
    assert sorted(n for batch in held for n in batch) == list(range(len(lengths)))
    assert all(held)
    assert plan.start is plan.stop is plan.target_from is plan.weight is None
    again = batcher.epoch(lengths, generator(seed))
    assert torch.equal(plan.index, again.index)
    assert torch.equal(plan.groups, again.groups)


@pytest.mark.parametrize("batcher", BATCHERS)
@given(LENGTHS, st.integers(1, 5))
@settings(deadline=None, max_examples=25)
def test_ranks_share_the_batches_of_one_process(batcher: Batcher, lengths: torch.Tensor, world: int) -> None:
    alone = batches(batcher.epoch(lengths, generator(1)))
    shares = [batches(batcher.epoch(lengths, generator(1), rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)}
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        assert sorted(n for part in parts for n in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("order", ["random", "like-length"])
@given(LENGTHS, st.integers(1, 200))
@settings(deadline=None, max_examples=40)
def test_the_budget_of_events_is_kept(order: str, lengths: torch.Tensor, tokens: int) -> None:
    options = Ragged(order=order, tokens=tokens)  # type: ignore[arg-type]  # one of its two values
    held = batches(RaggedBatcher(options).epoch(lengths, generator(2)))
    sizes = [int(lengths[batch].sum()) for batch in held]
    for batch, size in zip(held, sizes, strict=True):
        assert size <= tokens or len(batch) == 1
    if order == "random":  # no batch ends before it has to
        for batch, after, size in zip(held, held[1:], sizes, strict=False):
            assert size + int(lengths[after[0]]) > tokens, (batch, after)


@given(LENGTHS)
@settings(deadline=None, max_examples=40)
def test_batches_hold_like_lengths_and_come_in_random_order(lengths: torch.Tensor) -> None:
    held = batches(
        RaggedBatcher(Ragged(order="like-length", users=4, spread=0.0)).epoch(lengths, generator(3))
    )
    ranges = sorted((int(lengths[batch].min()), int(lengths[batch].max())) for batch in held)
    for (_, high), (low, _) in pairwise(ranges):
        assert high <= low


def test_like_length_batches_are_not_in_order_of_length() -> None:
    lengths = torch.arange(1, 401)
    plan = RaggedBatcher(Ragged(order="like-length", users=8, spread=0.0)).epoch(lengths, generator(4))
    means = [sum(batch) / len(batch) for batch in batches(plan)]
    assert means != sorted(means)
    blurred = RaggedBatcher(Ragged(order="like-length", users=8, spread=0.1))
    meet = [
        {frozenset(batch) for batch in batches(blurred.epoch(lengths, generator(seed)))} for seed in (5, 6)
    ]
    assert len(meet[0] & meet[1]) < 10  # with lengths all unlike, it is the blur that lets others meet


def test_every_order_is_as_likely() -> None:
    """Of 3 histories in batches of 1 each of the 6 orders comes 1/6 of the time: chi-square with 5 degrees of
    freedom below 20.5 (p = 0.001)."""
    counts: dict[tuple[int, ...], int] = {}
    batcher, random = RaggedBatcher(Ragged(users=1)), generator(7)
    for _ in range(3000):
        order = tuple(batcher.epoch(torch.tensor([5, 1, 9]), random).index.tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 20.5


def test_layouts_and_facts() -> None:
    lengths = torch.tensor([3, 1])
    assert build(Ragged(), Context()).epoch(lengths, generator(0)).layout == Layout()
    assert Ragged().provides() == Facts(padding="none")
    assert Padded().side == "left"
    for side in ("left", "right"):
        options = Padded(side=side)
        assert build_padded(options, Context()).epoch(lengths, generator(0)).layout == Layout(side)
        assert options.provides() == Facts(padding=side)
    assert Ragged().claims() == Padded().claims() == BatcherClaims(each="once", random=True)


def test_padded_batches_are_those_of_ragged() -> None:
    lengths = torch.randint(0, 50, (300,), generator=generator(8))
    one, other = (b.epoch(lengths, generator(9)) for b in (RaggedBatcher(Ragged()), PaddedBatcher(Padded())))
    assert torch.equal(one.index, other.index)
    assert torch.equal(one.groups, other.groups)
    assert [len(batch) for batch in batches(one)] == [USERS, USERS, 300 - 2 * USERS]


def test_two_sizes_are_a_problem() -> None:
    assert Ragged(users=5).problems(Facts()) == []
    (problem,) = Ragged(users=5, tokens=7).problems(Facts())
    assert problem == (
        "users is 5 and tokens is 7: expected one of them, since either says how large a batch is (set the "
        "other one to ~)"
    )


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="'users' must be >= 1: 0"):
        Ragged(users=0)
    with pytest.raises(ValueError, match="'tokens' must be >= 1: 0"):
        Ragged(tokens=0)
    with pytest.raises(ValueError, match="must be >= 0"):
        Ragged(spread=-0.1)
    with pytest.raises(ValueError, match="rank is 2, expected 0 to 1 in a world of 2"):
        RaggedBatcher(Ragged()).epoch(torch.tensor([1]), generator(0), 2, 2)


def test_listing_does_not_import_torch() -> None:
    code = (
        "import sys, recore_batchers.plugin as p; list(p.recore_batchers()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
