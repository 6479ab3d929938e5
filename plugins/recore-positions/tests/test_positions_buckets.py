"""T5's logarithmic buckets of `relative-bias`: the formula, the fast path, and what they are claimed to keep."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_positions.relative import RelativePositions, build, logarithmic
from recore_positions.relative_options import RelativeBias
from torch import Tensor

from recore import Context, Facts, Load, RecipeError
from recore.attention import Buckets, PairTable, attend
from recore.ragged import Batch, Layout, View, offsets_of

HEADS, SIZE = 2, 3
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=3)


def facts(causal: bool = True) -> Facts:
    return Facts(heads=HEADS, layers=2, causal=causal, terms=frozenset({"pair-table"}))


def built(number: int, far: int, causal: bool = True, layers: Any = "each") -> RelativePositions:
    options = RelativeBias(
        max_distance=far, layers=layers, initial="normal", std=1.0, buckets="logarithmic", number=number
    )
    return build(options, Context(0, "model.position", facts(causal))).double()


def t5(distance: Tensor, number: int, far: int, causal: bool) -> Tensor:
    """T5's own code, `relative_position_bucket` with `relative_position = −distance`, in float64. Its logarithm is a
    floating point number: an edge of a bucket may round to the wrong side, so half a part in 10^12 is added."""
    bucket = torch.zeros_like(distance)
    n = distance
    if causal:
        n = n.clamp(min=0)
    else:
        number //= 2
        bucket += (n < 0).long() * number
        n = n.abs()
    exact = number // 2
    large = exact + (
        torch.log(n.double().clamp(min=1) / exact) / math.log(far / exact) * (number - exact) + 1e-12
    ).floor().clamp(max=1e9).long().clamp(max=number - exact - 1)
    return bucket + torch.where(n < exact, n, large)


sizes = st.integers(1, 24).flatmap(
    lambda half: st.tuples(st.just(2 * half), st.integers(half + 1, 4 * half + 40))
)


@settings(deadline=None, max_examples=60)
@given(size=sizes)
def test_buckets_are_t5s(size: tuple[int, int]) -> None:
    number, far = size
    distances = torch.arange(0, far + 50)
    expected = t5(distances, number, far, causal=True)
    assert [logarithmic(int(n), number, far) for n in distances] == expected.tolist()


def test_t5s_own_setting_by_hand() -> None:
    """32 buckets to 128: sixteen exact ones, then edges at 16 · 8^(b/16)."""
    found = [logarithmic(n, 32, 128) for n in range(200)]
    assert found[:16] == list(range(16))
    edges = [math.ceil(16 * 8 ** (b / 16) - 1e-9) for b in range(16)]
    assert [found.index(16 + b) for b in range(16)] == edges
    assert edges[:4] == [16, 19, 21, 24]
    assert set(found[128:]) == {31}
    assert found == sorted(found)


def test_edges_are_exact() -> None:
    """e = 6 and six buckets to 384: they begin at 6 · 64^(b/6) = 6 · 2^b, whole numbers, where a logarithm in
    floating point may come out on either side."""
    for b in range(1, 6):
        edge = 6 * 2**b
        assert (logarithmic(edge - 1, 12, 384), logarithmic(edge, 12, 384)) == (5 + b, 6 + b)
    assert [logarithmic(n, 4, 8) for n in (1, 2, 3, 4, 7, 8, 9)] == [1, 2, 2, 3, 3, 3, 3]


def view_of(held: list[int], layout: Layout | None = None) -> View:
    offsets = offsets_of(torch.tensor(held))
    return View({"token": torch.zeros(sum(held), dtype=torch.int64)}, offsets, layout or Layout())


def attended(position: RelativePositions, qkv: list[Tensor], view: View, causal: bool, layer: int) -> Tensor:
    placed = position.place(torch.zeros(view.events, 1), Batch({"user": view}), view)
    return attend(qkv[0], qkv[1], qkv[2], view, placed.layer(layer), causal=causal)


@settings(deadline=None, max_examples=30)
@given(
    held=lengths,
    size=st.sampled_from([(4, 3), (4, 9), (8, 6), (8, 20), (32, 128)]),
    causal=st.booleans(),
    layer=st.integers(0, 1),
    side=st.sampled_from(["none", "left", "right"]),
    extra=st.integers(0, 64),
)
def test_it_equals_buckets_of_pairs_in_every_layout_values_and_gradients(
    held: list[int], size: tuple[int, int], causal: bool, layer: int, side: Any, extra: int
) -> None:
    """Beside the same table read pair by pair with T5's formula, a path of attention that shares nothing with the
    diagonals of distances."""
    number, far = size
    position, random = built(number, far, causal), torch.Generator().manual_seed(0)
    qkv = [
        torch.randn(sum(held), HEADS, SIZE, dtype=torch.float64, generator=random).requires_grad_()
        for _ in range(3)
    ]
    layout = Layout() if side == "none" else Layout(side, max(held) + extra, float("nan"))
    got = attended(position, qkv, view_of(held, layout), causal, layer)
    plain = view_of(held)
    pairs = Buckets(lambda row, key: t5(row - key, number, far, causal), plain.place, plain.place)
    slow = PairTable("logit", position.weight[layer], pairs)
    expected = attend(qkv[0], qkv[1], qkv[2], plain, (slow,), causal=causal)
    assert float((got - expected).detach().abs().max()) <= 1e-9 * float(expected.detach().abs().max())
    way = torch.arange(got.numel(), dtype=torch.float64).view_as(got).cos()
    wanted = [*qkv, position.weight]
    ours, theirs = (torch.autograd.grad((out * way).sum(), wanted) for out in (got, expected))
    largest = max(float(one.abs().max()) for one in theirs)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) <= 1e-9 * largest


def test_the_fast_path_reads_distances() -> None:
    """One number per distance up to `max_distance`, made of few that train."""
    position = built(8, 20, layers="shared")
    view = view_of([3])
    ((term,),) = position.place(torch.zeros(3, 1), Batch({"user": view}), view).terms
    assert isinstance(term, PairTable)
    assert (term.index, term.low, term.high, tuple(term.table.shape)) == ("distance", 0, 20, (21, HEADS))
    assert tuple(position.weight.shape) == (1, 8, HEADS)
    assert list(position.state_dict()) == ["weight"]
    both = built(8, 20, causal=False)
    assert tuple(both.weight.shape) == (2, 8, HEADS)
    assert both.spread is not None
    assert both.spread.tolist()[20] == 0, "an event's own distance is the first bucket"
    assert set(both.spread.tolist()) == {0, 1, 2, 3, 5, 6, 7}, "a later event is never at distance 0"


def test_exact_distances_are_as_they_were() -> None:
    """The default: a number per distance, no buffer, the same draws."""
    options = RelativeBias(initial="normal")
    assert (options.buckets, options.max_distance, options.layers) == ("exact", 128, "each")
    position = build(options, Context(0, "model.position", facts()))
    assert tuple(position.weight.shape) == (2, 129, HEADS)
    assert position.spread is None
    view = view_of([2])
    (term,) = position.place(torch.zeros(2, 1), Batch({"user": view}), view).layer(0)
    assert isinstance(term, PairTable)
    assert term.table.data_ptr() == position.weight.data_ptr()


def test_what_stands_against_buckets() -> None:
    def found(causal: bool | None = True, **options: Any) -> list[str]:
        return RelativeBias(buckets="logarithmic", **options).problems(Facts(causal=causal))

    assert found() == found(causal=False) == found(causal=None) == []
    assert found(number=7) == ["`number`: expected a multiple of 2 logarithmic buckets, got 7"]
    assert found(causal=False, number=6) == [
        "`number`: expected a multiple of 4 logarithmic buckets, half of them for later events, got 6"
    ]
    assert found(number=32, max_distance=16) == [
        "`max_distance`: expected more than 16, since that many distances have buckets of their own, got 16 (raise "
        "max_distance, lower number, or use `buckets: exact`)"
    ]
    assert found(number=32, max_distance=17) == []
    assert found(causal=False, number=32, max_distance=9) == []
    assert RelativeBias(number=7, max_distance=1).problems(Facts(causal=True)) == [], "exact: not read"
    with pytest.raises(ValueError, match="`number`: expected at least 1, got 0"):
        RelativeBias(number=0)
    with pytest.raises(RecipeError, match="expected a multiple of 2"):
        build(RelativeBias(buckets="logarithmic", number=7), Context(facts=facts()))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("buckets", ["exact", "logarithmic"])
def test_what_it_states_to_cost_is_what_is_built(causal: bool, buckets: Any) -> None:
    options = RelativeBias(buckets=buckets)
    position = build(options, Context(facts=facts(causal)))
    costs = options.costs(facts(causal), Load(events=10.0))
    assert costs.parameters == position.weight.numel()
    assert costs.tiles
