"""The embedder `padding-safe`. Legend: `T` events, `V` items, `S` special rows, `d` width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_embeddings.options import Initial, PaddingSafe
from recore_embeddings.padding_safe import PaddingSafeEmbedder, build
from recore_embeddings.plugin import recore_embedders
from torch import Tensor

from recore import Context, Facts, RecipeError
from recore.contracts import Changes, Embedder, RowMap, Special, Tokenizer
from recore.ragged import Batch, Layout, View

Ids = npt.NDArray[np.int64]
PAD, UNKNOWN, MASK = Special("pad", 0), Special("unknown", 1), Special("mask", 2, trainable=True)


@frozen
class Numbers:
    """A tokenizer of the items 0 … V − 1 after its special rows."""

    items: int
    specials: Sequence[Special] = (PAD, UNKNOWN, MASK)
    retired: Ids = field(factory=lambda: np.zeros(0, dtype=np.int64))
    unknown: str = "keep"
    per_item: int = 1

    @property
    def tokens(self) -> int:
        return self.items * self.per_item + len(self.specials)

    def encode(self, items: pl.Series) -> Ids:
        raise NotImplementedError

    def item_ids(self, items: pl.Series) -> Ids:
        raise NotImplementedError

    def decode(self, ids: Ids) -> pl.Series:
        raise NotImplementedError

    def items_of(self, item_ids: Ids) -> pl.Series:
        raise NotImplementedError

    def resize(self, changes: Changes) -> RowMap:
        raise NotImplementedError

    def save_pretrained(self, folder: Path | str) -> None:
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Tokenizer:
        raise NotImplementedError


def embedder(
    options: PaddingSafe | None = None, tokenizer: Tokenizer | None = None, seed: int = 0, scale: str = "none"
) -> PaddingSafeEmbedder:
    facts = Facts(item_scale="sqrt-width" if scale == "sqrt-width" else "none")
    tokenizer = tokenizer or Numbers(7)
    return build(options or PaddingSafe(width=4), Context(seed, "model.embedder", facts, tokenizer=tokenizer))


def batch_of(tokens: list[int] | Tensor) -> tuple[Batch, View]:
    token = torch.as_tensor(tokens)
    offsets = torch.tensor([0, len(token)])
    view = View({"token": token}, offsets)
    return Batch({"user": view}), view


def optimisers() -> dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]]:
    return {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=0.1),
        "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    }


def test_it_keeps_the_contract() -> None:
    assert isinstance(embedder(), Embedder)
    (component,) = recore_embedders()
    assert component.name == "padding-safe"
    assert component.options is PaddingSafe
    assert PaddingSafe(width=12).provides() == Facts(width=12)


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    name=st.sampled_from(sorted(optimisers())),
    bias=st.booleans(),
    masked=st.booleans(),
)
def test_pad_and_unknown_are_exactly_zero_before_and_after_any_step(
    tokens: list[int], name: str, bias: bool, masked: bool
) -> None:
    specials = (PAD, UNKNOWN, MASK) if masked else (PAD, UNKNOWN)
    built = embedder(PaddingSafe(width=4, bias=bias), Numbers(10 - len(specials), specials))
    batch, view = batch_of(tokens)
    zero = view["token"] < 2
    optimiser = optimisers()[name](list(built.parameters()))
    mask = built.special
    assert (mask is not None) == masked
    first_mask = None if mask is None else mask.detach().clone()
    for _ in range(3):
        x = built.embed(batch, view)
        assert torch.equal(x[zero], torch.zeros_like(x[zero]))
        optimiser.zero_grad()
        table = built.table()
        loss = (x - 1).square().sum() + (table.weight + 1).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
        optimiser.step()
    x = built.embed(batch, view)
    assert torch.equal(x[zero], torch.zeros_like(x[zero]))
    assert table.weight.shape == (10 - len(specials), 4), "only items score"
    if 2 in tokens and mask is not None and first_mask is not None:
        assert not torch.equal(mask, first_mask), "the mask row trains"


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.lists(st.integers(0, 9), min_size=1, max_size=30), scale=st.sampled_from(["none", "sqrt-width"])
)
def test_values_and_gradients_equal_a_plain_table_with_zero_rows(tokens: list[int], scale: str) -> None:
    built = embedder(scale=scale).double()
    batch, view = batch_of(tokens)
    assert built.special is not None
    zeros = torch.zeros(2, 4, dtype=torch.float64)
    plain = torch.cat([zeros, built.special, built.weight]).detach().requires_grad_()
    factor = 2.0 if scale == "sqrt-width" else 1.0
    expected = torch.stack([plain[token] for token in tokens]) * factor
    seed = torch.arange(expected.numel(), dtype=torch.float64).view_as(expected).cos()
    x = built.embed(batch, view)
    assert torch.equal(x, expected)
    x.backward(seed)  # type: ignore[no-untyped-call]  # torch's own is untyped
    expected.backward(seed)  # type: ignore[no-untyped-call]  # torch's own is untyped
    assert plain.grad is not None
    weight = torch.zeros_like(built.weight) if built.weight.grad is None else built.weight.grad
    torch.testing.assert_close(weight, plain.grad[3:], rtol=0, atol=1e-12)
    special = torch.zeros_like(built.special) if built.special.grad is None else built.special.grad
    torch.testing.assert_close(special, plain.grad[2:3], rtol=0, atol=1e-12)


def test_the_rows_that_score_are_the_parameter_itself() -> None:
    built = embedder(scale="sqrt-width")
    table = built.table()
    assert table.weight is built.weight
    assert table.bias is None
    assert table.retired is None


def test_the_gradient_of_a_gather_is_the_same_each_time() -> None:
    built = embedder(PaddingSafe(width=16), Numbers(50))
    batch, view = batch_of(torch.randint(3, 53, (20_000,), generator=torch.Generator().manual_seed(0)))
    seed = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(1))
    grads = [torch.autograd.grad(built.embed(batch, view), built.weight, seed)[0] for _ in range(3)]
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


def test_initial_rows_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one = embedder(seed=3)
    assert torch.equal(torch.get_rng_state(), state), "torch's default generator was used"
    torch.manual_seed(99)
    assert torch.equal(one.weight, embedder(seed=3).weight)
    assert not torch.equal(one.weight, embedder(seed=4).weight)
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    ("options", "deviation"),
    [
        (PaddingSafe(width=50, initial="normal", std=0.3), 0.3),
        (PaddingSafe(width=50, initial="uniform", std=0.3), 0.3),
        (PaddingSafe(width=50, initial="xavier-normal"), (2 / 450) ** 0.5),
        (PaddingSafe(width=50, initial="xavier-uniform"), (2 / 450) ** 0.5),
    ],
)
def test_initial_rows_have_the_stated_deviation(options: PaddingSafe, deviation: float) -> None:
    rows = embedder(options, Numbers(400)).weight.detach()
    assert float(rows.std()) == pytest.approx(deviation, rel=0.03)
    if options.initial.endswith("uniform"):
        assert float(rows.abs().max()) <= 3**0.5 * deviation


maps = st.lists(st.integers(-1, 6), min_size=1, max_size=14)


@settings(deadline=None, max_examples=60)
@given(items=maps, bias=st.booleans(), data=st.data())
def test_resizing_keeps_every_other_row_to_the_bit(items: list[int], bias: bool, data: st.DataObject) -> None:
    retired = data.draw(st.lists(st.integers(0, len(items) - 1), unique=True))
    options = PaddingSafe(width=4, bias=bias)
    built, twin = embedder(options), embedder(options)
    if built.bias is not None:
        with torch.no_grad():
            built.bias.copy_(torch.arange(1.0, 8.0))
    before, special = built.weight.detach().clone(), built.special
    old = np.array([0, 1, 2, *(i + 3 if i >= 0 else -1 for i in items)])
    moved = built.resize(RowMap(old, np.array(retired, dtype=np.int64) + 3))
    twin.resize(RowMap(old, np.zeros(0, dtype=np.int64)))
    assert set(moved) == ({"weight", "bias"} if bias else {"weight"})
    assert set(moved) <= set(dict(built.named_parameters()))
    for one in moved.values():
        assert one.old.tolist() == items
        assert one.retired.tolist() == retired
    assert built.special is special, "the mask row does not move"
    assert built.weight.shape == (len(items), 4)
    assert torch.equal(built.weight, twin.weight), "fresh rows come from the seed"
    for row, source in enumerate(items):
        if source >= 0:
            assert torch.equal(built.weight[row], before[source])
        else:
            assert not (before == built.weight[row]).all(1).any()
        if built.bias is not None:
            assert float(built.bias.detach()[row]) == (source + 1 if source >= 0 else 0)
    mask = built.table().retired
    if not retired:
        assert mask is None
    else:
        assert mask is not None
        assert mask.nonzero().flatten().tolist() == sorted(retired)
    tokens = list(range(3 + len(items)))
    x = built.embed(*batch_of(tokens))
    assert torch.equal(x[:2], torch.zeros(2, 4))
    assert torch.equal(x[3:], built.weight)


@pytest.mark.parametrize("initial", ["normal", "xavier-uniform"])
def test_fresh_rows_follow_the_initial_rule(initial: Initial) -> None:
    built = embedder(PaddingSafe(width=50, initial=initial, std=0.3))
    old = [*range(10), *[-1] * 393]
    built.resize(RowMap(np.array(old), np.zeros(0, dtype=np.int64)))
    expected = 0.3 if initial == "normal" else (2 / 450) ** 0.5
    assert float(built.weight.detach()[7:].std()) == pytest.approx(expected, rel=0.03)


def test_retired_rows_stay_retired_and_readable_through_saving_and_resizing() -> None:
    built = embedder(tokenizer=Numbers(7, retired=np.array([2])))
    row = built.weight[2].detach().clone()
    other = embedder(tokenizer=Numbers(7), seed=5)
    other.load_state_dict(built.state_dict())
    other.resize(RowMap(np.array([*range(10), -1]), np.array([3 + 4])))
    table = other.table()
    assert table.retired is not None
    assert table.retired.tolist() == [False, False, True, False, True, False, False, False]
    assert torch.equal(other.embed(*batch_of([5]))[0], row), "it stays readable in histories"


def test_an_optimiser_goes_on_after_resizing() -> None:
    built = embedder()
    built.resize(RowMap(np.array([*range(10), -1, -1]), np.zeros(0, dtype=np.int64)))
    optimiser = torch.optim.AdamW(built.parameters(), lr=0.1)
    built.embed(*batch_of([0, 1, 2, 3, 11])).sum().backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
    before = built.weight.detach().clone()
    optimiser.step()
    assert not torch.equal(built.weight[8], before[8])


@pytest.mark.parametrize(
    ("old", "retired", "message"),
    [
        ([1, 0, 2, 3], [], "its first 3 rows must be the special rows, unmoved, got [1 0 2]"),
        ([0, 1, 2], [], "it leaves no item rows"),
        ([0, 1, 2, 10], [], "old item rows must be −1 or from 3 to 9"),
        ([0, 1, 2, 2], [], "old item rows must be −1 or from 3 to 9"),
        ([0, 1, 2, 3], [1], "retired rows must be from 3 to 3, got [1]"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(old: list[int], retired: list[int], message: str) -> None:
    with pytest.raises(ValueError, match="a row map does not fit") as error:
        embedder().resize(RowMap(np.array(old), np.array(retired, dtype=np.int64)))
    assert message in str(error.value)


def test_tokens_of_another_form_are_refused() -> None:
    built = embedder()
    with pytest.raises(ValueError, match=r"one token per event, `\(T,\)`, got \(3, 2\)"):
        built.embed(*batch_of(torch.zeros(3, 2, dtype=torch.int64)))
    with pytest.raises(ValueError, match="tokens are rows, 0 and up, got -4"):
        built.embed(*batch_of([0, -4]))
    with pytest.raises(IndexError):
        built.embed(*batch_of([10]))


def test_integer_padding_of_a_forced_layout_cannot_be_looked_up() -> None:
    _, view = batch_of([3, 4])
    cells = Layout("left", 4, float("nan")).rectangle(view.ragged(view["token"]))
    with pytest.raises(ValueError, match="tokens are rows"):
        embedder().embed(*batch_of(cells.flatten()))


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (None, "embedder 'padding-safe' needs a tokenizer, got none (set `tokenizer:`)"),
        (Numbers(5, (Special("pad", 5),)), "embedder 'padding-safe' expects special rows 0 … 0, got [5]"),
        (Numbers(5, per_item=3), "one token per item, 5 + 3 special rows, got 18 tokens"),
    ],
)
def test_a_tokenizer_of_another_form_is_refused(tokenizer: Tokenizer | None, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        build(PaddingSafe(), Context(tokenizer=tokenizer))
    assert message in str(error.value)
    assert str(error.value).startswith("model.embedder: ")


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("std", 0.0), ("std", float("nan"))])
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"`{name}`: expected a number above 0, got {value}"):
        PaddingSafe(**{name: value})  # type: ignore[arg-type]  # one value for either field
