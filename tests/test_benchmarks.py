"""The benchmarks compare like with like, and run: the textbook computes what the recipe computes, and learns; all
scripts run in miniature on made data."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
LENGTH, ITEMS = 6, 30


def made(folder: Path, users: int = 40, seed: int = 0) -> None:
    """Files of the names and forms that the benchmarks read: users who walk over the items in steps of one or two."""
    random = np.random.default_rng(seed)
    pairs, lines = [], []
    for user in range(1, users + 1):
        steps = random.integers(1, 3, size=LENGTH + 3)
        items = (int(random.integers(ITEMS)) + np.cumsum(steps)) % ITEMS + 1
        pairs += [f"{user} {item}" for item in items]
        lines.append(f"{user} {' '.join(map(str, items[: 4 + user % 5]))}")
    for name, text in (("ml-1m/ml-1m.txt", pairs), ("beauty/Beauty.txt", lines)):
        (folder / name).parent.mkdir()
        (folder / name).write_text("\n".join(text) + "\n", encoding="utf-8")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The modules `textbook` and `race`, and made data where $RECORE_DATA points."""
    made(tmp_path)
    monkeypatch.setenv("RECORE_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import race
    import textbook

    return SimpleNamespace(race=race, textbook=textbook)


def same_weights(model: Any, textbook: Any) -> None:
    """The recipe's weights, for the textbook."""
    with torch.no_grad():
        textbook.item.weight[1:] = model.embedder.weight
        textbook.position.weight[1:] = model.positions[0].weight
        for ours, theirs in zip(model.encoder.blocks, textbook.blocks, strict=True):
            pairs = [
                (ours.qkv.weight, theirs.attention.in_proj_weight),
                (ours.qkv.bias, theirs.attention.in_proj_bias),
                (ours.output.weight, theirs.attention.out_proj.weight),
                (ours.output.bias, theirs.attention.out_proj.bias),
                (ours.first.weight[:, :, None], theirs.pointwise.first.weight),
                (ours.first.bias, theirs.pointwise.first.bias),
                (ours.second.weight[:, :, None], theirs.pointwise.second.weight),
                (ours.second.bias, theirs.pointwise.second.bias),
            ]
            for mine, its in pairs:
                mine.add_(torch.randn(mine.shape, dtype=mine.dtype) / 20)
                its.copy_(mine)
            for norm, other in (
                (ours.attention_norm, theirs.attention_norm),
                (ours.ffn_norm, theirs.forward_norm),
                (model.encoder.final_norm, textbook.last_norm),
            ):
                other.load_state_dict(norm.state_dict())


@pytest.mark.parametrize("lean", [False, True])
def test_the_textbook_computes_what_the_recipe_computes(scripts: SimpleNamespace, lean: bool) -> None:
    """`ml-1m/sasrec-bce` itself, in float64, on histories as long as the window: hidden states, the loss and the
    gradient of every item's vector."""
    torch.manual_seed(0)
    overlay = {"model": {"history": {"last": LENGTH}, "encoder": {"dropout": 0.0}}}
    built = scripts.race.build(scripts.race.recipe("ml-1m/sasrec-bce", overlay))
    model = built.model.double()
    width = built.model.options.embedder.options.width
    textbook = scripts.textbook.Textbook(ITEMS, width, LENGTH, dropout=0.0, lean=lean).double()
    same_weights(model, textbook)

    batch = built.training.draw(0, 0)[0]
    view, targets = batch.views["user"], batch.targets
    assert set(view.lengths.tolist()) == {LENGTH}
    hidden = model(batch, view)
    tokens, positive, negative = scripts.race.rectangles(built, 0, LENGTH)
    theirs = textbook(tokens).flatten(0, 1)
    assert (hidden - theirs).abs().max() <= 1e-9 * theirs.abs().max()

    from recore.contracts import Negatives

    loss = built.training.losses[0].loss
    drawn = Negatives(negative.flatten()[:, None] - 1)
    value = loss.loss(hidden, targets, model.embedder.table(), drawn)
    ours, its = value.total / value.weight, textbook.loss(tokens, positive, negative)
    assert abs((ours - its).item()) <= 1e-9 * its.item()
    gradient = torch.autograd.grad(ours, model.embedder.weight)[0]
    other = torch.autograd.grad(its, textbook.item.weight)[0][1:]
    assert (gradient - other).abs().max() <= 1e-9 * other.abs().max()


def test_rectangles_are_padded_on_the_left_and_hold_the_next_item(scripts: SimpleNamespace) -> None:
    built = scripts.race.build(scripts.race.recipe("ml-1m/sasrec-bce"))
    tokens, positive, negative = scripts.race.rectangles(built, 0, 200)
    seen = dict(zip((row[row > 0][0].item() for row in tokens), range(len(tokens)), strict=False))
    assert seen
    for row, target, draw in zip(tokens.tolist(), positive.tolist(), negative.tolist(), strict=True):
        length = sum(token > 0 for token in row)
        assert length == LENGTH
        assert all(token == 0 for token in row[:-length])
        assert row[-length + 1 :] == target[-length:-1]
        assert all((item == 0) == (token == 0) for item, token in zip(draw, row, strict=True))
        assert not set(draw[-length:]) & {*row[-length:], *target[-length:]}
    values, offsets = torch.arange(1, 7), torch.tensor([0, 1, 1, 6])
    padded = scripts.textbook.padded_left(values, offsets, 5)
    assert padded.tolist() == [[0, 0, 0, 0, 1], [0] * 5, [2, 3, 4, 5, 6]]


@pytest.mark.parametrize("lean", [False, True])
def test_the_textbook_learns(scripts: SimpleNamespace, lean: bool) -> None:
    """Walks round a circle: after sixty steps the next item scores far above a random one."""
    torch.manual_seed(0)
    model = scripts.textbook.Textbook(ITEMS, 16, 8, dropout=0.1, lean=lean)
    optimiser = model.optimiser(1e-2)
    losses = []
    for _ in range(60):
        tokens = (torch.randint(ITEMS, (64, 1)) + torch.arange(9)) % ITEMS + 1
        negative = torch.randint(1, ITEMS + 1, (64, 8))
        losses.append(
            scripts.textbook.train_step(model, optimiser, (tokens[:, :-1], tokens[:, 1:], negative))
        )
    assert losses[0] > 1.2
    assert sum(losses[-5:]) / 5 < 0.6
    assert not model.item.weight[0].any(), "padding stays zero"


def test_data_that_are_not_there_are_named(
    scripts: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for value, words in (
        (None, "RECORE_DATA is not set"),
        (tmp_path / "x", f"there is no {tmp_path / 'x' / 'a/b'}"),
    ):
        monkeypatch.delenv("RECORE_DATA", raising=False)
        if value is not None:
            monkeypatch.setenv("RECORE_DATA", str(value))
        with pytest.raises(SystemExit) as left:
            scripts.race.needs("a/b")
        assert left.value.code == 3
        assert words in capsys.readouterr().out


def test_contenders_take_turns_and_ratios_are_those_of_their_times(scripts: SimpleNamespace) -> None:
    race: ModuleType = scripts.race
    taken: list[str] = []
    contenders = [
        race.Contender(name, 7, lambda name=name: taken.append(name), dict) for name in ("a", "b", "c")
    ]
    times = race.race(contenders, 7, stretch=2)
    assert {name: len(own) for name, own in times.items()} == {"a": 7, "b": 7, "c": 7}
    turns = [taken[at : at + 6] for at in range(0, 18, 6)] + [taken[18:]]
    for turn, length in zip(turns, (2, 2, 2, 1), strict=True):
        stretches = [turn[at : at + length] for at in range(0, len(turn), length)]
        assert sorted(one[0] for one in stretches) == ["a", "b", "c"]
        assert all(len(set(one)) == 1 for one in stretches), "a stretch is one contender's"
    assert len({one[0] for one in turns}) > 1, "nobody is always first"
    [base, other] = race.rows({"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0, 60.0]}, "a")
    assert base["times_base"] == base["times_base_paired"] == 1
    assert other["times_base"] == pytest.approx(64 / 6)
    assert other["times_base_paired"] == 2
    assert race.bar("x", 0.5, 0.5)["kept"]
    assert not race.bar("x", 0.51, 0.5)["kept"]


def test_all_of_it_runs_in_miniature(scripts: SimpleNamespace, tmp_path: Path) -> None:
    """What `make bench` runs, a few batches of it."""
    file = tmp_path / "bench.json"
    command = [sys.executable, str(BENCHMARKS / "all.py"), "--few", "--threads", "1", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    bars = {"epochs": 2, "beauty": 2, "memory": 2, "positions": 6, "untruncated": 2}
    assert {name: len(found[name]["bars"]) for name in bars} == bars
    assert [row["name"] for row in found["epochs"]["epoch"]] == [
        "textbook (bce)",
        "textbook, lean (bce)",
        "ml-1m/sasrec-bce",
        "ml-1m/sasrec-ce",
    ]
    assert all(0 <= row["validation"] <= 1 for row in found["epochs"]["epoch"] + found["beauty"]["beauty"])
    assert found["epochs"]["machine"]["processor"] in done.stdout
    assert found["memory"]["items"] == 3_000
    assert [row["name"] for row in found["positions"]["steps"]] == [
        "none",
        "alibi",
        "rope",
        "relative-bias",
        "relative-keys",
        "relative-keys-values",
        "padded, fused",
    ]
    assert [row["bound"] for row in found["positions"]["steps"]] == [None, 1.3, 1.3, 1.3, 2.0, 2.0, None]
    assert [row["name"] for row in found["untruncated"]["epoch"]] == ["last 200", "untruncated"]


def test_repeated_batches_count_by_their_smallest_time(scripts: SimpleNamespace) -> None:
    """Two contenders of three and of six batches, two rounds after one that does not count: turns stay in step."""
    import positions

    order: list[str] = []

    def of(name: str, many: int) -> Any:
        times = iter(range(1000))

        def step() -> float:
            order.append(name)
            return float(next(times))

        return SimpleNamespace(name=name, many=many, step=step)

    seconds = positions.taken([of("a", 3), of("b", 6)], 2)
    assert seconds == {
        "a": [[3, 4, 5], [6, 7, 8]],
        "b": [[6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17]],
    }
    at = [number for number, name in enumerate(order[:9]) if name == "a"]
    assert all(1 <= later - earlier <= 4 for earlier, later in itertools.pairwise(at)), order[:9]
    assert positions.least([[3, 1], [2, 5]]) == 3
    rows = [
        {"name": "rope", "setting": "1 head", "times_base": 1.19, "bound": 1.2},
        {"name": "rope", "setting": "4 heads", "times_base": 1.31, "bound": 1.3},
        {"name": "none", "setting": "1 head", "times_base": 1.0, "bound": None},
        {"name": "padded, fused", "setting": "1 head", "times_base": 0.8, "bound": None},
    ]
    assert [(round(one["value"], 2), one["kept"]) for one in positions.verdicts(rows)] == [
        (1.19, True),
        (1.31, False),
        (1.25, False),
    ]


def test_histories_are_made_up_where_there_are_none(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of lengths like ML-1M's: half of them are no longer than 96 events, a quarter longer than 200."""
    import positions

    with positions.histories(10) as which:
        assert which == "ML-1M"
    monkeypatch.setenv("RECORE_DATA", str(tmp_path / "nothing"))
    with positions.histories(2000) as which:
        assert which.startswith("made up")
        users = np.loadtxt(Path(os.environ["RECORE_DATA"]) / positions.DATA, dtype=int)[:, 0]
    assert os.environ["RECORE_DATA"] == str(tmp_path / "nothing")
    lengths = np.bincount(users)[1:]
    assert len(lengths) == 2000
    assert 90 <= np.median(lengths) <= 102
    assert 0.2 <= (lengths > 200).mean() <= 0.32
