"""What the encoder `sasrec` claims. Legend: `T` events, `B` sequences, `R` rows, `d` width."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_sasrec.encoder import SasrecEncoder, build
from recore_sasrec.options import Sasrec
from recore_sasrec.plugin import recore_encoders
from torch import Tensor

from recore import Context, Facts, RecipeError
from recore.attention import KeyBias
from recore.contracts import Encoder, Placed
from recore.ragged import Batch, Layout, View, count_rectangles, offsets_of

WIDTH = 6
lengths = st.lists(st.integers(1, 7), min_size=1, max_size=5)
VARIANTS = [
    Sasrec(),
    Sasrec(preset="paper", heads=2),
    Sasrec(preset="tensorflow", heads=3),
    Sasrec(preset="pytorch", heads=2, layers=1),
    Sasrec(norm="post", residual="input", activation="gelu", ffn_width=9),
    Sasrec(preset="paper", causal=False),
    Sasrec(causal=False, heads=2, output_projection=False),
]
variants = st.sampled_from(VARIANTS)
layouts = st.builds(lambda side, extra: (side, extra), st.sampled_from(["left", "right"]), st.integers(0, 64))


def encoder(options: Sasrec, seed: int = 0, width: int = WIDTH) -> SasrecEncoder:
    """In float64 and evaluation mode, every parameter moved off its special start."""
    built = build(options, Context(seed, "model.encoder", Facts(width=width))).double().eval()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=noise, dtype=torch.float64))
    return built


def inputs(count: int, seed: int = 0, width: int = WIDTH) -> Tensor:
    made = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.requires_grad_()


def view_of(held: list[int], layout: Layout | None = None) -> View:
    offsets = offsets_of(torch.tensor(held))
    return View({"token": torch.zeros(sum(held), dtype=torch.int64)}, offsets, layout or Layout())


def encode(built: SasrecEncoder, x: Tensor, view: View, rows: Tensor | None = None) -> Tensor:
    return built.encode(x, Batch({"user": view}), view, Placed(x), rows)


def with_gradients(
    built: SasrecEncoder, x: Tensor, view: View, rows: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The states, and the gradients of x and of all parameters for a fixed sum of them."""
    hidden = encode(built, x, view, rows)
    where = torch.arange(view.events) if rows is None else rows
    weights = (where[:, None] + 0.7 * torch.arange(hidden.shape[1])).cos().double()
    return hidden, list(
        torch.autograd.grad((hidden * weights).sum(), [x, *built.parameters()], allow_unused=False)
    )


def close(got: list[Tensor], expected: list[Tensor], bound: float = 1e-9) -> None:
    """Within `bound` of the largest value over all tensors compared together."""
    largest = max(float(tensor.detach().abs().max()) for tensor in expected)
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).detach().abs().max()) <= bound * largest


def test_it_keeps_the_contract() -> None:
    assert isinstance(encoder(Sasrec()), Encoder)
    (component,) = recore_encoders()
    assert (component.name, component.options) == ("sasrec", Sasrec)
    assert component.claims == Sasrec().claims()


@settings(deadline=None, max_examples=40)
@given(options=variants, held=lengths, data=st.data())
def test_an_event_changes_no_earlier_state_where_causal(
    options: Sasrec, held: list[int], data: st.DataObject
) -> None:
    built, view = encoder(options), view_of(held)
    x = inputs(view.events).detach()
    at = data.draw(st.integers(0, view.events - 1))
    moved = x.clone()
    moved[at] += torch.arange(WIDTH).cos()  # not the same everywhere: layer norm takes a shift out
    before, after = encode(built, x, view), encode(built, moved, view)
    gap = (after - before).detach().abs().amax(1)
    own = view.sequence == view.sequence[at]
    earlier = own & (torch.arange(view.events) < at)
    assert float((gap * ~own).max()) == 0, "another sequence moved"
    if options.claims().causal:
        assert float((gap * earlier).max()) <= 1e-12, f"states before event {at} moved"
    elif bool(earlier.any()):
        assert float(gap[earlier].min()) > 1e-6, "it says that it is not causal, but nothing earlier moved"
    assert float(gap[at]) > 1e-6


@settings(deadline=None, max_examples=40)
@given(options=variants, held=lengths, layout=layouts)
def test_padding_of_either_side_any_width_and_any_value_changes_nothing(
    options: Sasrec, held: list[int], layout: tuple[str, int]
) -> None:
    side, extra = layout
    built, plain = encoder(options), view_of(held)
    forced = Layout("left" if side == "left" else "right", max(held) + extra, float("nan"))
    x = inputs(plain.events)
    expected = with_gradients(built, x, plain)
    with count_rectangles() as counted:
        got = with_gradients(built, x, view_of(held, forced))
    assert counted[0] >= 1, "no rectangle was made, so padding was not put to the test"
    close([got[0]], [expected[0]])
    close(got[1], expected[1])


@settings(deadline=None, max_examples=25)
@given(options=variants, held=lengths, data=st.data())
def test_neighbours_in_the_batch_change_nothing(
    options: Sasrec, held: list[int], data: st.DataObject
) -> None:
    built, view = encoder(options), view_of(held)
    x = inputs(view.events).detach()
    whole = encode(built, x, view)
    number = data.draw(st.integers(0, len(held) - 1))
    own = slice(int(view.offsets[number]), int(view.offsets[number + 1]))
    close([encode(built, x[own], view_of([held[number]]))], [whole[own]])


@settings(deadline=None, max_examples=40)
@given(options=variants, held=lengths, side=st.sampled_from(["none", "left", "right"]), data=st.data())
def test_rows_asked_for_are_those_of_the_whole(
    options: Sasrec, held: list[int], side: str, data: st.DataObject
) -> None:
    layout = Layout()
    if side != "none":
        layout = Layout("left" if side == "left" else "right", max(held) + 3, float("nan"))
    built, view = encoder(options), view_of(held, layout)
    events = list(range(view.events))
    rows = torch.tensor(data.draw(st.lists(st.sampled_from(events), min_size=1, unique=True)))
    x = inputs(view.events)
    got, gradients = with_gradients(built, x, view, rows)
    whole = encode(built, x, view)
    weights = (rows[:, None] + 0.7 * torch.arange(WIDTH)).cos().double()
    expected = torch.autograd.grad((whole[rows] * weights).sum(), [x, *built.parameters()])
    assert got.shape == (len(rows), WIDTH)
    close([got], [whole[rows]])
    close(gradients, list(expected))


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_gradients_are_finite_at_length_one_and_for_a_zero_vector(options: Sasrec, side: str) -> None:
    layout = Layout()
    if side != "none":
        layout = Layout("left" if side == "left" else "right", 5, float("nan"))
    built = build(options, Context(0, "", Facts(width=WIDTH)))
    view = view_of([1, 3, 1], layout)
    x = inputs(5).detach().float()
    x[0] = 0  # an unknown item without a position
    hidden, gradients = with_gradients(built, x.requires_grad_(), view)
    assert bool(torch.isfinite(hidden).all())
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_each_layer_gets_its_own_terms() -> None:
    built, view = encoder(Sasrec(layers=2)), view_of([4])
    x = inputs(4).detach()
    bias = torch.tensor([[3.0], [0.0], [-2.0], [1.0]]).double()
    batch = Batch({"user": view})
    plain = built.encode(x, batch, view, Placed(x))
    first = built.encode(x, batch, view, Placed(x, [(KeyBias(bias),), ()]))
    second = built.encode(x, batch, view, Placed(x, [(), (KeyBias(bias),)]))
    both = built.encode(x, batch, view, Placed(x, [(KeyBias(bias),)]))
    told = built.encode(x, batch, view, Placed(x, [(KeyBias(bias),), (KeyBias(bias),)]))
    assert torch.equal(both, told)
    for one, other in ((plain, first), (plain, second), (first, second), (first, both)):
        assert float((one - other).detach().abs().max()) > 1e-3


def test_a_width_is_needed_and_problems_are_raised_together() -> None:
    with pytest.raises(RecipeError) as error:
        build(Sasrec(norm="post"), Context(path="model.encoder"))
    one, other = str(error.value).splitlines()
    assert one.startswith("model.encoder: `norm: post` normalises after the residual sum")
    assert other == "model.encoder: the embedder states no width, which encoder 'sasrec' needs"
