"""Causality across both views: what happens at or after a moment changes nothing before it, also among ties.

A log is drawn with many equal times, a moment t, and a second log that is the same before t and differs from t
on: events changed, added, removed. Every state, every loss term and every score before t must be the same.
Leaks are planted, and the same comparison must find them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from attrs import evolve, frozen
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from recore_duality import known, next_user
from recore_duality.model import DualModel
from recore_duality.scorer import DualScorer
from recore_duality.training import DualTraining

import recore
from recore.api import Machine
from recore.data import Interactions
from recore.engine.evaluate import audience_queries
from recore.engine.prepare import prepare
from recore.engine.report import Silent
from recore.ragged import Targets
from recore.sequential import Answer
from recore.timeline import Timeline

USERS, ITEMS, TIMES = 5, 6, 8
ASKED = "asked about"
NAMES = ("next-item", "next-user", "consistency")
Row = tuple[int, int, int]  # user, item, time
Log = tuple[Row, ...]
Pair = tuple[Log, Log, int]  # one log, another that is the same before the moment, the moment

RECIPE = """\
recore: 1
data: {use: recore-data:events, path: log.csv, time: time}
split: {use: recore-data:leave-last}
tokenizer: {use: recore-tokenizers:items}
objective: {use: recore-objectives:next-item}
model:
  use: recore-duality:dual
  history: {last: 40}
  embedder: {use: recore-embeddings:padding-safe, width: 4, initial: normal, std: 0.5}
  position: {use: recore-positions:start-absolute}
  encoder: {use: recore-sasrec:sasrec, layers: 2, dropout: 0.0}
  item:
    objective: {use: recore-duality:next-user}
    history: {last: 3}
    embedder: {use: recore-embeddings:padding-safe, width: 4, initial: normal, std: 0.5}
    position: {use: recore-positions:start-absolute}
    encoder: {use: recore-sasrec:sasrec, layers: 2, dropout: 0.0}
    questions: 3
batcher: {use: recore-batchers:ragged, users: 8}
loss:
  - {name: next-item, use: recore-losses:ce}
  - {name: next-user, use: recore-losses:ce, view: item}
  - {name: consistency, use: recore-duality:consistency, view: item}
trainer: {use: recore-duality:duality, epochs: 1}
evaluators: {use: recore-evaluation:ranking, k: [5, 10]}
"""


@frozen(repr=False)
class Made:
    """A model, and what it is fitted with."""

    model: DualModel
    fit: Any


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model in float64 with random weights everywhere, and what it is fitted with."""
    folder = tmp_path_factory.mktemp("dual")
    (folder / "dual.yaml").write_text(RECIPE, encoding="utf-8")
    rows = [(u, i, 10 * i + u) for u in range(USERS) for i in range(ITEMS)] * 3
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_csv(folder / "log.csv")
    prepared = prepare(recore.load(folder / "dual.yaml"), 0, Machine(threads=1))
    model: Any = prepared.model()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.5)
    return Made(model.double(), prepared.fit(Path("nowhere"), Silent()))  # type: ignore[arg-type]


def interactions(log: Log) -> Interactions:
    """Event ids are the same in both logs of a pair: what is compared is named by them."""
    frame = pl.DataFrame(log, schema=["user", "item", "time"], orient="row").with_row_index("event")
    return Interactions.from_frame(frame.with_columns(pl.col("event").cast(pl.Int64)))


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Two logs that are the same before a moment. The rows before it come first, so they keep their ids."""
    row = st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(0, TIMES - 1))
    moment = draw(st.integers(1, TIMES))
    events = st.lists(row, max_size=12)
    before = draw(st.lists(row.map(lambda r: (r[0], r[1], r[2] % moment)), min_size=1, max_size=14))
    later = events.map(lambda rows: [(u, i, moment + t) for u, i, t in rows])
    return (*before, *draw(later)), (*before, *draw(later)), moment


# ---- what there is before a moment ----------------------------------------------------------------------------


def everything_before(made: Made, log: Log, moment: int) -> Iterator[tuple[str, torch.Tensor]]:
    """By name: states of users after each event, loss terms of each event, scores and what asks at each time up to
    `moment`."""
    model, fit = made.model, made.fit
    data = interactions(log)
    one = DualTraining(model, evolve(fit, context=evolve(fit.context, interactions=data)))
    one.model.eval()
    events = data.events
    with torch.no_grad():
        states = one.model.states(data, one.items, ())
        for row, (event, time) in enumerate(events.select("event", "time").iter_rows()):
            if time < moment:
                yield f"the state after event {event}", states[row]
        one._look_up(0)
        when = dict(events.select("event", "time").iter_rows())
        for name, event, value in loss_terms(one):
            if when[event] < moment:
                yield f"the loss {name} of event {event}", value
        for name, asked_at, value in asked(one):
            if asked_at <= moment:
                yield name, value
    answering = DualScorer(model, fit.tokenizer, one.objective, fit.columns).audience(data)
    about = pl.Series("item", list(range(ITEMS)) * (moment + 1), dtype=pl.Int64)
    times = pl.Series("time", np.repeat(np.arange(moment + 1), ITEMS))
    queries = audience_queries(data.transposed(), about, times)
    scores = answering.score(answering.encode(queries))
    for row, (item, time) in enumerate(zip(about, times, strict=True)):
        yield f"the scores of users for item {item} at {time}", scores[row]


def loss_terms(one: DualTraining) -> Iterator[tuple[str, int, torch.Tensor]]:
    """Each term of each loss, with the event that is its target."""
    batch = next(iter(super(DualTraining, one).draw(0, 0)))
    following = dict(pairwise(one.log.events["event"].to_list()))
    for answer in one.answers(batch, NAMES):
        # The event behind the row that predicts, in the histories that the batch was cut from.
        rows = batch.views["user"]["event"][answer.targets.where]
        for n, event in enumerate(rows.tolist()):
            yield "next-item", following[event], term(answer, n, 0)
    for answer, events, _ in answers_about_items(one):
        for number, entry in enumerate(answer.losses):
            for n, event in enumerate(events):
                yield entry.name, event, term(answer, n, number)


def asked(one: DualTraining) -> Iterator[tuple[str, int, torch.Tensor]]:
    """What asks about an item in training, and the users as they are known then, whoever is the target: the event
    that is asked about, at the moment or after it, must not be in them."""
    items = one.subject[one.view.sequence[one.in_time]].tolist()
    for answer, _, places in answers_about_items(one):
        if answer.losses[0].agreement:
            continue
        known = answer.table.weight, answer.table.bias[:, None]  # type: ignore[index]  # users have a recency
        users = torch.cat([part.reshape(-1) for part in known])
        for n, place in enumerate(places):
            moment = int(one.moments[place])
            yield f"{ASKED} item {items[place]} at {moment}", moment, torch.cat([answer.hidden[n], users])


def answers_about_items(one: DualTraining) -> Iterator[tuple[Answer, list[int], list[int]]]:
    """What the losses of items look at when all events of the log are asked about; of each target the event, and
    its place in the log in order of time."""
    batch = one.questions(torch.arange(len(one.in_time)))
    events = one.view["event"][one.in_time]
    for answer in one.answers(batch, NAMES):
        places = batch.views["item"].sequence[answer.targets.where]
        yield answer, events[places].tolist(), places.tolist()


def term(answer: Answer, n: int, number: int) -> torch.Tensor:
    own = answer.targets
    only = Targets(own.where[[n]], own.id[[n]], own.weight[[n]], own.view)
    return answer.losses[number].loss.loss(answer.hidden[[n]], only, answer.table, None).total.detach()


def differences(made: Made, pair: Pair) -> list[str]:
    """What differs before the moment, by name."""
    one, other, moment = pair
    here, there = dict(everything_before(made, one, moment)), dict(everything_before(made, other, moment))
    # An item may be asked about at the moment in one log only.
    found = sorted(name for name in set(here) ^ set(there) if not name.startswith(ASKED))
    for name in set(here) & set(there):
        bound = 1e-9 * max(1.0, float(here[name].abs().max()))
        if not torch.allclose(here[name], there[name], rtol=0, atol=bound):
            found.append(name)
    return found


SETTINGS = settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(pair=pairs())
@SETTINGS
def test_nothing_at_or_after_a_moment_changes_anything_before_it(made: Made, pair: Pair) -> None:
    assert differences(made, pair) == []


# ---- planted leaks --------------------------------------------------------------------------------------------


def ties_are_earlier(self: Timeline, group: Any, time: Any) -> Any:
    """An item's users and a user's past up to *and with* the moment: the target itself among them."""
    earlier = np.searchsorted(self.distinct, time, side="right")
    return np.searchsorted(self._keys, group * self._width + earlier, side="left").astype(np.int64)


def one_more_user(self: DualTraining, view: Any, time: Any) -> Any:
    """The first user at or after the moment, who may be the target, among the item's users."""
    start, stop = bounds(self, view, time)
    ends = view.offsets[1:][view.sequence[self.in_time]]
    stop = torch.minimum(stop + 1, ends)
    return torch.maximum(start, stop - self.model.item.history), stop


def the_end_is_known(self: known.Known, moment: Any) -> Any:
    """Users as they are at the end of the log."""
    return rows(self, None)


bounds, rows = DualTraining._bounds, known.Known.rows
Patch = tuple[Any, str, Callable[..., Any]]
LEAKS: dict[str, list[Patch]] = {
    "ties are earlier": [(Timeline, "stop", ties_are_earlier)],
    # The objective does not look at users who are not strictly earlier, so this one takes two mistakes.
    "the target is among the item's users": [
        (DualTraining, "_bounds", one_more_user),
        (next_user, "_strictly_earlier", lambda view: view.place),
    ],
    "the end is known": [(known.Known, "rows", the_end_is_known)],
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_found(made: Made, leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name, wrong in LEAKS[leak]:
        monkeypatch.setattr(owner, name, wrong)
    small = find(
        pairs(),
        lambda pair: bool(differences(made, pair)),
        settings=settings(deadline=None, max_examples=400, database=None, phases=[Phase.generate]),
    )
    assert differences(made, small)
