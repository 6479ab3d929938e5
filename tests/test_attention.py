"""Attention equals the formula, written as a loop over rows in float64: values and gradients, for every term
and combination, whatever the layout.

The size of tiles is drawn too: with tiles of three rows and a few logits, short histories cross every border.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from recore.attention import (
    Buckets,
    KeyBias,
    PairFunction,
    PairTable,
    Rotate,
    Silu,
    Term,
    attend,
    fused,
    kept,
    parts,
    plan,
    tiles,
)
from recore.attention.plan import plan_of
from recore.ragged import Layout, View, count_rectangles, offsets_of

TERMS = (
    "rotate",
    "logit-distance",
    "logit-bucket",
    "key-distance",
    "key-bucket",
    "value-distance",
    "value-bucket",
    "key-project",
    "value-project",
    "key-bias",
    "pair-function",
)


@attrs.frozen
class Case:
    """One call of `attend`, as drawn."""

    lengths: tuple[int, ...]
    heads: int = 2
    size: int = 4
    terms: tuple[str, ...] = ()
    rows: str = "all"
    causal: bool = True
    normalise: Any = "softmax"
    low: int = 0
    buckets: int = 3
    tile_rows: int = 64
    tile_logits: int = 2**20
    most: float = 10
    call: int = 0
    scale: float | None = None
    seed: int = 0


@pytest.fixture(autouse=True)
def many_rectangles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short histories, of which tests are made, would share one, where a case does not say otherwise."""
    monkeypatch.setattr(plan, "_CALL", 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from a second thread, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def tile_size(case: Case) -> Iterator[None]:
    """Tiles as small as the case asks for, and as many weights kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "TILE_ROWS", case.tile_rows)
        patch.setattr(tiles, "TILE_ROWS", case.tile_rows)
        patch.setattr(tiles, "_LOGITS", case.tile_logits)
        patch.setattr(tiles, "_MOST", case.most)
        patch.setattr(plan, "_CALL", case.call)
        yield


def gap_bucket(row: Tensor, key: Tensor) -> Tensor:
    """Five buckets of |time of the row − time of the key|."""
    return ((row - key).abs().float() + 1).log2().long().clamp(max=4)


def ripple(rows: Tensor, keys: Tensor, strength: Tensor, phase: Tensor) -> Tensor:
    """strength_h · cos(phase_row − 2 phase_key)"""
    gap = phase[rows][:, None, :, None] - 2 * phase[keys][:, None, None, :]
    return strength[:, None, None] * gap.cos()


class Problem:
    """The tensors of a case, and both ways to solve it."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float64) -> None:
        self.case = case
        draw = torch.Generator().manual_seed(case.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

        lengths = torch.tensor(case.lengths)
        self.offsets = offsets_of(lengths)
        events, heads, size = int(self.offsets[-1]), case.heads, case.size
        some = torch.randperm(events, generator=draw)
        self.rows = {
            "all": None,
            "last": (self.offsets[1:] - 1)[lengths > 0],
            "few": some[: max(1, events // 4)],
            "most": some[: max(1, events - 2)],
            "every": torch.arange(events),
            "twice": torch.cat([some, some[:2]]),
            "nobody": some[:0],
        }[case.rows]
        asked = events if self.rows is None else self.rows.numel()
        self.q, self.k, self.v = (normal(n, heads, size) for n in (asked, events, events))
        self.time = torch.randint(0, 40, (events,), generator=draw).sort().values
        self.target_time = self.time + torch.randint(0, 9, (events,), generator=draw)
        self.angle = normal(events, size // 2)
        self.tables = {name: normal(case.buckets, heads) for name in ("logit-distance",)}
        self.tables["logit-bucket"] = normal(5, heads)
        for into in ("key", "value"):
            self.tables[f"{into}-distance"] = normal(case.buckets, heads, size)
            self.tables[f"{into}-bucket"] = normal(5, heads, size)
            self.tables[f"{into}-project"] = normal(case.buckets, heads * size)
        self.bias = normal(events, heads)
        self.strength, self.phase = normal(heads), normal(events)
        self.key_matrix, self.value_matrix = (normal(heads * size, heads * size) for _ in range(2))
        self.given = normal(asked, heads, size).detach()

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.case.size) if self.case.scale is None else self.case.scale

    def leaves(self) -> list[Tensor]:
        """All that may get a gradient."""
        return [
            *(self.q, self.k, self.v, self.angle, *self.tables.values(), self.bias),
            *(self.strength, self.phase, self.key_matrix, self.value_matrix),
        ]

    def term(self, name: str) -> Term:
        index = Buckets(gap_bucket, self.target_time, self.time)
        low = self.case.low
        high = low + self.case.buckets - 1
        match name.split("-"):
            case ["rotate"]:
                return Rotate(self.angle.cos(), self.angle.sin())
            case ["key", "bias"]:
                return KeyBias(self.bias)
            case ["pair", "function"]:
                return PairFunction(ripple, (self.strength, self.phase))
            case ["logit" | "key" | "value" as into, "bucket"]:
                return PairTable(into, self.tables[name], index)
            case ["logit" | "key" | "value" as into, form]:
                return PairTable(into, self.tables[name], low=low, high=high, project=form == "project")
        raise AssertionError(name)

    def attend(self, layout: Layout | None = None) -> Tensor:
        events = int(self.offsets[-1])
        view = View({"token": torch.arange(events)}, self.offsets, layout or Layout())
        case = self.case
        return attend(
            self.q,
            self.k,
            self.v,
            view,
            tuple(self.term(name) for name in case.terms),
            rows=self.rows,
            causal=case.causal,
            normalise=case.normalise,
            key_map=lambda table: table @ self.key_matrix,
            value_map=lambda table: table @ self.value_matrix,
            scale=case.scale,
        )

    def loop(self) -> Tensor:
        """The formula, row by row."""
        rows = range(int(self.offsets[-1])) if self.rows is None else self.rows.tolist()
        results = [self._row(n, row) for n, row in enumerate(rows)]
        return torch.stack(results) if results else self.q

    def _turn(self, x: Tensor, events: Tensor | slice) -> Tensor:
        if "rotate" not in self.case.terms:
            return x
        cos, sin = self.angle[events, None].cos(), self.angle[events, None].sin()
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)

    def _row(self, n: int, row: int) -> Tensor:
        case = self.case
        sequence = int((self.offsets[1:] <= row).sum())
        start, stop = int(self.offsets[sequence]), int(self.offsets[sequence + 1])
        seen = range(start, row + 1 if case.causal else stop)
        distance = [min(max(row - key - case.low, 0), case.buckets - 1) for key in seen]
        bucket = gap_bucket(self.target_time[row], self.time[start : start + len(seen)]).tolist()
        keys = self._turn(self.k, slice(0, None))[start : start + len(seen)]
        values = self.v[start : start + len(seen)]
        logits = torch.zeros(len(seen), case.heads, dtype=self.q.dtype)
        for name in case.terms:
            into, _, form = name.partition("-")
            if name == "key-bias":
                logits = logits + self.bias[start : start + len(seen)]
            elif name == "pair-function":
                phase = self.phase[row] - 2 * self.phase[start : start + len(seen)]
                logits = logits + self.strength * phase.cos()[:, None]
            elif name != "rotate":
                table = self.tables[name]
                if form == "project":
                    matrix = self.key_matrix if into == "key" else self.value_matrix
                    table = (table @ matrix).view(-1, case.heads, case.size)
                read = table[bucket if form == "bucket" else distance]
                logits = logits + read if into == "logit" else logits
                keys = keys + read if into == "key" else keys
                values = values + read if into == "value" else values
        asking = self._turn(self.q[n : n + 1], torch.tensor([row]))[0]
        logits = logits + self.scale * (asking * keys).sum(-1)
        if isinstance(case.normalise, Silu):
            by_visible = case.normalise.divide == "visible"
            divisor = len(seen) if by_visible else case.normalise.constant
            weights = logits / (1 + (-logits).exp()) / divisor
        else:
            weights = logits.softmax(0)
        return (weights[..., None] * values).sum(0)

    def solve(self, how: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Result, and gradients of all leaves (zero where there is none)."""
        out = how()
        grads = torch.autograd.grad(out, self.leaves(), self.given, allow_unused=True, materialize_grads=True)
        return out.detach(), list(grads)


def largest(tensors: list[Tensor]) -> float:
    return max((float(t.abs().max()) for t in tensors if t.numel()), default=0.0)


def assert_same(got: tuple[Tensor, list[Tensor]], want: tuple[Tensor, list[Tensor]], bound: float) -> None:
    """Values, and gradients, within `bound` of the largest of their kind."""
    for ours, theirs in (([got[0]], [want[0]]), (got[1], want[1])):
        gap = largest([a.double() - b.double() for a, b in zip(ours, theirs, strict=True)])
        assert gap <= bound * max(largest(theirs), 1e-30), f"apart by {gap}, of {largest(theirs)}"
        assert all(t.isfinite().all() for t in ours)


@st.composite
def cases(draw: st.DrawFn, terms: st.SearchStrategy[list[str]]) -> Case:
    low = draw(st.sampled_from([0, 0, -2, 1, 3, -9]))
    return Case(
        lengths=tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 13]), min_size=1, max_size=5))),
        heads=draw(st.sampled_from([1, 2, 3])),
        size=draw(st.sampled_from([2, 4])),
        terms=tuple(draw(terms)),
        rows=draw(st.sampled_from(["all", "all", "all", "last", "few", "most", "every", "twice"])),
        causal=draw(st.booleans()),
        normalise=draw(st.sampled_from(["softmax", "softmax", Silu(), Silu("constant", 3.0)])),
        low=low,
        buckets=draw(st.sampled_from([1, 2, 3, 6, 20])),
        tile_rows=draw(st.sampled_from([1, 3, 64])),
        tile_logits=draw(st.sampled_from([1, 60, 2**20])),
        most=draw(st.sampled_from([0, 10, 10**9])),
        call=draw(st.sampled_from([0, 0, 30, 2**14])),
        scale=draw(st.sampled_from([None, 0.3])),
        seed=draw(st.integers(0, 99)),
    )


any_terms = st.lists(st.sampled_from(TERMS), max_size=4, unique=True)


@settings(deadline=None, max_examples=80)
@given(cases(any_terms))
@example(Case((1,), terms=TERMS))
@example(Case((70, 1, 131), heads=1, terms=TERMS))
@example(Case((70, 1, 131), terms=TERMS, causal=False, buckets=90, low=-40))
@example(Case((3, 0, 2), terms=("logit-distance",)))
def test_equals_the_loop(case: Case) -> None:
    problem = Problem(case)
    with tile_size(case):
        got = problem.solve(problem.attend)
    assert_same(got, problem.solve(problem.loop), 1e-9)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rows", ["all", "few"])
@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_equals_the_loop(term: str, rows: str, causal: bool) -> None:
    case = Case((9, 1, 4, 8, 8), terms=(term,), rows=rows, causal=causal, tile_rows=4, low=-1)
    problem = Problem(case)
    with tile_size(case):
        got = problem.solve(problem.attend)
    assert_same(got, problem.solve(problem.loop), 1e-9)


@pytest.mark.parametrize("rows", ["all", "last", "few", "most", "every", "twice", "nobody"])
@pytest.mark.parametrize("causal", [True, False])
def test_nothing_added_equals_the_loop(rows: str, causal: bool) -> None:
    for lengths in ((1,), (9, 1, 4, 8, 8, 70), (3, 0, 40)):
        problem = Problem(Case(lengths, rows=rows, causal=causal))
        assert_same(problem.solve(problem.attend), problem.solve(problem.loop), 1e-9)


@pytest.mark.parametrize("most", [0, 10**9])
@pytest.mark.parametrize("normalise", ["softmax", Silu()])
@pytest.mark.parametrize(
    ("buckets", "low"), [(1, 0), (2, 0), (5, 0), (7, 0), (30, 0), (8, -3), (3, -2), (2, -5), (4, 2)]
)
def test_bands_equal_the_loop_at_every_border(buckets: int, low: int, normalise: Any, most: float) -> None:
    """Tables of fewer distances than a tile has rows, of as many, of more than the history has; of none that is told
    apart; with distances that nobody sees, and without the nearest. Rows of the first tile reach back before their
    first key, rows of the second too where the table is long."""
    terms = ("key-distance", "value-distance", "value-project", "logit-distance")
    case = Case(
        (13, 1, 12, 9), terms=terms, buckets=buckets, low=low, normalise=normalise, tile_rows=5, most=most
    )
    problem = Problem(case)
    with tile_size(case):
        got = problem.solve(problem.attend)
    assert_same(got, problem.solve(problem.loop), 1e-9)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shaw", [False, True])
def test_a_learned_table_has_the_gradient_of_the_whole_matrix(
    heads: int, dtype: torch.dtype, shaw: bool
) -> None:
    """Real sizes: three histories of up to 300 events, against the matrix of all logits written out in float64."""
    lengths = (300, 130, 64)
    case = Case(lengths, heads=heads, size=8, buckets=51, terms=())
    exact, rough = Problem(case), Problem(case, dtype)
    view = View({"token": torch.arange(sum(lengths))}, exact.offsets)

    def terms(problem: Problem) -> tuple[Term, ...]:
        if shaw:
            return tuple(PairTable(into, problem.tables[f"{into}-distance"]) for into in ("key", "value"))
        return (PairTable("logit", problem.tables["logit-distance"]),)

    def matrix() -> Tensor:
        pieces = []
        for start, length in zip(exact.offsets.tolist(), lengths, strict=False):
            q, k, v = (x[start : start + length] for x in (exact.q, exact.k, exact.v))
            place = torch.arange(length)
            distance = (place[:, None] - place).clamp(0, case.buckets - 1)
            logits = torch.einsum("ihe,jhe->hij", q, k)
            if shaw:
                logits = logits + torch.einsum("ihe,ijhe->hij", q, exact.tables["key-distance"][distance])
            logits = logits * exact.scale
            if not shaw:
                logits = logits + exact.tables["logit-distance"][distance].permute(2, 0, 1)
            weights = logits.masked_fill(place[:, None] < place, -math.inf).softmax(-1)
            out = torch.einsum("hij,jhe->ihe", weights, v)
            if shaw:
                out = out + torch.einsum("hij,ijhe->ihe", weights, exact.tables["value-distance"][distance])
            pieces.append(out)
        return torch.cat(pieces)

    got = rough.solve(lambda: attend(rough.q, rough.k, rough.v, view, terms(rough)))
    assert_same(got, exact.solve(matrix), 1e-9 if dtype == torch.float64 else 2e-5)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from([1, 2, 3, 5, 8, 13, 40]), min_size=1, max_size=6),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 3, 7, 64]),
    st.sampled_from([2, 9, 512]),
    st.sampled_from([None, 0, 5]),
    st.sampled_from([None, 0.3]),
)
@example([70, 1, 131], 1, 64, 512, None, None)
@example([70, 1, 131], 2, 64, 100, 3, None)
@example([3, 5], 1, 64, 512, 64, None)
def test_kept_weights_equal_the_loop(
    lengths: list[int], heads: int, tile_rows: int, long: int, extra: int | None, scale: float | None
) -> None:
    """Whatever the tiles, the heads and the padding on the right (`extra` columns; None: no rectangle)."""
    problem = Problem(Case(tuple(lengths), heads=heads, scale=scale))
    want = problem.solve(problem.loop)
    layout = Layout() if extra is None else Layout("right", max(lengths) + extra, math.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "_ROWS", tile_rows)
        patch.setattr(kept, "_LONG", long)
        patch.setattr(kept, "_LEAST", 0)
        patch.setattr(kept, "_MOST", 10**9)
        patch.setattr(fused, "_taken", None)  # the other way would fail
        got = problem.solve(lambda: problem.attend(layout))
    assert_same(got, want, 1e-9)


def test_weights_are_kept_where_they_are_few_for_an_event_and_many_for_a_call() -> None:
    """Up to eight times d numbers for an event with one head, fewer with more, so that memory grows with the events
    alone."""

    def keeps(lengths: list[int], heads: int = 1) -> bool:
        view = View({"token": torch.arange(sum(lengths))}, offsets_of(torch.tensor(lengths)))
        return kept.keeps(plan_of(view, None), torch.empty(sum(lengths), heads, 64 // heads))

    assert keeps([200] * 40)
    assert keeps([800] * 10)
    assert keeps([150] * 40, heads=2)
    assert not keeps([300] * 40, heads=2)
    assert not keeps([200] * 40, heads=4)
    assert not keeps([2_000] * 40)
    assert not keeps([8] * 40)
    assert not keeps([])


@settings(deadline=None, max_examples=50)
@given(cases(any_terms), st.sampled_from(["left", "right"]), st.integers(0, 64))
@example(Case((5, 1, 8)), "left", 3)
@example(Case((5, 0, 8), causal=False), "left", 3)
@example(Case((5, 0, 8), terms=TERMS), "left", 64)
@example(Case((5, 1, 8), terms=TERMS, normalise=Silu()), "left", 2)
def test_padding_changes_nothing(case: Case, side: Any, extra: int) -> None:
    problem = Problem(case)
    layout = Layout(side, max(case.lengths) + extra, math.nan)
    with tile_size(case):
        with count_rectangles() as made:
            got = problem.solve(lambda: problem.attend(layout))
        want = problem.solve(problem.attend)
    assert made[0] >= 2, "no rectangle was made, so padding was not put to the test"
    assert_same(got, want, 1e-9)


@settings(deadline=None, max_examples=25)
@given(cases(any_terms))
def test_float32_is_near_float64(case: Case) -> None:
    exact, rough = Problem(case), Problem(case, torch.float32)
    with tile_size(case):
        assert_same(rough.solve(rough.attend), exact.solve(exact.attend), 1e-4)


@settings(deadline=None, max_examples=25)
@given(cases(any_terms), st.data())
def test_a_later_key_changes_nothing_earlier(case: Case, data: st.DataObject) -> None:
    case = attrs.evolve(case, causal=True, rows="all")
    problem = Problem(case)
    sequence = data.draw(st.integers(0, len(case.lengths) - 1))
    cut = data.draw(st.integers(0, case.lengths[sequence] - 1)) + int(problem.offsets[sequence])
    with tile_size(case):
        before = problem.attend()
        for x in (problem.q, problem.k, problem.v, problem.bias, problem.angle):
            x.data[cut] += 1.0
        after = problem.attend()
    moved = (after - before).abs().amax((1, 2)) > 1e-12
    reached = torch.arange(len(moved))
    reached = (reached >= cut) & (reached < problem.offsets[sequence + 1])
    assert not (moved & ~reached).any(), f"rows {(moved & ~reached).nonzero().tolist()} saw event {cut}"
    assert moved[cut]


@settings(deadline=None, max_examples=30)
@given(cases(any_terms), st.randoms(use_true_random=False))
def test_neighbours_change_nothing(case: Case, random: Any) -> None:
    """Sequences in another order, and one at a time."""
    case = attrs.evolve(case, rows="all")
    problem = Problem(case)
    order = list(range(len(case.lengths)))
    random.shuffle(order)
    pieces = [torch.arange(int(problem.offsets[b]), int(problem.offsets[b + 1])) for b in order]
    with tile_size(case):
        whole = problem.attend()
        for chosen in ([torch.cat(pieces)], pieces):
            for rows in chosen:
                if not rows.numel():
                    continue
                taken = Problem(case)
                for name in ("q", "k", "v", "angle", "time", "target_time", "bias", "phase"):
                    setattr(taken, name, getattr(problem, name)[rows])
                many = [p.numel() for p in (pieces if chosen[0] is rows and len(chosen) == 1 else [rows])]
                taken.offsets = offsets_of(torch.tensor(many))
                gap = (taken.attend() - whole[rows]).abs().max()
                assert gap <= 1e-9 * whole.abs().max()


def test_tables_of_one_index_call_it_once_a_tile_and_pass() -> None:
    problem = Problem(Case((5, 5), terms=("key-bucket", "value-bucket")))
    calls = []

    def counted(row: Tensor, key: Tensor) -> Tensor:
        calls.append(row.shape)
        return gap_bucket(row, key)

    index = Buckets(counted, problem.target_time, problem.time)
    terms = (
        PairTable("key", problem.tables["key-bucket"], index),
        PairTable("value", problem.tables["value-bucket"], index),
    )
    view = View({"token": torch.arange(10)}, problem.offsets)
    attend(problem.q, problem.k, problem.v, view, terms).sum().backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
    assert calls == [(2, 5, 1)] * 2


def test_rows_few_and_many_choose_their_kernels() -> None:
    """Last rows go through the fused kernel by a mask of `rows × keys`, never of `keys × keys`."""
    view = View({"token": torch.arange(30)}, offsets_of(torch.tensor([10, 20])))
    assert fused.fits(view, None, True)
    assert fused.fits(view, torch.tensor([9, 29]), True)
    assert not fused.fits(view, torch.arange(30), True)
    assert not fused.fits(view.laid_out(Layout("left")), None, True)
