"""Composition: a tree becomes parts, the parts tell each other their facts, and everything that stands
against the whole is said at once. No data is read and nothing is built.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import define, evolve, field, frozen

from recore.claims import EncoderClaims, LossClaims, SamplerClaims
from recore.component import Facts, Part
from recore.contracts.data import Dataset, Split, Tokenizer, Transform
from recore.contracts.learning import Batcher, Loss, Objective, Sampler, Trainer
from recore.contracts.scoring import Evaluator, Model
from recore.errors import PluginError, Problem, RecipeError, nearest
from recore.plugins import Plugins, Provider
from recore.provenance import provenance
from recore.recipe.matrix import WORD
from recore.recipe.overlay import ASSEMBLED
from recore.recipe.resolved import unstructured
from recore.recipe.structure import FAILED, Structurer
from recore.recipe.tree import Node, a, got, joined

ONE = {  # keys that hold one part: key → kind
    "data": "dataset",
    "split": "split",
    "tokenizer": "tokenizer",
    "objective": "objective",
    "model": "model",
    "batcher": "batcher",
    "sampler": "sampler",
    "trainer": "trainer",
}
SOME = {"transforms": "transform", "evaluators": "evaluator"}  # keys that hold one part or a list
REQUIRED = ("data", "split", "model")
KEYS = (
    *("recore", "extends", "requires", "data", "transforms", "split", "tokenizer", "objective", "model"),
    *("batcher", "sampler", "loss", "trainer", "evaluators", "seeds", "matrix"),
)
USER = "user"  # the view that every model encodes
OF_AN_ENTRY = ("name", "view", "weight", "sampler")  # keys of an entry of `loss:` beside the loss's own
OF_ONE_LOSS = ("negatives", "log_q", "exclude")  # facts that are told to each loss apart
OF_THE_WHOLE = ("keys", "learned", "losses")  # facts that no part says
LARGEST_SEED = 2**63 - 1


@frozen(eq=False)
class LossEntry:
    """One loss. `view` is the view of the log whose targets it learns from; `weight` multiplies it in the sum;
    `sampler` draws its negatives, where it needs any; `facts` are those of the recipe and of that sampler."""

    name: str
    part: Part[Loss]
    view: str = USER
    weight: float = 1.0
    sampler: Part[Sampler] | None = None
    facts: Facts = field(factory=Facts)


@frozen(eq=False)
class Recipe:
    """A composed recipe: one cell of a matrix, ready to be run.

    Args:
        name: its path among the shipped recipes, or its file's name, without `.yaml`.
        file: where it was written; None for a tree from Python.
        tree: the resolved recipe as plain values: every option, qualified `use:`; `from_tree` takes it.
        losses: those whose weight is not 0.
        seeds: a run for each.
        cell: `axis=label,…`, or `base`.
        facts: what the parts say to each other before data is read; of parts that belong to another view than
            `user`, in `facts.views`.
    """

    name: str
    file: Path | None
    tree: dict[str, Any]
    data: Part[Dataset]
    transforms: tuple[Part[Transform], ...]
    split: Part[Split]
    tokenizer: Part[Tokenizer] | None
    objective: Part[Objective] | None
    model: Part[Model]
    batcher: Part[Batcher] | None
    losses: tuple[LossEntry, ...]
    trainer: Part[Trainer] | None
    evaluators: tuple[Part[Evaluator], ...]
    seeds: tuple[int, ...]
    cell: str
    plugins: Plugins
    facts: Facts

    def parts(self) -> tuple[Part[Any], ...]:
        """Every part, nested ones after the one that holds them, in the order of the recipe's keys."""
        tops: list[Part[Any] | None] = [self.data, *self.transforms, self.split, self.tokenizer]
        tops += [self.objective, self.model, self.batcher]
        for entry in self.losses:
            tops += [entry.part, entry.sampler]
        tops += [self.trainer, *self.evaluators]
        found: dict[int, Part[Any]] = {}
        for part in tops:
            if part is not None:
                found |= {id(one): one for one in (part, *part.parts())}
        return tuple(found.values())

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the log that some part reads from a batch, beyond token, item and event."""
        return frozenset(name for part in self.parts() for name in part.columns())

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The distributions and loose files that these parts are from, by name."""
        names = sorted({part.provider for part in self.parts()})
        return tuple(provider for name in names if (provider := self.plugins.provider(name)) is not None)

    def provenance(self) -> list[dict[str, Any]]:
        """The record of each plugin used: name, version, sha256 of its code, editable, loose."""
        return [provenance(provider) for provider in self.providers]

    def problems(self, facts: Facts) -> list[Problem]:
        """What stands against the recipe once `facts` (what only the data can tell) are known too."""
        told: dict[int, Facts] = {}
        for entry in self.losses:
            tops = [entry.part] if entry.sampler is None else [entry.part, entry.sampler]
            told |= {id(one): entry.facts for top in tops for one in (top, *top.parts())}
        told |= {one: (self.facts.views or {})[view] for one, view in self.model.views().items()}
        asking = [(part, told.get(id(part), self.facts).merged(facts)) for part in self.parts()]
        return objections(asking)


@define
class _Loss:
    """A loss as written, before its facts are known."""

    name: str
    part: Part[Any]
    view: str
    weight: float
    own: Part[Any] | None
    sampler: Part[Any] | None = None
    facts: Facts = field(factory=Facts)


def compose(
    root: Node, name: str, file: Path | None, cell: str, plugins: Plugins, earlier: Sequence[Problem] = ()
) -> Recipe:
    """The recipe of a tree. Raises RecipeError with `earlier` problems and all of its own."""
    composer = _Composer(root, plugins)
    recipe = composer.recipe(name, file, cell)
    problems = [*earlier, *unless_told(composer.structurer.problems, earlier)]
    if problems or recipe is None:
        raise RecipeError(in_order(problems))
    return recipe


def unless_told(problems: Iterable[Problem], earlier: Sequence[Problem]) -> list[Problem]:
    """Without those of a value that could not be read in the first place: `earlier` says so already."""
    told = [(problem.where, problem.path) for problem in earlier if problem.path]
    return [
        problem
        for problem in problems
        if not any(
            problem.where == where and f"{problem.path}.".startswith(f"{path}.") for where, path in told
        )
    ]


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Problems without repeats, those of one file by line, files in the order in which they came up."""
    places = {}
    for problem in problems:
        file, _, line = problem.where.rpartition(":")
        places[problem] = (file, int(line)) if line.isdecimal() else (problem.where, 0)
    files = list(dict.fromkeys(file for file, _ in places.values()))
    return sorted(places, key=lambda problem: (files.index(places[problem][0]), places[problem][1]))


@contextlib.contextmanager
def asked(part: Part[Any], what: str) -> Iterator[None]:
    """Whatever a plugin's own code raises here keeps its traceback and says which part was being asked."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while {what} {part.kind} {part.name!r} ({part.where}: {part.path})")
        raise


def objections(asking: Iterable[tuple[Part[Any], Facts]]) -> list[Problem]:
    """Ask each part what stands against it among the facts told to it. Raises PluginError where a part
    answers with something else than texts."""
    found = []
    for part, told in asking:
        with asked(part, "asking the problems of"):
            problems: Any = part.problems(told)
            if isinstance(problems, str) or not all(isinstance(one, str) for one in problems):
                raise PluginError(f"problems() of {part.name} returned {problems!r}, expected texts")
        found += [Problem(problem, part.where, part.path) for problem in problems]
    return found


class _Composer:
    def __init__(self, root: Node, plugins: Plugins) -> None:
        self.root = root
        self.entries = {key: node for key, node in (root.mapping or {}).items() if node.value is not None}
        self.structurer = Structurer(plugins)
        self.plugins = plugins
        self.tree: dict[str, Any] = {"recore": 1}

    def recipe(self, name: str, file: Path | None, cell: str) -> Recipe | None:
        for key, node in (self.root.mapping or {}).items():
            if key not in KEYS:
                self.structurer.problem(node, key, "unknown key", nearest(key, KEYS))
        one = {key: self.one(key, kind) for key, kind in ONE.items()}
        some = {key: self.some(key, kind) for key, kind in SOME.items()}
        losses = self.losses()
        seeds = self.seeds()
        complete = not self.structurer.problems
        self.assign_samplers(losses, one["sampler"], complete)
        shared = [part for key, part in one.items() if key != "sampler" and isinstance(part, Part)]
        shared += [part for parts in some.values() for part in parts]
        facts = self.gather(shared, losses)
        self.check_views(losses, facts)
        self.ask(shared, losses, one["sampler"], facts)
        if self.structurer.problems:
            return None
        self.write(one, some, losses, seeds)
        return Recipe(
            name=name,
            file=file,
            tree=self.tree,
            data=one["data"],
            transforms=tuple(some["transforms"]),
            split=one["split"],
            tokenizer=one["tokenizer"],
            objective=one["objective"],
            model=one["model"],
            batcher=one["batcher"],
            losses=tuple(
                LossEntry(loss.name, loss.part, loss.view, loss.weight, loss.sampler, loss.facts)
                for loss in losses
                if loss.weight
            ),
            trainer=one["trainer"],
            evaluators=tuple(some["evaluators"]),
            seeds=seeds,
            cell=cell,
            plugins=self.plugins,
            facts=facts,
        )

    # what is written

    def one(self, key: str, kind: str) -> Any:
        node = self.entries.get(key)
        if node is None:
            if key in REQUIRED:
                self.structurer.problem(self.root, key, f"missing key, expected {a(kind)}")
            return None
        if key == "model" and node.mapping is not None and "use" not in node.mapping:
            named = Node(ASSEMBLED, node.where, node.folder)
            node = Node({"use": named, **node.mapping}, node.where, node.folder)
        return self.structurer.part(kind, node, key)

    def some(self, key: str, kind: str) -> list[Any]:
        node = self.entries.get(key)
        if node is None:
            return []
        if node.entries is None:
            made = [self.structurer.part(kind, node, key)]
        else:
            made = [
                self.structurer.part(kind, entry, joined(key, number))
                for number, entry in enumerate(node.entries)
            ]
        return [part for part in made if part is not FAILED]

    def losses(self) -> list[_Loss]:
        node = self.entries.get("loss")
        if node is None:
            return []
        if node.entries is None:
            made = [self.loss(node, "loss")]
        else:
            if not node.entries:
                self.structurer.problem(node, "loss", "expected at least one loss, got an empty list")
            made = [self.loss(entry, joined("loss", number)) for number, entry in enumerate(node.entries)]
        losses = [loss for loss in made if loss is not None]
        for number, loss in enumerate(losses):
            if loss.name in {other.name for other in losses[:number]}:
                where = Node(None, loss.part.where)
                hint = "give each a `name:` of its own"
                self.structurer.problem(where, loss.part.path, f"two losses are named {loss.name!r}", hint)
        if losses and len(losses) == len(made) and not any(loss.weight for loss in losses):
            self.structurer.problem(node, "loss", "expected a loss whose weight is not 0")
        return losses

    def loss(self, node: Node, path: str) -> _Loss | None:
        before = len(self.structurer.problems)
        entries = node.mapping or {}
        name, view, weight, sampler = (entries.get(key) for key in OF_AN_ENTRY)
        for key, word in (("name", name), ("view", view)):
            if word is not None and not (isinstance(word.value, str) and WORD.fullmatch(word.value)):
                self.structurer.problem(word, joined(path, key), f"expected a word, got {got(word.value)}")
        if weight is not None and not (
            type(weight.value) in (int, float) and math.isfinite(weight.value) and weight.value >= 0
        ):
            message = f"expected a float of at least 0, got {got(weight.value)}"
            self.structurer.problem(weight, joined(path, "weight"), message)
        own = None
        if sampler is not None and sampler.value is not None:
            own = self.structurer.part("sampler", sampler, joined(path, "sampler"))
        inner = node if node.mapping is None else node.without(*OF_AN_ENTRY)
        part = self.structurer.part("loss", inner, path)
        if len(self.structurer.problems) > before:
            return None
        return _Loss(
            part.component.name if name is None else name.value,
            part,
            USER if view is None else view.value,
            1.0 if weight is None else float(weight.value),
            own,
        )

    def seeds(self) -> tuple[int, ...]:
        node = self.entries.get("seeds")
        if node is None:
            return (0,)
        values = [entry.value for entry in node.entries or ()]
        if not values or not all(type(value) is int and 0 <= value <= LARGEST_SEED for value in values):
            shown = got(node.value) if not values else ", ".join(got(value) for value in values)
            self.structurer.problem(node, "seeds", f"expected a list of ints of at least 0, got {shown}")
        elif len(set(values)) < len(values):
            self.structurer.problem(node, "seeds", f"expected distinct seeds, got {values}")
        return tuple(values)

    # what the parts say to each other

    def check_views(self, losses: list[_Loss], facts: Facts) -> None:
        """A loss learns from a view that the model encodes."""
        known = list(facts.views or {})
        for loss in losses:
            if known and loss.view not in known:
                message = (
                    f"loss {loss.name!r} learns from the view {loss.view!r}, which the model does not encode"
                )
                hint = f"it encodes: {', '.join(known)}"
                self.structurer.problem(
                    Node(None, loss.part.where), joined(loss.part.path, "view"), message, hint
                )

    def assign_samplers(self, losses: list[_Loss], default: Any, complete: bool) -> None:
        used = False
        for loss in losses:
            with asked(loss.part, "asking the claims of"):
                claims = loss.part.claims
            needs = isinstance(claims, LossClaims) and claims.negatives
            place = Node(None, loss.part.where)
            if needs:
                loss.sampler = loss.own if loss.own is not None else default
                used = used or loss.own is None
                if loss.sampler is None:
                    message = f"loss {loss.name!r} needs negatives, but no sampler is set"
                    self.structurer.problem(place, "", message)
            elif loss.own is not None:
                message = f"loss {loss.name!r} takes no negatives, but a sampler is set"
                self.structurer.problem(Node(None, loss.own.where), loss.own.path, message)
        if isinstance(default, Part) and complete and not used:
            place = Node(None, default.where)
            self.structurer.problem(
                place, "sampler", "no loss uses this sampler", "remove it with `sampler: ~`"
            )

    def gather(self, shared: list[Part[Any]], losses: list[_Loss]) -> Facts:
        """Lay over each other what all parts provide; two that differ are a problem."""
        keys = frozenset(self.entries) & frozenset(KEYS)
        built = [loss for loss in losses if loss.weight]
        learned, names = frozenset(loss.view for loss in built), tuple(loss.name for loss in built)
        tops = [*shared, *(loss.part for loss in losses)]
        elsewhere = {one: view for top in tops for one, view in top.views().items()}
        parts = [one for top in tops for one in (top, *top.parts())]
        # Where a loss cannot be read, nobody knows which there are.
        node = self.entries.get("loss")
        whole = node is None or len(losses) == (1 if node.entries is None else len(node.entries))
        said = Facts(keys=keys, learned=learned, losses=names) if whole else Facts(keys=keys)
        facts = self.gathered(said, [part for part in parts if id(part) not in elsewhere])
        given = facts.views or {}
        others = [view for view in dict.fromkeys((*given, *elsewhere.values())) if view != USER]
        # Of a model that cannot be read nobody knows what it encodes.
        if any(part.kind == "model" for part in shared):
            facts = evolve(facts, views=None)
            views = {USER: facts}
            for view in others:
                # What the parts of a view do not say themselves, the width for one, is as in the whole.
                own = self.gathered(Facts(), [part for part in parts if elsewhere.get(id(part)) == view])
                views[view] = facts.merged(given.get(view, Facts())).merged(own)
            facts = evolve(facts, views=views)
        for loss in losses:
            loss.facts = self.facts_of_loss(facts, loss)
        return facts

    def gathered(self, facts: Facts, parts: Sequence[Part[Any]]) -> Facts:
        said: dict[str, Part[Any]] = {}
        for part in parts:
            for name, value in self.provided(part).items():
                if name in said and getattr(facts, name) != value:
                    other = said[name]
                    message = (
                        f"{part.kind} {part.name!r} says {name} = {_said(value)}, but {other.kind} "
                        f"{other.name!r} ({other.path}) says {_said(getattr(facts, name))}"
                    )
                    self.structurer.problem(Node(None, part.where), part.path, message)
                    continue
                said[name] = part
                facts = evolve(facts, **{name: value})
        return facts

    def provided(self, part: Part[Any]) -> dict[str, Any]:
        """The facts that a part gives to all. An encoder's claims are facts too."""
        with asked(part, "asking the facts of"):
            facts = part.provides()
            claims = part.claims if part.kind == "encoder" else None
            if not isinstance(facts, Facts):
                raise PluginError(f"provides() of {part.name} returned {facts!r}, expected Facts")
        if isinstance(claims, EncoderClaims):
            facts = Facts(causal=claims.causal, terms=claims.terms).merged(facts)
        return {
            one.name: value
            for one in attrs.fields(Facts)
            if (value := getattr(facts, one.name)) is not None
            and one.name not in (*OF_ONE_LOSS, *OF_THE_WHOLE)
        }

    def facts_of_loss(self, facts: Facts, loss: _Loss) -> Facts:
        with asked(loss.part, "asking the claims of"):
            claims = loss.part.claims
        needs = isinstance(claims, LossClaims) and claims.negatives
        if loss.sampler is None:
            # That a sampler is missing is said once, by us.
            return evolve(facts, negatives=needs)
        return self.facts_of_sampler(facts, loss.sampler)

    def facts_of_sampler(self, facts: Facts, sampler: Part[Any]) -> Facts:
        with asked(sampler, "asking the claims of"):
            claims = sampler.claims
        known = claims if isinstance(claims, SamplerClaims) else SamplerClaims()
        return evolve(facts, negatives=True, log_q=known.log_q, exclude=known.exclude)

    def ask(self, shared: list[Part[Any]], losses: list[_Loss], default: Any, facts: Facts) -> None:
        """Ask every part what stands against it."""
        asking = [(part, facts) for part in shared]
        asking += [(loss.part, loss.facts) for loss in losses]
        samplers = [loss.own for loss in losses if loss.own is not None]
        samplers += [default] if isinstance(default, Part) else []
        asking += [(sampler, self.facts_of_sampler(facts, sampler)) for sampler in samplers]
        views = facts.views or {}
        self.structurer.problems += objections(
            (part, views.get(elsewhere[id(part)], told) if id(part) in elsewhere else told)
            for top, told in asking
            for elsewhere in (top.views(),)
            for part in (top, *top.parts())
        )

    # what is kept

    def write(
        self, one: dict[str, Any], some: dict[str, list[Any]], losses: list[_Loss], seeds: tuple[int, ...]
    ) -> None:
        """Fill the resolved tree, in the order of KEYS."""
        written = self.structurer.written
        made: dict[str, Any] = {
            key: unstructured(part, key, written) for key, part in one.items() if part is not None
        }
        for key, parts in some.items():
            made |= self.written_list(key, [unstructured(part, part.path, written) for part in parts])
        entries = []
        for loss in losses:
            entry = {
                "name": loss.name,
                "view": loss.view,
                "weight": loss.weight,
                **unstructured(loss.part, loss.part.path, written),
            }
            if loss.own is not None:
                entry["sampler"] = unstructured(loss.own, loss.own.path, written)
            entries.append(entry)
        made |= self.written_list("loss", entries)
        made["seeds"] = list(seeds)
        requires = self.entries.get("requires")
        if requires is not None and requires.entries:
            made["requires"] = [entry.value for entry in requires.entries]
        self.tree |= {key: made[key] for key in KEYS if key in made}

    def written_list(self, key: str, entries: list[Any]) -> dict[str, Any]:
        """One part stays one part: its place in the recipe, hence its random stream, stays the same."""
        node = self.entries.get(key)
        if node is None:
            return {}
        return {key: entries if node.entries is not None else entries[0]}


def _said(value: object) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, frozenset) else str(value)
