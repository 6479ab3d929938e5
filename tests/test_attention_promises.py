"""What attention promises besides its formula: dropout, memory, plans, and errors in full."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from recore.attention import (
    Buckets,
    KeyBias,
    PairFunction,
    PairTable,
    Rotate,
    Silu,
    Term,
    attend,
    plan,
    tiles,
)
from recore.attention.dropout import Dropout
from recore.attention.plan import alike, plan_of
from recore.ragged import Layout, View, offsets_of


@pytest.fixture(autouse=True)
def many_rectangles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short histories, of which tests are made, would share one."""
    monkeypatch.setattr(plan, "_CALL", 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def view_of(*lengths: int, layout: Layout | None = None) -> View:
    return View({"token": torch.arange(sum(lengths))}, offsets_of(torch.tensor(lengths)), layout or Layout())


def tensors(view: View, heads: int = 2, size: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v that ask for gradients."""
    draw = torch.Generator().manual_seed(1)
    made = [torch.randn(view.events, heads, size, generator=draw, dtype=dtype) for _ in range(3)]
    return [x.requires_grad_() for x in made]


# Dropout


@pytest.mark.parametrize("normalise", ["softmax", Silu()])
def test_dropout_keeps_the_mean(normalise: Any) -> None:
    view = view_of(12, 5)
    q, k, v = (x.detach() for x in tensors(view))
    table = torch.randn(4, 2, 4, dtype=torch.float64)
    terms = (PairTable("value", table),)
    want = attend(q, k, v, view, terms, normalise=normalise)
    torch.manual_seed(0)
    draws = torch.stack([attend(q, k, v, view, terms, normalise=normalise, dropout=0.4) for _ in range(1000)])
    error = draws.std(0) / math.sqrt(len(draws))
    gap = (draws.mean(0) - want).abs()
    assert (gap <= 5 * error + 1e-12).all(), f"mean off by {float((gap / error).max())} standard errors"
    assert float(draws.std(0).mean()) > 0.1 * float(want.abs().mean()), "nothing was dropped"


@pytest.mark.parametrize("layout", [Layout(), Layout("left", 80, math.nan)])
@pytest.mark.parametrize("most", [0, 10**9])
def test_dropout_is_the_same_backward(layout: Layout, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """gradcheck calls the function anew for each finite difference: the seed is set before each call, so the
    mask is one, and the analytic gradient agrees only if the backward pass draws it again, whether it makes the
    weights again or finds them kept."""
    monkeypatch.setattr(tiles, "_MOST", most)
    view = view_of(3, 70, layout=layout)
    q, k, v = tensors(view, 1, 2)
    bias = torch.randn(view.events, 1, dtype=torch.float64, requires_grad=True)
    table = torch.randn(3, 1, 2, dtype=torch.float64, requires_grad=True)

    def dropped(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, table: Tensor) -> Tensor:
        torch.manual_seed(5)
        terms = (KeyBias(bias), PairTable("key", table), PairTable("value", table))
        return attend(q, k, v, view, terms, dropout=0.3)

    assert torch.autograd.gradcheck(dropped, (q, k, v, bias, table), fast_mode=True)


def test_dropout_draws_one_seed_from_the_default_generator() -> None:
    view = view_of(6, 70)
    q, k, v = tensors(view)
    torch.manual_seed(3)
    first, state = attend(q, k, v, view, dropout=0.5), torch.get_rng_state()
    second = attend(q, k, v, view, dropout=0.5)
    torch.manual_seed(3)
    assert torch.equal(first, attend(q, k, v, view, dropout=0.5))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    torch.randint(2**62, ())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("rate", [0.1, 0.5, 1 - 1e-9])
def test_masks_have_the_stated_rate_and_differ_by_tile(rate: float) -> None:
    dropout = Dropout(rate, 7, torch.device("cpu"))
    masks = [dropout.mask(number, torch.empty(1000, 1001)) for number in (0, 1)]
    assert abs(float(masks[0].mean()) - (1 - rate)) < 4 * math.sqrt(rate * (1 - rate) / 1e6) + 2e-5
    assert dropout.grow * (1 - dropout.short / 2**16) == pytest.approx(1)
    assert rate > 0.9 or not torch.equal(*masks)
    assert torch.equal(masks[0], dropout.mask(0, torch.empty(1000, 1001)))


def test_tiles_of_one_call_have_masks_of_their_own() -> None:
    """Equal weights and values of one: a row receives the part of its weights that was kept."""
    view = view_of(128)
    q, ones = torch.zeros(128, 1, 2), torch.ones(128, 1, 2)
    kept = attend(q, q, ones, view, causal=False, dropout=0.5)
    assert not torch.equal(kept[:64], kept[64:])


def test_groups_of_one_call_have_masks_of_their_own() -> None:
    """A history of 10 and one of 100 are in two groups: were the masks one, the first row of the long one would
    have kept as many of its 100 weights as the ten rows of the short one of theirs together."""
    view = view_of(10, 100)
    assert len(plan_of(view, None).groups) == 2
    q, ones = torch.zeros(110, 1, 2), torch.ones(110, 1, 2)
    torch.manual_seed(0)
    counts = [
        (10 * kept[:10, 0, 0].sum(), 100 * kept[10, 0, 0])
        for kept in (attend(q, q, ones, view, causal=False, dropout=0.5) for _ in range(3))
    ]
    assert any(abs(short - long) > 0.5 for short, long in counts)


def test_no_dropout_draws_nothing() -> None:
    view = view_of(6)
    q, k, v = tensors(view)
    state = torch.get_rng_state()
    attend(q, k, v, view, (KeyBias(torch.zeros(6, 2)),))
    assert torch.equal(state, torch.get_rng_state())


# Memory


def saved(view: View, terms: tuple[Term, ...], **kwargs: Any) -> int:
    """Bytes kept for the backward pass, each storage once."""
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    q, k, v = tensors(view, 2, 4, torch.float32)
    rows = kwargs.get("rows")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        attend(q if rows is None else q[rows], k, v, view, terms, **kwargs)
    return sum(held.values())


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """The most bytes that tensors made within the block held at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                weak = StorageWeakRef(storage)  # type: ignore[no-untyped-call]  # torch's own
                self.held.setdefault(storage._cdata, (weak, storage.nbytes()))
        self.held = {
            key: (weak, size)
            for key, (weak, size) in self.held.items()
            if not weak.expired()  # type: ignore[no-untyped-call]  # torch's own
        }
        self.peak = max(self.peak, sum(size for _, size in self.held.values()))
        return out


def peak(make: Callable[[], Tensor]) -> int:
    """Bytes, of a forward and a backward pass."""
    with Live() as live:
        make().sum().backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
    return int(live.peak)


def masked(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """One history with a learned bias as most do it: a tensor of all pairs, whose gradient is as large."""
    place = torch.arange(len(q))
    bias = table[(place[:, None] - place).clamp(0, len(table) - 1)].permute(2, 0, 1)
    bias = bias.masked_fill(place[:, None] < place, -math.inf)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """The largest tensor that any operation gives, in elements; views of size 0 stride count as they are."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


def term_of(name: str, view: View) -> tuple[Term, ...]:
    place = view.place
    index = Buckets(lambda row, key: (row - key).abs().clamp(max=3), place, place)
    known: dict[str, tuple[Term, ...]] = {
        "none": (),
        "bias": (PairTable("logit", torch.randn(33, 2, requires_grad=True)),),
        "shaw": (
            PairTable("key", torch.randn(33, 2, 4, requires_grad=True)),
            PairTable("value", torch.randn(33, 2, 4, requires_grad=True)),
        ),
        "buckets": (PairTable("logit", torch.randn(4, 2, requires_grad=True), index),),
        "function": (
            PairFunction(
                lambda rows, keys, x: (x[rows][:, :, None] - x[keys][:, None]).abs()[:, None],
                (torch.randn(view.events, requires_grad=True),),
            ),
        ),
    }
    return known[name]


NAMES = ("none", "bias", "shaw", "buckets", "function")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("causal", [True, False])
def test_what_is_saved_grows_with_length_not_its_square(name: str, causal: bool) -> None:
    short, long = view_of(250), view_of(1000)
    few, many = (saved(view, term_of(name, view), causal=causal) for view in (short, long))
    assert many <= 4.5 * few, f"{few} bytes at length 250, {many} at 1,000"
    assert many < 1000 * 1000, "as much as one byte per pair"


@pytest.mark.parametrize("kind", ["bias", "keys and values", "bias, dropout", "bias as a mask"])
def test_memory_of_a_learned_table_grows_with_length_times_tile(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four heads, forward and backward, of one history of 150, 300 and 600 events, in tiles that are small beside
    them: double the length, double the peak. The mask, which is measured alike, takes four times as much."""
    monkeypatch.setattr(tiles, "_LOGITS", 2**10)
    peaks = []
    for length in (150, 300, 600):
        view = view_of(length)
        q, k, v = tensors(view, 4, 4, torch.float32)
        bias = torch.randn(length, 4, requires_grad=True)
        vectors = [torch.randn(51, 4, 4, requires_grad=True) for _ in range(2)]
        terms: tuple[Term, ...] = (PairTable("logit", bias),)
        if kind == "keys and values":
            terms = (PairTable("key", vectors[0]), PairTable("value", vectors[1]))
        dropout = 0.1 if kind.endswith("dropout") else 0.0
        if kind.endswith("mask"):
            peaks.append(peak(functools.partial(masked, q, k, v, bias)))
        else:
            peaks.append(peak(functools.partial(attend, q, k, v, view, terms, dropout=dropout)))
    growth = [later / earlier for earlier, later in itertools.pairwise(peaks)]
    if kind.endswith("mask"):
        assert min(growth) > 3, f"{peaks} bytes: the square is not seen"
    else:
        assert max(growth) < 2.2, f"{peaks} bytes at lengths 150, 300 and 600"
        assert peaks[-1] < 10 * (4 * 4 * 64 * 600), "ten tiles of one history, its gradients included"


@pytest.mark.parametrize("terms", ["bias", "shaw"])
def test_weights_are_kept_where_they_are_few(terms: str) -> None:
    """Up to ten numbers for each of the queries': then what is saved is more, and never grows faster than events."""
    many, few = (view_of(*[length] * (480 // length)) for length in (120, 12))
    apart = [saved(view, term_of(terms, view)) for view in (many, few)]
    assert apart[0] < apart[1] < 2 * 4 * 480 * 8 * (4 + 10)


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_on_the_way_is_as_large_as_the_square(
    name: str, rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward, of length 1,000: 64 rows with their keys is the most, a sixteenth of all pairs."""
    monkeypatch.setattr(tiles, "_LOGITS", 2**14)
    view = view_of(1000)
    q, k, v = tensors(view, 1, 4, torch.float32)
    terms = tuple(
        evolve(term, table=term.table[:, :1]) if isinstance(term, PairTable) else term
        for term in term_of(name, view)
    )
    asking = torch.arange(0, 1000, 3) if rows else None
    with Largest() as seen:
        out = attend(q if asking is None else q[asking], k, v, view, terms, rows=asking)
        out.sum().backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
    assert seen.numel <= 64 * 1100, f"a tensor of {seen.numel} elements, of {10**6} pairs"


def test_what_is_saved_for_the_last_rows_is_as_little() -> None:
    short, long = view_of(250, 250), view_of(1000, 1000)
    few, many = (saved(view, (), rows=view.last) for view in (short, long))
    assert many <= 4.5 * few


# Plans


def test_like_lengths_share_a_rectangle() -> None:
    lengths = torch.randint(1, 200, (300,), generator=torch.Generator().manual_seed(0)).sort(descending=True)
    falling = lengths.values.numpy()
    slices = alike(falling)
    assert [start for start, _ in slices[1:]] == [stop for _, stop in slices[:-1]]
    assert (slices[0][0], slices[-1][1]) == (0, 300)
    area = sum((stop - start) * int(falling[start]) ** 2 for start, stop in slices)
    assert area <= 1.25 * float((falling.astype(float) ** 2).sum())
    assert len(slices) <= 20


def test_few_short_histories_join_the_rectangle_of_longer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where less is wasted than a rectangle more costs, and never so that the waste of all is more than that of
    each: the width is that of the longest."""
    monkeypatch.setattr(plan, "_CALL", 2**12)
    assert alike(np.array([50, 30, 10, 1])) == [(0, 4)]
    assert alike(np.array([200] * 10 + [100] * 10)) == [(0, 10), (10, 20)]
    assert alike(np.array([200] + [60] * 10 + [5])) == [(0, 1), (1, 12)]
    assert alike(np.array([], dtype=np.int64)) == []


def test_plans_are_kept_on_the_view() -> None:
    view, rows = view_of(5, 6), torch.tensor([4, 10])
    assert plan_of(view, None) is plan_of(view, None)
    assert plan_of(view, rows) is plan_of(view, rows)
    kept = plan_of(view, rows)
    rows[0] = 3
    assert plan_of(view, rows) is not kept
    assert plan_of(view, torch.tensor([1])) is not plan_of(view, rows)


def test_a_batch_of_nothing() -> None:
    view = view_of()
    q, k, v = tensors(view)
    out = attend(q, k, v, view, (KeyBias(torch.zeros(0, 2)),))
    assert out.shape == (0, 2, 4)


# The bounds of a table, and gradients


def test_a_table_of_one_row_is_a_constant_and_changes_nothing() -> None:
    view = view_of(7, 66)
    q, k, v = tensors(view)
    plain = attend(q, k, v, view)
    shifted = attend(
        q, k, v, view, (PairTable("logit", torch.full((1, 2), 9.0, dtype=torch.float64), low=5),)
    )
    assert (plain - shifted).abs().max() < 1e-12


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_are_finite_at_length_one(causal: bool) -> None:
    view = view_of(1, 1, layout=Layout("left", 4, math.nan))
    q, k, v = tensors(view)
    bias = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    for terms in ((), (KeyBias(bias),)):
        out = attend(q, k, v, view, terms, causal=causal)
        assert torch.allclose(out, v)
        grads = torch.autograd.grad(out.sum(), (q, k, v))
        assert all(grad.isfinite().all() for grad in grads)


def test_only_what_asks_gets_a_gradient() -> None:
    view = view_of(6)
    q, k, v = tensors(view)
    fixed, free = torch.randn(3, 2), torch.randn(6, 2, requires_grad=True)
    inputs = (torch.arange(6), torch.randn(6))
    terms = (
        PairTable("logit", fixed),
        PairFunction(lambda rows, keys, n, x: (n[rows][:, :, None] * x[keys][:, None])[:, None], inputs),
        KeyBias(free),
    )
    attend(q, k, v.detach(), view, terms).sum().backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
    assert fixed.grad is None
    assert free.grad is not None
    assert free.grad.dtype == torch.float32
    assert q.grad is not None
    assert v.grad is None


def test_half_precision_under_autocast() -> None:
    view = view_of(6, 9)
    q, k, v = tensors(view, dtype=torch.float32)
    terms = (PairTable("logit", torch.randn(3, 2)), Rotate(torch.ones(15, 2), torch.zeros(15, 2)))
    want = attend(q, k, v, view, terms)
    with torch.autocast("cpu", torch.bfloat16):
        got = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), view, terms)
        got.sum().backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).abs().max() < 0.1


# Errors


def test_all_that_is_wrong_is_said_at_once() -> None:
    view = view_of(4, 5)
    q, k, v = tensors(view, 2, 3)
    with pytest.raises(ValueError, match="attend") as caught:
        attend(
            q[:8],
            k,
            v[:, :1],
            view,
            (
                Rotate(torch.ones(9, 1), torch.ones(8, 1)),
                KeyBias(torch.zeros(9, 3)),
                PairTable("logit", torch.zeros(3, 3), low=0, high=4),
                PairTable("key", torch.zeros(3, 6), project=True),
                PairTable("logit", torch.zeros(3, 2), project=True),
                PairTable("value", torch.zeros(0, 2, 3), Buckets(torch.sub, torch.zeros(9), torch.zeros(8))),
            ),
            dropout=1.0,
        )
    assert str(caught.value).split("; ") == [
        "attend: expected q of shape (9, 2, 3), got (8, 2, 3)",
        "expected v of shape (9, 2, 3), got (9, 1, 3)",
        "expected dropout in [0, 1), got 1.0",
        "expected Rotate.sin of shape (9, 1), got (8, 1)",
        "Rotate turns pairs of coordinates: d/H must be even, got 3",
        "expected KeyBias.bias of shape (9, 2), got (9, 3)",
        "expected PairTable('logit').table of shape (3, 2), got (3, 3)",
        "a PairTable of distances 0 to 4 needs 5 rows, got 3",
        (
            "a PairTable into 'key' with project=True needs the encoder's key_map, and this encoder gave none: use an "
            "encoder that declares 'project', or another position scheme"
        ),
        "a PairTable into 'logit' has no map to be projected by: use 'key' or 'value'",
        "expected PairTable.table to have a row at least",
        "expected Buckets.key_column to have 9 rows, one per event, got 8",
    ]


def test_rows_must_be_events_of_the_view() -> None:
    view = view_of(4)
    q, k, v = tensors(view)
    with pytest.raises(ValueError, match=r"expected rows within 0 … 3, got −1 … 4"):
        attend(q[:2], k, v, view, rows=torch.tensor([-1, 4]))
    with pytest.raises(ValueError, match=r"expected q of shape \(R, H, d/H\), got \(4, 8\)"):
        attend(q.flatten(1), k, v, view)
    with pytest.raises(ValueError, match="Silu divides by a constant > 0, got 0"):
        Silu("constant", 0.0)


def test_a_layout_too_narrow_is_refused() -> None:
    view = view_of(4, layout=Layout("right", 3))
    q, k, v = tensors(view)
    with pytest.raises(ValueError, match="a layout of width 3 cannot hold a sequence of 4 events"):
        attend(q, k, v, view)
