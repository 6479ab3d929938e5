"""The position `relative-bias`, through attention. Legend: `T` events, `H` heads, `d` width."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_positions.relative import RelativePositions, build
from recore_positions.relative_options import RelativeBias
from torch import Tensor

from recore import BOTH_SIDES, Context, Facts, RecipeError
from recore.attention import PairTable, attend
from recore.contracts import Position
from recore.ragged import Batch, Layout, View, offsets_of

HEADS, SIZE = 2, 3
lengths = st.lists(st.integers(1, 7), min_size=1, max_size=4)


def relative(
    max_distance: int = 3, *, causal: bool = True, layers: Any = "each", seed: int = 0
) -> RelativePositions:
    options = RelativeBias(max_distance=max_distance, layers=layers, initial="normal", std=1.0)
    facts = Facts(heads=HEADS, layers=2, causal=causal, terms=frozenset({"pair-table"}))
    return build(options, Context(seed, "model.position", facts)).double()


def view_of(held: list[int], layout: Layout | None = None) -> View:
    offsets = offsets_of(torch.tensor(held))
    return View({"token": torch.zeros(sum(held), dtype=torch.int64)}, offsets, layout or Layout())


def qkv(events: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(events, HEADS, SIZE, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(3)
    ]


def attended(
    position: RelativePositions, tensors: list[Tensor], view: View, causal: bool = True, layer: int = 0
) -> Tensor:
    x = torch.zeros(view.events, 1, dtype=torch.float64)
    placed = position.place(x, Batch({"user": view}), view)
    assert placed.inputs is x
    q, k, v = tensors
    return attend(q, k, v, view, placed.layer(layer), causal=causal)


def slow(tensors: list[Tensor], held: list[int], table: Tensor, low: int, high: int, causal: bool) -> Tensor:
    """softmax_j(q_i · k_j / √e + b[clip(i − j, low, high) − low]) v_j, row by row and head by head."""
    q, k, v = tensors
    rows, begin = [], 0
    for length in held:
        for i in range(length):
            seen = range(i + 1) if causal else range(length)
            heads = []
            for h in range(HEADS):
                logits = torch.stack(
                    [
                        q[begin + i, h] @ k[begin + j, h] / math.sqrt(SIZE)
                        + table[min(max(i - j, low), high) - low, h]
                        for j in seen
                    ]
                )
                heads.append(logits.softmax(0) @ torch.stack([v[begin + j, h] for j in seen]))
            rows.append(torch.stack(heads))
        begin += length
    return torch.stack(rows)


def close(got: Tensor, expected: Tensor, largest: float | None = None) -> None:
    scale = largest or float(expected.detach().abs().max())
    assert float((got - expected).detach().abs().max()) <= 1e-9 * scale


def test_it_keeps_the_contract_and_claims() -> None:
    assert isinstance(relative(), Position)
    claims = RelativeBias().claims()
    assert claims.relative_to == "prediction"
    assert claims.prefix_consistent
    assert claims.shift_invariant
    assert claims.padding == BOTH_SIDES


@settings(deadline=None, max_examples=30)
@given(
    held=lengths, causal=st.booleans(), far=st.integers(1, 8), layer=st.integers(0, 1), shared=st.booleans()
)
def test_it_equals_the_formula_values_and_gradients(
    held: list[int], causal: bool, far: int, layer: int, shared: bool
) -> None:
    position = relative(far, causal=causal, layers="shared" if shared else "each")
    tensors = qkv(sum(held))
    got = attended(position, tensors, view_of(held), causal, layer)
    table = position.weight[0 if shared else layer]
    expected = slow(tensors, held, table, 0 if causal else -far, far, causal)
    close(got, expected)
    weights = torch.arange(got.numel(), dtype=torch.float64).view_as(got).cos()
    wanted = [*tensors, position.weight]
    ours = torch.autograd.grad((got * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    largest = max(float(gradient.abs().max()) for gradient in theirs)
    for one, other in zip(ours, theirs, strict=True):
        close(one, other, largest)


@settings(deadline=None, max_examples=20)
@given(held=lengths, side=st.sampled_from(["left", "right"]), extra=st.integers(0, 64))
def test_padding_of_either_side_changes_nothing(held: list[int], side: str, extra: int) -> None:
    position, tensors = relative(), qkv(sum(held))
    layout = Layout("left" if side == "left" else "right", max(held) + extra, float("nan"))
    plain, forced = (
        attended(position, tensors, view_of(held)),
        attended(position, tensors, view_of(held, layout)),
    )
    close(forced, plain)
    weights = torch.arange(plain.numel(), dtype=torch.float64).view_as(plain).cos()
    expected, got = (
        torch.autograd.grad((out * weights).sum(), position.weight)[0] for out in (plain, forced)
    )
    close(got, expected, max(float(expected.abs().max()), 1.0))


@settings(deadline=None, max_examples=20)
@given(length=st.integers(2, 9), data=st.data())
def test_later_events_change_no_earlier_row_and_dropped_old_ones_no_number(
    length: int, data: st.DataObject
) -> None:
    position, tensors = relative(), qkv(length)
    kept = data.draw(st.integers(1, length - 1))
    whole = attended(position, tensors, view_of([length]))
    close(attended(position, [tensor[:kept] for tensor in tensors], view_of([kept])), whole[:kept])
    # Shift invariance is about what the position contributes. With equal logits a row receives the mean of the
    # values weighted by exp(number), so the numbers read show, whatever stood before what is left.
    silent = [torch.zeros(kept, HEADS, SIZE, dtype=torch.float64)] * 2
    values = tensors[2][length - kept :]
    got = attended(position, [*silent, values], view_of([kept]))
    for row in range(kept):
        distance = torch.arange(row, -1, -1).clamp(max=3)
        weight = position.weight[0].exp()[distance]  # (row + 1, H)
        close(got[row], (weight[..., None] * values[: row + 1]).sum(0) / weight.sum(0)[:, None], 1.0)
    moved = attended(position, tensors, view_of([length - kept, kept]))[length - kept :]
    close(moved, attended(position, [tensor[length - kept :] for tensor in tensors], view_of([kept])))


def test_one_table_for_all_layers_or_one_for_each() -> None:
    view = view_of([2])
    batch, x = Batch({"user": view}), torch.zeros(2, 1)
    each = relative().place(x, batch, view)
    shared = relative(layers="shared").place(x, batch, view)
    assert len(each.terms) == 2
    assert len(shared.terms) == 1
    assert shared.layer(0) is shared.layer(1)
    (first,), (second,) = each.terms
    assert isinstance(first, PairTable)
    assert isinstance(second, PairTable)
    assert not torch.equal(first.table, second.table)
    assert (first.low, first.high, tuple(first.table.shape)) == (0, 3, (4, HEADS))
    (both,) = relative(causal=False).place(x, batch, view).terms[0]
    assert isinstance(both, PairTable)
    assert (both.low, both.high, tuple(both.table.shape)) == (-3, 3, (7, HEADS))


def test_numbers_start_at_zero_or_come_from_the_seed_alone() -> None:
    context = Context(0, "model.position", Facts(heads=HEADS, layers=2, causal=True))
    assert not build(RelativeBias(), context).weight.any()
    state = torch.get_rng_state()
    one = relative(200, seed=1).weight.detach()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, relative(200, seed=1).weight)
    assert not torch.equal(one, relative(200, seed=2).weight)
    assert float(one.std()) == pytest.approx(1.0, rel=0.15)


def test_an_encoder_without_pair_tables_or_heads_is_refused() -> None:
    (problem,) = RelativeBias().problems(Facts(terms=frozenset({"rotate"})))
    assert problem == (
        "position 'relative-bias' needs an encoder that takes the term 'pair-table', but this one takes: rotate "
        "(use an encoder with attention, or positions that change inputs)"
    )
    (problem,) = RelativeBias().problems(Facts(terms=frozenset()))
    assert "but this one takes: none" in problem
    assert RelativeBias().problems(Facts(terms=frozenset({"pair-table"}))) == []
    assert RelativeBias().problems(Facts()) == []
    with pytest.raises(
        RecipeError, match="needs an encoder that states its heads and layers, got heads None"
    ):
        build(RelativeBias(), Context(path="model.position"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_distance", 0, "`max_distance`: expected at least 1, got 0"),
        ("std", -1.0, "`std`: expected 0 or more, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        attrs.evolve(RelativeBias(), **{name: value})
    assert str(error.value) == message
