"""Checks of objectives: `docs/reference/contracts/objective.md` in executable form.

`training` is compared with a slow loop over histories. What a row may see is every input row of its sequence
up to itself, and for an objective that says `causal: false`, every row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from recore.component import Part
from recore.contracts.learning import Objective
from recore.ragged import Targets, View
from recore.testing.cases import Case
from recore.testing.checks import Evidence, for_all, require, states
from recore.testing.strategies import histories

Context = tuple[int, ...]
Pair = tuple[int, Context, int]  # history, tokens visible, item id predicted


def _build(part: Part[Any], case: Case) -> Objective:
    made: Objective = case.build(part)
    return made


def _train(
    objective: Objective, case: Case, view: View, since: Tensor | None = None, seed: int = 0
) -> tuple[View, Targets]:
    return objective.training(view, case.generator("objective", seed), since)


def _random(objective: Objective, case: Case) -> bool:
    """Whether what is predicted is drawn: then pairs are counted over many draws."""
    item = torch.arange(24) % case.items
    view = View(
        {"token": item + 3, "item": item, "event": torch.arange(24)}
        | {name: torch.arange(24) for name in case.columns},
        torch.tensor([0, 12, 24]),
        index=torch.arange(2),
    )
    pairs = {str(sorted(_pairs(*_train(objective, case, view, seed=s), case))) for s in range(8)}
    return len(pairs) > 1


def _visible(view: View, row: int, case: Case) -> range:
    sequence = int(view.sequence[row])
    last = int(view.offsets[sequence + 1]) if case.facts.causal is False else row + 1
    return range(int(view.offsets[sequence]), last)


def _tokens(view: View, rows: Iterable[int]) -> Context:
    return tuple(n for row in rows for n in view["token"][row].reshape(-1).tolist())


def _ids(targets: Targets) -> Tensor:
    """`(N,)`; the first of several."""
    return targets.id if targets.id.dim() == 1 else targets.id[:, 0]


def _pairs(view: View, targets: Targets, case: Case) -> list[Pair]:
    index = view.index if view.index is not None else torch.arange(len(view))
    return [
        (int(index[view.sequence[row]]), _tokens(view, _visible(view, row, case)), int(item))
        for row, item in zip(targets.where.tolist(), _ids(targets), strict=True)
    ]


@st.composite
def _since(draw: st.DrawFn, case: Case) -> tuple[View, Tensor | None]:
    """Histories, and perhaps the first place that may be a target."""
    view = draw(histories(items=case.items, longest=case.profile.longest, columns=case.columns, unknown=True))
    chosen = draw(st.none() | st.lists(st.integers(0, 5), min_size=len(view), max_size=len(view)))
    return view, None if chosen is None else torch.tensor(chosen, dtype=torch.int64)


@states(
    "objective",
    1,
    "Every pair of a context and what follows it is trained on exactly once; where pairs are drawn, each "
    "event that may be a target is one in some draw, and no other is.",
)
def check_every_pair(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)
    drawn = _random(objective, case)

    def holds(example: tuple[View, Tensor | None]) -> None:
        view, since = example
        begin = torch.zeros(len(view), dtype=torch.int64) if since is None else since
        index = view.index.tolist() if view.index is not None else list(range(len(view)))
        if drawn:
            _drawn(view, begin)
            return
        expected: list[Pair] = []
        for b, (first, stop) in enumerate(zip(view.offsets[:-1], view.offsets[1:], strict=True)):
            for row in range(int(first) + max(1, int(begin[b])), int(stop)):
                if view["item"][row] >= 0:
                    context = _tokens(view, range(int(first), row))
                    expected.append((index[b], context, int(view["item"][row])))
        found = Counter(_pairs(*_train(objective, case, view, since), case))
        more, less = found - Counter(expected), Counter(expected) - found
        require(
            not less,
            f"of history {_first(less)[0]} the tokens {_first(less)[1]} should predict item "
            f"{_first(less)[2]}, and do so {found[_first(less)]} times",
        )
        require(
            not more,
            f"of history {_first(more)[0]} the tokens {_first(more)[1]} predict item {_first(more)[2]} "
            f"{found[_first(more)]} times, {Counter(expected)[_first(more)]} were expected",
        )

    def _drawn(view: View, begin: Tensor) -> None:
        may = view["item"][(view["item"] >= 0) & (view.place >= begin[view.sequence])]
        allowed, seen = Counter(may.tolist()), set[int]()
        for seed in range(max(64, case.profile.examples)):
            found = Counter(int(i) for i in _train(objective, case, view, begin, seed)[1].id.reshape(-1))
            require(not found - allowed, f"items {dict(found - allowed)} are targets and should not be")
            seen |= set(found)
        require(not set(allowed) - seen, f"the items {sorted(set(allowed) - seen)} were never a target")

    for_all(case, _since(case), holds)
    return Evidence("what is predicted is drawn" if drawn else "exactly once, against a slow loop")


def _first(pairs: Counter[Pair]) -> Pair:
    return next(iter(pairs), (0, (), 0))


@states("objective", 2, "No target is visible to the row that predicts it.")
def check_no_target_in_context(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)

    def holds(view: View) -> None:
        inputs, targets = _train(objective, case, view)
        for row, item in zip(targets.where.tolist(), _ids(targets), strict=True):
            rows = list(_visible(inputs, row, case))
            tokens = view["token"][view["item"] == item]
            if not len(tokens):
                continue  # no event of these histories: sentence 9
            held = tokens[0].reshape(-1).tolist()
            token = _tokens(inputs, rows)
            width = len(held)
            there = any(list(token[at : at + width]) == held for at in range(0, len(token), width))
            require(not there, f"row {row} predicts item {int(item)} and sees its token: {token}")
            items = inputs["item"][rows].tolist()
            require(int(item) not in items, f"row {row} predicts item {int(item)} and sees the items {items}")

    for_all(
        case,
        histories(items=case.items, longest=case.profile.longest, columns=case.columns, distinct=True),
        holds,
    )
    return Evidence()


@states(
    "objective",
    3,
    "A query sees the same inputs as the training row that predicts what follows the same history; where "
    "pairs are drawn, the row that asks has the token of the rows that predict in training.",
)
def check_query_like_training(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)
    drawn = _random(objective, case)

    def holds(view: View) -> None:
        inputs, targets = _train(objective, case, view)
        if drawn:
            asked, where = objective.query(view)
            trained = {_tokens(inputs, [row]) for row in targets.where.tolist()}
            asking = {_tokens(asked, [row]) for row in where.tolist()}
            require(not trained or asking <= trained, f"queries ask from {asking}, training from {trained}")
            return
        for number, row in enumerate(targets.where.tolist()):
            seen = list(_visible(inputs, row, case))
            source = int(inputs.sequence[row])
            if inputs.index is not None and view.index is not None:
                source = int((view.index == inputs.index[source]).nonzero()[0])
            first, stop = int(view.offsets[source]), int(view.offsets[source + 1])
            places = (view["item"][first:stop] == _ids(targets)[number]).nonzero()
            at = first + (int(places[0]) if len(places) else 0)
            if at == first:
                continue  # nothing stands before it: sentences 1, 2 and 9
            asked, where = objective.query(view.cut(torch.tensor([first]), torch.tensor([at])))
            rows = list(_visible(asked, int(where[0]), case))
            for name in inputs.columns:
                mine, theirs = inputs[name][seen], asked[name][rows]
                alike = mine.shape == theirs.shape and torch.equal(mine.nan_to_num(), theirs.nan_to_num())
                require(
                    alike,
                    f"before item {int(_ids(targets)[number])} training sees the {name}s {mine.tolist()}, "
                    f"and a query after the same history {theirs.tolist()}",
                )

    for_all(
        case,
        histories(items=case.items, longest=min(5, case.items), columns=case.columns, distinct=True),
        holds,
    )
    return Evidence()


@states("objective", 4, "`target_from` is the first place of a history that may be a target.")
def check_target_from(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)

    def holds(view: View) -> None:
        for begin in range(int(view.lengths.max()) + 1):
            since = torch.full((len(view),), begin)
            items = view["item"][view.place >= begin].tolist()
            found = _train(objective, case, view, since)[1].id.reshape(-1).tolist()
            early = Counter(found) - Counter(items)
            require(
                not early, f"with targets from place {begin} the earlier items {sorted(early)} are targets"
            )

    for_all(
        case,
        histories(
            items=case.items, longest=case.profile.longest, columns=case.columns, distinct=True, most=1
        ),
        holds,
    )
    return Evidence()


@states(
    "objective",
    5,
    "Targets name rows of the inputs, items from 0 to V − 1, and finite weights that are not negative; an "
    "unknown item is never a target.",
)
def check_targets_valid(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)

    def holds(example: tuple[View, Tensor | None]) -> None:
        inputs, targets = _train(objective, case, *example)
        count = len(targets.where)
        require(
            len(targets.id) == count == len(targets.weight),
            f"{count} rows predict {len(targets.id)} items with {len(targets.weight)} weights",
        )
        where = targets.where
        require(
            bool(((where >= 0) & (where < inputs.events)).all()),
            f"rows {where.tolist()} of {inputs.events} input rows predict",
        )
        ids = targets.id
        require(
            bool(((ids >= 0) & (ids < case.items)).all()),
            f"items {ids.tolist()} are targets, V = {case.items}",
        )
        require(
            bool((targets.weight.isfinite() & (targets.weight >= 0)).all()),
            f"the weights are {targets.weight.tolist()}",
        )
        require(
            targets.time is None or len(targets.time) == count, f"{count} targets have other numbers of times"
        )

    for_all(case, _since(case), holds)
    return Evidence()


@states(
    "objective",
    6,
    "`reach(width)` is how many events of a history fit in `width` rows, in training and in a query: so many "
    "fit, and one more does not.",
)
def check_reach(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)

    def rows(count: int, width: int) -> tuple[int, int]:
        view = View(
            {
                "token": torch.arange(count) % 5 + 3,
                "item": torch.arange(count) % 5,
                "event": torch.arange(count),
            }
            | {name: torch.arange(count) for name in case.columns},
            torch.tensor([0, count]),
            index=torch.zeros(1, dtype=torch.int64),
        )
        trained, asked = _train(objective, case, view)[0], objective.query(view)[0]
        return int(trained.lengths.max()), int(asked.lengths.max())

    for width in (2, 3, 10, 50):
        reach = objective.reach(width)
        for which, name in ((0, "training"), (1, "query")):
            most = reach[which]
            fit = rows(most, width)[which]
            require(fit <= width, f"{most} events became {fit} {name} rows of {width}")
            more = rows(most + 1, width)[which]
            require(
                more > width, f"reach is {most} in {name}, but {most + 1} events take {more} rows of {width}"
            )
    return Evidence(
        f"in 50 rows: {objective.reach(50)[0]} events in training, {objective.reach(50)[1]} asked"
    )


@states("objective", 7, "The same generator gives the same pairs, and torch's own is left alone.")
def check_deterministic(part: Part[Any], case: Case) -> Evidence:
    one, other = _build(part, case), _build(part, case)

    def holds(view: View) -> None:
        before = torch.get_rng_state()
        pairs = _pairs(*_train(one, case, view), case)
        one.query(view)
        require(torch.equal(before, torch.get_rng_state()), "torch's default generator was advanced")
        _train(one, case, view, seed=1)
        require(pairs == _pairs(*_train(one, case, view), case), "the same generator gave other pairs")
        require(pairs == _pairs(*_train(other, case, view), case), "another object gave other pairs")

    for_all(case, histories(items=case.items, columns=case.columns), holds)
    return Evidence()


@states(
    "objective",
    8,
    "A query asks from one row of each history, in their order, also of a single event.",
)
def check_query_rows(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)

    def holds(view: View) -> None:
        asked, where = objective.query(view)
        require(len(where) == len(view), f"{len(view)} histories are asked about from {len(where)} rows")
        require(
            bool(((where >= 0) & (where < asked.events)).all()),
            f"rows {where.tolist()} of {asked.events} ask",
        )
        for b, row in enumerate(where.tolist()):
            rows = range(int(asked.offsets[asked.sequence[row]]), int(asked.offsets[asked.sequence[row] + 1]))
            mine = [int(e) for e in asked["event"][list(rows)] if e >= 0]
            theirs = view["event"][int(view.offsets[b]) : int(view.offsets[b + 1])].tolist()
            require(mine == theirs, f"history {b} of the events {theirs} is asked about as {mine}")

    for_all(case, histories(items=case.items, longest=4, columns=case.columns, unknown=True), holds)
    return Evidence()


@states(
    "objective",
    9,
    "Each target is an event of the history whose row predicts it, and a row of padding predicts nothing: there is "
    "nothing that follows it.",
)
def check_targets_of_own_history(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)
    pad = [special.id for special in case.tokenizer.specials if special.name == "pad"]

    def holds(view: View) -> None:
        index = view.index.tolist() if view.index is not None else list(range(len(view)))
        held = {
            owner: view["item"][int(view.offsets[b]) : int(view.offsets[b + 1])].tolist()
            for b, owner in enumerate(index)
        }
        inputs, targets = _train(objective, case, view)
        owners = inputs.index if inputs.index is not None else torch.arange(len(inputs))
        for row, item in zip(targets.where.tolist(), _ids(targets).tolist(), strict=True):
            owner = int(owners[inputs.sequence[row]])
            require(
                not set(_tokens(inputs, [row])) & set(pad),
                f"row {row} of the inputs is padding (token {_tokens(inputs, [row])[0]}) and predicts item {item}: the "
                "loss is counted on padding",
            )
            require(
                item in held[owner],
                f"row {row} of history {owner}, of the items {held[owner]}, predicts item {item}",
            )

    for_all(case, histories(items=case.items, longest=case.profile.longest, columns=case.columns), holds)
    return Evidence()


def _said(token: Context, case: Case) -> str:
    """A token, with its name where it is a special one."""
    names = {special.id: f"{special.id} ({special.name})" for special in case.tokenizer.specials}
    return "token " + ", ".join(names.get(one, str(one)) for one in token)


@states(
    "objective",
    10,
    "What stands beside a history changes nothing of what it predicts and is asked, in training and in a query.",
)
def check_neighbours(part: Part[Any], case: Case) -> Evidence:
    objective = _build(part, case)
    drawn = _random(objective, case)

    def asked(view: View, number: int) -> tuple[Context, Context]:
        inputs, where = objective.query(view)
        row = int(where[number])
        return _tokens(inputs, [row]), _tokens(inputs, _visible(inputs, row, case))

    def holds(view: View) -> None:
        index = view.index if view.index is not None else torch.arange(len(view))
        pairs = [] if drawn else _pairs(*_train(objective, case, view), case)
        for b in range(len(view)):
            alone = view.cut(view.offsets[b : b + 1], view.offsets[b + 1 : b + 2], index[b : b + 1])
            among, single = asked(view, b), asked(alone, 0)
            require(
                among == single,
                f"among histories of {view.lengths.tolist()} events history {int(index[b])} is asked from a row of "
                f"{_said(among[0], case)} that sees the tokens {among[1]}, and alone from one of "
                f"{_said(single[0], case)} that sees {single[1]}",
            )
            if drawn:
                continue
            mine = sorted(pair for pair in pairs if pair[0] == int(index[b]))
            theirs = sorted(_pairs(*_train(objective, case, alone), case))
            require(
                mine == theirs,
                f"among histories of {view.lengths.tolist()} events history {int(index[b])} trains on {mine}, alone "
                f"on {theirs} (history, tokens, item)",
            )

    for_all(case, histories(items=case.items, longest=4, columns=case.columns), holds)
    return Evidence("a query only: what is predicted is drawn" if drawn else "")
