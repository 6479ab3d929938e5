"""The packed form of `prediction-absolute`, `relative-keys-values` with `tied: true`: equal to a loop over prefixes,
values and gradients, where docs/explanation/positions.md says so, and by how much not where it does not.

Legend: `T` events, `B` sequences, `d` width, `m` vectors. In float64, to 1e-9 of the largest value; gradients to 1e-9
of the largest over all tensors.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_positions.relative_options import RelativeKeysValues
from recore_positions.shaw import TiedVectors, build_keys_values
from torch import Tensor, nn
from torch.nn.functional import linear

from recore import Context, Facts
from recore.attention import attend
from recore.contracts import Placed
from recore.ragged import Batch, Layout, View, offsets_of

WIDTH, EXACT = 8, 1e-9
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=3)


class Plain(nn.Module):
    """One layer without any norm: y = x + attend(Q x, K x, V x) O, then tanh(y W), row by row."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o, self.w = (nn.Linear(WIDTH, WIDTH) for _ in range(5))

    def encode(
        self, x: Tensor, batch: Batch, view: View, placed: Placed, rows: Tensor | None = None
    ) -> Tensor:
        q, k, v = (made(x).unflatten(-1, (self.heads, -1)) for made in (self.q, self.k, self.v))
        mixed = attend(
            q,
            k,
            v,
            view,
            placed.layer(0),
            key_map=lambda table: linear(table, self.k.weight),
            value_map=lambda table: linear(table, self.v.weight),
        )
        out: Tensor = self.w(x + self.o(mixed.flatten(1))).tanh()
        return out


def sasrec(heads: int, **options: Any) -> Any:
    """recore-sasrec's encoder, where it is installed."""
    pytest.importorskip("recore_sasrec")
    from recore_sasrec.encoder import build
    from recore_sasrec.options import Sasrec

    return build(Sasrec(heads=heads, dropout=0.0, **options), Context(facts=Facts(width=WIDTH)))


NORMS: dict[str, dict[str, Any]] = {
    "queries": {"norm": "queries"},
    "after each sum": {"norm": "post", "residual": "input"},
    "queries, keys and values": {"norm": "all", "residual": "input"},
}


def encoder(name: str, heads: int = 2, layers: int = 1) -> Any:
    """Float64, weights and norms with noise of their own."""
    random = torch.Generator().manual_seed(3)
    made = Plain(heads) if name == "none" else sasrec(heads, layers=layers, **NORMS[name])
    made.double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random, dtype=torch.float64), alpha=0.3)
    return made


def tied(vectors: int, heads: int, layers: int = 1) -> TiedVectors:
    facts = Facts(
        width=WIDTH,
        heads=heads,
        layers=layers,
        causal=True,
        terms=frozenset({"pair-table", "project"}),
    )
    options = RelativeKeysValues(tied=True, max_distance=vectors - 1, std=1.0)
    made = build_keys_values(options, Context(0, "model.position", facts))
    assert isinstance(made, TiedVectors)
    return made.double()


def view_of(held: list[int], layout: Layout | None = None) -> View:
    offsets = offsets_of(torch.tensor(held))
    return View({"token": torch.zeros(sum(held), dtype=torch.int64)}, offsets, layout or Layout())


def by_prefix(encode: Any, P: Tensor, x: Tensor, held: list[int], mask: Tensor) -> Tensor:
    """States `(T, d)` of a loop over predictions: after event t event p carries P_(t − p + 1), numbers beyond m
    being m. `mask (T, d)` multiplies the inputs."""
    states, first = [], 0
    for length in held:
        for stop in range(first + 1, first + length + 1):
            number = torch.arange(stop - first - 1, -1, -1).clamp(max=P.shape[0] - 1)
            view = view_of([stop - first])
            inputs = (x[first:stop] + P[number]) * mask[first:stop]
            states.append(encode.encode(inputs, Batch({"user": view}), view, Placed(inputs))[-1])
        first += length
    return torch.stack(states)


def packed(encode: Any, position: TiedVectors, x: Tensor, view: View, mask: Tensor) -> Tensor:
    """States `(T, d)` of one pass."""
    batch = Batch({"user": view})
    placed = position.place(x, batch, view)
    inputs = placed.inputs * mask
    states: Tensor = encode.encode(inputs, batch, view, Placed(inputs, placed.terms))
    return states


def apart(
    encode: Any,
    position: TiedVectors,
    held: list[int],
    layout: Layout | None = None,
    mask: Tensor | None = None,
) -> tuple[float, float]:
    """How far states and gradients (of inputs, P and every weight) of both forms are, of the largest."""
    random = torch.Generator().manual_seed(4)
    x, way = (torch.randn(sum(held), WIDTH, generator=random, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    kept = torch.ones_like(way) if mask is None else mask
    loop = by_prefix(encode, position.weight, x, held, kept)
    once = packed(encode, position, x, view_of(held, layout), kept)
    wanted = [x, position.weight, *encode.parameters()]
    ours, theirs = (
        torch.autograd.grad((states * way).sum(), wanted, materialize_grads=True) for states in (once, loop)
    )
    largest = max(float(gradient.abs().max()) for gradient in theirs)
    gradients = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) / largest
    return float((once - loop).detach().abs().max() / loop.detach().abs().max()), gradients


@pytest.mark.parametrize("norm", ["none", "queries", "after each sum"])
@settings(deadline=None, max_examples=15)
@given(
    held=lengths,
    heads=st.sampled_from([1, 2, 4]),
    vectors=st.integers(2, 12),
    side=st.sampled_from(["none", "left", "right"]),
    extra=st.integers(0, 64),
)
def test_one_layer_equals_a_loop_over_prefixes_values_and_gradients(
    norm: str, held: list[int], heads: int, vectors: int, side: Any, extra: int
) -> None:
    """Histories beyond the m vectors too: then numbers are clipped at m, in both forms."""
    layout = Layout() if side == "none" else Layout(side, max(held) + extra, float("nan"))
    states, gradients = apart(encoder(norm, heads), tied(vectors, heads), held, layout)
    assert states <= EXACT
    assert gradients <= EXACT


HELD = [9, 4, 7]


@pytest.mark.parametrize(
    ("norm", "layers"),
    [
        ("queries, keys and values", 1),
        ("queries", 2),
        ("after each sum", 2),
        ("queries, keys and values", 2),
        ("queries", 3),
    ],
)
def test_a_norm_on_keys_and_values_or_a_second_layer_breaks_it_by_a_measured_amount(
    norm: str, layers: int
) -> None:
    states, gradients = apart(encoder(norm, layers=layers), tied(9, 2, layers), HELD)
    assert states > 0.05
    assert gradients > 0.05


def test_dropout_on_the_inputs_breaks_it_by_a_measured_amount() -> None:
    """One mask per event, the same in every prefix: it hits x + P_δ there, but not P_δ − P_1 here."""
    encode, position = encoder("queries"), tied(9, 2)
    mask = (torch.rand(sum(HELD), WIDTH, generator=torch.Generator().manual_seed(5)) > 0.2).double() / 0.8
    states, gradients = apart(encode, position, HELD, mask=mask)
    assert states > 0.05
    assert gradients > 0.05


def test_without_the_first_vector_on_the_inputs_it_breaks() -> None:
    """What the residual and the query of the last event carry is P_1: the tables alone are not enough."""
    encode, position = encoder("queries"), tied(9, 2)

    class Bare(TiedVectors):
        def place(self, x: Tensor, batch: Batch, view: View) -> Placed:
            placed = super().place(x, batch, view)
            return Placed(x, placed.terms)

    position.__class__ = Bare
    assert apart(encode, position, HELD)[0] > 0.05
