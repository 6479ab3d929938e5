"""Training on everything: the epochs that validation chose in one run, for a run that holds nothing out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recore.engine.run import digest_of, recipe_of
from recore.engine.rundir import RunFolder
from recore.errors import Problem, RecipeError
from recore.recipe import Recipe
from recore.recipe.differences import differences

BESIDE = ("seeds", "matrix", "requires")  # what two runs of one recipe may have different


def epochs_from(path: Path, recipes: Sequence[Recipe]) -> dict[str, Any]:
    """What a run that trains on everything is told: `epochs`, and where they come `from`.

    Raises RecipeError, with all of it, when the run at `path` chose no epochs on validation or when a recipe is
    another than that run's; RunFolderError when there is no such run.
    """
    folder = RunFolder.open(path)
    if not folder.finished:
        raise RecipeError(
            f"--epochs-from: {folder.path} is not finished; go on with: recore resume {folder.path}"
        )
    about, record = folder.json("run.json"), folder.json("record.json")
    problems = []
    if about.get("update"):
        message = f"--epochs-from: {folder.path} is an update: its epochs count from its parent's weights"
        problems.append(Problem(message, hint="name the run that trained from the beginning"))
    elif record["best_epoch"] is None or not record["validation"]:
        problems.append(Problem(f"--epochs-from: {folder.path} chose no epoch on a validation part"))
    held = _told(recipe_of(folder))
    for recipe in recipes:
        cell = "" if recipe.cell == "base" else f" (cell {recipe.cell})"
        problems += [
            Problem(f"--epochs-from: the recipe{cell} is another than that of {folder.path}: {difference}")
            for difference in differences(held, _told(recipe))
        ]
    if problems:
        raise RecipeError(problems)
    return {
        "epochs": record["best_epoch"],
        "from": str(folder.path),
        "from_seed": about["seed"],
        "from_weights": digest_of(folder.path / "model"),
        "from_data": folder.json("card.json")["protocol"]["data"]["fingerprint"],
        "validation": record["validation"],
    }


def _told(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in recipe.tree.items() if key not in BESIDE}
