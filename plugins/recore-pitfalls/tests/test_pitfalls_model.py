"""Each mistake of the model is caught by the check that names it, and by no check that has nothing to do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import evolve
from recore_pitfalls.intervals import shortest_gaps
from recore_pitfalls.options import model_mistakes
from recore_pitfalls.rectangle import rectangle_of

from recore.claims import EncoderClaims, PositionClaims
from recore.component import Facts, Part
from recore.contracts.model import Placed
from recore.plugins import discover
from recore.ragged import Batch, Layout, View
from recore.testing import PROFILES, case_for, run_checks

PLUGINS = discover()
FEW = evolve(PROFILES["quick"], examples=3, longest=4, shrink=0.0)
MORE = evolve(FEW, examples=12, longest=6)  # where the shortest gap has to be among the last ones


def sound(kind: str, name: str, **options: Any) -> Part[Any]:
    """A sound part of ours."""
    found = next(one for one in PLUGINS.of(kind) if one.name == name)
    return Part(kind, found.component, found.provider, found.component.options(**options), path=kind)


def mistake(name: str, **options: Any) -> Part[Any]:
    """A mistake around the sound part that it needs, where it needs one."""
    kind, component = next(found for found in model_mistakes() if found[1].name == name)
    if kind == "encoder":
        options.setdefault("encoder", sound("encoder", "recore-sasrec:sasrec", heads=2))
    if kind == "embedder":
        options.setdefault("embedder", sound("embedder", "recore-embeddings:padding-safe", width=8))
    if name == "target-time-unsaid":
        options.setdefault("position", sound("position", "recore-positions:time-bias"))
    return Part(kind, component, "recore-pitfalls", component.options(**options), path=kind)


# Name: the check that names it, words that its failure must hold, and all checks on which it fails. A state that is
# kept and a dropout move every state that is looked at twice.
TWICE = {2, 3, 4, 5, 7, 8, 9, 10, 11}
MISTAKES: dict[str, tuple[int, str, set[int]]] = {
    "padding-row-trained": (1, "the vector of `pad` reaches", {1, 2, 8}),
    "window-called-start": (6, "places are counted from the padded edge", {3, 6}),
    "bias-shifted": (3, "those of the events that became last and no others", {3, 4, 5, 6, 7}),
    "intervals-of-the-future": (10, "when the times of events from there on changed", {3, 5, 10}),
    "target-time-unsaid": (10, "when the time of the target changed", {10}),
    "padding-attended": (4, "as when it is not masked as a key", {4}),
    "padding-trained": (4, "as when it is not masked as a key", {4}),
    "padding-positions": (4, "as when it is not masked as a key", {4}),
    "padding-nan": (4, "a row of padding sees nothing", {4, 6}),
    "mask-inferred": (11, "is taken for padding because of its vector", {11}),
    "mask-next-visible": (2, "as when the mask is off by one", {2, 3}),
    "mask-transposed": (2, "as when the mask is transposed", {2, 3}),
    "mask-missing": (2, "as when there is no mask", {2, 3}),
    "neighbours-attended": (5, "a neighbour reaches them", {2, 4, 5, 9}),
    "state-carried": (8, "something is kept from one batch to the next", TWICE),
    "width-mean": (4, "as when the padded length counts", {3, 4, 5}),
    "norm-over-history": (2, "something is made of the whole history", {2, 3, 4, 5}),
    "heads-by-view": (2, "something is made of the whole history", {2, 3, 4, 5}),
    "dropout-in-evaluation": (8, "as by a dropout that is left on", TWICE),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_caught_by_the_check_that_names_it(name: str) -> None:
    number, words, failing = MISTAKES[name]
    part = mistake(name)
    results = run_checks(part, profile=MORE if name == "intervals-of-the-future" else FEW)
    failed = {int(r.name.split()[1]): r.measured for r in results if r.status == "fail"}
    assert set(failed) == failing
    assert not any("it crashed" in measured for measured in failed.values())
    assert words in failed[number]
    assert failed[number].startswith(f"{part.kind} {number}: {results[number - 1].sentence} But ")


def test_all_mistakes_of_the_model_are_there() -> None:
    made = list(model_mistakes())
    assert {component.name for _, component in made} == set(MISTAKES)
    kinds = [kind for kind, _ in made]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"embedder": 1, "position": 4, "encoder": 14}
    for kind, component in made:
        said = component.options.__doc__ or ""
        assert component.summary.startswith("Mistake: ")
        assert component.source.split(",")[0] in " ".join(said.split()), component.name
        assert f"Caught by {kind} {MISTAKES[component.name][0]}" in " ".join(said.split()), component.name


def test_they_claim_what_they_should_keep() -> None:
    inner = sound("encoder", "recore-sasrec:sasrec", heads=2)
    for kind, component in model_mistakes():
        part = mistake(component.name)
        if kind == "encoder":
            assert part.claims == inner.claims
            assert part.provides() == inner.provides()
        if kind == "position":
            assert isinstance(part.claims, PositionClaims)
            assert part.claims.prefix_consistent


def test_the_twin_that_divides_by_events_is_sound() -> None:
    part = mistake("width-mean", divide="events")
    assert [r.measured for r in run_checks(part, profile=FEW) if r.status == "fail"] == []


def test_target_time_is_read_in_training_and_not_asked_for() -> None:
    part = mistake("target-time-unsaid")
    assert part.columns() == {"time"}
    assert isinstance(part.claims, PositionClaims)
    assert part.claims.query_time == "last-event"


# ---- the sound part is the same part -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["padding-attended", "padding-trained", "mask-inferred", "mask-missing", "state-carried", "width-mean"],
)
def test_the_sound_part_within_has_the_weights_that_it_would_have_alone(name: str) -> None:
    inner, part = sound("encoder", "recore-sasrec:sasrec", heads=2), mistake(name)
    case = case_for(part, FEW)
    alone, within = case.build(inner), case.build(part).inner
    mine = dict(within.named_parameters())
    assert len(mine) == len(dict(alone.named_parameters())) > 10
    for found, parameter in alone.named_parameters():
        assert torch.equal(parameter, mine[found])


@pytest.mark.parametrize("name", ["padding-attended", "padding-trained", "padding-positions", "padding-nan"])
def test_without_a_rectangle_padding_does_nothing(name: str) -> None:
    part = mistake(name)
    case = case_for(part, FEW)
    built = case.module(part)
    view = view_of([4, 1, 3])
    x = torch.randn(view.events, case.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = Batch({"user": view})
    placed = Placed(x)
    assert torch.equal(built.encode(x, batch, view, placed), built.inner.encode(x, batch, view, placed))


def view_of(lengths: list[int], **columns: torch.Tensor) -> View:
    """Histories of these lengths."""
    count = sum(lengths)
    item = torch.arange(count) % 5
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    made = {"token": item + 3, "item": item, "event": torch.arange(count), "time": torch.arange(count) * 10}
    return View({**made, **columns}, offsets, index=torch.arange(len(lengths)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_rectangle_holds_every_event_once(side: Any) -> None:
    view = view_of([3, 1, 2])
    made = rectangle_of(Batch({"user": view}), view, Layout(side, 5))
    assert made.width == 5
    assert made.view.offsets.tolist() == [0, 5, 10, 15]
    assert made.real.sum() == 6
    assert torch.equal(made.view["token"][made.flat], view["token"])
    assert torch.equal(made.source[made.flat], torch.arange(6))
    assert bool((made.view["token"][~made.real] == 0).all())
    first = [0, 1, 2] if side == "right" else [2, 3, 4]
    assert made.column[made.flat][:3].tolist() == first
    assert made.batch.views["user"] is made.view


def test_padding_takes_a_share_that_grows_with_its_width() -> None:
    """Left padding of growing width moves the states of an untouched history farther and farther."""
    part = mistake("padding-attended", encoder=sound("encoder", "recore-sasrec:sasrec", heads=2, layers=1))
    case = case_for(part, FEW)
    built = case.module(part)
    view = view_of([3])
    x = torch.randn(view.events, case.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = Batch({"user": view})
    plain = built.encode(x, batch, view, Placed(x))
    far = []
    for width in (3, 4, 8, 64):
        laid = view.laid_out(Layout("left", width))
        far.append(float((built.encode(x, batch, laid, Placed(x)) - plain).detach().abs().max()))
    assert far[0] <= 1e-12
    assert far[1] > 1e-3
    assert far == sorted(far)


# ---- each does what it says, by a slow loop ----------------------------------------------------------------------


def test_masks_see_what_they_say() -> None:
    """Which items move which states, in one layer: the mask itself."""
    sees: dict[str, Callable[[int, int], bool]] = {
        "mask-next-visible": lambda row, key: key <= row + 1,
        "mask-transposed": lambda row, key: key >= row,
        "mask-missing": lambda row, key: True,
    }
    for name, seen in sees.items():
        part = mistake(name, encoder=sound("encoder", "recore-sasrec:sasrec", heads=2, layers=1))
        case = case_for(part, FEW)
        built = case.module(part)
        view = view_of([5])
        random = torch.Generator().manual_seed(2)
        x = torch.randn(5, case.width, dtype=torch.float64, generator=random)
        batch = Batch({"user": view})
        plain = built.encode(x, batch, view, Placed(x))
        for key in range(5):
            other = x.clone()
            other[key] += torch.randn(case.width, dtype=torch.float64, generator=random)
            moved = (built.encode(other, batch, view, Placed(other)) - plain).detach().abs().amax(-1) > 1e-9
            assert moved.tolist() == [seen(row, key) for row in range(5)], (name, key)


def test_the_future_s_shortest_gap_is_that_of_the_whole_history() -> None:
    time = torch.tensor([0, 100, 103, 103, 5, 5, 9, 50], dtype=torch.int64)
    view = view_of([4, 2, 1, 1], time=time)
    assert shortest_gaps(view, time).tolist() == [3.0] * 4 + [torch.inf] * 4
    assert shortest_gaps(view_of([0, 3], time=time[:3]), time[:3]).tolist() == [3.0] * 3


def test_bias_is_read_beside_its_place_and_below_at_the_last_column() -> None:
    part = mistake("bias-shifted", max_distance=3)
    case = case_for(part, FEW)
    built = case.module(part)
    view = view_of([4, 2]).laid_out(Layout("right", 4))
    x = torch.zeros(view.events, case.width, dtype=torch.float64)
    index = built.place(x, Batch({"user": view}), view).terms[0][0].index
    rows, keys = torch.arange(4)[:, None], torch.arange(4)[None, :]
    found = index.f(index.row_column[rows], index.key_column[keys])
    for row in range(4):
        for key in range(row + 1):
            wanted = min(row + 1, 3) if key == 3 else min(max(row - key - 1, 0), 3)
            assert int(found[row, key]) == wanted, (row, key)


def test_an_unknown_item_alone_reads_the_row_that_trains() -> None:
    part = mistake("padding-row-trained")
    case = case_for(part, FEW)
    built = case.build(part)
    view = view_of([3], token=torch.tensor([3, 1, 4]))
    batch = Batch({"user": view})
    x, plain = built.embed(batch, view), built.inner.embed(batch, view)
    assert torch.equal(x[[0, 2]], plain[[0, 2]])
    assert torch.equal(plain[1], torch.zeros(case.width))
    assert float(x[1].detach().abs().max()) > 0
    assert torch.equal(built.table().weight, built.inner.table().weight)


def test_the_published_mask_misses_nothing_where_nothing_sums_to_zero() -> None:
    part = mistake("mask-inferred")
    case = case_for(part, FEW)
    built = case.module(part)
    view = view_of([4, 2])
    x = torch.randn(6, case.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = Batch({"user": view})
    wanted = built.inner.encode(x, batch, view, Placed(x))
    torch.testing.assert_close(built.encode(x, batch, view, Placed(x)), wanted, rtol=0, atol=1e-12)


# ---- what does not go together ------------------------------------------------------------------------------------


class TestRefusals:
    """In one line that says what to do."""

    def test_no_causal_mask_to_replace(self) -> None:
        loose = sound("encoder", "recore-sasrec:sasrec", causal=False)
        for name in ("mask-next-visible", "mask-transposed", "mask-missing"):
            (problem,) = mistake(name, encoder=loose).problems(Facts())
            assert "use an encoder with `causal: true`" in problem

    def test_no_term_for_a_mask(self) -> None:
        bare = evolve(sound("encoder", "recore-sasrec:sasrec"), options=Bare())
        for name, term in (("mask-inferred", "key-bias"), ("padding-nan", "key-bias")):
            (problem,) = mistake(name, encoder=bare).problems(Facts())
            assert f"takes the term {term!r}" in problem

    def test_no_bound(self) -> None:
        for name in ("padding-positions", "window-called-start"):
            (problem,) = mistake(name).problems(Facts(history="all"))
            assert "set model.history.last" in problem

    def test_no_pair_tables(self) -> None:
        for name in ("bias-shifted", "intervals-of-the-future"):
            (problem,) = mistake(name).problems(Facts(terms=frozenset()))
            assert "takes pair tables" in problem

    def test_pieces_that_do_not_divide(self) -> None:
        (problem,) = mistake("heads-by-view", heads=3).problems(Facts(width=8))
        assert "3 pieces do not divide a width of 8" in problem

    def test_no_time_to_ask_at(self) -> None:
        part = mistake("target-time-unsaid", position=sound("position", "recore-positions:rope"))
        (problem,) = part.problems(Facts())
        assert "use recore-positions:time-bias" in problem

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("padding-trained", {"std": -1.0}),
            ("padding-positions", {"std": -1.0}),
            ("bias-shifted", {"max_distance": 0}),
            ("bias-shifted", {"std": -0.1}),
            ("intervals-of-the-future", {"max_interval": 0}),
            ("window-called-start", {"std": -0.1}),
            ("heads-by-view", {"heads": 1}),
            ("padding-row-trained", {"std": 0.0}),
        ],
    )
    def test_bad_numbers(self, name: str, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"expected .* got"):
            mistake(name, **options)


class Bare:
    """Options of an encoder that takes no terms."""

    def claims(self) -> EncoderClaims:
        return EncoderClaims(causal=True)
