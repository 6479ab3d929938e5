"""The position `known-item`: its function against a slow oracle, what it reads, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_positions.known import KnownPositions, build
from recore_positions.known_options import KnownItem
from recore_positions.plugin import recore_positions
from torch import Tensor

from recore import Context, Facts, RecipeError
from recore.attention import KeyBias, attend
from recore.ragged import Batch, Layout, View, offsets_of
from recore.testing import parametrize_with_checks, part_of

(COMPONENT,) = (found for found in recore_positions() if found.name == "known-item")
ITEMS, HEADS = 50, 2
NAN = float("nan")


@parametrize_with_checks(
    [
        part_of("position", COMPONENT, "recore-positions", options)
        for options in (
            KnownItem(),
            KnownItem(evidence="rank", layers="shared"),
            KnownItem(evidence="agreement"),
        )
    ]
)
def test_known_item_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def position(**options: Any) -> KnownPositions:
    made = build(
        KnownItem(**options), Context(0, "model.position", Facts(heads=HEADS, layers=2, items=ITEMS))
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.weight.copy_(torch.randn(made.weight.shape, generator=generator))
    return made.double()


def slow(value: float, evidence: str, table: Tensor, head: int) -> float:
    """b_h(u), from the formula of the options."""
    if math.isnan(value):
        return float(table[-1, head])
    u = {
        "surprise": lambda: min(value / (2 * math.log(ITEMS)), 1.0),
        "rank": lambda: math.log(1 + value) / math.log(ITEMS),
        "agreement": lambda: (1 + value) / 2,
    }[evidence]()
    last = table.shape[0] - 2
    low = min(int(u * last), last - 1)
    share = u * last - low
    return float((1 - share) * table[low, head] + share * table[low + 1, head])


RANGES: dict[str, st.SearchStrategy[float]] = {
    "surprise": st.floats(0, 30),
    "rank": st.integers(0, ITEMS - 1).map(float),
    "agreement": st.floats(-1, 1),
}


@given(st.data(), st.sampled_from(sorted(RANGES)), st.integers(2, 12))
@settings(deadline=None, max_examples=60)
def test_the_bias_is_the_formulas(data: st.DataObject, evidence: Any, knots: int) -> None:
    values = data.draw(st.lists(RANGES[evidence] | st.just(NAN), min_size=1, max_size=9))
    made = position(evidence=evidence, knots=knots)
    column = torch.tensor(values, dtype=torch.float64)
    view = View(
        {"token": torch.zeros(len(values)).long(), evidence: column}, offsets_of(torch.tensor([len(values)]))
    )
    x = torch.zeros(len(values), 4, dtype=torch.float64)
    placed = made.place(x, Batch({"user": view}), view)
    assert placed.inputs is x
    for layer in (0, 1):
        (term,) = placed.layer(layer)
        assert isinstance(term, KeyBias)
        table = made.weight[layer].detach()
        expected = [[slow(value, evidence, table, head) for head in range(HEADS)] for value in values]
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(term.bias.detach(), wanted, rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_a_loop_over_rows() -> None:
    """softmax_j(q_i·k_j/√e + b_h(u_j)) v_j with the biases looked up one by one, to 1e-9."""
    made, held = position(), [4, 1, 3]
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(8, HEADS, 3, dtype=torch.float64, generator=generator) for _ in range(3))
    column = 9 * torch.rand(8, dtype=torch.float64, generator=generator)
    column[[0, 4, 5]] = NAN
    for layout in (Layout(), Layout("left", 7, NAN), Layout("right", 7, NAN)):
        view = View(
            {"token": torch.zeros(8).long(), "surprise": column}, offsets_of(torch.tensor(held)), layout
        )
        placed = made.place(torch.zeros(8, 6, dtype=torch.float64), Batch({"user": view}), view)
        out = attend(q, k, v, view, placed.layer(0))
        way = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        (found,) = torch.autograd.grad((out * way).sum(), made.weight)
        placed = made.place(torch.zeros(8, 6, dtype=torch.float64), Batch({"user": view}), view)
        bias = placed.layer(0)[0].bias  # type: ignore[union-attr]
        rows, begin = [], 0
        for length in held:
            for i in range(length):
                keys = slice(begin, begin + i + 1)
                logits = torch.einsum("he,jhe->jh", q[begin + i], k[keys]) / math.sqrt(3) + bias[keys]
                rows.append(torch.einsum("jh,jhe->he", logits.softmax(0), v[keys]))
            begin += length
        (expected,) = torch.autograd.grad((torch.stack(rows) * way).sum(), made.weight)
        torch.testing.assert_close(out, torch.stack(rows), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_blind_guess_is_half_and_an_unseen_worst_case_is_one() -> None:
    made = position()
    assert made.unit(torch.tensor([0.0, math.log(ITEMS), 1e9])).tolist() == pytest.approx([0, 0.5, 1])
    assert position(evidence="rank").unit(torch.tensor([0.0, ITEMS - 1])).tolist() == pytest.approx([0, 1])


def test_at_first_it_is_not_there() -> None:
    made = build(KnownItem(), Context(0, "model.position", Facts(heads=HEADS, layers=1, items=ITEMS)))
    assert not made.weight.any()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(computed=frozenset()), "does not fill"),
        (Facts(terms=frozenset({"rotate"})), "needs an encoder that takes the term 'key-bias'"),
        (Facts(causal=False), "its states know the item"),
        (Facts(prefix_consistent=False), "does not promise that states are those of their prefixes"),
    ],
)
def test_what_stands_against_it_is_said(facts: Facts, words: str) -> None:
    (problem,) = KnownItem().problems(facts)
    assert words in problem
    assert "(use" in problem
    assert "\n" not in problem


def test_what_is_refused() -> None:
    assert KnownItem().problems(Facts()) == []
    with pytest.raises(ValueError, match="`knots`: expected at least 2, got 1"):
        KnownItem(knots=1)
    with pytest.raises(RecipeError, match="heads None"):
        build(KnownItem(), Context(0, "model.position", Facts(items=ITEMS)))
