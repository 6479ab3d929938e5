"""What the benchmarks share: recipes as steps that can be taken one at a time, contenders that take turns, tables.

Contenders take turns of a few batches, in an order that turns round each time, so that whatever else the machine does
disturbs all of them alike, and a batch mostly follows one of its own kind, as in an epoch (after another's, caches
and freed memory are the other's: that costs a light step more than a heavy one). Seconds are sums of what was
measured; ratios are given twice: of the sums, and as the median over batches of the ratio of two times measured close
to each other, which a single disturbance cannot move.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from textbook import Textbook, padded_left, train_step
from torch import Tensor

from recore import api
from recore.contracts.scoring import Queries
from recore.engine.drive import Fit
from recore.engine.machine import Machine, versions
from recore.engine.prepare import Prepared, prepare
from recore.histories import cut_queries
from recore.recipe import Recipe, load_cells
from recore.rng import generator
from recore.sequential import SequentialModel, SequentialScorer, SequentialTraining

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
Step = Callable[[], object]
STRETCH = 4  # batches of a turn


@frozen(eq=False)
class Contender:
    """`step()` trains on one batch, always the next of its epoch; `validate()` gives the validation figures."""

    name: str
    batches: int
    step: Step
    validate: Callable[[], Mapping[str, float]]


@frozen(eq=False)
class Built:
    """A recipe built as a run builds it, ready to train."""

    prepared: Prepared
    fit: Fit
    model: SequentialModel
    training: SequentialTraining

    def contender(self, name: str) -> Contender:
        """The recipe's own trainer, one optimiser step a turn."""
        assert self.fit.trainer is not None
        reports = self.fit.trainer.steps(self.training)
        scorer = SequentialScorer(self.model, self.fit.tokenizer, self.training.objective, self.fit.columns)
        return Contender(
            name, self.training.batches(0), lambda: next(reports), lambda: self.fit.validate(scorer)
        )


def build(recipe: Recipe, threads: int | None = None, seed: int = 0) -> Built:
    """Read the data and build all parts of a recipe; nothing is written."""
    prepared = prepare(recipe, seed, Machine(threads=threads))
    model = prepared.model()
    assert isinstance(model, SequentialModel)
    fit = Fit(
        recipe=recipe,
        context=prepared.context,
        machine=prepared.machine,
        validation=prepared.examination("validation"),
        evaluators=prepared.evaluators,
        trainer=prepared.trainer,
    )
    return Built(prepared, fit, model, SequentialTraining(model, fit))


def recipe(name: str, overlay: Mapping[str, Any] | None = None) -> Recipe:
    """A shipped recipe from its file, with nothing or with an overlay that the table names."""
    return api.load(RECIPES / f"{name}.yaml", overlay=overlay)


def cells(name: str) -> dict[str, Recipe]:
    """The cells of a shipped recipe with one axis, by their label."""
    return {cell.cell.split("=")[-1]: cell for cell in load_cells(RECIPES / f"{name}.yaml")}


def textbook(built: Built, name: str, lean: bool, batches: int) -> Contender:
    """The textbook with the recipe's width, depth, heads, dropout and learning rate, on the very histories of the
    recipe's first epoch, batch by batch; negatives are those that the recipe's own sampler draws. Rectangles and
    negatives are made here, before any clock runs: the usual code makes them in other processes."""
    options = built.model.options
    embedder, encoder = options.embedder.options, options.encoder.options
    assert built.model.history is not None
    items, length = built.fit.tokenizer.items, built.model.history
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Textbook(items, embedder.width, length, encoder.layers, encoder.heads, encoder.dropout, lean)
    assert built.fit.recipe.trainer is not None
    optimiser = model.optimiser(built.fit.recipe.trainer.options.learning_rate)
    made = iter([rectangles(built, number, length) for number in range(batches)])

    def step() -> float:
        model.train()
        return train_step(model, optimiser, next(made))

    return Contender(name, batches, step, lambda: built.fit.validate(TextbookScorer(model, built)))


def rectangles(built: Built, number: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Batch `number` of the recipe's first epoch as the textbook wants it: `tokens, positive, negative (B, L)`."""
    [batch] = built.training.draw(0, number)
    view, targets = batch.views["user"], batch.targets
    assert targets is not None
    assert len(targets) == view.events  # every row predicts: the rectangles are those of the rows
    sampler = built.training.losses[0].sampler
    assert sampler is not None
    random = generator(0, "benchmark", number)
    drawn = sampler.draw(batch, _NoScores(), random).items
    columns = (view["item"], targets.id, drawn.squeeze(1))
    tokens, positive, negative = (padded_left(column + 1, view.offsets, length) for column in columns)
    return tokens, positive, negative


class _NoScores:
    """What a sampler that asks nothing of the model is given."""

    def score(self, ids: Tensor) -> Tensor:
        """Not to be asked."""
        raise NotImplementedError

    def top_k(self, k: int) -> Tensor:
        """Not to be asked."""
        raise NotImplementedError


class TextbookScorer:
    """The textbook in the engine's own validation: the same queries, filter and ranks."""

    def __init__(self, model: Textbook, built: Built) -> None:
        self.model = model
        self.tokenizer = built.fit.tokenizer

    @torch.no_grad()
    def encode(self, queries: Queries) -> Tensor:
        """`(B, d)`."""
        self.model.eval()
        queries = cut_queries(queries, self.model.length)
        tokens = torch.from_numpy(self.tokenizer.item_ids(queries.events["item"]) + 1)
        rectangle = padded_left(tokens, torch.from_numpy(queries.offsets), self.model.length)
        return torch.cat([self.model(block)[:, -1] for block in torch.split(rectangle, 256)])

    @torch.no_grad()
    def score(self, state: Tensor, items: Tensor | None = None) -> Tensor:
        """`(B, V)`, or `(B, n)` of `items (n,)`."""
        weight = self.model.item.weight[1:]
        return state @ (weight if items is None else weight[items]).T


def race(contenders: list[Contender], batches: int, stretch: int = STRETCH) -> dict[str, list[float]]:
    """Seconds of each batch, by contender; they take turns, a stretch of batches each."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn, first in enumerate(range(0, batches, stretch)):
        turned = contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]
        for contender in turned if turn % 2 else turned[::-1]:
            for _ in range(min(stretch, batches - first)):
                begun = time.perf_counter()
                contender.step()
                times[contender.name].append(time.perf_counter() - begun)
    return times


def rows(times: Mapping[str, Sequence[float]], base: str) -> list[dict[str, Any]]:
    """A row for each contender: `seconds` of all batches, `ms` the median of a batch, `times_base` how many times the
    base's sum its own is, `times_base_paired` the median over batches of that ratio."""
    found = []
    for name, own in times.items():
        paired = [mine / theirs for mine, theirs in zip(own, times[base], strict=True)]
        found.append(
            {
                "name": name,
                "batches": len(own),
                "seconds": sum(own),
                "ms": 1000 * statistics.median(own),
                "times_base": sum(own) / sum(times[base]),
                "times_base_paired": statistics.median(paired),
            }
        )
    return found


def bar(name: str, value: float, bound: float) -> dict[str, Any]:
    """What must hold: `value` at most `bound`."""
    return {"name": name, "value": value, "bound": bound, "kept": value <= bound}


def table(found: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Aligned text; numbers with three significant digits."""
    cells = [
        list(columns),
        *([_text(row.get(key)) for key in columns.values()] for row in found),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}"


COLUMNS = {
    "": "name",
    "batches": "batches",
    "s": "seconds",
    "ms a batch": "ms",
    "times base": "times_base",
    "paired": "times_base_paired",
}


def arguments(doc: str | None, *, data: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has. `data`: what it reads below $RECORE_DATA, for the help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of torch (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    if data is not None:
        parser.add_argument(
            "--batches", type=int, help=f"of an epoch (default: a whole one of $RECORE_DATA/{data})"
        )
    return parser


def needs(path: str) -> None:
    """End with status 3 and a word where a data set is not there."""
    folder = os.environ.get("RECORE_DATA")
    if not folder:
        print(
            f"needs $RECORE_DATA/{path}, but RECORE_DATA is not set: export RECORE_DATA=/the/folder/of/the/data"
        )
    elif not (Path(folder) / path).is_file():
        print(f"needs $RECORE_DATA/{path}, but there is no {Path(folder) / path}")
    else:
        return
    sys.exit(3)


def about(threads: int, seed: int, built: Built | None = None) -> dict[str, Any]:
    """The machine, the versions, the load that others put on it, the seed and the data."""
    found: dict[str, Any] = {
        "machine": Machine(threads=threads).describe(),
        "versions": versions(),
        "load_before": os.getloadavg()[0],
        "seed": seed,
    }
    if built is not None:
        histories = built.training.histories
        found["data"] = {
            **{key: built.prepared.log.summary()[key] for key in ("users", "items", "events")},
            "fingerprint": built.prepared.log.fingerprint(),
            "history": built.model.history,
            "training_rows": histories.events - len(histories),
        }
    return found


def headline(found: Mapping[str, Any]) -> str:
    """One line that names the machine."""
    machine = found["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} threads, {machine['precision']}, torch "
        f"{found['versions']['torch']}; load before: {found['load_before']:.2f}; seed {found['seed']}"
    )


def finish(found: dict[str, Any], file: Path | None) -> None:
    """Print the bars, and write the figures where told."""
    for kept in found.get("bars", ()):
        words = "kept" if kept["kept"] else "MISSED"
        print(f"{words}: {kept['name']}: {kept['value']:.3f}, at most {kept['bound']:.3f}")
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
