"""Two views in the engine: negatives of users, and updates in which users and items come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from duality_helpers import SET, framed, laid, make, walks
from safetensors.torch import load_file

import recore

SAMPLED = {
    "name": "next-user",
    "use": "recore-losses:bce",
    "view": "item",
    "sampler": {"use": "recore-samplers:uniform", "count": 4, "exclude": "history"},
}
# No item is met by all: someone is left to be drawn.
SPARSE = [(user, (user + n) % 12, 20 * n + user) for user in range(12) for n in range(5)]


@pytest.mark.parametrize("overlay", [{}, SET], ids=["sequences", "sets"])
def test_negatives_of_the_view_are_users_who_never_met_the_item(recipe_file: Path, overlay: Any) -> None:
    losses = {"loss": [{"name": "next-item", "use": "recore-losses:ce"}, SAMPLED]}
    made = make(recipe_file, framed(SPARSE), overlay, losses)
    training = made.training()
    (entry,) = [entry for entry in training.losses if entry.view == "item"]
    users, items = made.prepared.context.users, made.prepared.context.tokenizer
    assert users is not None
    assert items is not None
    met: dict[int, set[int]] = {}
    log = training.log.events
    for user, item in zip(users.item_ids(log["user"]), items.item_ids(log["item"]), strict=True):
        met.setdefault(int(item), set()).add(int(user))
    seen = 0
    for number in range(12):
        batch = training.draw(number, 0)[-1]
        view = batch.views["item"]
        assert view.index is not None
        for answer in training.answers(batch, ["next-user"]):
            drawn = training._negatives(entry, batch, answer, (1, number))
            assert drawn is not None
            assert drawn.items.shape == (len(answer.targets), 4)
            subjects = view.index[view.sequence[answer.targets.where]].tolist()
            for subject, target, row in zip(
                subjects, answer.targets.id.tolist(), drawn.items.tolist(), strict=True
            ):
                assert target in met[subject]
                assert not set(row) & met[subject]
                seen += 1
    assert seen > 20


def test_a_run_with_negatives_of_users(recipe_file: Path, tmp_path: Path) -> None:
    overlay = laid(framed(SPARSE), {"loss": [{"name": "next-item", "use": "recore-losses:ce"}, SAMPLED]})
    found = recore.run(recore.load(recipe_file, overlay=overlay), runs=tmp_path).test
    assert found.keys() >= {"ndcg@10", "ndcg@10[next-user]"}


@pytest.mark.parametrize("overlay", [{}, SET], ids=["sequences", "sets"])
def test_an_update_follows_users_and_items(recipe_file: Path, tmp_path: Path, overlay: Any) -> None:
    """Old rows of both tables are bit-identical where the update begins; what is new stands behind them; a retired
    item is listed nobody's next and asked about as before; users who come with the new events can be listed."""
    contrast = {
        "name": "consistency",
        "use": "recore-duality:consistency",
        "view": "item",
        "form": "contrast",
    }
    losses = {"loss": [{"name": "next-item", "use": "recore-losses:ce"}, contrast]}
    recipe = recore.load(
        recipe_file, overlay=laid(framed(walks()), overlay, losses, {"trainer": {"epochs": 2}})
    )
    parent = recore.run(recipe, runs=tmp_path / "runs")
    new = [(user, item, 20 + user) for user in (0, 1, 50, 51) for item in (30, 0, 1)]
    more = pl.DataFrame(new, schema=["user", "item", "time"], orient="row")
    child = recore.update(parent, more, retire=[3], epochs=2, runs=tmp_path / "runs")
    before = load_file(parent.folder / "model" / "model.safetensors")
    start = load_file(child.folder / "start" / "model" / "model.safetensors")
    assert set(before) == set(start)
    tables = {"embedder.weight", "embedder.retired", "item.embedder.weight", "item.embedder.retired"}
    assert {name for name in before if before[name].shape != start[name].shape} == tables
    for name, value in before.items():
        assert name.endswith(".retired") or torch.equal(start[name][: len(value)], value), name
    assert len(start["embedder.weight"]) == len(before["embedder.weight"]) + 1
    assert len(start["item.embedder.weight"]) == len(before["item.embedder.weight"]) + 2
    everyone = set(child.audience([30], k=99, keep_seen=True)["user"])
    assert everyone == {*range(8), 50, 51}
    assert child.audience([3], k=5, keep_seen=True)["item"].to_list() == [3] * 5
    assert 3 not in child.recommend([[0, 1]], k=99)["item"].to_list()


def test_a_run_on_everything_ranks_users(recipe_file: Path, tmp_path: Path) -> None:
    recipe = recore.load(recipe_file, overlay=laid(framed(walks()), {"trainer": {"epochs": 1}}))
    parent = recore.run(recipe, runs=tmp_path)
    more = pl.DataFrame([(9, 1, 20)], schema=["user", "item", "time"], orient="row")
    child = recore.update(parent, more, fit_all=True, epochs=1, runs=tmp_path)
    assert 9 in child.audience([0], k=99, keep_seen=True)["user"].to_list()
