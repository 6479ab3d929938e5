"""`untruncated`: whole histories, however long, within a budget of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from batchers_oracle import LENGTHS, LONG, edges, learned, pairs, plan_of, spans
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_batchers.options import Ragged, Untruncated
from recore_batchers.plugin import recore_batchers
from recore_batchers.ragged import RaggedBatcher
from recore_batchers.untruncated import UntruncatedBatcher, build

from recore import BatcherClaims, Context, Facts
from recore.errors import RecipeError
from recore.testing import parametrize_with_checks, part_of

COMPONENT = {component.name: component for component in recore_batchers()}["untruncated"]
OPTIONS = [Untruncated(), Untruncated(tokens=50), Untruncated(tokens=50, order="like-length")]
ORDERS = st.sampled_from(["random", "like-length"])


@parametrize_with_checks(
    [part_of("batcher", COMPONENT, f"recore-batchers{n}", made) for n, made in enumerate(OPTIONS)]
)
def test_untruncated_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def stated(lengths: list[int]) -> Counter[tuple[int, int, int]]:
    """Each event but the first of its history after all that came before it."""
    return Counter(
        (history, 0, target) for history, length in enumerate(lengths) for target in range(1, length)
    )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("bound", [2, 5, 50])
def test_every_pair_exactly_once_at_the_edges(options: Untruncated, bound: int) -> None:
    lengths = edges(bound)
    plan = plan_of(build(options, Context(facts=Facts(history="all"))), lengths)
    assert pairs(plan, lengths) == learned(plan, lengths) == stated(lengths)
    assert LONG in lengths


@given(LENGTHS, ORDERS, st.integers(1, 90), st.integers(0, 9))
@settings(deadline=None, max_examples=80)
def test_whole_histories_within_the_budget_or_alone(
    lengths: list[int], order: Literal["random", "like-length"], tokens: int, seed: int
) -> None:
    plan = plan_of(UntruncatedBatcher(Untruncated(tokens=tokens, order=order)), lengths, seed)
    assert pairs(plan, lengths) == learned(plan, lengths) == stated(lengths)
    assert sorted(plan.index.tolist()) == list(range(len(lengths)))
    assert plan.start is plan.stop is plan.target_from is plan.weight is None
    for batch in spans(plan, lengths):
        assert sum(stop - start for _, start, stop, _, _ in batch) <= tokens or len(batch) == 1
    ragged = plan_of(RaggedBatcher(Ragged(order=order, tokens=tokens)), lengths, seed)
    assert torch.equal(plan.index, ragged.index)
    assert torch.equal(plan.groups, ragged.groups)


def test_claims_and_facts() -> None:
    assert Untruncated().claims() == BatcherClaims(each="once", random=True)
    assert Untruncated().provides() == Facts(padding="none", whole_histories=True)


def test_a_model_that_truncates_is_refused() -> None:
    assert Untruncated().problems(Facts(history="all")) == Untruncated().problems(Facts()) == []
    (problem,) = Untruncated().problems(Facts(history=200))
    assert problem == (
        "keeps whole histories, but the model reads the last 200 events of each (set `model.history.last: all`, or "
        "use `windows`, which needs a bound)"
    )
    with pytest.raises(RecipeError, match="batcher 'untruncated': keeps whole histories"):
        build(Untruncated(), Context(facts=Facts(reach=201)))
    with pytest.raises(ValueError, match="'tokens' must be >= 1: 0"):
        Untruncated(tokens=0)
