"""What recipes of two views may say, and what is refused, each with its whole message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import polars as pl
import pytest
from duality_helpers import SET, framed, laid, make, walks
from recore_duality.options import Audience, Dual, Duality, ItemView
from recore_duality.plugin import (
    recore_evaluators,
    recore_losses,
    recore_models,
    recore_objectives,
    recore_trainers,
)

import recore
from recore import Facts
from recore.builtin import History
from recore.cli.main import main
from recore.errors import RecipeError
from recore.recipe import Recipe

NEXT_ITEM = {"name": "next-item", "use": "recore-losses:ce"}
NEXT_USER = {"name": "next-user", "use": "recore-losses:ce", "view": "item"}
AGREE = {"name": "consistency", "use": "recore-duality:consistency", "view": "item"}
PLAIN = {"use": "recore-evaluation:ranking", "k": [5, 10]}


def load(recipe_file: Path, *overlays: Mapping[str, Any]) -> Recipe:
    return recore.load(recipe_file, overlay=laid(framed(walks()), *overlays))


def refused(recipe_file: Path, *overlays: Mapping[str, Any]) -> list[str]:
    """Each problem as `path: message`."""
    with pytest.raises(RecipeError) as caught:
        load(recipe_file, *overlays)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def test_each_part_is_offered() -> None:
    found = {
        component.name: component.options.__name__
        for hook in (recore_models, recore_objectives, recore_losses, recore_trainers, recore_evaluators)
        for component in hook()
    }
    assert found == {
        "dual": "Dual",
        "next-user": "NextUser",
        "consistency": "Consistency",
        "duality": "Duality",
        "audience": "Audience",
    }


def test_each_option_has_its_help() -> None:
    for options in (Dual, ItemView, Duality, Audience):
        for field in attrs.fields(options):
            assert field.metadata.get("help"), (options, field.name)


# ---- weights --------------------------------------------------------------------------------------------------


def test_a_loss_of_weight_0_is_not_built(recipe_file: Path) -> None:
    made = make(recipe_file, {"loss": [NEXT_ITEM, {**NEXT_USER, "weight": 0}, AGREE]})
    training = made.training()
    assert [entry.name for entry in training.losses] == ["next-item", "consistency"]
    batches = training.draw(0, 0)
    assert len(batches) == 2
    assert set(training.backward(batches, training.weights(batches), 1)) == {"next-item", "consistency"}


def test_without_losses_of_the_view_nothing_is_asked_about_items(recipe_file: Path) -> None:
    """Then the users' states are not computed either."""
    off = [NEXT_ITEM, {**NEXT_USER, "weight": 0}, {**AGREE, "weight": 0.0}]
    training = make(recipe_file, {"loss": off, "evaluators": PLAIN}).training()
    assert len(training.draw(0, 0)) == 1
    assert training._states is None
    assert training.state_dict() == {"epoch": -1, "weights": {}}


def test_an_evaluator_of_what_nothing_learns_is_refused(recipe_file: Path) -> None:
    off = [NEXT_ITEM, {**NEXT_USER, "weight": 0}, {**AGREE, "weight": 0}]
    assert refused(recipe_file, {"loss": off}) == [
        "evaluators.1: ranks users for items, but no loss learns from the view `item` (give one a weight above 0)"
    ]


def test_weight_0_is_left_out_of_the_log_and_the_record(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load(
        recipe_file, {"loss": [NEXT_ITEM, {**NEXT_USER, "weight": 0}, AGREE], "trainer": {"epochs": 1}}
    )
    folder = recore.run(recipe, runs=tmp_path).folder
    (line,) = [json.loads(text) for text in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert list(line["losses"]) == ["next-item", "consistency"]


def test_only_losses_of_items(recipe_file: Path, tmp_path: Path) -> None:
    """A user's encoder then stays as it was drawn, and next-item is measured as it is."""
    recipe = load(recipe_file, {"loss": [NEXT_USER], "trainer": {"epochs": 1}})
    assert recore.run(recipe, runs=tmp_path).test.keys() >= {"ndcg@10", "ndcg@10[next-user]"}


# ---- what stands beside what ----------------------------------------------------------------------------------


def test_a_view_that_is_misspelt(recipe_file: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe_file, {"loss": [NEXT_ITEM, {**NEXT_USER, "view": "itme"}, AGREE]})
    (problem,) = caught.value.problems
    assert problem.path == "loss.1.view"
    assert problem.message == "loss 'next-user' learns from the view 'itme', which the model does not encode"
    assert problem.hint == "it encodes: user, item"


def test_the_standard_trainer_may_drive_two_views(recipe_file: Path) -> None:
    recipe = load(recipe_file, {"trainer": {"use": "recore-training:standard", "epochs": 1}})
    assert recipe.trainer is not None
    assert recipe.trainer.name == "recore-training:standard"


def sequential() -> dict[str, Any]:
    """The core's model of one view."""
    return {
        "use": "recore:sequential",
        "history": {"last": 40},
        "embedder": {"use": "recore-embeddings:padding-safe", "width": 4},
        "position": {"use": "recore-positions:start-absolute"},
        "encoder": {"use": "recore-sasrec:sasrec", "layers": 1},
    }


def test_what_is_for_two_views_is_refused_beside_a_model_of_one(recipe_file: Path) -> None:
    """All at once."""
    assert refused(recipe_file, {"model": sequential()}) == [
        "loss.1.view: loss 'next-user' learns from the view 'item', which the model does not encode",
        "loss.2.view: loss 'consistency' learns from the view 'item', which the model does not encode",
        "trainer: drives losses on two views, but the model encodes only the view `user` (use a model such as "
        "recore-duality:dual, or the trainer recore-training:standard)",
        "evaluators.1: ranks users for items, but the model encodes no view `item` (use recore-duality:dual)",
    ]


def test_widths_must_agree(recipe_file: Path) -> None:
    wide = {"use": "recore-embeddings:padding-safe", "width": 8}
    assert refused(recipe_file, {"model": {"item": {"embedder": wide}}}) == [
        "model: compares users with items: expected `item.embedder` as wide as `embedder`, 4, got 8"
    ]


def test_an_encoder_of_users_that_sees_the_future_is_refused(recipe_file: Path) -> None:
    assert (
        "model: reads users' states at events from their encoder, which is not causal: they would know the future "
        "(expected an encoder that claims `causal`)"
    ) in refused(recipe_file, {"model": {"encoder": {"causal": False}}})


def test_a_causal_item_encoder_is_needed_where_users_are_a_sequence(recipe_file: Path) -> None:
    assert refused(recipe_file, {"model": {"item": {"encoder": {"causal": False}}}}) == [
        "model: times order events across users here, so an item's users are a sequence: `item.encoder` must be "
        "causal (remove `causal: false`)"
    ]


SEQUENCE_ENCODER = (
    "model: nothing orders events across users here, so an item's users are a set: `item.encoder` must not be causal "
    "(set `causal: false`)"
)
POSITION = (
    "model: nothing orders events across users here, so an item's users have no positions "
    "(remove `item.position`)"
)


def test_sets_take_no_causal_encoder_and_no_position(recipe_file: Path, tmp_path: Path) -> None:
    no_order = {"data": {"order_across_users": False}}
    assert refused(recipe_file, no_order) == [SEQUENCE_ENCODER, POSITION]
    assert refused(recipe_file, SET, {"model": {"item": {"encoder": {"causal": True}}}}) == [SEQUENCE_ENCODER]
    with_position = {"model": {"item": {"position": {"use": "recore-positions:start-absolute"}}}}
    assert refused(recipe_file, SET, with_position) == [POSITION]
    # A log without times has no order across users, whatever is said of it.
    assert refused(recipe_file, {"data": {"time": None}}) == [SEQUENCE_ENCODER, POSITION]


def test_logs_of_lines_are_sets_too(recipe_file: Path, tmp_path: Path) -> None:
    lines = tmp_path / "log.txt"
    lines.write_text("\n".join(f"{user} {item}" for user, item, _ in sorted(walks())), encoding="utf-8")
    data = {"use": "recore-data:sequences", "path": str(lines)}
    with pytest.raises(RecipeError) as caught:
        recore.load(recipe_file, overlay={"data": data})
    assert [f"{one.path}: {one.message}" for one in caught.value.problems] == [SEQUENCE_ENCODER, POSITION]
    recipe = recore.load(
        recipe_file, overlay=laid({"data": data}, {"model": SET["model"]}, {"trainer": {"epochs": 1}})
    )
    record = recore.run(recipe, runs=tmp_path / "runs").record
    assert record["card"]["protocol"]["data"]["order across users"] == "unknown"


def test_all_users_of_an_item_are_too_many(recipe_file: Path) -> None:
    assert refused(recipe_file, {"model": {"item": {"history": {"last": "all"}}}}) == [
        "model.item.history: expected at least 2 users, got `all`: a popular item's users are too many to read"
    ]
    with pytest.raises(ValueError, match="expected a whole number from 1, got 0"):
        ItemView(objective=None, embedder=None, encoder=None, moments=0)  # type: ignore[arg-type]  # not reached
    with pytest.raises(ValueError, match="expected at least 2 events"):
        History(1)


def test_missing_keys_are_said_of_dual(recipe_file: Path) -> None:
    assert "model: model 'dual' needs `objective:`, but the recipe sets none" in refused(
        recipe_file, {"objective": None}
    )


# ---- facts ----------------------------------------------------------------------------------------------------


def test_the_parts_of_each_view_are_told_the_facts_of_their_own(recipe_file: Path) -> None:
    facts = load(recipe_file, SET).facts
    assert facts.views is not None
    assert list(facts.views) == ["user", "item"]
    assert facts.history == facts.views["user"].history == 40
    assert facts.views["item"].history == 3
    assert facts.causal is facts.views["user"].causal is True
    assert facts.views["item"].causal is False
    assert facts.width == facts.views["item"].width == 4
    assert facts.learned == frozenset({"user", "item"})
    assert facts.losses == ("next-item", "next-user", "consistency")
    assert facts.order_across_users is False


def test_options_of_the_evaluator() -> None:
    with pytest.raises(ValueError, match=r"different whole numbers from 1, got \[5, 5\]"):
        Audience(k=(5, 5))
    with pytest.raises(ValueError, match=r"got \[0\]"):
        Audience(k=(0,))
    assert Audience().problems(Facts()) == []


def test_columns_that_a_part_of_the_item_view_reads(recipe_file: Path, tmp_path: Path) -> None:
    """Are there in training, evaluation and serving alike."""
    plugin = tmp_path / "my_place.py"
    plugin.write_text(
        '''
from attrs import frozen
from recore import Component, PositionClaims, hookimpl
from recore.contracts import Placed

@frozen
class Rated:
    """Adds the rating of each event."""

    def columns(self):
        return frozenset({"rating", "time"})

class Position:
    def place(self, x, batch, view):
        return Placed(x + view["rating"].to(x.dtype)[:, None] + 0.01 * view["time"].to(x.dtype)[:, None])

def build(options, context):
    return Position()

@hookimpl
def recore_positions():
    yield Component("rated", Rated, "this:build", "Adds ratings.")
''',
        encoding="utf-8",
    )
    frame = pl.DataFrame(walks(), schema=["user", "item", "time"], orient="row")
    frame = frame.with_columns(rating=pl.int_range(pl.len()).cast(pl.Float64) % 5)
    overlay = {
        "data": {"frame": frame, "rating": "rating"},
        "model": {"item": {"position": {"use": "my_place:rated"}}},
        "trainer": {"epochs": 1},
    }
    recipe = recore.load(recipe_file, overlay=overlay, plugins=[plugin])
    result = recore.run(recipe, runs=tmp_path / "runs")
    assert result.audience([1], k=3).height == 3


# ---- shown ----------------------------------------------------------------------------------------------------


def test_recore_show_tells_of_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, name, word in (
        ("model", "dual", "Strictly earlier."),
        ("objective", "next-user", "Of the users of an item"),
        ("loss", "consistency", "temperature"),
        ("trainer", "duality", "from_epoch"),
        ("evaluator", "audience", "most-active"),
    ):
        assert main(["show", kind, name]) == 0
        assert word in capsys.readouterr().out


def test_positions_that_would_leak_between_the_views_are_refused(recipe_file: Path) -> None:
    """A state that knows when its user's next event happens; surprise that nobody computes."""
    target = {"position": {"use": "recore-positions:time-bias", "query_time": "target"}}
    known = {"item": {"position": {"use": "recore-positions:known-item"}}}
    assert refused(recipe_file, {"model": target}) == [
        "model: asks users' states at moments of other events, so none may know when the user's own next event happens "
        "(set `query_time: last-event` on `position`)"
    ]
    assert refused(recipe_file, {"model": known}) == [
        "model.item.position: position 'known-item' reads the column 'surprise', which this model (or this view of it) "
        "does not fill (use it under `model.position` of recore:sequential)"
    ]
