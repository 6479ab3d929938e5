"""The position `prediction-absolute`: the last event of a sequence always carries P_1. What it adds, what it claims
and what it does not, and which batchers it refuses. Legend: `T` events, `d` width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_positions.absolute import Absolute, build_prediction
from recore_positions.options import PredictionAbsolute
from torch import Tensor

import recore
from recore import BOTH_SIDES, Context, Facts, RecipeError
from recore.contracts import Position
from recore.ragged import Batch, Layout, View, offsets_of

HISTORY, WIDTH = 12, 3
lengths = st.lists(st.integers(1, HISTORY), min_size=1, max_size=5)
COMPOSED = Facts(keys=frozenset({"batcher"}))  # where a recipe is composed it is known what is set


def built(std: float = 1.0, seed: int = 0, history: Any = HISTORY) -> Absolute:
    context = Context(seed, "model.position", Facts(width=WIDTH, history=history))
    return build_prediction(PredictionAbsolute(std=std), context).double()


def view_of(held: list[int], layout: Layout | None = None) -> View:
    offsets = offsets_of(torch.tensor(held))
    return View({"token": torch.zeros(sum(held), dtype=torch.int64)}, offsets, layout or Layout())


def added(position: Absolute, view: View) -> Tensor:
    """What is contributed to each event, `(T, d)`."""
    placed = position.place(torch.zeros(view.events, WIDTH, dtype=torch.float64), Batch({"user": view}), view)
    assert list(placed.terms) == [()]
    return placed.inputs


@settings(deadline=None, max_examples=40)
@given(held=lengths, side=st.sampled_from(["none", "left", "right"]), extra=st.integers(0, 64))
def test_event_p_of_a_prediction_after_t_carries_number_t_minus_p_plus_1(
    held: list[int], side: Any, extra: int
) -> None:
    """Ragged, left and right alike, values and gradients: no column of a rectangle enters."""
    position = built()
    layout = Layout() if side == "none" else Layout(side, max(held) + extra, float("nan"))
    got = added(position, view_of(held, layout))
    numbers = [t - p + 1 for t in held for p in range(1, t + 1)]  # the paper's, from 1
    expected = torch.stack([position.weight[number - 1] for number in numbers])
    assert torch.equal(got, expected)
    way = torch.arange(got.numel(), dtype=torch.float64).view_as(got).cos()
    ours, theirs = (torch.autograd.grad((x * way).sum(), position.weight)[0] for x in (got, expected))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(held=lengths, data=st.data())
def test_dropped_old_events_and_neighbours_renumber_nothing(held: list[int], data: st.DataObject) -> None:
    position, view = built(), view_of(held)
    whole = added(position, view)
    number = data.draw(st.integers(0, len(held) - 1))
    kept = data.draw(st.integers(1, held[number]))
    stop = int(view.offsets[number + 1])
    assert torch.equal(added(position, view_of([kept])), whole[stop - kept : stop])


def test_it_is_not_prefix_consistent_by_a_measured_amount() -> None:
    """One more event renumbers every other one: with vectors of the size that training starts from, each moves."""
    position = built(std=0.02)
    whole, cut = added(position, view_of([8])), added(position, view_of([7]))
    gap = (whole[:7] - cut).detach().abs().amax(1)
    assert float(gap.min()) > 1e-3
    assert float(gap.max()) > 0.02
    claims = PredictionAbsolute().claims()
    assert (claims.relative_to, claims.prefix_consistent) == ("prediction", False)
    assert (claims.shift_invariant, claims.padding, claims.query_time) == (True, BOTH_SIDES, "none")
    assert isinstance(position, Position)


def test_vectors_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one = built(std=0.3, seed=1, history=200).weight.detach()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, built(std=0.3, seed=1, history=200).weight)
    assert not torch.equal(one, built(std=0.3, seed=2, history=200).weight)
    assert float(one.std()) == pytest.approx(0.3, rel=0.15)


def test_a_place_beyond_the_table_is_an_error_not_a_clip() -> None:
    with pytest.raises(ValueError, match="has vectors for 12 places, but an event stands at place 12"):
        added(built(), view_of([3, 13]))


PACKED = (
    "position 'prediction-absolute' numbers events back from the one prediction of a row, but the batcher {}: a packed "
    "row predicts after each of its events, and each of these predictions would number the same events anew (use "
    "recore-batchers:by-length, or relative positions such as relative-keys-values)"
)


def test_what_stands_against_it() -> None:
    options = PredictionAbsolute()
    assert options.problems(Facts()) == []
    one = Facts(history=200, one_prediction_per_row=True)
    assert options.problems(COMPOSED.merged(one)) == []
    for facts, why in (
        (Facts(one_prediction_per_row=False), "packs"),
        (COMPOSED.merged(Facts(one_prediction_per_row=False)), "packs"),
        (COMPOSED, "does not promise one prediction per row"),
    ):
        assert options.problems(facts) == [PACKED.format(why)]
        with pytest.raises(RecipeError, match="use recore-batchers:by-length"):
            build_prediction(options, Context(facts=facts.merged(Facts(width=3, history=4))))
    (problem,) = options.problems(one.merged(Facts(history="all")))
    assert problem == (
        "position 'prediction-absolute' learns one vector per place and needs a bounded history, got `all` (set "
        "model.history.last to a number, or use positions that are relative)"
    )
    with pytest.raises(ValueError, match="`std`: expected 0 or more, got -1"):
        PredictionAbsolute(std=-1)


@pytest.mark.parametrize("batcher", ["ragged", "padded", "windows", "by-length"])
def test_a_recipe_with_a_packed_batcher_is_refused_when_it_is_composed(tmp_path: Path, batcher: str) -> None:
    file = tmp_path / "packed.yaml"
    file.write_text(
        "recore: 1\nextends: sasrec\nmodel:\n  position: {use: recore-positions:prediction-absolute}\n"
        f"batcher: {{use: recore-batchers:{batcher}}}\n",
        encoding="utf-8",
    )
    if batcher == "by-length":
        assert recore.load(file).name == "packed"
        return
    with pytest.raises(RecipeError) as error:
        recore.load(file)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{file}:4: model.position: position 'prediction-absolute' numbers events back")
    assert line.endswith(
        "(use recore-batchers:by-length, or relative positions such as relative-keys-values)"
    )
