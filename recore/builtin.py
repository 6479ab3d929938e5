"""What the core itself offers, through the same door as any plugin: the model `sequential`, and the data set
`appended`, which updated runs read. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import field, frozen

from recore.component import Component, Facts, Frame, Part, option
from recore.contracts.data import Dataset
from recore.contracts.model import Embedder, Encoder, Position
from recore.hookspecs import hookimpl

EVIDENCE = frozenset({"surprise", "rank", "agreement"})  # columns that the model fills: `recore.evidence`


def _at_least_two(instance: object, attribute: object, value: int | str) -> None:
    if value != "all" and int(value) < 2:
        raise ValueError(f"expected at least 2 events or `all`, got {value}")


@frozen
class History:
    """How much of a history the model reads, in training, evaluation and serving alike."""

    last: int | Literal["all"] = field(
        default=200,
        validator=_at_least_two,
        metadata={
            "help": "The most recent events that are read, counting rows an objective appends; or `all`."
        },
    )


@frozen
class Sequential:
    """The assembled model: an embedder gives each event a vector, positions say where it stands, an encoder
    gives each event a hidden state, and the embedder's own table scores. Needs a tokenizer, an objective, a
    batcher, a loss and a trainer beside it in the recipe."""

    embedder: Part[Embedder] = option(help="Vectors of events, and the table that scores.")
    encoder: Part[Encoder] = option(help="Hidden states of events.")
    position: Part[Position] | list[Part[Position]] | None = option(
        None, help="Where events stand; a list folds, first to last. None: events are a set."
    )
    history: History = option(factory=History, help="How much of a history is read.")

    @property
    def positions(self) -> list[Part[Position]]:
        """The positions as a list."""
        if self.position is None:
            return []
        return list(self.position) if isinstance(self.position, list | tuple) else [self.position]

    def provides(self) -> Facts:
        """The history's bound, what its positions promise together, and what the model makes of known items for parts
        that read it (`recore.evidence`)."""
        claims = [part.claims for part in self.positions]
        return Facts(
            history=self.history.last,
            prefix_consistent=all(getattr(claim, "prefix_consistent", False) for claim in claims),
            computed=EVIDENCE,
        )

    def problems(self, facts: Facts) -> list[str]:
        """What has to stand beside it."""
        missing = [
            key
            for key in ("tokenizer", "objective", "batcher", "loss", "trainer")
            if facts.keys is not None and key not in facts.keys
        ]
        return [f"model 'sequential' needs `{key}:`, but the recipe sets none" for key in missing]


@frozen
class Appended:
    """A log and the events that came after it. `recore update` writes this into the recipe of the run that it
    makes, and keeps the events in the run's folder; it may be written by hand as well.

    Events of `base` keep their row ids, those of `events` follow. With times every user's events are in order of
    time, whichever part they came from; of equal times the older row comes first (under `ties: hash` the hash
    decides, as it does within a log). Without times the order of rows is the order. Columns must be those of the
    base; integer ids become text where the base has text.
    """

    base: Part[Dataset] = option(help="The log that was there before.")
    events: Frame = option(
        help="The events that came after, in the log's own columns (`user`, `item`, `time`, …): a Parquet file, or "
        "a frame from Python."
    )
    items: Frame | None = option(
        None,
        help="What is known of items since then (`item`, `title`, …); replaces rows of the base's table.",
    )
    users: Frame | None = option(
        None, help="What is known of users since then (`user`, …); replaces rows of the base's table."
    )


@hookimpl
def recore_datasets() -> Iterator[Component]:
    """What an updated run reads."""
    yield Component(
        "appended",
        Appended,
        "recore.appended:build",
        summary="A log and the events that came after it, as `recore update` keeps them.",
    )


@hookimpl
def recore_models() -> Iterator[Component]:
    """The core's own wiring."""
    yield Component(
        "sequential",
        Sequential,
        "recore.sequential:build",
        summary="Embedder, positions and encoder assembled into a sequential recommender.",
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III",
    )
