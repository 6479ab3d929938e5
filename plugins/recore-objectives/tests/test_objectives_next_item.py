"""`next-item` against a slow loop over histories; the kit's checks of objectives."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recore_objectives.next_item import NextItemObjective, build
from recore_objectives.options import NextItem
from recore_objectives.plugin import recore_objectives
from torch import Tensor

from recore import Context, Facts
from recore.ragged import Layout, View, offsets_of
from recore.testing import load_checks, parametrize_with_checks, part_of

(COMPONENT,) = recore_objectives()
OBJECTIVE = NextItemObjective()


@parametrize_with_checks([part_of("objective", COMPONENT, "recore-objectives")])
def test_next_item_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_checks() -> None:
    assert len(load_checks()["objective"]) >= 8


@st.composite
def views(draw: st.DrawFn, shortest: int = 0) -> View:
    """0 to 6 histories of `shortest` to 7 events; some items unknown (−1); with times or without."""
    lengths = draw(st.lists(st.integers(shortest, 7), max_size=6))
    total = sum(lengths)
    items = torch.tensor(
        draw(st.lists(st.integers(-1, 9), min_size=total, max_size=total)), dtype=torch.int64
    )
    columns = {"token": items + 2, "item": items, "event": torch.arange(total) + 100}
    if draw(st.booleans()):
        columns["time"] = torch.arange(total, dtype=torch.float64) * 1.5
    index = torch.arange(len(lengths)) + 7 if draw(st.booleans()) else None
    return View(columns, offsets_of(torch.tensor(lengths, dtype=torch.int64)), Layout("left", 9), index)


@given(views(), st.data())
@settings(deadline=None, max_examples=150)
def test_every_pair_of_context_and_target_exactly_once(view: View, data: st.DataObject) -> None:
    chosen = data.draw(st.none() | st.lists(st.integers(0, 8), min_size=len(view), max_size=len(view)))
    since = None if chosen is None else torch.tensor(chosen, dtype=torch.int64)
    inputs, targets = OBJECTIVE.training(view, torch.Generator(), since)
    expected = []
    for b in range(len(view)):
        first, stop = int(view.offsets[b]), int(view.offsets[b + 1])
        for row in range(first + 1, stop):
            if view["item"][row] >= 0 and (chosen is None or row - first >= chosen[b]):
                time = float(view["time"][row]) if "time" in view.columns else None
                expected.append((b, tuple(range(first + 100, row + 100)), int(view["item"][row]), time))
    found = []
    for n, row in enumerate(targets.where.tolist()):
        b = int(inputs.sequence[row])
        context = tuple(inputs["event"][int(inputs.offsets[b]) : row + 1].tolist())
        time = None if targets.time is None else float(targets.time[n])
        found.append((b, context, int(targets.id[n]), time))
    assert found == expected
    assert targets.weight.tolist() == [1.0] * len(expected)
    assert inputs.lengths.tolist() == [max(0, length - 1) for length in view.lengths.tolist()]
    assert set(inputs.columns) == set(view.columns)
    assert inputs.layout == view.layout
    assert (inputs.index is None) if view.index is None else torch.equal(_known(inputs.index), view.index)


def _known(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


@given(views())
@settings(deadline=None, max_examples=60)
def test_no_target_is_visible_to_its_own_context(view: View) -> None:
    inputs, targets = OBJECTIVE.training(view, torch.Generator())
    # A target's event: the one behind the event of the row that predicts it (events are numbered in order).
    target = inputs["event"][targets.where] + 1
    for event, row in zip(target.tolist(), targets.where.tolist(), strict=True):
        start = int(inputs.offsets[inputs.sequence[row]])
        assert event not in inputs["event"][start : row + 1].tolist()


@given(views(shortest=1))
@settings(deadline=None, max_examples=60)
def test_a_query_is_the_history_asked_from_its_last_event(view: View) -> None:
    inputs, where = OBJECTIVE.query(view)
    assert inputs is view
    assert where.tolist() == [int(stop) - 1 for stop in view.offsets[1:]]


def test_an_empty_history_cannot_be_asked() -> None:
    items = torch.arange(3)
    view = View({"token": items, "item": items, "event": items}, torch.tensor([0, 2, 2, 3]))
    with pytest.raises(ValueError, match="are empty, expected") as caught:
        OBJECTIVE.query(view)
    assert str(caught.value) == (
        "next-item: 1 of 3 histories in a query are empty, expected at least one event each: there is no row to "
        "ask from (leave them out and answer for them apart)"
    )


def test_a_training_history_is_one_event_longer_than_its_rows() -> None:
    assert build(NextItem(), Context()).reach(200) == (201, 200)


def test_an_encoder_that_sees_the_future_is_refused() -> None:
    assert NextItem().problems(Facts(causal=True)) == []
    assert NextItem().problems(Facts()) == []
    (problem,) = NextItem().problems(Facts(causal=False))
    assert problem == (
        "predicts each event from those before it, but the encoder is not causal: it would see the target "
        "(expected an encoder that claims `causal`)"
    )
    assert NextItem().provides() == Facts(appended=0)


def test_listing_does_not_import_torch() -> None:
    code = "import sys, recore_objectives.plugin as p; list(p.recore_objectives()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- weights from known items ----------------------------------------------------------------------------------


@given(views(), st.floats(-3, 3).filter(bool), st.integers(2, 50))
@settings(deadline=None, max_examples=100)
def test_weights_are_of_how_well_the_others_are_predicted(view: View, known: float, items: int) -> None:
    """w_p ∝ exp(−α · mean surprise of the others / log V), mean one over those that have others; against a loop."""
    random = torch.Generator().manual_seed(view.events)
    surprise = 9 * torch.rand(view.events, generator=random, dtype=torch.float64)
    surprise[(view["item"] < 0) | (view.place == 0)] = float("nan")
    objective = build(NextItem(known=known), Context(facts=Facts(items=items)))
    inputs, targets = objective.training(view.with_columns(surprise=surprise), torch.Generator())
    plain_inputs, plain = OBJECTIVE.training(view, torch.Generator())
    assert torch.equal(plain.where, targets.where)
    assert torch.equal(plain.id, targets.id)
    assert torch.equal(inputs["token"], plain_inputs["token"])
    logits = []
    for b in range(len(view)):
        first, stop = int(view.offsets[b]), int(view.offsets[b + 1])
        for row in range(first + 1, stop):
            if view["item"][row] < 0:
                continue
            others = [
                float(surprise[r]) for r in range(first, stop) if r != row and bool(surprise[r].isfinite())
            ]
            mean = sum(others) / len(others) if others else float("nan")
            logits.append(-known * mean / math.log(items))
    told = [math.exp(one) for one in logits if one == one]
    expected = [1.0 if one != one else math.exp(one) * len(told) / sum(told) for one in logits]
    torch.testing.assert_close(targets.weight, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    if len(targets):
        assert float(targets.weight.double().mean()) == pytest.approx(1, abs=1e-6)


def test_weights_ask_for_the_column_only_where_they_are_on() -> None:
    assert NextItem().columns() == frozenset()
    assert NextItem(known=1.0).columns() == {"surprise"}
    with pytest.raises(ValueError, match="expected a finite number, got nan"):
        NextItem(known=float("nan"))


def test_a_model_that_knows_no_surprise_is_refused() -> None:
    (problem,) = NextItem(known=1.0).problems(Facts(causal=True, computed=frozenset()))
    assert "does not compute the surprise" in problem
    (problem,) = NextItem(known=1.0).problems(Facts(causal=True, prefix_consistent=False))
    assert "does not promise that states are those of their prefixes" in problem
    assert NextItem().problems(Facts(causal=True, computed=frozenset())) == []


@parametrize_with_checks([part_of("objective", COMPONENT, "recore-objectives", NextItem(known=1.0))])
def test_next_item_with_weights_keeps_the_contract(check: Callable[[], None]) -> None:
    check()
