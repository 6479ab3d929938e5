"""The positions `relative-keys` and `relative-keys-values`, through attention, against loops written from the
formula. Legend: `T` events, `H` heads, `e` = d/H, `d` width."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_positions.relative_options import RelativeKeys, RelativeKeysValues
from recore_positions.shaw import KeyVectors, TiedVectors, build_keys, build_keys_values
from torch import Tensor

from recore import BOTH_SIDES, Context, Facts, Load, RecipeError
from recore.attention import KeyBias, PairTable, attend
from recore.contracts import Position
from recore.ragged import Batch, Layout, View, offsets_of

LAYERS, SIZE = 2, 3
lengths = st.lists(st.integers(1, 7), min_size=1, max_size=4)
heads_drawn = st.sampled_from([1, 2, 4])
sides_drawn = st.sampled_from(["none", "left", "right"])


def facts(heads: int = 2, causal: bool = True, **more: Any) -> Facts:
    terms = frozenset({"pair-table", "project"})
    return Facts(width=heads * SIZE, heads=heads, layers=LAYERS, causal=causal, terms=terms).merged(
        Facts(**more)
    )


def free(
    values: bool, count: int = 2, causal: bool = True, seed: int = 0, **options: Any
) -> KeyVectors | TiedVectors:
    context = Context(seed, "model.position", facts(count, causal))
    options = {"std": 1.0, "max_distance": 3, **options}
    if values:
        return build_keys_values(RelativeKeysValues(**options), context).double()
    return build_keys(RelativeKeys(**options), context).double()


def view_of(held: list[int], layout: Layout | None = None) -> View:
    offsets = offsets_of(torch.tensor(held))
    return View({"token": torch.zeros(sum(held), dtype=torch.int64)}, offsets, layout or Layout())


def layout_of(side: str, width: int) -> Layout:
    if side == "none":
        return Layout()
    return Layout("left" if side == "left" else "right", width, float("nan"))


def qkv(events: int, heads: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [
        torch.randn(events, heads, SIZE, dtype=torch.float64, generator=random).requires_grad_()
        for _ in range(3)
    ]


def maps(heads: int) -> list[Tensor]:
    """An encoder's key and value maps, `(d, d)` each."""
    random = torch.Generator().manual_seed(1)
    width = heads * SIZE
    return [
        torch.randn(width, width, dtype=torch.float64, generator=random).requires_grad_() for _ in range(2)
    ]


def slow(
    tensors: list[Tensor], held: list[int], key: Tensor, value: Tensor | None, low: int, causal: bool
) -> Tensor:
    """logit_ij = q_i · (k_j + a^K[clip(i − j)]) / √e, received_i = Σ_j softmax_j(logit_ij) (v_j + a^V[clip(i − j)]),
    row by row and head by head. Tables `(m, H, e)`."""
    q, k, v = tensors
    high = low + key.shape[0] - 1
    rows, begin = [], 0
    for length in held:
        for i in range(length):
            seen = range(i + 1) if causal else range(length)
            of = [min(max(i - j, low), high) - low for j in seen]
            heads = []
            for h in range(q.shape[1]):
                logits = [
                    q[begin + i, h] @ (k[begin + j, h] + key[n, h]) / math.sqrt(SIZE)
                    for j, n in zip(seen, of, strict=True)
                ]
                taken = [
                    v[begin + j, h] + (0 if value is None else value[n, h])
                    for j, n in zip(seen, of, strict=True)
                ]
                heads.append(torch.stack(logits).softmax(0) @ torch.stack(taken))
            rows.append(torch.stack(heads))
        begin += length
    return torch.stack(rows)


def close(got: Tensor, expected: Tensor, largest: float | None = None) -> None:
    scale = largest or float(expected.detach().abs().max())
    assert float((got - expected).detach().abs().max()) <= 1e-9 * scale


def agree(got: Tensor, expected: Tensor, wanted: list[Tensor]) -> None:
    """Values, and the gradients of some weighted sum of them, of the largest over all tensors."""
    close(got, expected)
    way = torch.arange(got.numel(), dtype=torch.float64).view_as(got).cos()
    ours, theirs = (torch.autograd.grad((out * way).sum(), wanted) for out in (got, expected))
    largest = max(float(gradient.abs().max()) for gradient in theirs)
    for one, other in zip(ours, theirs, strict=True):
        close(one, other, largest)


def attended(
    position: Any,
    tensors: list[Tensor],
    view: View,
    causal: bool,
    layer: int,
    projected: list[Tensor],
    hidden: Tensor | None = None,
) -> Tensor:
    """What rows receive; keys where `hidden (T,)` count for nothing."""
    x = torch.zeros(view.events, tensors[0].shape[1] * SIZE, dtype=torch.float64)
    placed = position.place(x, Batch({"user": view}), view)
    key, value = projected
    q, k, v = tensors
    extra: tuple[KeyBias, ...] = ()
    if hidden is not None:
        extra = (KeyBias(torch.where(hidden, -1e30, 0.0).double()[:, None].expand(-1, q.shape[1])),)
    return attend(
        q,
        k,
        v,
        view,
        (*placed.layer(layer), *extra),
        causal=causal,
        key_map=lambda table: F.linear(table, key),
        value_map=lambda table: F.linear(table, value),
    )


@settings(deadline=None, max_examples=40)
@given(
    held=lengths,
    heads=heads_drawn,
    causal=st.booleans(),
    far=st.integers(1, 8),
    layer=st.integers(0, LAYERS - 1),
    shared=st.sampled_from([(), ("layers",), ("heads",), ("layers", "heads")]),
    values=st.booleans(),
    side=sides_drawn,
    extra=st.integers(0, 64),
)
def test_free_tables_equal_the_formula_in_every_layout_values_and_gradients(
    held: list[int],
    heads: int,
    causal: bool,
    far: int,
    layer: int,
    shared: tuple[str, ...],
    values: bool,
    side: str,
    extra: int,
) -> None:
    said: dict[str, Any] = dict.fromkeys(shared, "shared")
    position = free(values, heads, causal, max_distance=far, **said)
    assert isinstance(position, KeyVectors)
    number = 0 if "layers" in shared else layer
    key, *rest = (table[number].expand(-1, heads, -1) for table in position.parameters())
    low, tensors = 0 if causal else -far, qkv(sum(held), heads)
    expected = slow(tensors, held, key, rest[0] if rest else None, low, causal)
    view = view_of(held, layout_of(side, max(held) + extra))
    got = attended(position, tensors, view, causal, layer, maps(heads))
    agree(got, expected, [*tensors, *position.parameters()])


@settings(deadline=None, max_examples=25)
@given(
    held=lengths,
    heads=heads_drawn,
    far=st.integers(1, 8),
    layer=st.integers(0, LAYERS - 1),
    side=sides_drawn,
    extra=st.integers(0, 64),
)
def test_the_tied_table_equals_the_formula_in_every_layout_values_and_gradients(
    held: list[int], heads: int, far: int, layer: int, side: str, extra: int
) -> None:
    """(P_δ − P_1) W_K and (P_δ − P_1) W_V, in every layer alike; the maps get their gradients through it too."""
    position = free(True, heads, max_distance=far, tied=True)
    assert isinstance(position, TiedVectors)
    P, both, tensors = position.weight, maps(heads), qkv(sum(held), heads)
    key, value = (((P - P[0]) @ weight.T).view(far + 1, heads, SIZE) for weight in both)
    view = view_of(held, layout_of(side, max(held) + extra))
    expected = slow(tensors, held, key, value, 0, True)
    agree(attended(position, tensors, view, True, layer, both), expected, [*tensors, *both, P])


def test_the_first_vector_is_added_to_every_input() -> None:
    position = free(True, tied=True)
    assert isinstance(position, TiedVectors)
    view = view_of([2, 3])
    x = torch.randn(5, 6, dtype=torch.float64)
    placed = position.place(x, Batch({"user": view}), view)
    assert torch.equal(placed.inputs, x + position.weight[0])
    assert placed.layer(0) is placed.layer(1)
    for table in placed.layer(0):
        assert isinstance(table, PairTable)
        assert (table.project, table.low, table.high, tuple(table.table.shape)) == (True, 0, 3, (4, 6))
        assert not table.table[0].any(), "an event's own distance adds nothing to what its input has"
    free_view = view_of([2])
    untouched = torch.zeros(2, 6)
    assert free(True).place(untouched, Batch({"user": free_view}), free_view).inputs is untouched


@settings(deadline=None, max_examples=20)
@given(length=st.integers(2, 9), values=st.booleans(), tied=st.booleans(), data=st.data())
def test_later_events_change_no_earlier_row_and_neighbours_none(
    length: int, values: bool, tied: bool, data: st.DataObject
) -> None:
    position = free(values, tied=True) if values and tied else free(values)
    tensors, both = qkv(length, 2), maps(2)
    kept = data.draw(st.integers(1, length - 1))
    whole = attended(position, tensors, view_of([length]), True, 0, both)
    cut = attended(position, [tensor[:kept] for tensor in tensors], view_of([kept]), True, 0, both)
    close(cut, whole[:kept])
    moved = attended(position, tensors, view_of([length - kept, kept]), True, 0, both)[length - kept :]
    alone = [tensor[length - kept :] for tensor in tensors]
    close(moved, attended(position, alone, view_of([kept]), True, 0, both))


@settings(deadline=None, max_examples=25)
@given(
    length=st.integers(2, 9),
    form=st.sampled_from(["keys", "keys and values", "tied"]),
    layer=st.integers(0, LAYERS - 1),
    data=st.data(),
)
def test_dropped_old_events_change_nothing_that_the_others_are_given(
    length: int, form: str, layer: int, data: st.DataObject
) -> None:
    """Beside the whole history with the dropped keys hidden, so that all that can differ is the position."""
    position = free(form != "keys", tied=True) if form == "tied" else free(form != "keys")
    tensors, both = qkv(length, 2), maps(2)
    drop = data.draw(st.integers(1, length - 1))
    whole = attended(position, tensors, view_of([length]), True, layer, both, torch.arange(length) < drop)
    short = [tensor[drop:] for tensor in tensors]
    close(attended(position, short, view_of([length - drop]), True, layer, both), whole[drop:])


def test_what_each_keeps_and_claims() -> None:
    for position in (free(False), free(True), free(True, tied=True)):
        assert isinstance(position, Position)
    for options in (RelativeKeys(), RelativeKeysValues(), RelativeKeysValues(tied=True)):
        claims = options.claims()
        assert claims.relative_to == "prediction"
        assert claims.prefix_consistent
        assert claims.shift_invariant
        assert claims.padding == BOTH_SIDES
        assert claims.query_time == "none"


def test_tables_per_layer_and_head_or_shared() -> None:
    variants: dict[str, dict[str, Any]] = {
        "each": {},
        "layers": {"layers": "shared"},
        "heads": {"heads": "shared"},
        "tied": {"tied": True},
    }
    shapes = {
        name: {side: tuple(table.shape) for side, table in free(True, **options).named_parameters()}
        for name, options in variants.items()
    }
    assert shapes["each"] == {"key": (2, 4, 2, SIZE), "value": (2, 4, 2, SIZE)}
    assert shapes["layers"] == {"key": (1, 4, 2, SIZE), "value": (1, 4, 2, SIZE)}
    assert shapes["heads"] == {"key": (2, 4, 1, SIZE), "value": (2, 4, 1, SIZE)}
    assert shapes["tied"] == {"weight": (4, 6)}
    assert [tuple(p.shape) for p in free(False, causal=False).parameters()] == [(2, 7, 2, SIZE)]
    view, x = view_of([2]), torch.zeros(2, 6)
    (first,), (second,) = free(False).place(x, Batch({"user": view}), view).terms
    assert isinstance(first, PairTable)
    assert isinstance(second, PairTable)
    assert not torch.equal(first.table, second.table)


def test_vectors_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one = [p.detach() for p in free(True, max_distance=200, std=0.5, seed=1).parameters()]
    assert torch.equal(torch.get_rng_state(), state)
    again = free(True, max_distance=200, std=0.5, seed=1).parameters()
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], one[1]), "keys and values are drawn apart"
    assert not torch.equal(one[0], next(iter(free(True, max_distance=200, std=0.5, seed=2).parameters())))
    assert float(one[0].std()) == pytest.approx(0.5, rel=0.1)
    assert not any(p.any() for p in free(True, std=0.0).parameters())


@pytest.mark.parametrize("options", [RelativeKeys(), RelativeKeysValues(), RelativeKeysValues(tied=True)])
def test_an_encoder_that_does_not_take_tables_is_refused(options: Any) -> None:
    name = "relative-keys" if isinstance(options, RelativeKeys) else "relative-keys-values"
    expected = (
        f"position {name!r} needs an encoder that takes the term 'pair-table', but this one takes: none (use an "
        "encoder with attention, or positions that change inputs)"
    )
    assert options.problems(Facts(terms=frozenset())) == [expected]
    assert options.problems(Facts()) == []
    assert options.problems(facts()) == []
    make = build_keys if isinstance(options, RelativeKeys) else build_keys_values
    with pytest.raises(RecipeError, match="'pair-table', but this one takes: none"):
        make(options, Context(facts=facts(terms=frozenset())))
    with pytest.raises(
        RecipeError, match=r"needs an encoder that states its heads and layers, .* got heads None"
    ):
        make(options, Context())
    with pytest.raises(RecipeError, match="heads that divide the width, got heads 2, layers 2 and width 7"):
        make(options, Context(facts=facts(width=7)))


def test_what_tied_needs() -> None:
    tied = RelativeKeysValues(tied=True)
    assert tied.problems(facts()) == []
    (problem,) = tied.problems(Facts(terms=frozenset({"pair-table"})))
    assert problem == (
        "position 'relative-keys-values' with `tied: true` needs an encoder that passes its key and value maps "
        "(declares 'project' among its terms), but this one does not (use recore-sasrec:sasrec, or `tied: false`)"
    )
    assert RelativeKeysValues().problems(Facts(terms=frozenset({"pair-table"}))) == []
    (problem,) = tied.problems(facts(causal=False))
    assert problem.endswith("no such number (use a causal encoder, or `tied: false`)")
    for name, said in (("layers", "each"), ("layers", "shared"), ("heads", "shared")):
        changed: Any = {name: said}
        (problem,) = attrs.evolve(tied, **changed).problems(facts())
        assert problem == (
            f"`{name}: {said}` says who shares free tables, and `tied: true` has none: every layer and head maps "
            f"the one table by its own weights (leave `{name}` out, or set `tied: false`)"
        )


@pytest.mark.parametrize("options", [RelativeKeys(), RelativeKeysValues()])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_distance", 0, "`max_distance`: expected at least 1, got 0"),
        ("std", -1.0, "`std`: expected 0 or more, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(options: Any, name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        attrs.evolve(options, **{name: value})
    assert str(error.value) == message


def test_what_it_states_to_cost_is_what_is_built() -> None:
    load = Load(events=100.0, sequences=5.0)
    for causal in (True, False):
        known = facts(causal=causal)
        for options in (
            RelativeKeys(max_distance=3),
            RelativeKeys(max_distance=3, layers="shared", heads="shared"),
            RelativeKeysValues(max_distance=3),
            RelativeKeysValues(max_distance=3, tied=causal),
        ):
            make: Any = build_keys if isinstance(options, RelativeKeys) else build_keys_values
            built = make(options, Context(facts=known))
            costs = options.costs(known, load)
            assert costs.parameters == sum(p.numel() for p in built.parameters())
            assert costs.tiles
            assert costs.flops > 0
    one, two = RelativeKeys().costs(facts(), load), RelativeKeysValues().costs(facts(), load)
    assert two.flops == 2 * one.flops
