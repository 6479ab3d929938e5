"""What the model makes of known items: the columns, the first pass, and the two parts that read them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from engine_helpers import Small, figures, walks
from test_engine_resume import Killed, killed_at, only

import recore
from recore.api import Result
from recore.contracts.scoring import Query
from recore.engine import drive
from recore.engine.run import reopen, resume
from recore.evidence import EVIDENCE, known_items
from recore.histories import queries_of, tokenise
from recore.ragged import Batch, Layout, View
from recore.sequential import SequentialModel, SequentialScorer

KNOWN = {"use": "recore-positions:known-item"}


def known(evidence: str, **more: Any) -> dict[str, Any]:
    return {
        "model": {
            "position": [{"use": "recore-positions:start-absolute"}, {**KNOWN, "evidence": evidence, **more}],
            "encoder": {"layers": 2, "heads": 2},
        }
    }


def opened(result: Result) -> tuple[SequentialModel, SequentialScorer, View]:
    """The trained model in float64, its scorer, and all histories cut as it cuts them."""
    scorer = reopen(result.folder).scorer
    assert isinstance(scorer, SequentialScorer)
    model = scorer.model.double().eval()
    log = walks().sort("user", maintain_order=True)
    log = pl.concat([log, pl.DataFrame({"user": ["u99"] * 3, "item": ["i01", "never seen", "i03"]})])
    lengths = log.group_by("user", maintain_order=True).len()["len"].to_numpy()
    offsets = torch.tensor([0, *lengths.cumsum().tolist()])
    view = tokenise(log, offsets.numpy(), scorer.tokenizer).last_events(6)
    return model, scorer, view


@pytest.fixture(scope="module", params=sorted(EVIDENCE))
def case(
    request: pytest.FixtureRequest, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Result]:
    recipe = recore.load(home / "tiny.yaml", overlay=known(request.param))
    return request.param, recore.run(recipe, runs=tmp_path_factory.mktemp("known"))


def test_the_columns_are_those_of_a_loop_over_prefixes(
    case: tuple[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event's evidence, from the state of the prefix before it, encoded by itself."""
    name, result = case
    model, _, view = opened(result)
    table = model.embedder.table()
    seen: list[View] = []
    with torch.no_grad():
        encode = model.encoder.encode

        def spy(x: Any, batch: Batch, view: View, placed: Any, **more: Any) -> Any:
            seen.append(view)
            return encode(x, batch, view, placed, **more)

        with monkeypatch.context() as patch:
            patch.setattr(model.encoder, "encode", spy)
            model(Batch({"user": view}), view)
        first, second = seen
        assert name not in first.columns
        found = second[name]
        told = 0
        for row in range(view.events):
            start = int(view.offsets[view.sequence[row]])
            item = int(view["item"][row])
            if row == start or item < 0:
                assert math.isnan(found[row])
                continue
            told += 1
            prefix = view.cut(torch.tensor([start]), torch.tensor([row]))
            state = model.first_pass(Batch({"user": prefix}), prefix)[-1]
            scores = table.weight @ state
            expected = {
                "surprise": -torch.log_softmax(scores, 0)[item],
                "rank": (scores > scores[item]).sum(),
                "agreement": state @ table.weight[item] / state.norm() / table.weight[item].norm(),
            }[name]
            assert float(found[row]) == pytest.approx(float(expected), rel=1e-9, abs=1e-12)
        assert told > 100


def test_the_position_learns_and_counts(case: tuple[str, Result]) -> None:
    _, result = case
    model, _, view = opened(result)
    assert float(model.positions[1].weight.detach().abs().max()) > 1e-3  # type: ignore[attr-defined]
    with torch.no_grad():
        states = model(Batch({"user": view}), view)
        without = model.first_pass(Batch({"user": view}), view)
    assert float((states - without).abs().max()) > 1e-4


def test_training_and_serving_give_a_row_the_same_state(case: tuple[str, Result]) -> None:
    """The state at every event of a history is that of the query that ends there."""
    _, result = case
    model, scorer, view = opened(result)
    ids = scorer.tokenizer.items_of(view["item"].clamp(min=0).numpy()).to_list()
    ids = [item if known else "never seen" for item, known in zip(ids, view["item"] >= 0, strict=True)]
    queries = [Query(ids[int(view.offsets[view.sequence[row]]) : row + 1]) for row in range(view.events)]
    with torch.no_grad():
        states = model(Batch({"user": view}), view)
        asked = scorer.encode(queries_of(queries))
    torch.testing.assert_close(asked, states, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_neither_padding_nor_later_events_enter(case: tuple[str, Result], side: Any) -> None:
    _, result = case
    model, _, view = opened(result)
    with torch.no_grad():
        states = model(Batch({"user": view}), view)
        wide = view.laid_out(Layout(side, 9, float("nan")))
        torch.testing.assert_close(model(Batch({"user": wide}), wide), states, rtol=1e-9, atol=1e-9)
        for count in (1, 2, 4):
            stop = torch.minimum(view.offsets[:-1] + count, view.offsets[1:])
            cut = view.cut(view.offsets[:-1], stop)
            kept = states[view.place < count]
            torch.testing.assert_close(model(Batch({"user": cut}), cut), kept, rtol=1e-9, atol=1e-9)


def test_the_first_pass_is_that_of_evaluation_in_training_too(case: tuple[str, Result]) -> None:
    """No dropout, no gradient, and the model stays in the mode it was in."""
    _, result = case
    model, _, view = opened(result)
    model.train()
    one, two = (model.first_pass(Batch({"user": view}), view) for _ in range(2))
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert model.training
    assert all(module.training for module in model.modules())


def test_a_column_of_the_log_by_that_name_is_not_read(small: Small) -> None:
    log = walks().with_columns(surprise=pl.lit(1000.0))
    framed = {"data": {"use": "recore-data:events", "path": None, "items": None, "frame": log}}
    plain = {"data": {**framed["data"], "frame": walks()}}
    one, two = (small({**known("surprise"), **data}) for data in (framed, plain))
    assert figures(one.folder)["weights"] == figures(two.folder)["weights"]


# ---- weights of targets --------------------------------------------------------------------------------------

WEIGHED = {"objective": {"known": 2.0}}


def test_off_is_as_if_it_were_not_there(small: Small, whole: Result) -> None:
    assert figures(small({"objective": {"known": 0.0}}).folder) == figures(whole.folder)


def test_weights_are_of_how_well_the_rest_is_predicted(small: Small) -> None:
    """Drawn batches against the formula, for a model that has learned something."""
    from recore.engine.trial import trial

    result = small(WEIGHED)
    weights = result.folder / "model" / "model.safetensors"
    made = trial(reopen(result.folder).prepared())
    training: Any = made.training
    from safetensors.torch import load_file

    model: SequentialModel = training.model
    model.load_state_dict(load_file(weights))
    model.double().eval()
    items = model.context.facts.items
    assert items is not None
    (batch,) = training.draw(0, 1)
    view, targets = batch.views["user"], batch.targets
    plan = training.plan(0)
    index = plan.index[int(plan.groups[1]) : int(plan.groups[2])]
    expected = []
    for history in index.tolist():
        tokens = training.histories.cut(
            training.histories.offsets[history : history + 1],
            training.histories.offsets[history + 1 : history + 2],
        )
        inputs = tokens.cut(tokens.offsets[:1], tokens.offsets[1:] - 1)
        states = model.first_pass(Batch({"user": inputs}), inputs)
        scores = states @ model.embedder.table().weight.T
        own = -torch.log_softmax(scores, 1).gather(1, tokens["item"][1:, None]).squeeze(1)
        for place in range(len(own)):
            others = torch.cat([own[:place], own[place + 1 :]])
            expected.append(
                float("nan") if not len(others) else float(-2.0 * others.detach().mean() / math.log(items))
            )
    logits = torch.tensor(expected, dtype=torch.float64)
    assert len(targets) == len(logits)
    told = logits.isfinite()
    weight = torch.ones_like(logits)
    weight[told] = logits[told].exp() / logits[told].exp().sum() * told.sum()
    torch.testing.assert_close(targets.weight.double(), weight, rtol=1e-5, atol=1e-6)
    assert float(targets.weight.mean()) == pytest.approx(1, abs=1e-6)
    assert float(targets.weight.std()) > 0.01
    assert set(view.columns) >= {"token", "item", "event"}


def test_batches_of_histories_of_one_event_weigh_nothing(small: Small) -> None:
    """Of three events two are held out: one is left, and nothing to predict it from."""
    short = pl.DataFrame({"user": ["s"] * 3, "item": ["i01", "i02", "i03"]})
    log = pl.concat([walks(users=5), short])
    data = {"data": {"use": "recore-data:events", "path": None, "items": None, "frame": log}}
    result = small({**WEIGHED, **known("surprise"), **data, "batcher": {"users": 1}})
    assert result.record["best_epoch"] >= 1


def test_weights_never_enter_a_forward_pass(small: Small) -> None:
    """The states of a batch are those of the batch without what weighs it."""
    model, _, view = opened(small(WEIGHED))
    told = view.with_columns(surprise=torch.rand(view.events, dtype=torch.float64))
    with torch.no_grad():
        assert torch.equal(model(Batch({"user": view}), view), model(Batch({"user": told}), told))


def test_a_weighed_run_that_is_stopped_goes_on_to_the_same_end(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "SAVE_EVERY", 0.0)
    changes = {**WEIGHED, **known("surprise")}
    expected = figures(small(changes).folder)
    root = tmp_path / "stopped"
    with pytest.raises(Killed), killed_at(monkeypatch, drive._Loop, "save", 6, after=True):
        small(changes, runs=root)
    assert figures(resume(only(root)).path) == expected


def test_known_items_of_nothing() -> None:
    from recore.contracts.model import Table

    found = known_items(
        torch.zeros(0, 3), torch.tensor([-1]), torch.tensor([4]), Table(torch.zeros(5, 3)), EVIDENCE
    )
    assert {name: column.isnan().tolist() for name, column in found.items()} == {
        name: [True] for name in EVIDENCE
    }
