"""The model against slow loops over events, written from the docstring of `Dual`, in float64; and one scoring path:
training, evaluation and serving give the same score for the same question at the same moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from attrs import frozen
from duality_helpers import SET, Made, Row, framed, interactions, laid, logs, make, walks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recore_duality.training import DualTraining
from torch import Tensor

import recore
from recore.api import Machine
from recore.contracts import Placed
from recore.data import Interactions
from recore.engine.evaluate import audience_queries
from recore.engine.prepare import prepare
from recore.ragged import Batch, Layout, View
from recore.sequential import score_table

EXACT = 1e-9
SETTINGS = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def made(recipe_file: Path) -> Made:
    return make(recipe_file)


@pytest.fixture(scope="module")
def biased(recipe_file: Path) -> Made:
    """With a bias for each user, without positions, and with padding on the left wherever there is a rectangle."""
    item = {"embedder": {"bias": True}, "position": None, "history": {"last": 2}}
    batcher = {"use": "recore-batchers:padded", "side": "left", "users": 8}
    return make(recipe_file, {"model": {"item": item}, "batcher": batcher})


@pytest.fixture(scope="module")
def dropping(recipe_file: Path) -> Made:
    """Unknown users and items leave no gap."""
    return make(recipe_file, {"tokenizer": {"unknown": "drop"}, "model": {"item": {"history": {"last": 2}}}})


@pytest.fixture(scope="module")
def as_sets(recipe_file: Path) -> Made:
    return make(recipe_file, SET, {"model": {"item": {"history": {"last": 30}}}})


# ---- the oracle -----------------------------------------------------------------------------------------------


@frozen(eq=False)
class Oracle:
    """Loops over the rows `(user, item, time)` of a log, ids being event ids. Nothing here looks things up for more
    than one user, item or event at a time. `m` is how many users of an item are read; of a set all are."""

    made: Made
    rows: Sequence[Row]
    ordered: bool = True

    @property
    def m(self) -> int:
        return self.made.model.item.history

    def _number(self, tokenizer: Any, one: int) -> int:
        return int(tokenizer.item_ids(pl.Series([one]))[0])

    def user(self, user: int) -> int:
        """Its row in the table of users, or −1."""
        return self._number(self.made.prepared.context.users, user)

    def item(self, item: int) -> int:
        """Its row in the table of items, or −1."""
        return self._number(self.made.prepared.context.tokenizer, item)

    def view(self, ids: Sequence[int], tokenizer: Any, rows: Sequence[int]) -> View:
        """One sequence of the data's ids."""
        series = pl.Series(list(ids), dtype=pl.Int64)
        columns = {
            "token": torch.from_numpy(tokenizer.encode(series)),
            "item": torch.from_numpy(tokenizer.item_ids(series)),
            "event": torch.tensor(list(rows), dtype=torch.int64),
        }
        return View(columns, torch.tensor([0, len(ids)]))

    def history(self, user: int, before: float) -> list[int]:
        """The events of a user strictly earlier than a moment: by time, ties in the order of the rows."""
        own = [n for n, (u, _, t) in enumerate(self.rows) if u == user and t < before]
        return sorted(own, key=lambda n: (self.rows[n][2], n))

    def company(self, item: int, before: float) -> list[int]:
        """The events of an item strictly earlier than a moment. Ties: users by where they first appear in the rows,
        for that is how a log is grouped."""
        first = {u: n for n, (u, _, _) in reversed(list(enumerate(self.rows)))}
        own = [n for n, (u, i, t) in enumerate(self.rows) if i == item and t < before and self.kept(u)]
        return sorted(own, key=lambda n: (self.rows[n][2], first[self.rows[n][0]], n))

    def kept(self, user: int) -> bool:
        """Whether a user's place among those of an item is kept: all but unknown ones, where they are dropped."""
        users = self.made.prepared.context.users
        assert users is not None
        return users.unknown == "keep" or self.user(user) >= 0

    def h(self, user: int, before: float) -> Tensor:
        """h_u(τ)."""
        past = self.history(user, before)
        tokenizer = self.made.prepared.context.tokenizer
        assert tokenizer is not None
        if tokenizer.unknown == "drop":
            past = [n for n in past if self.item(self.rows[n][1]) >= 0]
        if not past:
            return torch.zeros(self.made.model.item.width, dtype=torch.float64)
        view = self.view([self.rows[n][1] for n in past], tokenizer, past)
        view = view.laid_out(self.made.model.layout)
        state: Tensor = self.made.model(Batch({"user": view}), view)[-1]
        return state

    def s(self, item: int, before: float, only: Sequence[int] | None = None) -> Tensor:
        """s_i(τ)."""
        tower = self.made.model.item
        read = list(only) if only is not None else self.company(item, before)
        read = read[-self.m :] if self.ordered else read
        if not read:
            return torch.zeros(tower.width, dtype=torch.float64)
        view = self.view([self.rows[n][0] for n in read], self.made.prepared.context.users, read)
        view = view.laid_out(Layout(tower.padding, self.m))
        batch = Batch({"item": view})
        x = tower.embedder.embed(batch, view)
        if self.ordered:
            assert tower.state is not None
            came = torch.stack([self.h(self.rows[n][0], self.rows[n][2]) for n in read])
            x = x + came @ tower.state
        placed = Placed(x)
        for position in tower.positions:
            placed = position.place(placed.inputs, batch, view)
        hidden = tower.encoder.encode(placed.inputs, batch, view, placed)
        return hidden[-1] if self.ordered else hidden.mean(0)

    def e(self, item: int) -> Tensor:
        """e_i; zero for an item that is unknown."""
        table, number = self.made.model.embedder.table().weight, self.item(item)
        return table[number] if number >= 0 else torch.zeros_like(table[0])

    def r(self, user: int, before: float) -> Tensor:
        """r(a_u(τ))."""
        values = self.made.model.item.recency
        assert values is not None
        times = [t for u, _, t in self.rows if u == user and t < before]
        if not times:
            return values[-1]
        age = sum(max(times) < t < before for _, _, t in self.rows)
        place = math.log2(1 + age)
        low = math.floor(place)
        return values[low] * (1 - (place - low)) + values[low + 1] * (place - low)

    def scores(self, item: int, before: float) -> Tensor:
        """score(u | i, τ) of every user of the table `(U,)`."""
        tower, users = self.made.model.item, self.made.prepared.context.users
        assert users is not None
        table = tower.embedder.table()
        asking = tower.query @ torch.cat([self.s(item, before), self.e(item)])
        found = []
        for number, user in enumerate(users.items_of(np.arange(users.items)).to_list()):
            score = asking[: tower.width] @ table.weight[number]
            if self.ordered:
                score = score + asking[tower.width :] @ self.h(user, before) + self.r(user, before)
            if table.bias is not None:
                score = score + table.bias[number]
            found.append(score)
        return torch.stack(found)


def near(found: Tensor, wanted: Tensor) -> bool:
    """Within 1e-9 of the largest."""
    bound = EXACT * max(1.0, float(wanted.abs().max()))
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= bound)


def answers(made: Made, log: Interactions, asked: Sequence[tuple[int, float]]) -> Tensor:
    """What the scorer says of `(item, moment)` when `log` is known."""
    answering = made.answering(log)
    items = pl.Series("item", [item for item, _ in asked], dtype=pl.Int64)
    times = pl.Series("time", [moment for _, moment in asked])
    queries = audience_queries(log.transposed(), items, times)
    return answering.score(answering.encode(queries))


# ---- scores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["made", "biased", "dropping"])
@given(rows=logs(users=10, items=8), data=st.data())
@SETTINGS
@torch.no_grad()
def test_scores_of_all_users_at_any_moment(
    which: str, request: pytest.FixtureRequest, rows: list[Row], data: st.DataObject
) -> None:
    """Also of users and items that the model was not trained on (from 8, and from 6), at moments between and after
    events."""
    made: Made = request.getfixturevalue(which)
    log = interactions(rows)
    asked = data.draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=4))
    asked += [(rows[0][1], rows[0][2]), (rows[0][1], 100)]
    found, oracle = answers(made, log, asked), Oracle(made, rows)
    for row, (item, moment) in enumerate(asked):
        assert near(found[row], oracle.scores(item, moment)), (item, moment)


@given(rows=logs(users=9, items=7))
@SETTINGS
@torch.no_grad()
def test_without_a_moment_all_is_known(made: Made, rows: list[Row]) -> None:
    """What `recommend --audience` asks."""
    log, oracle = interactions(rows), Oracle(made, rows)
    answering = made.answering(log)
    items = pl.Series("item", sorted({item for _, item, _ in rows}), dtype=pl.Int64)
    scores = answering.score(answering.encode(audience_queries(log.transposed(), items, None)))
    for row, item in enumerate(items):
        assert near(scores[row], oracle.scores(item, math.inf))
    some = torch.tensor([5, 0, 5])
    state = answering.encode(audience_queries(log.transposed(), items, None))
    assert torch.equal(answering.score(state, some), scores[:, some])


def test_at_first_it_is_what_the_formulas_say(recipe_file: Path) -> None:
    """W = I and C = 0, and r(a) = −ln(1 + a) at the knots, down to 2^46; the last value for users without events."""
    overlay = laid(framed(walks()))
    prepared = prepare(recore.load(recipe_file, overlay=overlay), 0, Machine(threads=1))
    model: Any = prepared.model()
    tower = model.item
    assert torch.equal(tower.query, torch.eye(8))
    assert not tower.state.any()
    ages = torch.tensor([0, 1, 3, 7, 2**30 - 1, 2**46, 2**60, -1])
    found = tower.users(torch.zeros(1, 4), torch.full((8,), -1), ages).bias
    wanted = [-math.log(1 + age) for age in ages[:6].tolist()]
    torch.testing.assert_close(found[:6], torch.tensor(wanted), rtol=1e-5, atol=1e-6)
    assert torch.isfinite(found).all()
    assert found[7] == tower.recency[-1]


# ---- training -------------------------------------------------------------------------------------------------


def moments(log: Interactions, questions: int) -> list[tuple[int, int]]:
    """Of the events in order of time, their ids and the moment each is asked at: the time of the first event of
    its run of `questions`; of events of one time the first decides for all."""
    rows = log.transposed().events.sort("time", maintain_order=True)
    times = rows["time"].to_list()
    return [
        (event, times[times.index(time) // questions * questions])
        for event, time in zip(rows["event"].to_list(), times, strict=True)
    ]


@given(rows=logs(users=8, items=6, most=20), places=st.lists(st.integers(0, 19), min_size=1, max_size=8))
@SETTINGS
@torch.no_grad()
def test_the_losses_of_questions(made: Made, rows: list[Row], places: list[int]) -> None:
    log, oracle = interactions(rows), Oracle(made, rows)
    training = made.training(log)
    training._look_up(0)
    asked = sorted({place % len(rows) for place in places})
    batch = training.questions(torch.tensor(asked))
    found: dict[str, list[Tensor]] = {"next-user": [], "consistency": []}
    weights: Mapping[str, Tensor] = training.weights([batch])
    for answer in training.answers(batch, list(found)):
        for entry in answer.losses:
            value = entry.loss.loss(answer.hidden, answer.targets, answer.table, None)
            found[entry.name].append(value.total)
            if entry.name == "next-user":
                scores = score_table(answer.hidden, answer.table)
                assert scores.shape == (len(answer.targets), 8)
    nobody, expected, agreement, count = torch.zeros((), dtype=torch.float64), [], [], 0
    for place in asked:
        event, moment = moments(log, 3)[place]
        user, item, _ = rows[event]
        if not oracle.company(item, moment):
            continue  # nobody was there before the moment: nothing to ask from
        scores = oracle.scores(item, moment)
        expected.append(-torch.log_softmax(scores, 0)[oracle.user(user)])
        one, other = oracle.s(item, moment), oracle.e(item)
        agreement.append(1 - one @ other / (one.norm() * other.norm()))
        count += 1
    assert {name: float(weight) for name, weight in weights.items()} == {
        "next-item": 0.0,
        "next-user": count,
        "consistency": count,
    }
    assert near(sum(found["next-user"], nobody).reshape(1), sum(expected, nobody).reshape(1))
    assert near(sum(found["consistency"], nobody).reshape(1), sum(agreement, nobody).reshape(1))


@given(rows=logs(users=8, items=6, most=20))
@SETTINGS
@torch.no_grad()
def test_training_and_evaluation_score_alike(made: Made, rows: list[Row]) -> None:
    """The same question at the same moment, with the same log known: what a training step compares and what the
    evaluator ranks are one number."""
    log = interactions(rows)
    training = made.training(log)
    training._look_up(0)
    batch = training.questions(torch.arange(len(rows)))
    predicting = [entry.name for entry in training.losses if entry.name == "next-user"]
    events = dict(moments(log, 3))
    order = training.in_time.tolist()
    for answer in training.answers(batch, predicting):
        scores = score_table(answer.hidden, answer.table)
        view = batch.views["item"]
        sequences = view.sequence[answer.targets.where].tolist()
        asked = []
        for sequence in sequences:
            event = int(training.view["event"][order[sequence]])
            asked.append((rows[event][1], events[event]))
        assert near(scores, answers(made, log, asked))


def test_moments_of_an_epoch_are_drawn_without_repeats(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """All events of the log are asked about before any is again, in an order that is drawn anew each epoch."""
    training = made.training()
    item = made.model.dual.item
    heard: list[list[int]] = []
    real = DualTraining.questions

    def listening(self: DualTraining, places: Tensor, epoch: int = 0, number: int = 0) -> Batch:
        heard.append(places.tolist())
        return real(self, places, epoch, number)

    monkeypatch.setattr(DualTraining, "questions", listening)
    events = len(training.in_time)
    runs = -(-events // item.questions)
    for number in range(runs // item.moments):
        training._moments(0, number)
    asked = [place for places in heard for place in places]
    assert len(asked) == len(set(asked))
    assert len(asked) >= events - item.moments * item.questions
    first, heard[:] = heard[0], []
    for epoch in (0, 1):
        training._moments(epoch, 0)
    assert heard[0] == first
    assert heard[1] != first


# ---- sets -----------------------------------------------------------------------------------------------------


@given(rows=logs(users=9, items=7), items=st.lists(st.integers(0, 6), min_size=1, max_size=4))
@SETTINGS
@torch.no_grad()
def test_scores_of_sets(as_sets: Made, rows: list[Row], items: list[int]) -> None:
    """Without an order across users: q₁·p_u, from the mean over all rows, whatever the time of the question."""
    log = interactions(rows, order_across_users=False)
    found = answers(as_sets, log, [(item, 3) for item in items])
    oracle = Oracle(as_sets, rows, ordered=False)
    for row, item in enumerate(items):
        tower = as_sets.model.item
        asking = tower.query @ torch.cat([oracle.s(item, math.inf), oracle.e(item)])
        assert tower.query.shape == (4, 8)
        assert near(found[row], tower.embedder.table().weight @ asking)


@torch.no_grad()
def test_losses_of_sets(as_sets: Made) -> None:
    rows = walks()
    log = interactions(rows, order_across_users=False)
    training = as_sets.training(log)
    batch = training._sets(0, 0)
    view, targets = batch.views["item"], batch.targets
    assert targets is not None
    assert targets.time is None
    assert len(view) == as_sets.model.dual.item.moments * as_sets.model.dual.item.questions
    oracle = Oracle(as_sets, rows, ordered=False)
    found = {}
    for answer in training.answers(batch, ["next-user", "consistency"]):
        for entry in answer.losses:
            found[entry.name] = entry.loss.loss(answer.hidden, answer.targets, answer.table, None).total
    tower = as_sets.model.item
    expected, agreement = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    assert view.index is not None
    names = as_sets.prepared.context.tokenizer.items_of(view.index.numpy()).to_list()  # type: ignore[union-attr]
    for n, row in enumerate(targets.where.tolist()):
        sequence = int(view.sequence[row])
        item = names[sequence]
        read = view["event"][int(view.offsets[sequence]) : int(view.offsets[sequence + 1])].tolist()
        assert {rows[event][1] for event in read} == {item}
        one, other = oracle.s(item, math.inf, read), oracle.e(item)
        scores = tower.embedder.table().weight @ (tower.query @ torch.cat([one, other]))
        expected -= torch.log_softmax(scores, 0)[targets.id[n]]
        agreement += 1 - one @ other / (one.norm() * other.norm())
        everyone = {event for event, (_, i, _) in enumerate(rows) if i == item}
        (left,) = everyone - set(read)  # m is beyond the set, so all others are read
        assert oracle.user(rows[left][0]) == int(targets.id[n])
    assert near(found["next-user"].reshape(1), expected.reshape(1))
    assert near(found["consistency"].reshape(1), agreement.reshape(1))
