"""The small synthetic context in which a part is built and checked.

Legend: `T` events, `B` sequences, `V` items, `d` width.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from recore.builtin import EVIDENCE
from recore.component import Context, Facts, Part
from recore.contracts.data import Tokenizer
from recore.data import Interactions
from recore.histories import seen_items, tokenise
from recore.ragged import Ragged
from recore.rng import derive, generator
from recore.testing.checks import PROFILES, Profile
from recore.testing.tiny.data import Log, TinyDataset, TinyTokenizer

HISTORY = 128  # longest input of the model: room for 64 columns of padding behind any history of the kit
OVERLAYS = (  # what the rest of a recipe may say, tried in this order until nothing stands against a part
    Facts(),
    Facts(padding="left"),
    Facts(padding="none"),
    Facts(causal=False),
    Facts(one_prediction_per_row=True),
    Facts(log_q="estimated"),
    Facts(exclude="target"),
    Facts(exclude="history"),
    Facts(negatives=False),
    Facts(history="all"),
)


Builder = Callable[[Part[Any], Context], Any]


def build_part(part: Part[Any], context: Context) -> Any:
    """Import a part's factory and call it. Raises ValueError for a factory that is not importable."""
    module, _, name = part.component.factory.partition(":")
    if module == "this":
        raise ValueError(
            f"{part.name} is of a loose file, where `this` is the file: give the builder of the plugins that were "
            "discovered, `run_checks(part, builder=make_builder(discover(loose=[file])))`"
        )
    factory = getattr(import_module(module), name)
    return factory(part.options, context)


@frozen(eq=False)
class Case:
    """A synthetic context.

    Args:
        facts: what the rest of a recipe would say.
        interactions: a log whose items are all known; `tokenizer`: the kit's own, made of it.
        seen: per training history its distinct item ids.
        profile: how hard the checks try.
        seed: of everything random.
        columns: columns of a batch that the part reads.
        builder: imports a part's factory and calls it; for loose files, `recore.recipe.build.make_builder`.
    """

    facts: Facts
    interactions: Interactions
    tokenizer: Tokenizer
    seen: Ragged
    profile: Profile = field(factory=lambda: PROFILES["quick"])
    seed: int = 0
    columns: frozenset[str] = frozenset({"time"})
    builder: Builder = build_part

    @property
    def items(self) -> int:
        """V."""
        return self.tokenizer.items

    @property
    def width(self) -> int:
        """d."""
        return self.facts.width or 8

    def context(self, **changes: Any) -> Context:
        """What a factory is given here."""
        made = Context(
            seed=self.seed,
            path="kit",
            facts=self.facts,
            builder=self.builder,
            interactions=self.interactions,
            tokenizer=self.tokenizer,
            seen=self.seen,
        )
        return evolve(made, **changes)

    def build(self, part: Part[Any], **changes: Any) -> Any:
        """A fresh object. Modules are built with the seed's own random numbers; torch's stay as they are."""
        with torch.random.fork_rng():
            torch.manual_seed(derive(self.seed, "kit", "build"))
            return self.builder(part, self.context(**changes))

    def module(self, part: Part[Any], dtype: torch.dtype = torch.float64) -> Any:
        """A fresh object in evaluation mode; a module gets `dtype`, and every parameter some noise, so that
        tables that start at zero count."""
        built = self.build(part)
        if isinstance(built, nn.Module):
            built.to(dtype).eval()
            scramble(built, generator(self.seed, "kit", "scramble"))
        return built

    def generator(self, *purpose: str | int) -> torch.Generator:
        """A generator of its own for a purpose."""
        return generator(self.seed, "kit", *purpose)


def fewer(case: Case, by: int = 4) -> Case:
    """The case with fewer examples, for what costs many passes each."""
    return evolve(case, profile=evolve(case.profile, examples=max(3, case.profile.examples // by)))


def scramble(module: nn.Module, random: torch.Generator, size: float = 0.3) -> None:
    """Add normal noise to every parameter, in place."""
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.add_(noise.to(parameter.dtype), alpha=size)


def make_case(profile: Profile | str = "quick", seed: int = 0, **facts: Any) -> Case:
    """The kit's context: 12 users, 10 items, width 8, 2 heads, 2 layers, histories of up to 128 rows."""
    log = TinyDataset(Log()).load(Context())
    tokenizer = TinyTokenizer(sorted(log.events["item"].unique().to_list()))
    histories = tokenise(log.events, log.offsets(), tokenizer)
    said = Facts(
        keys=frozenset(
            {"data", "split", "tokenizer", "objective", "model", "batcher", "loss", "trainer", "evaluators"}
        ),
        width=8,
        heads=2,
        layers=2,
        causal=True,
        history=HISTORY,
        appended=0,
        padding="right",
        negatives=True,
        log_q="exact",
        exclude="none",
        columns=frozenset(log.events.columns),
        computed=EVIDENCE,
        items=tokenizer.items,
        tokens=tokenizer.tokens,
        users=len(histories),
        order_across_users=True,
    )
    return Case(
        facts=evolve(said, **facts),
        interactions=log,
        tokenizer=tokenizer,
        seen=seen_items(histories),
        profile=PROFILES[profile] if isinstance(profile, str) else profile,
        seed=seed,
    )


def case_for(
    part: Part[Any], profile: Profile | str = "quick", seed: int = 0, builder: Builder | None = None
) -> Case:
    """A context that suits a part: its own facts and columns are heard, and where the part says that
    something stands against it, other neighbours are tried.

    Raises ValueError, with the part's own words, when nothing suits.
    """
    case = evolve(make_case(profile, seed), builder=builder or build_part)
    columns = case.columns | part.columns()
    known = evolve(case.facts, columns=(case.facts.columns or frozenset()) | columns)
    first: list[str] = []
    for overlay in OVERLAYS:
        facts = known.merged(overlay).merged(part.provides())
        against = part.problems(facts)
        if not against:
            return evolve(case, facts=facts, columns=columns)
        first = first or against
    raise ValueError(f"{part.name} suits no case of the kit: {'; '.join(first)}")


def largest(*tensors: Tensor) -> float:
    """The largest absolute value; 0 of nothing."""
    return max((float(t.detach().abs().max()) for t in tensors if t.numel()), default=0.0)


def moved(before: Tensor, after: Tensor) -> float:
    """The largest difference; infinite where one is not finite."""
    if before.shape != after.shape:
        raise AssertionError(f"shapes differ: {tuple(before.shape)} and {tuple(after.shape)}")
    if not before.numel():
        return 0.0
    gap = (before.detach().double() - after.detach().double()).abs()
    return float(torch.nan_to_num(gap, nan=float("inf")).max())
