"""Positions that change inputs: `none`, `start-absolute`, `window-absolute`. Legend: `T` events, `d` width."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_positions.absolute import Absolute, WindowPositions, build_start, build_window
from recore_positions.nothing import build as build_none
from recore_positions.options import NoPosition, StartAbsolute, WindowAbsolute
from recore_positions.plugin import recore_positions
from torch import Tensor

from recore import BOTH_SIDES, Context, Facts, RecipeError
from recore.contracts import Position
from recore.ragged import Batch, Layout, View, offsets_of

HISTORY, WIDTH = 128, 3
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def context(seed: int = 0, history: Any = HISTORY) -> Context:
    return Context(seed, "model.position", Facts(width=WIDTH, history=history))


def start(std: float = 1.0) -> Absolute:
    return build_start(StartAbsolute(std=std), context()).double()


def window(std: float = 1.0) -> Absolute:
    return build_window(WindowAbsolute(std=std), context()).double()


def view_of(held: list[int], layout: Layout | None = None) -> View:
    offsets = offsets_of(torch.tensor(held))
    return View({"token": torch.zeros(sum(held), dtype=torch.int64)}, offsets, layout or Layout())


def added(position: Absolute, view: View) -> Tensor:
    """What is contributed to each event, `(T, d)`."""
    x = torch.zeros(view.events, WIDTH, dtype=torch.float64)
    placed = position.place(x, Batch({"user": view}), view)
    assert list(placed.terms) == [()]
    return placed.inputs


def layout_of(side: str, width: int) -> Layout:
    return Layout("left" if side == "left" else "right", width, float("nan"))


def test_they_come_in_through_the_hook_and_torch_does_not() -> None:
    names = [component.name for component in recore_positions()]
    assert names[:4] == ["none", "window-absolute", "start-absolute", "prediction-absolute"]
    assert len(set(names)) == len(names)
    code = "import sys, recore_positions.plugin as p; list(p.recore_positions())"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)
    for built in (start(), window(), build_none(NoPosition(), context())):
        assert isinstance(built, Position)


def test_what_each_claims() -> None:
    none, begin, edge = NoPosition().claims(), StartAbsolute().claims(), WindowAbsolute().claims()
    assert (none.relative_to, none.prefix_consistent, none.shift_invariant) == ("nothing", True, True)
    assert (begin.relative_to, begin.prefix_consistent, begin.shift_invariant) == ("start", True, False)
    assert (edge.relative_to, edge.prefix_consistent, edge.shift_invariant) == ("window", False, False)
    assert none.padding == begin.padding == BOTH_SIDES
    assert edge.padding == {"right"}
    assert {none.query_time, begin.query_time, edge.query_time} == {"none"}


def test_none_passes_inputs_on_as_they_are() -> None:
    view = view_of([2, 3])
    x = torch.randn(5, WIDTH)
    placed = build_none(NoPosition(), context()).place(x, Batch({"user": view}), view)
    assert placed.inputs is x
    assert placed.layer(1) == ()


@settings(deadline=None, max_examples=30)
@given(held=lengths)
def test_start_absolute_adds_the_row_of_the_place_from_the_start(held: list[int]) -> None:
    position = start()
    expected = [position.weight[place] for length in held for place in range(length)]
    assert torch.equal(added(position, view_of(held)), torch.stack(expected))


@settings(deadline=None, max_examples=30)
@given(held=lengths, side=st.sampled_from(["left", "right"]), extra=st.integers(0, 64))
def test_window_absolute_adds_the_row_of_the_column(held: list[int], side: str, extra: int) -> None:
    position, width = window(), max(held) + extra
    first = [width - length if side == "left" else 0 for length in held]
    expected = [position.weight[f + i] for f, n in zip(first, held, strict=True) for i in range(n)]
    assert torch.equal(added(position, view_of(held, layout_of(side, width))), torch.stack(expected))


@settings(deadline=None, max_examples=30)
@given(held=lengths, side=st.sampled_from(["left", "right"]), extra=st.integers(0, 64))
def test_padding_on_the_sides_claimed_changes_nothing_values_and_gradients(
    held: list[int], side: str, extra: int
) -> None:
    for position in (start(), window()):
        if isinstance(position, WindowPositions) and side == "left":
            continue
        results = []
        for width in (max(held), max(held) + extra):
            got = added(position, view_of(held, layout_of(side, width)))
            weights = torch.arange(got.numel(), dtype=torch.float64).view_as(got).cos()
            results.append((got, torch.autograd.grad((got * weights).sum(), position.weight)[0]))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("extra", [1, 5, 64])
def test_padding_on_the_left_moves_window_absolute_by_a_measured_amount(extra: int) -> None:
    """SASRec's own violation, with vectors of the size that training starts from."""
    position = window(std=0.02)
    held = [3, 9, 1]
    narrow = added(position, view_of(held, layout_of("left", 9)))
    wide = added(position, view_of(held, layout_of("left", 9 + extra)))
    gap = (narrow - wide).detach().abs().amax(1)
    assert float(gap.min()) > 1e-4
    assert float(gap.max()) > 0.01, "every event is contributed another vector"


@settings(deadline=None, max_examples=20)
@given(held=lengths, data=st.data())
def test_start_absolute_does_not_see_later_events_nor_neighbours(
    held: list[int], data: st.DataObject
) -> None:
    position, view = start(), view_of(held)
    whole = added(position, view)
    number = data.draw(st.integers(0, len(held) - 1))
    kept = data.draw(st.integers(1, held[number]))
    begin = int(view.offsets[number])
    assert torch.equal(added(position, view_of([kept])), whole[begin : begin + kept])


def test_start_absolute_is_not_shift_invariant_and_window_absolute_not_prefix_consistent() -> None:
    """Where a claim is not made its violation is measured, so that it could not have been made."""
    whole = added(start(), view_of([6]))
    assert float((added(start(), view_of([5])) - whole[1:]).detach().abs().max()) > 0.01
    wide = added(window(), view_of([6], layout_of("left", 8)))
    cut = added(window(), view_of([5], layout_of("left", 8)))
    assert float((cut - wide[:5]).detach().abs().max()) > 0.01
    right = added(window(), view_of([5], layout_of("right", 8)))
    moved = added(window(), view_of([6], layout_of("right", 8)))[1:]
    assert float((right - moved).detach().abs().max()) > 0.01


def test_vectors_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one = build_start(StartAbsolute(std=0.3), context(seed=1)).weight.detach()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, build_start(StartAbsolute(std=0.3), context(seed=1)).weight)
    assert not torch.equal(one, build_start(StartAbsolute(std=0.3), context(seed=2)).weight)
    assert one.shape == (HISTORY, WIDTH)
    assert float(one.std()) == pytest.approx(0.3, rel=0.15)


def test_a_bounded_history_is_needed() -> None:
    hint = "(set model.history.last to a number, or use positions that are relative)"
    for options, name in ((StartAbsolute(), "start-absolute"), (WindowAbsolute(), "window-absolute")):
        expected = (
            f"position {name!r} learns one vector per place and needs a bounded history, got `all` {hint}"
        )
        assert options.problems(Facts(history="all")) == [expected]
        assert options.problems(Facts(history=200, padding="right")) == []
        assert options.problems(Facts()) == []
    message = "needs a bounded history and a known width, got history 'all'"
    with pytest.raises(RecipeError, match=message):
        build_start(StartAbsolute(), context(history="all"))
    with pytest.raises(RecipeError, match=message):
        build_window(WindowAbsolute(), context(history="all"))


def test_window_absolute_needs_a_rectangle() -> None:
    (problem,) = WindowAbsolute().problems(Facts(history=200, padding="none"))
    assert problem == (
        "position 'window-absolute' counts columns of a padded rectangle, but the batcher asks for none "
        "(use a batcher that pads, such as recore-batchers:padded, or `start-absolute`)"
    )
    assert StartAbsolute().problems(Facts(history=200, padding="none")) == []
    with pytest.raises(ValueError, match="the layout has `padding: none`"):
        added(window(), view_of([2]))


def test_a_place_beyond_the_table_is_an_error_not_a_clip() -> None:
    with pytest.raises(ValueError, match="has vectors for 128 places, but an event stands at place 128"):
        added(start(), view_of([3, 129]))
    with pytest.raises(ValueError, match="has vectors for 128 places, but an event stands at place 199"):
        added(window(), view_of([3], layout_of("left", 200)))


@pytest.mark.parametrize("std", [-0.1, float("nan")])
def test_a_deviation_out_of_range_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="`std`: expected 0 or more, got"):
        StartAbsolute(std=std)
    with pytest.raises(ValueError, match="`std`: expected 0 or more, got"):
        WindowAbsolute(std=std)
