"""Batchers that cut whole histories, through the engine: which pairs reach the loss, and what a run that was
stopped within an epoch goes on with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from attrs import evolve
from engine_helpers import ITEMS, Small, figures, framed

import recore
from recore.engine import drive
from recore.engine import trial as looking
from recore.engine.machine import Machine
from recore.engine.prepare import prepare
from recore.engine.run import resume
from recore.engine.trial import drawn, trial
from recore.errors import RecipeError
from recore.sequential import SequentialTraining

LAST = 6
BOUND = LAST + 1  # events of a training history that next-item reads: its last one is only a target
ALL = {"history": {"last": "all"}, "position": None}
BATCHERS: dict[str, dict[str, Any]] = {
    "by-length": {"batcher": {"use": "recore-batchers:by-length", "contexts": 30}},
    "by-length-all": {"batcher": {"use": "recore-batchers:by-length", "tokens": 90}, "model": ALL},
    "drawn": {"batcher": {"use": "recore-batchers:by-length", "prefixes": 2, "contexts": 12}},
    "windows": {"batcher": {"use": "recore-batchers:windows", "context": 2, "users": 9}},
    "untruncated": {"batcher": {"use": "recore-batchers:untruncated", "tokens": 40}, "model": ALL},
}


class Stopped(BaseException):
    """Stands for what ends a process within a step."""


def listen(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[tuple[Any, ...]]:
    """What is learned from in each step; the step `stop_at` is never made."""
    heard: list[tuple[Any, ...]] = []
    real = SequentialTraining.backward

    def backward(self: SequentialTraining, batches: Any, weights: Any, step: int) -> Any:
        if step == stop_at:
            raise Stopped
        for batch in batches:
            view, targets = batch.views["user"], batch.targets
            tensors = (view["event"], view.offsets, targets.where, targets.id, targets.weight)
            heard.append((step, *(tuple(tensor.tolist()) for tensor in tensors)))
        return real(self, batches, weights, step)

    monkeypatch.setattr(SequentialTraining, "backward", backward)
    return heard


@pytest.mark.parametrize("name", ["by-length", "drawn", "windows", "untruncated"])
def test_stopped_within_an_epoch_it_goes_on_with_the_rest(
    name: str, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**BATCHERS[name], "trainer": {"epochs": 2}}
    with monkeypatch.context() as patch:
        whole = listen(patch)
        expected = figures(small(changed, runs=tmp_path / "whole").folder)
    first, last = (line["step"] for line in expected["lines"])
    stop_at = first + 3
    assert stop_at < last  # in the middle of the second epoch
    with monkeypatch.context() as patch:
        patch.setattr(drive, "SAVE_EVERY", 0.0)
        before = listen(patch, stop_at)
        with pytest.raises(Stopped):
            small(changed, runs=tmp_path / "runs")
    (folder,) = {path.parent.resolve() for path in (tmp_path / "runs").glob("*/*/run.json")}
    with monkeypatch.context() as patch:
        after = listen(patch)
        resumed = figures(resume(folder).path)
    assert before + after == whole
    assert after[0][0] == stop_at
    assert resumed == expected


# ---- pairs -------------------------------------------------------------------------------------------------------

# Events of each user in training; the split takes two more.
LENGTHS = [1, 2, BOUND - 1, BOUND, BOUND + 1, 2 * BOUND, 1, 3, 90]


def log_of(lengths: list[int]) -> pl.DataFrame:
    rows = [
        (f"u{user}", f"i{(7 * user + 5 * place) % ITEMS:02d}")
        for user, length in enumerate(lengths)
        for place in range(length + 2)
    ]
    return pl.DataFrame(rows, schema=["user", "item"], orient="row")


def oracle(name: str) -> Counter[tuple[int, int, int]]:
    """(history, first event of the context, target) as often as stated, by loops; of `drawn`: of all."""
    found: Counter[tuple[int, int, int]] = Counter()
    for history, length in enumerate(LENGTHS):
        for target in range(1, length):
            if name in ("by-length", "drawn"):
                start = max(0, target - LAST)
            elif name == "windows":  # 7 events at a time, of which 5 are new after the first time
                nth = max(0, -(-(target + 1 - BOUND) // (BOUND - 2)))
                start = min(nth * (BOUND - 2), max(0, length - BOUND))
            else:
                start = 0
            found[history, start, target] += 1
    return found


@pytest.mark.parametrize("name", list(BATCHERS))
def test_every_pair_reaches_the_loss_as_often_as_stated(name: str, home: Path) -> None:
    overlay = {**BATCHERS[name], **framed(log_of(LENGTHS))}
    recipe = recore.load(home / "tiny.yaml", overlay=overlay)
    training = trial(prepare(recipe, 0, Machine(threads=1))).training
    assert isinstance(training, SequentialTraining)
    assert training.histories.lengths.tolist() == LENGTHS  # whole, whatever the model reads

    asked: list[torch.Tensor] = []
    real = training.losses[0].loss

    class Listening:
        """The recipe's loss, which notes what it is asked."""

        def loss(self, hidden: Any, targets: Any, table: Any, negatives: Any) -> Any:
            assert len(hidden) == len(targets)
            asked.append(targets.id)
            return real.loss(hidden, targets, table, negatives)

        weight = staticmethod(real.weight)

    training.losses = [evolve(training.losses[0], loss=Listening())]
    offsets, log = training.histories.offsets, training.histories
    place = {int(event): row for row, event in enumerate(log["event"])}
    for epoch in range(2):
        found: Counter[tuple[int, int, int]] = Counter()
        weighed: dict[tuple[int, int, int], float] = {}
        for number in range(training.batches(epoch)):
            (batch,) = training.draw(epoch, number)
            asked.clear()
            training.backward([batch], training.weights([batch]), number + 1)
            view, targets = batch.views["user"], batch.targets
            assert targets is not None
            assert asked == [] if not len(targets) else torch.equal(asked[0], targets.id)
            if name.startswith(("by-length", "drawn")):
                assert len(set(view.lengths.tolist())) == 1
                assert torch.equal(targets.where, view.last)
            for row, item, weight in zip(targets.where, targets.id, targets.weight, strict=True):
                events = view["event"][int(view.offsets[view.sequence[row]]) : int(row) + 1].tolist()
                rows = [place[event] for event in events]
                assert rows == list(range(rows[0], rows[0] + len(rows)))
                assert int(item) == int(log["item"][rows[-1] + 1])
                history = int(torch.searchsorted(offsets, rows[0], right=True)) - 1
                pair = (history, rows[0] - int(offsets[history]), rows[-1] + 1 - int(offsets[history]))
                found[pair] += 1
                weighed[pair] = float(weight)
        if name != "drawn":
            assert found == oracle(name)
            assert set(weighed.values()) == {1.0}
        else:
            assert found <= oracle(name)
            assert Counter(h for h, _, _ in found) == {
                h: min(2, n - 1) for h, n in enumerate(LENGTHS) if n > 1
            }
            for (history, _, _), weight in weighed.items():
                assert weight == pytest.approx(max(1.0, (LENGTHS[history] - 1) / 2))
            assert sum(weighed.values()) == pytest.approx(oracle(name).total())


def test_an_estimate_takes_contexts_of_all_lengths_for_a_batch_of_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of `by-length` hold one length each: attention is timed on what they hold together."""
    monkeypatch.setattr(looking, "DRAWING", 600.0)  # all of them, however slow the machine
    overlay = {**BATCHERS["by-length-all"], **framed(log_of(LENGTHS * 8))}
    training = trial(
        prepare(recore.load(home / "tiny.yaml", overlay=overlay), 0, Machine(threads=1))
    ).training
    assert training is not None
    found = drawn(training, 4)
    load, lengths = found.mean["user"], found.lengths["user"]
    assert len(set(lengths)) > 1
    assert sum(lengths) / len(lengths) == pytest.approx(load.events / load.sequences, rel=0.3)
    assert sum(lengths) == pytest.approx(load.events, rel=0.6)


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        (
            {"batcher": {"use": "recore-batchers:untruncated"}},
            "keeps whole histories, but the model reads the last 6 events of each (set `model.history.last: all`",
        ),
        (
            {"batcher": {"use": "recore-batchers:windows"}, "model": ALL},
            "(set `model.history.last` to a number, or use `untruncated`)",
        ),
        (
            {"batcher": {"use": "recore-batchers:windows", "context": BOUND}},
            "expected 1 to 6, so that each window has something new to predict",
        ),
        (
            {"batcher": {"use": "recore-batchers:by-length", "contexts": 8, "tokens": 8}},
            "contexts is 8 and tokens is 8: expected one of them",
        ),
        (
            {"batcher": {"use": "recore-batchers:by-length", "prefixes": 0}},
            "expected `all` or at least 1 prefix, got 0",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(overlay: Any, words: str, home: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        recore.load(home / "tiny.yaml", overlay=overlay)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
