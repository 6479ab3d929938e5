"""A plugin with a small part of every kind, as a stranger would write it. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

from recore import (
    Component,
    EncoderClaims,
    Facts,
    LossClaims,
    Part,
    SamplerClaims,
    hookimpl,
    option,
)
from recore.component import Frame
from recore.contracts.learning import Sampler
from recore.contracts.model import Encoder


def positive(instance: object, attribute: Any, value: float) -> None:
    """A range, refused in words."""
    if not value > 0:
        raise ValueError(f"expected more than 0, got {value}")


@frozen
class Bounds:
    """From and to."""

    low: int = field(default=0, metadata={"help": "At least."})
    high: int = field(default=9, metadata={"help": "At most."}, validator=positive)


@frozen
class Toy:
    """A toy log. Its options have every type that a recipe can write."""

    rows: int = option(10, help="How many events.", validator=positive)
    share: float = option(0.5, help="A share.")
    name: str = option("toy", help="A name.")
    shuffle: bool = option(False, help="Whether to shuffle.")
    ids: Literal["int", "str", "int64"] = option("int", help="The type of ids.")
    source: Path | None = option(None, help="A file.")
    files: list[Path] = option(factory=list, help="Files.")
    frame: Frame | None = option(None, help="A frame.")
    rename: dict[str, str] = option(factory=dict, help="New names.")
    sizes: dict[int, float] = option(factory=dict, help="By number.")
    pair: tuple[int, float] = option((1, 2.0), help="Two numbers.")
    many: tuple[int, ...] = option((), help="Any number of numbers.")
    tags: frozenset[str] = option(frozenset(), help="Tags.")
    last: int | Literal["all"] = option("all", help="A number or all.")
    either: bool | int | float | str | None = option(None, help="Any scalar.")
    bounds: Bounds = option(factory=Bounds, help="Bounds.")
    all_bounds: list[Bounds] = option(factory=list, help="Several bounds.")


@frozen
class Empty:
    """No options."""


@frozen
class Drop:
    """Drops what is rare."""

    below: int = option(help="The least count that stays.")


@frozen
class Table:
    """A table of vectors."""

    width: int = option(8, help="Width.", validator=positive)

    def provides(self) -> Facts:
        """Its width."""
        return Facts(width=self.width)


@frozen
class Near:
    """A bias by distance."""

    max_distance: int = option(16, help="Distances are clipped here.", validator=positive)
    unit: Literal["rows", "days"] = option("rows", help="The unit.")

    def problems(self, facts: Facts) -> list[str]:
        """It needs an encoder that takes pair tables."""
        if facts.terms is None or "pair-table" in facts.terms:
            return []
        return ["needs an encoder that takes the term 'pair-table'"]


@frozen
class Mix:
    """Mixes events."""

    heads: int = option(2, help="Heads.", validator=positive)
    causal: bool = option(True, help="Whether it looks back only.")
    takes: list[str] = option(factory=lambda: ["pair-table"], help="Terms that it takes.")
    width: int | None = option(None, help="Says the width again.")

    def claims(self) -> EncoderClaims:
        """Causal if asked to be."""
        return EncoderClaims(causal=self.causal, terms=frozenset(self.takes))

    def provides(self) -> Facts:
        """Heads and perhaps a width."""
        return Facts(heads=self.heads, width=self.width)

    def problems(self, facts: Facts) -> list[str]:
        """Heads divide the width."""
        if facts.width is None or facts.width % self.heads == 0:
            return []
        return [f"{self.heads} heads do not divide a width of {facts.width}"]


@frozen
class Stack:
    """Encoders over each other."""

    inner: list[Part[Encoder]] = option(help="From the bottom.")
    named: dict[str, Part[Encoder]] = option(factory=dict, help="Others by name.")


@frozen
class Uniform:
    """Draws uniformly."""

    count: int = option(4, help="Draws.", validator=positive)
    exact: bool = option(True, help="Whether log_q is known.")

    def claims(self) -> SamplerClaims:
        """Exact or none."""
        return SamplerClaims(log_q="exact" if self.exact else "none")


@frozen
class Mixture:
    """Draws from one of some samplers."""

    of: list[Part[Sampler]] = option(help="The samplers.")

    def claims(self) -> SamplerClaims:
        """Exact where all are."""
        return SamplerClaims(log_q="exact")


@frozen
class Pairs:
    """A loss over negatives."""

    power: float = option(1.0, help="A power.")

    def problems(self, facts: Facts) -> list[str]:
        """It corrects for the drawing."""
        return ["needs a sampler that knows its log_q"] if facts.log_q == "none" else []


@frozen
class Plain:
    """A plain trainer."""

    learning_rate: float = option(1e-3, help="The step.", validator=positive)
    epochs: int = option(1, help="The most epochs.", validator=positive)
    patience: int | None = option(None, help="Epochs without a better figure; ~ never stops.")


@frozen
class Rank:
    """Ranks."""

    k: int | list[int] = option(10, help="Cut-offs.")


@frozen
class Raises:
    """Raises when it is asked."""

    def problems(self, facts: Facts) -> list[str]:
        """A mistake of the plugin's own."""
        raise ZeroDivisionError("oh")


@frozen
class Answers:
    """Answers with something else than texts."""

    def problems(self, facts: Facts) -> str:
        """A mistake of the plugin's own."""
        return "oh"


BUILD = "tiny_parts_build"


def _component(name: str, options: type[Any], factory: str = "empty", **more: Any) -> Component:
    return Component(name, options, f"{BUILD}:{factory}", summary=f"The tiny {name}.", **more)


@hookimpl
def recore_datasets() -> Iterator[Component]:
    """Data."""
    yield _component("toy", Toy, "dataset", source="Nobody 2024, A toy")


@hookimpl
def recore_transforms() -> Iterator[Component]:
    """Transforms."""
    yield _component("drop", Drop)


@hookimpl
def recore_splits() -> Iterator[Component]:
    """Splits."""
    yield _component("last", Empty)


@hookimpl
def recore_tokenizers() -> Iterator[Component]:
    """Tokenizers."""
    yield _component("ids", Empty)


@hookimpl
def recore_objectives() -> Iterator[Component]:
    """Objectives."""
    yield _component("next", Empty)


@hookimpl
def recore_models() -> Iterator[Component]:
    """Models."""
    yield _component("count", Empty)
    yield _component("raises", Raises)
    yield _component("answers", Answers)


@hookimpl
def recore_embedders() -> Iterator[Component]:
    """Embedders."""
    yield _component("table", Table)


@hookimpl
def recore_positions() -> Iterator[Component]:
    """Positions."""
    yield _component("near", Near)
    yield _component("nowhere", Empty)


@hookimpl
def recore_encoders() -> Iterator[Component]:
    """Encoders."""
    yield _component("mix", Mix, "encoder")
    yield _component("stack", Stack, "stack")


@hookimpl
def recore_batchers() -> Iterator[Component]:
    """Batchers."""
    yield _component("all", Empty)


@hookimpl
def recore_samplers() -> Iterator[Component]:
    """Samplers."""
    yield _component("uniform", Uniform)
    yield _component("mixture", Mixture)


@hookimpl
def recore_losses() -> Iterator[Component]:
    """Losses."""
    yield _component("full", Empty, claims=LossClaims())
    yield _component("pairs", Pairs, claims=LossClaims(negatives=True))


@hookimpl
def recore_trainers() -> Iterator[Component]:
    """Trainers."""
    yield _component("plain", Plain)


@hookimpl
def recore_evaluators() -> Iterator[Component]:
    """Evaluators."""
    yield _component("rank", Rank)
