"""The evaluator `audience`, from a prepared recipe to totals, against loops over events: ranks of the model and of
both baselines, ties, the filter, what is known when, cold users, and that relabelling changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from attrs import frozen
from duality_helpers import SET, Made, Row, framed, laid, make
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from recore_duality.audience import AudienceEvaluator, build
from recore_duality.options import Audience
from recore_duality.plugin import recore_evaluators
from recore_duality.scorer import DualScorer

import recore
from recore import Context, DataError, Facts
from recore.contracts import Compared, Counted, Evaluation, Evaluator
from recore.engine.evaluate import Evaluated, audience_queries
from recore.engine.ranks import BOUNDS
from recore.errors import RecoreError
from recore.testing import load_checks, parametrize_with_checks, part_of

(COMPONENT,) = recore_evaluators()
OPTIONS = {"k": [1, 3, 10], "metrics": ["ndcg", "hr", "mrr"]}
FEW = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@parametrize_with_checks(
    [
        part_of("evaluator", COMPONENT, "recore-duality"),
        part_of("evaluator", COMPONENT, "narrow", Audience(k=(3,), metrics=("mrr",), seen="none")),
    ]
)
def test_audience_keeps_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_checks() -> None:
    assert len(load_checks()["evaluator"]) >= 8


# ---- the oracle -----------------------------------------------------------------------------------------------


@st.composite
def logs(draw: st.DrawFn) -> list[Row]:
    """Users of 1 to 6 events each at times that tie; those of 3 and more have a validation and a test target."""
    rows = []
    for user in range(draw(st.integers(2, 6))):
        for _ in range(draw(st.integers(1, 6))):
            rows.append((user, draw(st.integers(0, 4)), draw(st.integers(0, 6))))
    return draw(st.permutations(rows))


def held_out(rows: list[Row]) -> dict[str, list[int]]:
    """Rows that train, and that validate and test: the last two of users with three events or more."""
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for user in dict.fromkeys(user for user, _, _ in rows):
        own = sorted((n for n in range(len(rows)) if rows[n][0] == user), key=lambda n: (rows[n][2], n))
        if len(own) >= 3:
            parts["test"].append(own.pop())
            parts["validation"].append(own.pop())
        parts["train"] += own
    return parts


@frozen
class Question:
    """A target, what is known when it is asked about, and the scores of users by name."""

    row: int
    known: list[int]
    scores: Mapping[str, Mapping[int, float]]


def questions(made: Made, rows: list[Row], part: str, ordered: bool = True) -> list[Question]:
    """In the order of the targets in the log."""
    parts = held_out(rows)
    may = parts["train"] + (parts["validation"] if part == "test" and ordered else [])
    tokenizer = made.prepared.context.users
    assert tokenizer is not None
    users = [int(user) for user in tokenizer.items_of(np.arange(tokenizer.items))]
    prepared = made.prepared
    answering = made.answering(prepared.audience(part).known)  # type: ignore[arg-type]  # a part by name
    held = getattr(prepared.parts, part).target
    found = []
    for event in prepared.log.events["event"].gather(held).to_list():
        _, item, time = rows[event]
        known = [n for n in may if not ordered or rows[n][2] < time]
        log = prepared.audience(part).log  # type: ignore[arg-type]  # a part by name
        asked = audience_queries(log, pl.Series([item]), pl.Series([time]))
        model = answering.score(answering.encode(asked))[0].tolist()
        active = {user: float(sum(rows[n][0] == user for n in known)) for user in users}
        recent = {
            user: max((float(rows[n][2]) for n in known if rows[n][0] == user), default=-1.0)
            for user in users
        }
        scores: dict[str, Mapping[int, float]] = {
            "next-user": dict(zip(users, model, strict=True)),
            "next-user:most-active": active,
        }
        if ordered:
            scores["next-user:most-recent"] = recent
        found.append(Question(event, known, scores))
    return found


def rank(scores: Mapping[int, float], target: int, gone: set[int], slack: float) -> int:
    """Pessimistic: whoever is not clearly worse stands before the target."""
    if target in gone or target not in scores:
        return len(scores) + 1
    ahead = [user for user, score in scores.items() if user not in gone and score >= scores[target] - slack]
    return len(ahead)


def oracle(made: Made, rows: list[Row], part: str, seen: str, ordered: bool = True) -> dict[str, float]:
    """Totals by the definition."""
    sums: dict[str, float] = {}
    asked = questions(made, rows, part, ordered)
    for question in asked:
        user, item, _ = rows[question.row]
        gone = {rows[n][0] for n in question.known if rows[n][1] == item} if seen == "history" else set()
        for kind, scores in question.scores.items():
            slack = BOUNDS[torch.float64] * max(map(abs, scores.values()))
            place = rank(scores, user, gone, slack)
            for k in (1, 3, 10):
                hit = place <= min(k, len(scores))
                for metric, gain in (("ndcg", 1 / math.log2(1 + place)), ("hr", 1.0), ("mrr", 1 / place)):
                    name = f"{metric}@{k}[{kind}]"
                    sums[name] = sums.get(name, 0.0) + (gain if hit else 0.0)
    return {name: value / len(asked) for name, value in sums.items()}


def evaluated(made: Made, part: str) -> Evaluated:
    """What the engine measures with the evaluators of the recipe."""
    prepared = made.prepared
    tokenizer = prepared.context.tokenizer
    assert tokenizer is not None
    fit: Any = prepared.fit(None, None)  # type: ignore[arg-type]  # nothing is written or reported
    scorer = DualScorer(made.model, tokenizer, fit.build_objective(), fit.columns)
    return prepared.examination(part).ask(scorer, prepared.evaluators)  # type: ignore[arg-type]  # a part by name


def audience_of(found: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if "[next-user" in name}


def evaluators(seen: str = "history") -> dict[str, Any]:
    ranking = {"use": "recore-evaluation:ranking", "k": [5, 10]}
    return {"evaluators": [ranking, {"use": "recore-duality:audience", "seen": seen, **OPTIONS}]}


def has_targets(rows: list[Row]) -> bool:
    return bool(held_out(rows)["test"])


@pytest.mark.parametrize("seen", ["history", "none"])
@given(rows=logs())
@FEW
def test_totals_equal_a_slow_oracle(seen: str, recipe_file: Path, rows: list[Row]) -> None:
    assume(has_targets(rows))
    made = make(recipe_file, framed(rows), evaluators(seen))
    for part in ("validation", "test"):
        found = audience_of(evaluated(made, part).totals)
        assert found == pytest.approx(oracle(made, rows, part, seen), rel=1e-9, abs=1e-12), part


@given(rows=logs())
@FEW
def test_totals_of_sets_equal_a_slow_oracle(recipe_file: Path, rows: list[Row]) -> None:
    """Without an order across users the training events are known, whatever part is asked; no baseline by time."""
    assume(has_targets(rows))
    made = make(recipe_file, framed(rows), evaluators(), SET, {"model": {"item": {"history": {"last": 30}}}})
    for part in ("validation", "test"):
        found = audience_of(evaluated(made, part).totals)
        assert not [name for name in found if "most-recent" in name]
        assert found == pytest.approx(oracle(made, rows, part, "history", False), rel=1e-9, abs=1e-12), part


@given(rows=logs())
@FEW
def test_rows_and_counts(recipe_file: Path, rows: list[Row]) -> None:
    assume(has_targets(rows))
    made = make(recipe_file, framed(rows), evaluators())
    found = evaluated(made, "test")
    frame = found.frames[1]
    asked = questions(made, rows, "test")
    users = {user for user, _, _ in rows if any(rows[n][0] == user for n in held_out(rows)["train"])}
    assert frame["event"].to_list() == [question.row for question in asked]
    assert frame["user"].to_list() == [rows[question.row][0] for question in asked]
    lengths = [sum(rows[n][1] == rows[q.row][1] for n in q.known) for q in asked]
    assert frame["length"].to_list() == lengths
    impossible = [any((rows[n][0], rows[n][1]) == rows[q.row][:2] for n in q.known) for q in asked]
    assert dict(found.counts) | {
        "next user: targets not in training (cold)": sum(rows[q.row][0] not in users for q in asked),
        "next user: items without known users": lengths.count(0),
        "next user: targets impossible, already among the item's users": sum(impossible),
    } == dict(found.counts)
    for name, total in found.totals.items():
        if "[next-user" in name:
            assert frame[name].mean() == pytest.approx(total)
    ranks = frame["rank[next-user]"].to_list()
    assert [rank == len(users) + 1 for rank in ranks] == impossible


@given(rows=logs(), numbers=st.randoms(use_true_random=False))
@FEW
def test_relabelling_changes_nothing(recipe_file: Path, rows: list[Row], numbers: Any) -> None:
    """Other ids of users and items, with the same vectors: the same figures and the same ranks."""
    assume(has_targets(rows))
    users, items = numbers.sample(range(100), 10), numbers.sample(range(100), 10)
    renamed = [(users[user], items[item], time) for user, item, time in rows]
    one, other = (make(recipe_file, framed(log), evaluators()) for log in (rows, renamed))
    _rename(one, other, users, items)
    found, again = evaluated(one, "test"), evaluated(other, "test")
    assert audience_of(again.totals) == pytest.approx(audience_of(found.totals), rel=1e-12, abs=1e-12)
    for kind in ("next-user", "next-user:most-active", "next-user:most-recent"):
        assert found.frames[1][f"rank[{kind}]"].to_list() == again.frames[1][f"rank[{kind}]"].to_list()


def _rename(one: Made, other: Made, users: list[int], items: list[int]) -> None:
    """Give `other` the vectors that `one` has for the same users and items under their old names."""
    contexts = one.prepared.context, other.prepared.context
    for old, new, tables, names in (
        (contexts[0].users, contexts[1].users, (one.model.item.embedder, other.model.item.embedder), users),
        (contexts[0].tokenizer, contexts[1].tokenizer, (one.model.embedder, other.model.embedder), items),
    ):
        assert old is not None
        assert new is not None
        known = old.items_of(np.arange(old.items))
        (here,), (there,) = (list(cast(torch.nn.Module, table).parameters()) for table in tables)
        assert (len(here), len(there)) == (old.items, new.items)
        renamed = new.item_ids(pl.Series([names[int(name)] for name in known]))
        with torch.no_grad():
            there[torch.from_numpy(renamed)] = here[torch.from_numpy(old.item_ids(known))]


def test_equal_scores_never_go_the_models_way(recipe_file: Path) -> None:
    """With all weights zero every user of whom something is known ties: the target is the last of its like."""
    rows = [(user, item, 10 * item + user) for user in range(5) for item in range(4)]
    made = make(recipe_file, framed(rows), evaluators("none"))
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.zero_()
    assert evaluated(made, "test").frames[1]["rank[next-user]"].to_list() == [5] * 5


def test_a_question_knows_nothing_of_its_own_time(recipe_file: Path) -> None:
    """All test targets stand at one time; what each asks is the same whoever the others are."""
    rows = [(user, (user + n) % 5, n if n < 3 else 9) for user in range(5) for n in range(4)]
    other = [row if row != (0, 3, 9) else (0, 1, 9) for row in rows]
    ranks = []
    for log in (rows, other):
        made = make(recipe_file, framed(log), evaluators("none"))
        frame = evaluated(made, "test").frames[1]
        ranks.append(dict(zip(frame["user"], frame["rank[next-user]"], strict=True)))
    assert {user: ranks[0][user] for user in range(1, 5)} == {user: ranks[1][user] for user in range(1, 5)}


# ---- what stands around it ------------------------------------------------------------------------------------


def test_it_keeps_the_contract_and_says_what_is_wrong() -> None:
    evaluator = build(Audience(k=(5, 20)), Context())
    assert isinstance(evaluator, Evaluator)
    assert isinstance(evaluator, Counted)
    assert isinstance(evaluator, Compared)
    wants = evaluator.wants
    assert (wants.k, wants.seen, wants.view, wants.each_epoch) == (20, "history", "item", False)
    with pytest.raises(RuntimeError, match="before `start`"):
        evaluator.finish()
    evaluator.start(Evaluation(5, 0, part="validation"))
    assert evaluator.rivals() == {}
    with pytest.raises(DataError, match="evaluator 'audience': the validation part holds no target"):
        evaluator.finish()


@pytest.mark.parametrize("ordered", [True, False])
def test_formulas_are_of_what_is_measured(ordered: bool) -> None:
    evaluator: AudienceEvaluator = build(
        Audience(k=(1, 10), metrics=("ndcg", "mrr")), Context(facts=Facts(order_across_users=ordered))
    )
    kinds = ["next-user", "next-user:most-active", *(["next-user:most-recent"] if ordered else [])]
    assert list(evaluator.formulas) == [
        f"{metric}@{k}[{kind}]" for kind in kinds for metric in ("ndcg", "mrr") for k in (1, 10)
    ]
    assert evaluator.formulas["ndcg@10[next-user]"].startswith(
        "[r ≤ min(10, U)] / log2(1 + r); r: pessimistic"
    )


def test_a_model_that_ranks_no_users_cannot_be_asked(recipe_file: Path) -> None:
    made = make(recipe_file)
    examination = made.prepared.examination("test")
    with pytest.raises(RecoreError, match="the model ranks no users"):
        examination.ask(object(), [build(Audience(), Context())])  # type: ignore[arg-type]  # no scorer at all


def test_it_may_choose_the_checkpoint(recipe_file: Path, tmp_path: Path) -> None:
    """Measured each epoch, its metric may be the trainer's."""
    overlay = laid(
        framed([(user, (user + n) % 5, n) for user in range(6) for n in range(5)]),
        {
            "trainer": {"epochs": 2, "metric": "ndcg@10[next-user]"},
            "evaluators": [{"use": "recore-duality:audience", "each_epoch": True}],
        },
    )
    result = recore.run(recore.load(recipe_file, overlay=overlay), runs=tmp_path)
    assert "ndcg@10[next-user]" in result.record["validation"]
    assert set(result.test) == {
        f"{metric}@10[{kind}]"
        for metric in ("ndcg", "hr")
        for kind in ("next-user", "next-user:most-active", "next-user:most-recent")
    }


# ---- users and items that were not trained on -----------------------------------------------------------------

BY_TIME = '''
import numpy as np
from attrs import frozen
from recore import Component, hookimpl
from recore.contracts import Holdout, SplitParts

@frozen
class ByTime:
    """Trains on what is before 10, validates on 10 to 19, tests on the rest."""

class Split:
    def parts(self, log):
        time, offsets = log.events["time"].to_numpy(), log.offsets()
        begin = np.repeat(offsets[:-1], np.diff(offsets))
        def held(low, high):
            rows = np.flatnonzero((time >= low) & (time < high))
            earlier = [np.flatnonzero(time[begin[row]:row] < time[row]) for row in rows]
            stop = np.asarray([begin[row] + len(own) for row, own in zip(rows, earlier)], dtype=np.int64)
            return Holdout(rows, begin[rows], stop)
        return SplitParts(np.flatnonzero(time < 10), held(10, 20), held(20, 99), "by time")

def build(options, context):
    return Split()

@hookimpl
def recore_splits():
    yield Component("by-time", ByTime, "this:build", "By time.")
'''


@pytest.mark.parametrize("unknown", ["keep", "drop"])
def test_users_and_items_that_came_after_training(unknown: str, recipe_file: Path, tmp_path: Path) -> None:
    """They are counted and ranked last, and asked about with what is known; the run and its lists go through."""
    plugin = tmp_path / "my_split.py"
    plugin.write_text(BY_TIME, encoding="utf-8")
    rows = [(user, (user + n) % 4, n) for user in range(4) for n in range(6)]
    rows += [
        (8, 1, 12),
        (8, 2, 21),
        (9, 7, 22),
        (0, 7, 23),
        (1, 3, 24),
        (9, 7, 25),
    ]  # 8, 9 and item 7 are new
    overlay = laid(
        framed(rows),
        evaluators(),
        {"split": {"use": "my_split:by-time"}, "tokenizer": {"unknown": unknown}, "trainer": {"epochs": 1}},
    )
    recipe = recore.load(recipe_file, overlay=overlay, plugins=[plugin])
    result = recore.run(recipe, runs=tmp_path / "runs")
    frame = result.users()
    assert frame["user"].to_list() == [0, 1, 8, 9, 9]
    assert frame.filter(pl.col("user") > 7)["rank[next-user]"].to_list() == [5, 5, 5]
    assert result.record["counts"]["next user: targets not in training (cold)"] == 3
    listed = result.audience([7, 1, 0], k=10, keep_seen=True)
    assert listed["query"].value_counts()["count"].to_list() == [4, 4, 4]
    assert set(listed["user"]) == {0, 1, 2, 3}
    assert np.isfinite(listed["score"].to_numpy()).all()
