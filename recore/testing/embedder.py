"""Checks of embedders: `docs/reference/contracts/embedder.md` in executable form.

Legend: `T` events, `V` items, `d` width. Special rows are the kit's: `pad` 0 and `unknown` 1, which do not
train, and `mask` 2, which does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from recore.component import Part
from recore.contracts.data import Changes, RowMap
from recore.contracts.model import Embedder
from recore.ragged import Batch, View
from recore.testing.cases import Case, largest
from recore.testing.checks import Evidence, for_all, require, states
from recore.testing.sequences import EXACT, alone, relative, reordered, views
from recore.testing.strategies import targets_of
from recore.testing.tiny.data import SPECIALS, TinyTokenizer

FROZEN = torch.tensor([special.id for special in SPECIALS if not special.trainable])
FIRST = len(SPECIALS)  # the token of item 0
OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD with momentum and weight decay": lambda p: torch.optim.SGD(
        p, lr=0.1, momentum=0.9, weight_decay=0.1
    ),
    "SGD with Nesterov momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "Adam with weight decay": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
}


def _tokenizer(case: Case) -> TinyTokenizer:
    """A tokenizer of its own: a resize changes it."""
    return TinyTokenizer(case.tokenizer.items_of(np.arange(case.items)).to_list())


def _build(part: Part[Any], case: Case, tokenizer: TinyTokenizer | None = None) -> Any:
    built = case.build(part, tokenizer=tokenizer or _tokenizer(case))
    require(isinstance(built, nn.Module), f"it is a {type(built).__name__}, no torch.nn.Module")
    return built.double()


def _view(tokens: Tensor, case: Case) -> View:
    """One history of these tokens."""
    item = torch.where(tokens >= FIRST, tokens - FIRST, torch.full_like(tokens, -1))
    made = {"token": tokens, "item": item, "event": torch.arange(len(tokens))}
    made |= {name: torch.arange(len(tokens)) for name in case.columns if name not in made}
    return View(made, torch.tensor([0, len(tokens)]), index=torch.zeros(1, dtype=torch.int64))


def _embed(embedder: Embedder, view: View, items: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return embedder.embed(Batch({"user": view}, targets_of(view, items, random)), view)


def _rows(embedder: Embedder, case: Case, tokens: int) -> Tensor:
    """The vectors of all tokens, `(tokens, d)`."""
    return _embed(embedder, _view(torch.arange(tokens), case), case.items).detach().clone()


def _step(
    embedder: Any, case: Case, tokens: int, optimiser: torch.optim.Optimizer, random: torch.Generator
) -> None:
    """One step of a made-up loss that pulls on every vector, embedded and scored."""
    optimiser.zero_grad()
    vectors = _embed(embedder, _view(torch.arange(tokens), case), case.items)
    table = embedder.table()
    way = torch.randn(vectors.shape, generator=random, dtype=vectors.dtype)
    hidden = torch.randn(5, vectors.shape[1], generator=random, dtype=vectors.dtype)
    scores = hidden @ table.weight.T + (0 if table.bias is None else table.bias)
    torch.autograd.backward(((vectors + 1) * way).sum() + scores.logsumexp(-1).sum())
    optimiser.step()


def _parameters(embedder: nn.Module) -> list[nn.Parameter]:
    return [p for p in embedder.parameters() if p.requires_grad]


def _zero(vectors: Tensor, when: str) -> None:
    for special in SPECIALS:
        if not special.trainable:
            far = largest(vectors[special.id])
            require(far == 0, f"the vector of `{special.name}` reaches {far:.2g} {when}")


@states("embedder", 1, "The vectors of special rows that do not train are exactly zero before any step.")
def check_zero_before(part: Part[Any], case: Case) -> Evidence:
    embedder = _build(part, case)
    _zero(_rows(embedder, case, FIRST + case.items), "before any step")
    return Evidence("pad, unknown")


@states(
    "embedder",
    2,
    "They are exactly zero after steps of any optimiser, with momentum and weight decay.",
)
def check_zero_after(part: Part[Any], case: Case) -> Evidence:
    tokens = FIRST + case.items
    for name, make in OPTIMISERS.items():
        embedder, random = _build(part, case), case.generator(name)
        optimiser = make(_parameters(embedder))
        for step in range(4):
            _step(embedder, case, tokens, optimiser, random)
            _zero(_rows(embedder, case, tokens), f"after {step + 1} steps of {name}")
    return Evidence(", ".join(OPTIMISERS))


@states(
    "embedder",
    3,
    "The table that scores has V rows of width d and no special row; a bias and `retired` have V entries.",
)
def check_table(part: Part[Any], case: Case) -> Evidence:
    _table_fits(_build(part, case), case.items, case.width)
    return Evidence()


def _table_fits(embedder: Embedder, items: int, width: int) -> None:
    table = embedder.table()
    found = tuple(table.weight.shape)
    require(found == (items, width), f"the table is {found}, V = {items} and d = {width}")
    for name in ("bias", "retired"):
        value = getattr(table, name)
        shape = None if value is None else tuple(value.shape)
        require(shape in (None, (items,)), f"`{name}` is {shape}, V = {items}")
    gone = table.retired
    require(gone is None or gone.dtype == torch.bool, f"`retired` is {None if gone is None else gone.dtype}")


@states(
    "embedder", 4, "Each event gets one vector of width d, which its neighbours in the batch do not change."
)
def check_embed(part: Part[Any], case: Case) -> Evidence:
    embedder = _build(part, case).eval()

    def holds(view: View) -> None:
        vectors = _embed(embedder, view, case.items)
        wanted = (view.events, case.width)
        require(
            tuple(vectors.shape) == wanted,
            f"{view.events} events got vectors of shape {tuple(vectors.shape)}",
        )
        order = list(reversed(range(len(view))))
        pieces = [vectors[int(a) : int(b)] for a, b in zip(view.offsets[:-1], view.offsets[1:], strict=True)]
        other = _embed(embedder, reordered(view, order), case.items)
        require(
            relative(torch.cat([pieces[i] for i in order]), other) <= EXACT,
            f"the vectors of {len(view)} histories differ in reverse order",
        )
        for number, piece in enumerate(pieces):
            require(
                relative(piece, _embed(embedder, alone(view, number), case.items)) <= EXACT,
                f"the vectors of a history of {len(piece)} events differ when it is alone",
            )

    for_all(case, views(case), holds)
    return Evidence()


@states(
    "embedder",
    5,
    "Gradients reach every item, from its vector and from its score, and the trainable special rows; a step "
    "moves what was reached.",
)
def check_gradients_reach(part: Part[Any], case: Case) -> Evidence:
    tokens = FIRST + case.items
    trained = torch.tensor([t for t in range(tokens) if t not in FROZEN.tolist()])

    def moved_by(what: str) -> Tensor:
        embedder = _build(part, case)
        optimiser = torch.optim.SGD(_parameters(embedder), lr=0.1)
        before = _rows(embedder, case, tokens), embedder.table().weight.detach().clone()
        vectors, table = _embed(embedder, _view(torch.arange(tokens), case), case.items), embedder.table()
        random = case.generator(what)
        pulled = vectors if what == "vector" else table.weight
        way = torch.randn(pulled.shape, generator=random, dtype=pulled.dtype)
        torch.autograd.backward((pulled * way).sum())
        optimiser.step()
        after = _rows(embedder, case, tokens), embedder.table().weight.detach().clone()
        return (
            (after[0] - before[0]).abs().sum(-1) if what == "vector" else (after[1] - before[1]).abs().sum(-1)
        )

    far = moved_by("vector")[trained]
    require(
        bool((far > 0).all()),
        f"a step on vectors left the tokens {trained[far == 0].tolist()} where they were",
    )
    far = moved_by("score")
    require(bool((far > 0).all()), f"a step on scores left the items {(far == 0).nonzero()[:, 0].tolist()}")
    return Evidence()


@st.composite
def _changes(draw: st.DrawFn, items: int) -> tuple[int, list[int]]:
    """How many items to add, and the places of those to remove."""
    gone = draw(st.lists(st.integers(0, items - 1), unique=True, max_size=items // 2))
    return draw(st.integers(0, 4)), gone


def _resize(
    embedder: Embedder, tokenizer: TinyTokenizer, added: int, gone: list[int]
) -> tuple[RowMap, dict[str, RowMap]]:
    names = tokenizer.items_of(np.arange(tokenizer.items)).to_list()
    fresh = [max(names) + 1 + n for n in range(added)]
    moved = tokenizer.resize(Changes(added=fresh, removed=[names[i] for i in gone]))
    return moved, embedder.resize(moved)


def _changed(now: Tensor, before: Tensor) -> Tensor:
    """Which rows differ: by more than the rounding of a product that has other rows beside them now."""
    return (now - before).abs().amax(-1) > EXACT * before.abs().max()


@states(
    "embedder",
    6,
    "After `resize` every row that stays is as it was, embedded and scored; new rows are finite and not all "
    "alike; removed items are `retired`.",
)
def check_resize(part: Part[Any], case: Case) -> Evidence:
    def holds(example: tuple[int, list[int]]) -> None:
        added, gone = example
        tokenizer = _tokenizer(case)
        embedder = _build(part, case, tokenizer)
        tokens, items = tokenizer.tokens, tokenizer.items
        _step(embedder, case, tokens, torch.optim.SGD(_parameters(embedder), lr=0.1), case.generator("train"))
        vectors, table = _rows(embedder, case, tokens), embedder.table()
        weight = table.weight.detach().clone()
        bias = None if table.bias is None else table.bias.detach().clone()
        moved, _ = _resize(embedder, tokenizer, added, gone)
        what = f"after {added} items were added and {gone} removed"
        _table_fits(embedder, tokenizer.items, case.width)
        now, after = _rows(embedder, case, tokenizer.tokens), embedder.table()
        old = torch.from_numpy(moved.old)
        stay = old >= 0
        changed = _changed(now[stay], vectors[old[stay]])
        require(
            not bool(changed.any()),
            f"the vectors of tokens {stay.nonzero()[:, 0][changed].tolist()} changed {what}",
        )
        changed = _changed(after.weight[:items], weight)
        require(
            not bool(changed.any()), f"the scoring rows of {changed.nonzero()[:, 0].tolist()} changed {what}"
        )
        if bias is not None and after.bias is not None:
            require(torch.equal(after.bias[:items], bias), f"biases changed {what}")
        new = torch.cat([now[~stay], after.weight[items:]])
        require(bool(new.isfinite().all()), f"new rows are not finite {what}")
        if added > 1:
            require(bool((now[~stay] != now[~stay][:1]).any()), f"the {added} new rows are all alike {what}")
        flags = torch.zeros(tokenizer.items, dtype=torch.bool) if after.retired is None else after.retired
        found = flags.nonzero()[:, 0].tolist()
        require(found == sorted(gone), f"the items {found} are retired {what}")

    for_all(case, _changes(case.items), holds)
    return Evidence()


@states(
    "embedder",
    7,
    "`resize` says of each parameter that it replaced, by its name, how its rows moved, so that the state of "
    "the optimiser can follow.",
)
def check_resize_map(part: Part[Any], case: Case) -> Evidence:
    names: set[str] = set()

    def holds(example: tuple[int, list[int]]) -> None:
        tokenizer = _tokenizer(case)
        embedder = _build(part, case, tokenizer)
        before = {name: (p, p.detach().clone()) for name, p in embedder.named_parameters()}
        _, maps = _resize(embedder, tokenizer, *example)
        now = dict(embedder.named_parameters())
        names.update(maps)
        lost = sorted(set(maps) - set(now))
        require(not lost, f"it maps {lost}, and has the parameters {sorted(now)}")
        for name, parameter in now.items():
            require(
                name in maps or (name in before and before[name][0] is parameter),
                f"the parameter `{name}` was replaced and is not among the maps of {sorted(maps)}",
            )
            if name in maps and name in before:
                old = torch.from_numpy(np.asarray(maps[name].old))
                require(
                    len(old) == len(parameter),
                    f"the map of `{name}` has {len(old)} rows, `{name}` {len(parameter)}",
                )
                stay = old >= 0
                same = torch.equal(parameter[stay], before[name][1][old[stay]])
                require(same, f"the map of `{name}` does not say where its rows came from")

    for_all(case, _changes(case.items), holds)
    return Evidence(", ".join(sorted(names)))


@states("embedder", 8, "What does not train is exactly zero after a resize, too, and training goes on.")
def check_zero_after_resize(part: Part[Any], case: Case) -> Evidence:
    for name, make in OPTIMISERS.items():
        tokenizer = _tokenizer(case)
        embedder, random = _build(part, case, tokenizer), case.generator(name)
        _step(embedder, case, tokenizer.tokens, make(_parameters(embedder)), random)
        for added, gone in ((3, [0, 2]), (1, [1])):
            _resize(embedder, tokenizer, added, gone)
            _zero(_rows(embedder, case, tokenizer.tokens), "after a resize")
            optimiser = make(_parameters(embedder))
            before = _rows(embedder, case, tokenizer.tokens)
            for _ in range(2):
                _step(embedder, case, tokenizer.tokens, optimiser, random)
            now = _rows(embedder, case, tokenizer.tokens)
            _zero(now, f"after a resize and steps of {name}")
            still = [t for t in range(2, tokenizer.tokens) if torch.equal(now[t], before[t])]
            require(not still, f"after a resize the tokens {still} do not train")
    return Evidence()


@states(
    "embedder",
    9,
    "Its state dictionary is all of it: loaded into a fresh object, the vectors and scores are the same.",
)
def check_state(part: Part[Any], case: Case) -> Evidence:
    one, other = _build(part, case), _build(part, case)
    tokens = FIRST + case.items
    _step(one, case, tokens, torch.optim.SGD(_parameters(one), lr=0.1), case.generator("train"))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    require(
        torch.equal(_rows(one, case, tokens), _rows(other, case, tokens)), "after loading the vectors differ"
    )
    mine, theirs = one.table(), other.table()
    require(torch.equal(mine.weight, theirs.weight), "after loading the scoring rows differ")
    require(
        (mine.bias is None) == (theirs.bias is None)
        and (mine.bias is None or torch.equal(mine.bias, theirs.bias)),
        "after loading the biases differ",
    )
    return Evidence(", ".join(one.state_dict()))


@states("embedder", 10, "The same seed gives the same initial rows; torch's own generator is left alone.")
def check_deterministic(part: Part[Any], case: Case) -> Evidence:
    rows = [_rows(_build(part, case), case, FIRST + case.items) for _ in range(2)]
    require(torch.equal(*rows), "two objects of one seed have different initial rows")
    embedder = _build(part, case)
    state = torch.get_rng_state()
    _rows(embedder, case, FIRST + case.items)
    embedder.table()
    require(torch.equal(state, torch.get_rng_state()), "embedding advanced torch's default generator")
    return Evidence()
