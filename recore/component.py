"""Components: what a plugin offers, what a recipe chose (`Part`), and what a factory is given (`Context`).

Free of torch: listing, checking and showing components must stay fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import attrs
from attrs import evolve, field, frozen

from recore.claims import Claims
from recore.costs import Costs, Load

if TYPE_CHECKING:
    import torch

    from recore.contracts.data import Tokenizer
    from recore.data import Interactions
    from recore.ragged import Ragged

if TYPE_CHECKING:
    # A polars or pandas data frame, or the path of a Parquet file. Any, because pandas may not be installed.
    Frame = Any
else:

    class Frame:
        """The type of an option that takes a polars or pandas data frame (from Python), or a path to a
        Parquet file. The options hold the frame itself, or the `Path`."""


K_co = TypeVar("K_co", covariant=True)


@frozen
class Component:
    """What a hook yields: one part that recipes may `use:`.

    Args:
        name: the bare name in recipes, unique within a kind and a distribution.
        options: an attrs class, importable without torch; its fields are what a recipe may set, its
            docstring is the help. It may define `claims()`, `provides()`, `columns()`,
            `problems(facts)` and `costs(facts, load)`; see `docs/explanation/writing-a-part.md`.
        factory: `"module:callable"`, imported when built and called as `factory(options, context)`.
            For a loose file the module is `this`.
        summary: one sentence.
        claims: the default claims; `options.claims()` wins where defined.
        source: the paper or the code that it follows.
    """

    name: str
    options: type[Any]
    factory: str
    summary: str
    claims: Claims = field(factory=Claims)
    source: str = ""


def option(default: Any = attrs.NOTHING, *, help: str, validator: Any = None, factory: Any = None) -> Any:
    """An option of a component: an attrs field whose help text `recore show` prints."""
    if factory is not None:
        return field(factory=factory, metadata={"help": help}, validator=validator)
    return field(default=default, metadata={"help": help}, validator=validator)


@frozen
class Facts:
    """What the parts of a recipe, and later the data, say to each other. None: nobody said.

    Composition gathers what every part `provides()` and then asks every part for its `problems(facts)`.
    """

    keys: frozenset[str] | None = None  # top-level recipe keys that are set
    width: int | None = None  # d, the width of hidden states and item vectors
    heads: int | None = None  # H, attention heads of the encoder
    layers: int | None = None  # layers of the encoder
    causal: bool | None = None  # whether the encoder is causal
    terms: frozenset[str] | None = None  # attention terms that the encoder takes
    item_scale: Literal["none", "sqrt-width"] | None = (
        None  # by what the encoder wants item inputs multiplied
    )
    history: int | Literal["all"] | None = None  # longest input of the model, in rows
    appended: int | None = None  # rows that the objective's query appends
    padding: Literal["none", "left", "right"] | None = None  # the rectangle that the batcher asks for
    one_prediction_per_row: bool | None = None  # each batch row predicts from its last event only
    whole_histories: bool | None = None  # the batcher is given whole histories and cuts them itself
    reach: int | None = None  # most events in an entry of a plan: the model tells its batcher
    negatives: bool | None = None  # a sampler stands before the loss that asks
    log_q: str | None = None  # what that sampler claims of its log_q
    exclude: str | None = None  # which own items that sampler never draws
    columns: frozenset[str] | None = None  # columns of the data (known at load)
    prefix_consistent: bool | None = None  # all positions claim it: a state is that of its prefix by itself
    computed: frozenset[str] | None = None  # columns that the model fills itself, which no data needs to have
    items: int | None = None  # V, rows that score (known at load)
    tokens: int | None = None  # rows of the embedder, special ones included (known at load)
    users: int | None = None  # training histories (known at load)
    timed: bool | None = None  # whether the log has times, where the data set knows before it reads
    order_across_users: bool | None = None  # whether times order events of different users (known at load)
    views: Mapping[str, Facts] | None = None  # the views that a model encodes: the facts of the parts of each
    learned: frozenset[str] | None = None  # the views from which some loss learns
    losses: tuple[str, ...] | None = (
        None  # the names of the losses that are built, those of weight 0 left out
    )

    def merged(self, other: Facts) -> Facts:
        """These facts with those of `other` that are known laid over them."""
        said = {f.name: v for f in attrs.fields(Facts) if (v := getattr(other, f.name)) is not None}
        return evolve(self, **said)


@frozen
class Part(Generic[K_co]):
    """A component that a recipe chose, with its options: `Part[Sampler]` as the type of an option.

    `where` is `file:line`, `path` the place in the recipe, both for error messages.
    """

    kind: str
    component: Component
    provider: str
    options: Any
    where: str = ""
    path: str = ""

    @property
    def name(self) -> str:
        """The qualified name, `distribution:component`."""
        return f"{self.provider}:{self.component.name}"

    @property
    def claims(self) -> Claims:
        """What this part claims with these options."""
        own: Callable[[], Claims] | None = getattr(self.options, "claims", None)
        return own() if callable(own) else self.component.claims

    def provides(self) -> Facts:
        """The facts that this part gives to others."""
        own: Callable[[], Facts] | None = getattr(self.options, "provides", None)
        return own() if callable(own) else Facts()

    def columns(self) -> frozenset[str]:
        """The columns of the log that this part reads from a batch, beyond token, item and event."""
        own: Callable[[], frozenset[str]] | None = getattr(self.options, "columns", None)
        return own() if callable(own) else frozenset()

    def problems(self, facts: Facts) -> list[str]:
        """What stands against this part among these facts."""
        own: Callable[[Facts], list[str]] | None = getattr(self.options, "problems", None)
        return own(facts) if callable(own) else []

    def costs(self, facts: Facts, load: Load) -> Costs | None:
        """What a batch of these sizes costs this part; None where it does not say. For `recore estimate`."""
        own: Callable[[Facts, Load], Costs] | None = getattr(self.options, "costs", None)
        return own(facts, load) if callable(own) else None

    def parts(self) -> list[Part[Any]]:
        """The parts among this part's options, at any depth, depth first, in the order written."""
        return [part for part, _ in _parts_in(self.options, "")]

    def views(self) -> dict[int, str]:
        """Of those parts, the ones that belong to another view of the log than this part does: `id(part)` →
        view. They stand within a nested options class with a class variable `view`."""
        return {id(part): view for part, view in _parts_in(self.options, "") if view}


def _parts_in(value: Any, view: str) -> list[tuple[Part[Any], str]]:
    """The parts in an option's value, in lists, mappings and nested options classes too, each with its view."""
    if isinstance(value, Part):
        return [(value, view), *_parts_in(value.options, view)]
    if isinstance(value, list | tuple):
        inner = list(value)
    elif isinstance(value, Mapping):
        inner = list(value.values())
    elif attrs.has(type(value)):
        own = getattr(type(value), "view", None)
        view = own if isinstance(own, str) else view  # an option may be named `view`, too
        inner = [getattr(value, attribute.name) for attribute in attrs.fields(type(value))]
    else:
        return []
    return [found for entry in inner for found in _parts_in(entry, view)]


@frozen
class Context:
    """What a factory is given besides its options. Frozen; grows by optional fields only.

    Args:
        seed: the seed of the run; draw from `generator(...)` rather than using it directly.
        path: the place of the part in the recipe, as in `model.encoder`.
        facts: what all parts and the data say, complete when models are built.
        builder: builds nested parts; call `build`.
        interactions: the training events (for what is fitted: tokenizers, samplers).
        tokenizer: items to ids and back, where one is set.
        users: users to ids and back, the same part fitted on the transposed log: for models that encode the
            view `item` (`Facts.views`).
        seen: per training history, its distinct item ids in ascending order (for samplers).
        folder: what the part saved of itself in an earlier process: a tokenizer is read from there, by its own
            `from_pretrained`, and not fitted. None: nothing was saved.
        device: torch device name on which modules are placed by the engine after building.
    """

    seed: int = 0
    path: str = ""
    facts: Facts = field(factory=Facts)
    builder: Callable[[Part[Any], Context], Any] | None = None
    interactions: Interactions | None = None
    tokenizer: Tokenizer | None = None
    users: Tokenizer | None = None
    seen: Ragged | None = None
    folder: Path | None = None
    device: str = "cpu"

    def build(self, part: Part[K_co], facts: Facts | None = None) -> K_co:
        """Build a nested part in this context, with `facts` laid over these."""
        if self.builder is None:
            raise RuntimeError("this context cannot build parts: it was made without a builder")
        inner = evolve(self, path=part.path, facts=self.facts.merged(facts or Facts()))
        built: K_co = self.builder(part, inner)
        return built

    def generator(self, *purpose: str | int) -> torch.Generator:
        """A generator of its own for this part and purpose, derived from the seed."""
        from recore.rng import generator

        return generator(self.seed, self.path, *purpose)
