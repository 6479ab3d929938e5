"""Where nothing orders events across users, no order enters: neither that of other users in the file nor that of an
item's users changes a score, and the record says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from duality_helpers import SET, Made, Row, framed, interactions, laid, logs, make, walks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recore_duality.scorer import of_known, spread

import recore
from recore.contracts import Queries
from recore.engine.evaluate import audience_queries

WIDE = {"model": {"item": {"history": {"last": 30}}}}  # m beyond every set
SETTINGS = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def double(recipe_file: Path) -> Made:
    return make(recipe_file, SET, WIDE)


@pytest.fixture(scope="module")
def single(recipe_file: Path) -> Made:
    return make(recipe_file, SET, WIDE, dtype=torch.float32)


@torch.no_grad()
def scores(made: Made, rows: list[Row]) -> torch.Tensor:
    log = interactions(rows, order_across_users=False)
    answering = made.answering(log)
    about = pl.Series("item", sorted({item for _, item, _ in rows}), dtype=pl.Int64)
    return answering.score(answering.encode(audience_queries(log.transposed(), about, None)))


@pytest.mark.parametrize(("which", "bound"), [("double", 1e-9), ("single", 1e-6)])
@given(rows=logs(users=8), data=st.data())
@SETTINGS
def test_the_order_of_users_changes_no_score(
    which: str, bound: float, request: pytest.FixtureRequest, rows: list[Row], data: st.DataObject
) -> None:
    """The events in another order in the file: other users first, and an item's users in another order. Within a user
    times order them as before, or do not matter to an item's users either."""
    made: Made = request.getfixturevalue(which)
    other = data.draw(st.permutations(rows))
    before, after = scores(made, rows), scores(made, other)
    size = max(1.0, float(before.abs().max()))
    assert float((before - after).abs().max()) <= bound * size * (1 if which == "double" else 8)


@given(rows=logs(users=8), data=st.data())
@SETTINGS
@torch.no_grad()
def test_neither_does_it_in_training(double: Made, rows: list[Row], data: st.DataObject) -> None:
    """Of a set with its target taken out, the rest in any order gives the same state."""
    training = double.training(interactions(rows, order_across_users=False))
    tower = double.model.item
    batch = training._sets(0, 0)
    view, targets = batch.views["item"], batch.targets
    assert targets is not None
    if not len(targets):
        return
    order = torch.cat(
        [
            torch.tensor(data.draw(st.permutations(range(int(begin), int(end)))), dtype=torch.int64)
            for begin, end in zip(view.offsets[:-1][:3], view.offsets[1:][:3], strict=True)
        ]
        + [torch.arange(int(view.offsets[3]), view.events)]
    )
    shuffled = view.take(order, view.offsets, view.index).laid_out(view.layout)
    known = torch.zeros(1, tower.width, dtype=torch.float64)
    one, other = (tower.encoded(v, targets.where, known) for v in (view, shuffled))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_the_record_says_that_the_order_is_unknown(recipe_file: Path, tmp_path: Path) -> None:
    overlay = laid(framed(walks()), SET, {"trainer": {"epochs": 1}})
    result = recore.run(recore.load(recipe_file, overlay=overlay), runs=tmp_path)
    card = json.loads((result.folder / "card.json").read_text(encoding="utf-8"))
    assert card["protocol"]["data"]["order across users"] == "unknown"
    measured = set(result.test) | set(card["protocol"]["metrics"])
    assert {name for name in measured if "next-user" in name} == {
        f"{metric}@{k}[{kind}]"
        for metric in ("ndcg", "hr")
        for k in (5, 10)
        for kind in ("next-user", "next-user:most-active")
    }
    assert not [column for column in result.users().columns if "most-recent" in column]
    assert result.audience([1, 2], k=3)["item"].to_list() == [1, 1, 1, 2, 2, 2]


def test_a_set_has_no_states_recency_or_positions(double: Made) -> None:
    tower = double.model.item
    assert tower.state is None
    assert tower.recency is None
    assert tower.positions == []
    assert tower.query.shape == (4, 8)
    training = double.training()
    assert training.known is None
    assert len(training.draw(0, 0)) == 2
    assert training._states is None


# ---- which users of a large set are read ----------------------------------------------------------------------


@given(st.lists(st.integers(0, 25), max_size=6), st.integers(1, 9))
@settings(deadline=None, max_examples=150)
def test_a_large_set_is_read_evenly_over_its_places(lengths: list[int], most: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    queries = Queries(
        pl.DataFrame({"item": np.arange(offsets[-1])}), offsets, pl.Series(range(len(lengths))), None
    )
    found = spread(queries, most)
    assert found.users is not None
    assert found.users.to_list() == list(range(len(lengths)))
    for number, length in enumerate(lengths):
        read = found.events["item"][int(found.offsets[number]) : int(found.offsets[number + 1])].to_numpy()
        kept = min(length, most)
        assert len(read) == len(set(read.tolist())) == kept
        if kept == length:
            assert read.tolist() == list(range(offsets[number], offsets[number + 1]))
        if kept:
            assert offsets[number] <= read.min() <= read.max() < offsets[number + 1]
            gaps = np.diff(np.concatenate([[offsets[number] - 1], read, [offsets[number + 1]]]))
            assert gaps.max() <= length / kept + 1


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=5))
@settings(deadline=None, max_examples=80)
def test_questions_without_unknown_users(double: Made, held: list[list[int]]) -> None:
    offsets = np.concatenate([[0], np.cumsum([len(users) for users in held])]).astype(np.int64)
    users = pl.Series("item", [user for one in held for user in one], dtype=pl.Int64)
    queries = Queries(users.to_frame(), offsets, pl.Series(range(len(held))), None)
    tokenizer: Any = double.prepared.context.users
    found = of_known(queries, tokenizer)
    for number, one in enumerate(held):
        read = found.events["item"][int(found.offsets[number]) : int(found.offsets[number + 1])].to_list()
        assert read == [user for user in one if user < 8]
