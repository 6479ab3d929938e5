"""Schemes that read times, from the data to a question: refused without, alike in training and in serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from engine_helpers import Small, main, walks

import recore
from recore.contracts.scoring import Queries, Query
from recore.data import Interactions
from recore.engine.machine import Machine
from recore.engine.prepare import prepare
from recore.engine.trial import trial
from recore.errors import DataError, RecipeError
from recore.histories import queries_of
from recore.ragged import Batch
from recore.sequential import SequentialScorer
from recore.testing.cases import scramble

SCHEMES: list[dict[str, Any]] = [
    {"use": "recore-positions:time-bias"},
    {"use": "recore-positions:time-bias", "query_time": "target"},
    {"use": "recore-positions:time-intervals", "max_interval": 4},
    {"use": "recore-positions:time-features"},
    {"use": "recore-positions:time-features", "query_time": "target", "periods": [0.01, 1.0]},
]


def timed() -> pl.DataFrame:
    log = walks()
    return log.with_columns(time=(pl.int_range(pl.len()) * 3571 % 977 + pl.int_range(pl.len()) * 500))


def overlay(position: Any) -> dict[str, Any]:
    return {
        "data": {"path": None, "items": None, "frame": timed(), "time": "time"},
        "model": {"position": position, "encoder": {"layers": 2, "heads": 2, "dropout": 0.0}},
    }


@pytest.fixture(
    scope="module", params=SCHEMES, ids=lambda scheme: f"{scheme['use']} {scheme.get('query_time', '')}"
)
def opened(request: pytest.FixtureRequest, home: Path) -> tuple[dict[str, Any], Any, SequentialScorer]:
    """A scheme, what a trainer drives, and the scorer of the same model, in float64, with every parameter moved."""
    recipe = recore.load(home / "tiny.yaml", overlay=overlay(request.param))
    prepared = prepare(recipe, 0, Machine())
    made = trial(prepared).training
    model = made.model  # type: ignore[union-attr]  # the recipe's model is the assembled one
    model.double().eval()
    scramble(model.encoder, torch.Generator().manual_seed(0))
    for position in model.positions:
        scramble(position, torch.Generator().manual_seed(1))
    tokenizer = prepared.context.tokenizer
    assert tokenizer is not None
    scorer = SequentialScorer(model, tokenizer, made.objective, frozenset({"time"}))  # type: ignore[union-attr]
    return request.param, made, scorer


def asked(made: Any, scorer: SequentialScorer, number: int) -> tuple[Any, list[Query]]:
    """A training batch, and for each of its targets the question that a server would put: the events up to there,
    and when."""
    (batch,) = made.draw(0, number)
    view, targets = batch.views["user"], batch.targets
    items = scorer.tokenizer.items_of(view["item"].numpy()).to_list()
    times = view["time"].tolist()
    first = view.offsets[view.sequence[targets.where]].tolist()
    queries = [
        Query(items[start : row + 1], times=times[start : row + 1], time=when)
        for start, row, when in zip(first, targets.where.tolist(), targets.time.tolist(), strict=True)
    ]
    return batch, queries


def test_a_training_row_has_the_state_of_the_question_that_ends_there(
    opened: tuple[dict[str, Any], Any, SequentialScorer],
) -> None:
    """With `target` each row of a training batch asks at its own target's time; of a question only the last row does,
    and the rows before it at the time of the event that followed them."""
    _, made, scorer = opened
    for number in range(made.batches(0)):
        batch, queries = asked(made, scorer, number)
        view, targets = batch.views["user"], batch.targets
        with torch.no_grad():
            trained = scorer.model(batch, view, targets.where)
        served = scorer.encode(queries_of(queries))
        torch.testing.assert_close(served, trained, rtol=1e-9, atol=1e-9)
        assert float(trained.std(0).min()) > 1e-3


def test_the_time_of_the_target_moves_only_what_asks_for_it(
    opened: tuple[dict[str, Any], Any, SequentialScorer],
) -> None:
    scheme, made, scorer = opened
    _, queries = asked(made, scorer, 0)
    found = queries_of(queries)
    assert found.time is not None
    plain = scorer.encode(found)
    other = scorer.encode(Queries(found.events, found.offsets, found.users, found.time + 10_000))
    moved = float((plain - other).abs().max())
    assert (moved > 1e-4) if scheme.get("query_time") == "target" else (moved == 0)


def test_a_question_must_say_when_where_the_model_reads_it(
    opened: tuple[dict[str, Any], Any, SequentialScorer],
) -> None:
    scheme, made, scorer = opened
    _, queries = asked(made, scorer, 0)
    found = queries_of(queries)
    silent = Queries(found.events, found.offsets, found.users, None)
    if scheme.get("query_time") == "target":
        with pytest.raises(DataError, match="queries give none: give each a time"):
            scorer.encode(silent)
    else:
        assert torch.equal(scorer.encode(silent), scorer.encode(found))


def test_events_of_a_question_without_times_are_refused_with_what_to_do(
    opened: tuple[dict[str, Any], Any, SequentialScorer],
) -> None:
    _, _, scorer = opened
    question = queries_of([Query(["i01", "i02"], time=5)])
    message = "reads time of every event, but the histories that ask do not tell .from Python give times"
    with pytest.raises(DataError, match=message):
        scorer.encode(question)


@pytest.mark.parametrize("query_time", ["last-event", "target"])
def test_the_card_says_whether_the_model_is_told_when(home: Path, query_time: str) -> None:
    position = {"use": "recore-positions:time-bias", "query_time": query_time}
    beside = [{"use": "recore-positions:none"}, position]
    card = prepare(recore.load(home / "tiny.yaml", overlay=overlay(beside)), 0, Machine()).card
    told = "given to the model" if query_time == "target" else "not given to the model"
    assert card["protocol"]["target time"] == told


@pytest.mark.parametrize("name", ["time-bias", "time-intervals", "time-features"])
@pytest.mark.parametrize("command", ["check", "run"])
def test_data_without_times_is_refused_in_one_line_when_composed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    more = ["--runs", tmp_path / "runs"] if command == "run" else []
    sets = ["--set", f"model.position={{use: recore-positions:{name}}}"]
    status, out, err = main(capsys, command, home / "tiny.yaml", *more, *sets)
    assert (status, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert f"model.position: position '{name}' reads times, and the data has none (name their column" in line
    assert not (tmp_path / "runs").exists()


def test_data_that_only_shows_when_read_that_it_has_no_times_is_refused_at_load(home: Path) -> None:
    recipe = recore.load(home / "tiny.yaml", overlay=overlay({"use": "recore-positions:time-bias"}))
    log = Interactions.from_frame(walks(), ties="file")
    with pytest.raises(RecipeError) as error:
        prepare(recipe, 0, Machine(), raw=log)
    (problem,) = error.value.problems
    assert str(problem).endswith(
        "position 'time-bias' reads the column 'time', which the data does not have (use data that has it, or another "
        "position; columns: event, user, item)"
    )


@pytest.mark.parametrize(
    ("position", "complaint"),
    [
        ({"use": "time-intervals", "max_interval": 0}, "`max_interval`: expected at least 1, got 0"),
        ({"use": "time-bias", "buckets": 0}, "`buckets`: expected at least 2, got 0"),
        ({"use": "time-bias", "unit": 0.0}, "`unit`: expected a number above 0, got 0.0"),
        ({"use": "time-features", "periods": []}, "`periods`: expected at least one period, got none"),
        ({"use": "rope", "base": 1.0}, "`base`: expected a number above 1, got 1.0"),
        ({"use": "rope"}, "needs an even width per head, got 5"),
        ({"use": "alibi", "exponent": 0.0}, "`exponent`: expected a number above 0, got 0.0"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_when_composed(
    home: Path, position: dict[str, Any], complaint: str
) -> None:
    changed = overlay(position)
    changed["model"] |= {"embedder": {"width": 10}}
    with pytest.raises(RecipeError) as error:
        recore.load(home / "tiny.yaml", overlay=changed)
    (problem,) = error.value.problems
    assert complaint in str(problem)
    assert problem.path.startswith("model.position")


def test_no_events_ask_nothing(opened: tuple[dict[str, Any], Any, SequentialScorer]) -> None:
    """A view of histories that are all empty is placed."""
    _, made, scorer = opened
    (batch,) = made.draw(0, 0)
    view = batch.views["user"].cut(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    for position in scorer.model.positions:
        assert position.place(torch.zeros(0, 8), Batch({"user": view}), view).inputs.shape == (0, 8)


def test_recommend_is_told_when(home: Path, small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    """`--at` on the command line, `Query.time` from Python: the same lists; another time, other scores."""
    result = small(overlay({"use": "recore-positions:time-bias", "query_time": "target", "std": 3.0}))
    last = timed().filter(pl.col("user") == "u1")
    when = float(last["time"].max() or 0)  # type: ignore[arg-type]  # it is a number

    def lists(at: float) -> list[dict[str, Any]]:
        status, out, err = main(
            capsys, "recommend", result.folder, "--users", "=u1", "-k", "5", "--at", at, "--json"
        )
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    query = Query(last.sort("time")["item"].to_list(), times=last["time"].sort().to_list(), time=when + 60)
    found = result.recommend([query], k=5)
    told = lists(when + 60)
    assert [row["item"] for row in told] == found["item"].to_list()
    assert [row["score"] for row in told] == pytest.approx(found["score"].to_list(), rel=1e-6)
    assert [row["score"] for row in lists(when + 10**9)] != [row["score"] for row in told]
    status, _, err = main(capsys, "recommend", result.folder, "--users", "=u1")
    assert status == 2
    assert "reads the time of the event to be predicted" in err
    assert "--at TIME" in err
    status, _, err = main(capsys, "recommend", result.folder, "--users", "=u1", "--at", "nan")
    assert (status, "--at: expected a number" in err) == (2, True)
    status, _, err = main(capsys, "recommend", result.folder, "--history", "i01,i02", "--at", "5")
    assert status == 2
    assert "this model reads time of every event" in err
