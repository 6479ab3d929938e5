"""The trainer `duality`: turns and starts, refusals, and that a run that was stopped goes on to the same numbers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from duality_helpers import SET, figures, framed, laid, make, walks
from recore_duality.options import Duality
from recore_duality.trainer import DualityTrainer
from recore_duality.training import DualTraining
from recore_training.options import Standard

import recore
from recore.api import Result
from recore.engine import drive
from recore.engine.drive import Interrupted
from recore.engine.run import resume
from recore.errors import RecipeError

SMALL: dict[str, Any] = {"batcher": {"users": 3}, "model": {"encoder": {"dropout": 0.2}}}
Run = Callable[..., Result]


@pytest.fixture
def run(recipe_file: Path, tmp_path: Path) -> Run:
    """`run(overlay, …, into="a")`: the tiny recipe, three steps an epoch, with something laid over it."""

    def one(*overlays: Mapping[str, Any], into: str = "runs") -> Result:
        overlay = laid(framed(walks()), SMALL, *overlays)
        return recore.run(recore.load(recipe_file, overlay=overlay), runs=tmp_path / into)

    return one


def lines(result: Result) -> list[dict[str, float]]:
    """The losses of each epoch."""
    return [line["losses"] for line in figures(result.folder)["lines"]]


# ---- pace -----------------------------------------------------------------------------------------------------


def heard(recipe_file: Path, **options: Any) -> list[tuple[int, frozenset[str]]]:
    """Of each step its epoch and the losses that it drove."""
    made = make(recipe_file, SMALL)
    training = made.training()
    trainer = DualityTrainer(Duality(epochs=3, patience=None, **options))
    return [(report.epoch, frozenset(report.losses)) for report in trainer.steps(training)]


ALL = frozenset({"next-item", "next-user", "consistency"})


def test_without_options_each_step_drives_all(recipe_file: Path) -> None:
    assert heard(recipe_file) == [(epoch, ALL) for epoch in range(3) for _ in range(3)]


def test_turns_go_round_over_epochs(recipe_file: Path) -> None:
    turns = [["next-item"], ["next-user", "consistency"]]
    found = [losses for _, losses in heard(recipe_file, turns=turns)]
    assert found == [frozenset(turns[step % 2]) for step in range(9)]


def test_a_loss_starts_at_its_epoch(recipe_file: Path) -> None:
    found = heard(recipe_file, from_epoch={"next-user": 2, "consistency": 3})
    late = [ALL - {"next-user", "consistency"}, ALL - {"consistency"}, ALL]
    assert found == [(epoch, late[epoch]) for epoch in range(3) for _ in range(3)]


def test_turns_and_starts_together_and_steps_with_nothing_to_drive(recipe_file: Path) -> None:
    """A step whose losses have all not begun changes nothing, and is a step."""
    turns = [["next-item"], ["next-user", "consistency"]]
    found = heard(recipe_file, turns=turns, from_epoch={"next-user": 2, "consistency": 3})
    of_items = [set(), {"next-user"}, {"next-user", "consistency"}]
    for step, (epoch, losses) in enumerate(found):
        assert losses == ({"next-item"} if step % 2 == 0 else of_items[epoch])


def test_what_is_not_driven_does_not_learn(recipe_file: Path) -> None:
    """Losses of one view only: the other view's own parameters stay as they are."""
    for turn, moves, stays in (
        (["next-item"], "encoder.", "item."),
        (["next-user", "consistency"], "item.encoder.", "encoder."),
    ):
        made = make(recipe_file, SMALL)
        training = made.training()
        before = {name: value.clone() for name, value in made.model.state_dict().items()}
        trainer = DualityTrainer(Duality(epochs=1, turns=[turn]))
        list(trainer.steps(training))
        after = made.model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert any(name.startswith(moves) for name in changed)
        assert not [name for name in changed if name.startswith(stays)]


def test_accumulated_steps_divide_by_one_weight(recipe_file: Path) -> None:
    """Micro-batches of a step are one batch: reported means are those over all their targets."""
    made = make(recipe_file, {"batcher": {"users": 3}})
    training = made.training()
    batches = [batch for number in range(3) for batch in training.draw(0, number)]
    weights = training.weights(batches)
    made.model.train()
    together = training.backward(batches, weights, 1)
    pieces = [
        training.backward(batches[at : at + 2], training.weights(batches[at : at + 2]), 1) for at in (0, 2, 4)
    ]
    for name, (total, weight) in together.items():
        assert weight == pytest.approx(float(weights[name]))
        assert weight == pytest.approx(sum(piece[name][1] for piece in pieces))
        assert total == pytest.approx(sum(piece[name][0] for piece in pieces))


# ---- refused --------------------------------------------------------------------------------------------------


def test_losses_that_are_not_there_or_never_driven_are_refused(recipe_file: Path) -> None:
    """When the recipe is composed, before anything is written."""
    pace = {"turns": [["next-item", "next-usr"], ["consistency"]], "from_epoch": {"agreement": 2}}
    with pytest.raises(RecipeError) as caught:
        recore.load(recipe_file, overlay=laid(framed(walks()), {"trainer": pace}))
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [
        (
            "trainer",
            "no loss is named agreement, next-usr (losses: next-item, next-user, consistency; those of weight 0 are "
            "not built)",
        ),
        ("trainer", "no turn drives next-user (name each loss in one, or give it weight 0)"),
    ]


def test_of_losses_that_cannot_be_read_nothing_is_said(recipe_file: Path) -> None:
    """One mistake, one line."""
    losses = [
        {"name": "next-item", "use": "recore-losses:ce"},
        {"name": "next-user", "use": "recore-losses:ce", "view": "item", "blok": 3},
    ]
    pace = {"turns": [["next-item"], ["next-user"]]}
    with pytest.raises(RecipeError) as caught:
        recore.load(recipe_file, overlay=laid(framed(walks()), {"trainer": pace, "loss": losses}))
    assert [problem.path for problem in caught.value.problems] == ["loss.1.blok"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"turns": []}, r"expected one or more lists of names of losses, none empty, got \[\]"),
        ({"turns": [["a"], []]}, r"got \[\['a'\], \[\]\]"),
        ({"from_epoch": {"a": 0, "b": 2}}, r"expected epochs from 1, got \{'a': 0\}"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Duality(**options)


# ---- the same numbers -----------------------------------------------------------------------------------------


def test_without_options_it_is_the_standard_trainer(run: Run) -> None:
    one = run()
    other = run(
        {"trainer": {"use": "recore-training:standard", "epochs": 3, "learning_rate": 1e-2}}, into="other"
    )
    assert figures(one.folder) == figures(other.folder)
    assert set(attrs.fields_dict(Duality)) - set(attrs.fields_dict(Standard)) == {"turns", "from_epoch"}


class Killed(BaseException):
    """Stands for what ends a process within a statement."""


OF = {
    "as sequences": {},
    "as sets": SET,
    "by turns": {
        "trainer": {
            "turns": [["next-item", "next-user"], ["consistency"]],
            "from_epoch": {"consistency": 2},
        }
    },
}


def stopped_after(step: int, stop: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many steps of the process, `stop()`; a checkpoint is written after every step."""
    real, calls = DualTraining.stepped, [0]

    def counted(self: DualTraining, batches: Any, number: int) -> None:
        real(self, batches, number)
        calls[0] += 1
        if calls[0] == step:
            stop()

    monkeypatch.setattr(drive, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(DualTraining, "stepped", counted)


def kill() -> None:
    raise Killed


def only(root: Path) -> Path:
    (found,) = {path.parent.resolve() for path in root.glob("*/*/run.json")}
    return found


@pytest.mark.parametrize("how", OF)
def test_killed_within_an_epoch_it_goes_on_to_the_same_numbers(
    how: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = figures(run(OF[how], into="whole").folder)
    for step in (2, 6, 8):
        with monkeypatch.context() as patch:
            stopped_after(step, kill, patch)
            with pytest.raises(Killed):
                run(OF[how], into=str(step))
        folder = resume(only(tmp_path / str(step))).path
        assert figures(folder) == whole, step


def test_the_states_of_an_epoch_are_those_of_its_beginning(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is saved matters: if a resumed run computed users' states anew, its numbers would be others."""
    whole = figures(run(into="whole").folder)
    with monkeypatch.context() as patch:
        stopped_after(5, kill, patch)
        with pytest.raises(Killed):
            run(into="5")
    with monkeypatch.context() as patch:
        patch.setattr(DualTraining, "load_state_dict", lambda self, state: None)
        found = figures(resume(only(tmp_path / "5")).path)
    assert found["lines"][0] == whole["lines"][0]
    assert found["lines"][1]["losses"]["next-user"] != whole["lines"][1]["losses"]["next-user"]


@pytest.mark.parametrize("step", [1, 5])
def test_ctrl_c_within_an_epoch(step: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = figures(run(into="whole").folder)
    with monkeypatch.context() as patch:
        stopped_after(step, lambda: signal.raise_signal(signal.SIGINT), patch)
        patch.setattr(drive, "SAVE_EVERY", 1e9)  # the signal itself makes the checkpoint
        with pytest.raises(Interrupted, match=f"stopped after step {step} of epoch {1 + (step - 1) // 3}"):
            run(into="stopped")
    assert figures(resume(only(tmp_path / "stopped")).path) == whole


def test_the_anchor_of_states_moves_with_epochs_only(recipe_file: Path) -> None:
    """Within an epoch states stay; at the next they are those of the weights then; asked twice, the same."""
    made = make(recipe_file, SMALL)
    training = made.training()
    training.draw(0, 0)
    first = training._states
    assert first is not None
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.1)
    now = {name: value.clone() for name, value in made.model.state_dict().items()}
    training.draw(0, 1)
    assert training._states is first
    saved = dict(training.state_dict())
    other = make(recipe_file, SMALL)
    other.model.load_state_dict(now)
    resumed = other.training()
    resumed.load_state_dict(saved)
    resumed.draw(0, 1)
    assert resumed._states is not None
    assert torch.equal(resumed._states, first)
    for name, value in other.model.state_dict().items():
        assert torch.equal(value, now[name]), name  # what was put in for a moment is gone again
    training.draw(1, 0)
    assert training._states is not None
    assert not torch.equal(training._states, first)
    assert torch.equal(training._states, other.model.states(training.log, training.items, training.columns))


def test_steps_report_events_of_both_views(recipe_file: Path) -> None:
    made = make(recipe_file, SMALL)
    training = made.training()
    (report, *_) = DualityTrainer(Duality(epochs=1)).steps(training)
    users, items = training.draw(0, 0)
    assert report.events == users.views["user"].events + items.views["item"].events
