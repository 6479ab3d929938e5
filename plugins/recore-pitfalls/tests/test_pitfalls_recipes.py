"""The recipes that measure what each mistake costs: every mistake that can be trained has a cell, and it trains."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from recore_pitfalls.learning_plugin import learning_mistakes
from recore_pitfalls.options import model_mistakes

from recore.engine.machine import Machine
from recore.engine.run import run
from recore.errors import DivergenceError
from recore.plugins import discover
from recore.recipe import Recipe, load_cells

ROOT = Path(__file__).resolve().parents[3]
RECIPES = ROOT / "recipes/ml-100k"
ALL = {component.name: kind for kind, component in (*model_mistakes(), *learning_mistakes())}
# It stops at its first step; without accumulation it is sound; and these need a loss that corrects.
UNTRAINED = {"padding-nan", "mean-of-batch", "log-q-added", "log-q-of-one-draw"}
WITH = {"padding-ce": {"padding-class"}, "padding-bce": {"padding-drawn", "own-items-drawn"}}
ONE_LOSS = {name for names in WITH.values() for name in names}
SOUND = {"sound", "sound-mean", "sound-bias", "sound-intervals", "sound-time-bias"}
TINY = (
    "data={use: recore-world:world, users: 10, items: 30, events: 8.0, topics: 4, repeats: true}",
    "trainer.epochs=1",
    "seeds=[0]",
)


@cache
def cells(name: str) -> dict[str, Recipe]:
    """The cells of a recipe on a tiny log, by the mistake."""
    return {cell.cell.removeprefix("mistake="): cell for cell in load_cells(RECIPES / f"{name}.yaml", TINY)}


@pytest.mark.parametrize("name", WITH)
def test_every_mistake_that_can_be_trained_has_a_cell(name: str) -> None:
    others = ONE_LOSS - WITH[name]
    found = cells(name)
    assert set(found) == (set(ALL) - UNTRAINED - others) | SOUND
    for cell, recipe in found.items():
        used = {part.component.name for part in recipe.parts() if part.provider == "recore-pitfalls"}
        assert used == ({"width-mean"} if cell == "sound-mean" else set() if cell in SOUND else {cell})


def test_counts() -> None:
    assert len(ALL) == 35
    assert [len(cells(name)) for name in WITH] == [34, 35]


@pytest.mark.parametrize(
    "name", [component.name for _, component in model_mistakes() if component.name not in UNTRAINED]
)
def test_a_mistake_of_the_model_trains(name: str, tmp_path: Path) -> None:
    """It runs to the end, and is measured. All cells of both recipes run so in docs/results/grid.py --quick."""
    record = run(cells("padding-ce")[name], 0, Machine(threads=1), tmp_path).json("record.json")
    assert 0 <= record["test"]["ndcg@10"] <= 1


def test_padding_nan_stops_at_its_first_step(tmp_path: Path) -> None:
    changed = "model.encoder={use: recore-pitfalls:padding-nan, encoder: {use: recore-sasrec:sasrec}}"
    (recipe,) = load_cells(RECIPES / "padding-ce.yaml", (*TINY, "matrix=~", changed))
    with pytest.raises(DivergenceError, match="expected a finite number"):
        run(recipe, 0, Machine(threads=1), tmp_path)


def test_inferring_masks_costs_nothing_where_no_vector_sums_to_zero(tmp_path: Path) -> None:
    """The same seed, and nothing else differs: the figures are the sound ones to the last digit."""
    chosen = cells("padding-ce")
    found = [
        run(chosen[name], 0, Machine(threads=1), tmp_path / name).json("record.json")["validation"]
        for name in ("sound", "mask-inferred")
    ]
    assert found[0] == found[1]


def test_the_readme_lists_every_mistake_and_the_check_that_names_it() -> None:
    text = (ROOT / "plugins/recore-pitfalls/README.md").read_text(encoding="utf-8")
    listed = {name: kind for kind, name in re.findall(r"^\| (\w+) \| `([\w-]+)` \|", text, re.MULTILINE)}
    assert listed == ALL
    for kind, component in (*model_mistakes(), *learning_mistakes()):
        said = " ".join((component.options.__doc__ or "").split())
        number = re.search(rf"Caught by ({kind} \d+)", said)
        assert number, component.name
        row = next(line for line in text.splitlines() if f"| `{component.name}` |" in line)
        # `padding-drawn` has two forms, of which the one that can be trained comes first.
        assert number[1] in row or component.name == "padding-drawn", component.name
        mistake = component.summary.removeprefix("Mistake: ").rstrip(".").split(",")[0]
        assert mistake.replace("`", "") in row.replace("`", ""), component.name


def test_nothing_else_offers_a_mistake() -> None:
    plugins = discover()
    for name, kind in ALL.items():
        assert [found.provider for found in plugins.of(kind) if found.component.name == name] == [
            "recore-pitfalls"
        ]
    for shipped in (ROOT / "recipes").rglob("*.yaml"):
        if "pitfalls" in shipped.read_text(encoding="utf-8"):
            assert shipped.stem.startswith("padding"), shipped
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "recore-pitfalls" not in declared.partition("standard = [")[2].partition("]")[0]
