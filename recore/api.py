"""From Python: load a recipe, run it, ask the result for recommendations.

result = recore.run("sasrec.yaml")
result.recommend([["i3", "i17"]], k=5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
from attrs import define, field

from recore.contracts.scoring import Queries, Query
from recore.engine import run as engine
from recore.engine.audiences import NAMES, audience
from recore.engine.machine import Machine
from recore.engine.recommend import Limits, as_ids, known_ids, recommend
from recore.engine.report import Reporter
from recore.engine.rundir import RunFolder
from recore.engine.update import Asked
from recore.engine.update import update as update_run
from recore.errors import DataError, RecipeError, RunFolderError
from recore.histories import queries_of
from recore.recipe import Recipe, load_cells

__all__ = ["Machine", "Recipe", "Result", "load", "open_run", "run", "update"]


@define
class Result:
    """A run: its record, its folder, and its scorer, which is loaded when it is first asked."""

    folder: Path
    record: dict[str, Any]
    _opened: engine.Opened | None = field(default=None, repr=False)

    @property
    def opened(self) -> engine.Opened:
        """The run, ready to answer."""
        if self._opened is None:
            self._opened = engine.reopen(self.folder)
        return self._opened

    @property
    def test(self) -> dict[str, float]:
        """The test figures, by metric."""
        return dict(self.record["test"])

    def users(self) -> pl.DataFrame:
        """The test figures of each user. Raises DataError for a run that trained on everything."""
        if self.record.get("fit_all") is not None:
            raise DataError("this run trained on all events, so it has no test part")
        return pl.read_parquet(self.folder / "users-test.parquet")

    def recommend(
        self,
        histories: Sequence[Sequence[int | str]] | Sequence[Query],
        k: int = 10,
        *,
        keep_seen: bool = False,
        candidates: Sequence[int | str] | None = None,
        exclude: Sequence[int | str] = (),
    ) -> pl.DataFrame:
        """Up to `k` items for each history, in the data's own ids: `query`, `rank`, `item`, `score`, and
        `title` where the data has titles. Raises DataError for candidates that are unknown, and for k < 1."""
        if k < 1:
            raise DataError(f"k: expected at least 1, got {k}")
        scorer = self.opened.scorer
        tokenizer = scorer.tokenizer
        asked = [entry if isinstance(entry, Query) else Query(history=list(entry)) for entry in histories]
        queries = queries_of(asked)
        queries = Queries(
            queries.events.with_columns(as_ids(queries.events["item"], tokenizer).alias("item")),
            queries.offsets,
            queries.users,
            queries.time,
        )
        limits = Limits(
            k,
            keep_seen,
            None if candidates is None else known_ids(_series(candidates), tokenizer, "candidates"),
            known_ids(_series(exclude), tokenizer, "exclude"),
        )
        return with_titles(recommend(scorer, queries, limits, self.opened.seed), self.opened.items)

    def audience(
        self,
        items: Sequence[int | str],
        k: int = 10,
        *,
        keep_seen: bool = False,
        candidates: Sequence[int | str] | None = None,
        exclude: Sequence[int | str] = (),
    ) -> pl.DataFrame:
        """Up to `k` users who are next for each item, after everything that the run's data holds: `query`,
        `item`, `rank`, `user`, `score`, and `title` where the data has titles. The users of an item are left out
        unless `keep_seen`. Reads the data again. Raises DataError for a model that ranks no users."""
        if k < 1:
            raise DataError(f"k: expected at least 1, got {k}")
        scorer, queries = audience(self.opened, _series(items).alias("item"))
        limits = Limits(
            k,
            keep_seen,
            None if candidates is None else known_ids(_series(candidates), scorer.tokenizer, "candidates"),
            known_ids(_series(exclude), scorer.tokenizer, "exclude"),
        )
        return with_titles(recommend(scorer, queries, limits, self.opened.seed, NAMES), self.opened.items)


def _series(ids: Sequence[int | str]) -> pl.Series:
    return pl.Series(list(ids), strict=False)


def with_titles(frame: pl.DataFrame, items: pl.DataFrame | None) -> pl.DataFrame:
    """Recommendations with the titles of the items, where the data has some."""
    if items is None or "title" not in items.columns:
        return frame
    titles = items.select("item", "title").unique("item", keep="first")
    return frame.join(titles, on="item", how="left", maintain_order="left")


def load(
    recipe: str | Path,
    *,
    set: Sequence[str] = (),
    overlay: Mapping[str, Any] | None = None,
    plugins: Sequence[Path | str] = (),
) -> Recipe:
    """The recipe of one file, or of a shipped one by name; `overlay` is laid over it and may hold a polars or
    pandas frame where an option takes one. Raises RecipeError with all problems; a recipe with a `matrix` has
    many cells: choose one by an overlay, or use the command line."""
    cells = load_cells(recipe, sets=set, overlay=overlay, loose=[Path(plugin) for plugin in plugins])
    if len(cells) != 1:
        names = ", ".join(cell.cell for cell in cells)
        raise RecipeError(
            f"{recipe} has {len(cells)} cells ({names}); from Python, load one without a matrix"
        )
    return cells[0]


def run(
    recipe: Recipe | str | Path,
    *,
    seed: int | None = None,
    runs: Path | str = "runs",
    machine: Machine | None = None,
    reporter: Reporter | None = None,
) -> Result:
    """Run a recipe with one seed (its first, unless given) to the end. Raises RecoreError."""
    loaded = recipe if isinstance(recipe, Recipe) else load(recipe)
    chosen = loaded.seeds[0] if seed is None else seed
    folder = engine.run(loaded, chosen, machine or Machine(), Path(runs), reporter)
    return Result(folder.path, folder.json("record.json"))


def update(
    run: Result | Path | str,
    data: Any = None,
    *,
    retire: Sequence[int | str] | None = None,
    epochs: int | None = None,
    set: Sequence[str] = (),
    fit_all: bool = False,
    overlap: Literal["refuse", "drop", "keep"] = "refuse",
    fresh_optimiser: bool = False,
    runs: Path | str = "runs",
    machine: Machine | None = None,
    reporter: Reporter | None = None,
) -> Result:
    """A new run from a finished one's weights, as `recore update` makes it. `data`: new events, a path or a polars
    or pandas frame, that the recipe's data set reads as it read its own. Raises RecoreError."""
    path = run.folder if isinstance(run, Result) else Path(run)
    gone = None if retire is None else _series(retire)
    asked = Asked(data, gone, set, epochs, fit_all, overlap, fresh_optimiser)
    folder = update_run(path, asked, machine or Machine(), Path(runs), reporter)
    return Result(folder.path, folder.json("record.json"))


def open_run(path: Path | str) -> Result:
    """A run that is finished. Raises RunFolderError."""
    folder = RunFolder.open(Path(path))
    if not folder.finished:
        raise RunFolderError(f"{path} is not finished; go on with: recore resume {path}")
    return Result(folder.path, folder.json("record.json"))
