"""What each position scheme costs: whole training steps of `ml-1m/sasrec-bce` with nothing changed but the position.

    python benchmarks/positions.py
    python benchmarks/positions.py --sample 2 --rounds 1            # to see that it runs
    python benchmarks/positions.py --schemes rope alibi --heads 4

Every scheme trains on the same few batches of 128 histories, the last 200 events of each, over and over: the batch is
drawn, its negatives too, then forward, backward, the check of the gradient's norm and Adam, all by the recipe's own
trainer. Contenders take turns batch by batch (A, B, C, A, B, C, …), and what counts of each is the sum over batches of
the smallest time that the batch took in any round: other programs can only make a step slower. With `bce` the loss
is cheap; full cross-entropy would hide the attention.

`padded, fused` is `none` on a rectangle of 200 columns (`recore-batchers:padded`, padding on the right) by torch's own
causal kernel. Where $RECORE_DATA holds no ML-1M the histories are made up, of lengths distributed as its own.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from attrs import frozen
from race import about, arguments, bar, build, finish, headline, recipe, table

from recore.attention import fused
from recore.ragged import Batch
from recore.recipe import Recipe
from recore.sequential import SequentialTraining

DATA = "ml-1m/ml-1m.txt"
BASE, PADDED = "none", "padded, fused"
SCHEMES: dict[str, Mapping[str, Any]] = {
    BASE: {"use": "recore-positions:none"},
    "alibi": {"use": "recore-positions:alibi"},
    "rope": {"use": "recore-positions:rope"},
    "relative-bias": {"use": "recore-positions:relative-bias"},
    "relative-keys": {"use": "recore-positions:relative-keys"},
    "relative-keys-values": {"use": "recore-positions:relative-keys-values"},
    PADDED: {"use": "recore-positions:none"},
}
SHAW = ("relative-keys", "relative-keys-values")
DROPOUT = 0.1
# Lengths of ML-1M's histories, at these shares of the users.
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
LENGTHS = (18, 27, 37, 51, 70, 96, 126, 173, 253, 400, 556, 906, 2277)


def bound(scheme: str, heads: int) -> float:
    """How many times `none` a step may take."""
    return (1.8 if heads == 1 else 2.0) if scheme in SHAW else (1.2 if heads == 1 else 1.3)


@frozen
class Setting:
    """Heads of the encoder, and whether attention weights are dropped."""

    heads: int
    dropout: bool

    @property
    def name(self) -> str:
        """In words."""
        heads = "1 head" if self.heads == 1 else f"{self.heads} heads"
        return f"{heads}, attention dropout" if self.dropout else heads

    def overlay(self, scheme: str) -> dict[str, Any]:
        """What is changed of the recipe."""
        dropouts = (
            ["input", "attention", "hidden", "output"] if self.dropout else ["input", "hidden", "output"]
        )
        encoder = {"heads": self.heads, "dropout": DROPOUT, "dropouts": dropouts}
        changed: dict[str, Any] = {"model": {"position": SCHEMES[scheme], "encoder": encoder}}
        if scheme == PADDED:
            changed["batcher"] = {"use": "recore-batchers:padded", "side": "right", "users": 128}
        return changed


class Sample(SequentialTraining):
    """Epochs of the first batches of the first epoch alone, over and over."""

    many: int

    def batches(self, epoch: int) -> int:
        """As many as the sample has: a whole epoch has no more."""
        return min(self.many, super().batches(0))

    def draw(self, epoch: int, number: int) -> Sequence[Batch]:
        """Batch `number` of the first epoch, in every epoch."""
        return super().draw(0, number)


@frozen(eq=False)
class Runner:
    """A recipe ready to take a step, of `many` that it repeats; `torchs` has torch's own causal kernel, whatever we
    would choose. `epoch`: batches of a whole epoch; `predictions`: of the sample."""

    name: str
    many: int
    epoch: int
    predictions: int
    reports: Iterator[Any]
    torchs: bool = False

    def step(self) -> float:
        """Seconds of the next step."""
        with patch.object(fused, "keeps", lambda *_: False) if self.torchs else nullcontext():
            begun = time.perf_counter()
            next(self.reports)
            return time.perf_counter() - begun


def runner(name: str, made: Recipe, many: int, threads: int, seed: int, torchs: bool = False) -> Runner:
    """Build a recipe that trains on its first `many` batches over and over."""
    built = build(made, threads, seed)
    sample = Sample(built.model, built.fit)
    sample.many = many
    trainer, many = built.fit.trainer, sample.batches(0)
    assert trainer is not None
    trained = [targets for n in range(many) for batch in sample.draw(0, n) if (targets := batch.targets)]
    whole = built.training.batches(0)
    return Runner(name, many, whole, sum(map(len, trained)), iter(trainer.steps(sample)), torchs)


def taken(runners: Sequence[Runner], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of each batch in each round, by runner; a round takes all batches of each, in turns, and one more before
    them chooses kernels and touches memory for the first time."""
    found: dict[str, list[list[float]]] = {one.name: [] for one in runners}
    longest = max(one.many for one in runners)
    for turn in range(rounds + 1):
        for own in found.values():
            own.append([])
        for tick in range(longest):
            shift = (turn * longest + tick) % len(runners)
            for one in [*runners[shift:], *runners[:shift]]:
                now = found[one.name][-1]
                while len(now) * longest < (tick + 1) * one.many:
                    now.append(one.step())
    return {name: own[1:] for name, own in found.items()}


def least(rounds: Sequence[Sequence[float]]) -> float:
    """Seconds of all batches, each by the round in which it took least."""
    return float(np.min(np.asarray(rounds), axis=0).sum())


def measured(setting: Setting, schemes: Sequence[str], options: Any) -> list[dict[str, Any]]:
    """Rows of one setting: `ms` of a step, the mean over batches of the smallest time of each; `times_base` beside
    `none`, `times_rounds` the same as the median over rounds of whole rounds."""
    runners = [
        runner(
            scheme,
            recipe("ml-1m/sasrec-bce", setting.overlay(scheme)),
            *(options.sample, options.threads, options.seed),
            torchs=scheme == PADDED,
        )
        for scheme in schemes
    ]
    seconds = taken(runners, options.rounds)
    found = []
    for one in runners:
        most = bound(one.name, setting.heads) if one.name not in (BASE, PADDED) else None
        ratio = least(seconds[one.name]) / least(seconds[BASE])
        whole = [sum(own) / sum(its) for own, its in zip(seconds[one.name], seconds[BASE], strict=True)]
        found.append(
            {
                "setting": setting.name,
                "heads": setting.heads,
                "dropout": setting.dropout,
                "name": one.name,
                "ms": 1000 * least(seconds[one.name]) / one.many,
                "times_base": ratio,
                "times_rounds": statistics.median(whole),
                "bound": most,
                "percent": 100 * ratio,
                "percent_rounds": 100 * statistics.median(whole),
                "percent_bound": None if most is None else 100 * most,
            }
        )
    return found


def made_up(folder: Path, users: int) -> None:
    """Histories of random items, of lengths distributed as those of ML-1M."""
    random = np.random.default_rng(0)
    lengths = np.interp(random.random(users), SHARES, LENGTHS).astype(int)
    path = folder / DATA
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as file:
        for user, length in enumerate(lengths, 1):
            file.writelines(f"{user} {item}\n" for item in random.integers(1, 3417, size=length))


@contextmanager
def histories(users: int) -> Iterator[str]:
    """Those of ML-1M where $RECORE_DATA holds them; otherwise some are made up for the block. Gives which, in words."""
    folder = os.environ.get("RECORE_DATA")
    if folder and (Path(folder) / DATA).is_file():
        yield "ML-1M"
        return
    with tempfile.TemporaryDirectory() as made:
        made_up(Path(made), users)
        os.environ["RECORE_DATA"] = made
        try:
            yield "made up, of lengths as in ML-1M"
        finally:
            os.environ.pop("RECORE_DATA")
            if folder:
                os.environ["RECORE_DATA"] = folder


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The bars that these rows have to keep."""
    found = [
        bar(f"a step with `{row['name']}`, {row['setting']}: times `none`", row["times_base"], row["bound"])
        for row in rows
        if row["bound"] is not None
    ]
    for row in rows:
        if row["name"] == PADDED:
            name = (
                f"a step with `none`, {row['setting']}: share of the padded rectangle with the fused kernel"
            )
            found.append(bar(name, 1 / row["times_base"], 1.0))
    return found


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, data=None)
    parser.add_argument("--sample", type=int, default=8, help="batches (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="over them, one more to warm up")
    parser.add_argument("--heads", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--dropout", type=int, nargs="+", default=[0, 1], choices=[0, 1])
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=list(SCHEMES))
    options = parser.parse_args()
    with histories(128 * options.sample) as which:
        found = about(options.threads, options.seed)
        found["histories"], found["sample"], found["rounds"] = which, options.sample, options.rounds
        print(headline(found), f"; histories: {found['histories']}", sep="")
        schemes = [BASE, *(scheme for scheme in options.schemes if scheme != BASE)]
        found["steps"] = []
        for heads in options.heads:
            for dropout in options.dropout:
                setting = Setting(heads, bool(dropout))
                # torch's fused kernel drops nothing on the CPU: it would be its slow form.
                own = [scheme for scheme in schemes if not (dropout and scheme == PADDED)]
                rows = measured(setting, own, options)
                found["steps"] += rows
                print(
                    f"\n{setting.name}: {options.sample} batches, the smallest of {options.rounds} rounds each"
                )
                shown = {"": "name", "ms": "ms", "times none": "times_base", "of rounds": "times_rounds"}
                print(table(rows, {**shown, "at most": "bound"}), flush=True)
    found["bars"] = verdicts(found["steps"])
    finish(found, options.json)


if __name__ == "__main__":
    main()
