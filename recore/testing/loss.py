"""Checks of losses: `docs/reference/contracts/loss.md` in executable form.

Legend: `N` predictions, `K` negatives, `V` items, `d` width. All in float64 unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import evolve, frozen
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recore.claims import LossClaims
from recore.component import Part
from recore.contracts.learning import Loss, LossValue, Negatives
from recore.contracts.model import Table
from recore.ragged import Targets
from recore.testing.cases import Case, largest, moved
from recore.testing.checks import Evidence, for_all, require, states

EXACT = 1e-9  # of the largest absolute value, in float64
DIFFERENCES = 1e-6  # what central differences in float64 leave


@frozen(eq=False)
class Scene:
    """Hidden states, targets, a table and draws."""

    hidden: Tensor
    targets: Targets
    table: Table
    negatives: Negatives | None

    def rows(self, rows: Tensor) -> Scene:
        """Of some predictions only."""
        drawn = self.negatives

        def some(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[rows]

        if drawn is not None:
            drawn = Negatives(
                drawn.items if drawn.items.dim() == 1 else drawn.items[rows],
                some(drawn.log_q),
                some(drawn.log_q_target),
                some(drawn.keep),
                some(drawn.log_weight),
                some(drawn.log_weight_target),
            )
        t = self.targets
        targets = Targets(torch.arange(len(rows)), t.id[rows], t.weight[rows])
        return Scene(self.hidden[rows], targets, self.table, drawn)


def _claims(part: Part[Any]) -> LossClaims:
    claims = part.claims
    return claims if isinstance(claims, LossClaims) else LossClaims()


def make_scene(
    part: Part[Any],
    random: torch.Generator,
    n: int,
    v: int = 12,
    d: int = 4,
    k: int = 5,
    retired: bool = False,
    shared: bool = False,
) -> Scene:
    """Random hidden states and table, some weights zero, and draws where the loss needs negatives."""
    claims = _claims(part)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    ids = torch.randint(v, (n,), generator=random)
    weight = torch.rand(n, generator=random, dtype=torch.float64).mul(2).round(decimals=2)
    gone = None
    if retired:
        gone = torch.rand(v, generator=random) < 0.3
        gone[ids] = False
    table = Table(normal(v, d), normal(v), gone)
    negatives = None
    if claims.negatives:
        items = torch.randint(v, (k,) if shared else (n, k), generator=random)
        keep = torch.rand(n, k, generator=random) < 0.8
        never = claims.correction == "partition"
        if never:
            keep &= items != ids[:, None]
        negatives = Negatives(
            items,
            normal(n, k) * 0.5,
            torch.full((n,), float("-inf"), dtype=torch.float64) if never else normal(n) * 0.5,
            keep,
            normal(n, k) * 0.5,
            normal(n) * 0.5,
        )
    return Scene(normal(n, d), Targets(torch.arange(n), ids, weight), table, negatives)


def _value(loss: Loss, scene: Scene) -> LossValue:
    return loss.loss(scene.hidden, scene.targets, scene.table, scene.negatives)


def _gradients(loss: Loss, scene: Scene) -> tuple[LossValue, list[Tensor]]:
    """The value, and the gradients of hidden states, item vectors and biases."""
    leaves = [scene.hidden.detach().clone().requires_grad_()]
    leaves.append(scene.table.weight.detach().clone().requires_grad_())
    bias = None
    if scene.table.bias is not None:
        bias = scene.table.bias.detach().clone().requires_grad_()
        leaves.append(bias)
    table = Table(leaves[1], bias, scene.table.retired)
    value = loss.loss(leaves[0], scene.targets, table, scene.negatives)
    found = torch.autograd.grad(value.total, leaves, allow_unused=True)
    value = evolve(value, total=value.total.detach(), weight=value.weight.detach())
    return value, [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def _build(part: Part[Any], case: Case) -> Loss:
    made: Loss = case.build(part)
    return made


def _seeds(case: Case) -> st.SearchStrategy[torch.Generator]:
    return st.integers(0, 2**16).map(lambda n: torch.Generator().manual_seed(n))


def _sizes() -> st.SearchStrategy[int]:
    return st.integers(1, 9)


def _near(found: float, wanted: float, bound: float, scale: float) -> bool:
    return abs(found - wanted) <= bound * max(scale, 1e-12)


def _name(place: int) -> str:
    return ("hidden states", "item vectors", "biases")[place]


@states(
    "loss",
    1,
    "The gradient is the derivative of the total: it agrees with float64 differences in every direction.",
)
def check_gradient(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)
    worst = [0.0]

    def holds(example: tuple[torch.Generator, int, bool]) -> None:
        random, n, shared = example
        scene = make_scene(part, random, n, retired=True, shared=shared)
        _, gradients = _gradients(loss, scene)
        scale = largest(*gradients)
        base = [scene.hidden, scene.table.weight, scene.table.bias]
        for place, gradient in enumerate(gradients):
            for _ in range(3):
                way = torch.randn(gradient.shape, generator=random, dtype=torch.float64)
                slope = _slope(loss, scene, base, place, way)
                said = float((gradient * way).sum())
                reach = scale * float(way.abs().sum())
                worst[0] = max(worst[0], abs(said - slope) / max(reach, 1e-12))
                require(
                    _near(said, slope, DIFFERENCES, reach),
                    f"with N = {n} the gradient of the {_name(place)} says {said:.6g} along a direction "
                    f"where the total grows by {slope:.6g}",
                )

    for_all(case, st.tuples(_seeds(case), _sizes(), st.booleans()), holds)
    return Evidence(f"at most {worst[0]:.1e} of the largest gradient")


def _slope(loss: Loss, scene: Scene, base: list[Tensor | None], place: int, way: Tensor) -> float:
    """The derivative along `way`: central differences, with Richardson's step."""

    def at(step: float) -> float:
        pieces = list(base)
        given = pieces[place]
        assert given is not None
        pieces[place] = given + step * way
        hidden, weight, bias = pieces
        assert hidden is not None
        assert weight is not None
        table = Table(weight, bias, scene.table.retired)
        return float(loss.loss(hidden, scene.targets, table, scene.negatives).total)

    def central(step: float) -> float:
        return (at(step) - at(-step)) / (2 * step)

    return (4 * central(5e-5) - central(1e-4)) / 3


@states("loss", 2, "The order of the predictions changes nothing.")
def check_permutation(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)

    def holds(example: tuple[torch.Generator, int]) -> None:
        random, n = example
        scene = make_scene(part, random, n)
        order = torch.randperm(n, generator=random)
        value, gradients = _gradients(loss, scene)
        other, others = _gradients(loss, scene.rows(order))
        one, two = float(value.total), float(other.total)
        require(_near(one, two, EXACT, abs(one)), f"N = {n}: the total {one:.9g} became {two:.9g}")
        gap = max(moved(gradients[0][order], others[0]), *map(moved, gradients[1:], others[1:]))
        require(
            gap <= EXACT * largest(*gradients),
            f"N = {n}: gradients up to {largest(*gradients):.3g} moved by {gap:.3g}",
        )

    for_all(case, st.tuples(_seeds(case), _sizes()), holds)
    return Evidence()


@states(
    "loss", 3, "Total, weight and gradient are linear in the weights of the targets; weight 0 counts nothing."
)
def check_linear_in_weights(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)

    def holds(example: tuple[torch.Generator, int]) -> None:
        random, n = example
        scene = make_scene(part, random, n)
        one = torch.rand(n, generator=random, dtype=torch.float64)
        two = torch.rand(n, generator=random, dtype=torch.float64)
        one[0] = two[0] = 0.0
        results = [
            _gradients(loss, evolve(scene, targets=evolve(scene.targets, weight=w)))
            for w in (one, two, one + 3 * two)
        ]
        for what, values in (
            ("total", [float(value.total) for value, _ in results]),
            ("weight", [float(value.weight) for value, _ in results]),
        ):
            wanted = values[0] + 3 * values[1]
            require(
                _near(values[2], wanted, EXACT, abs(wanted)),
                f"N = {n}: with weights w + 3 u the {what} is {values[2]:.9g}, of w and u it is "
                f"{values[0]:.9g} and {values[1]:.9g}",
            )
        for place, gradient in enumerate(results[2][1]):
            wanted_gradient = results[0][1][place] + 3 * results[1][1][place]
            gap = moved(wanted_gradient, gradient)
            require(
                gap <= EXACT * largest(*results[2][1]),
                f"N = {n}: the gradient of the {_name(place)} is off by {gap:.3g} with weights w + 3 u",
            )
        lost = largest(results[2][1][0][0])
        require(lost == 0, f"a prediction of weight 0 has a gradient of {lost:.3g}")

    for_all(case, st.tuples(_seeds(case), _sizes()), holds)
    return Evidence()


@states(
    "loss", 4, "No predictions give a total of 0 and a weight of 0, and a backward pass without a gradient."
)
def check_no_predictions(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)
    scene = make_scene(part, case.generator("none"), 0)
    hidden = scene.hidden.requires_grad_()
    weight = scene.table.weight.requires_grad_()
    value = loss.loss(hidden, scene.targets, Table(weight, scene.table.bias), scene.negatives)
    total = float(value.total.detach())
    require(total == 0, f"the total is {total}")
    require(float(value.weight) == 0, f"the weight is {float(value.weight)}")
    if value.total.requires_grad:
        value.total.backward()  # type: ignore[no-untyped-call]
    found = 0.0 if weight.grad is None else largest(weight.grad)
    require(
        found == 0 and (weight.grad is None or bool(weight.grad.isfinite().all())), f"a gradient of {found}"
    )
    return Evidence()


@states(
    "loss", 5, "The value is a sum, never a mean: pieces of a batch add up to the whole, whatever their size."
)
def check_sum(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)

    def holds(example: tuple[torch.Generator, int, int]) -> None:
        random, n, cut = example
        _adds_up(loss, make_scene(part, random, n + cut), [n])

    for_all(case, st.tuples(_seeds(case), _sizes(), _sizes()), holds)
    return Evidence()


def _adds_up(loss: Loss, scene: Scene, cuts: list[int]) -> None:
    n = len(scene.targets)
    value, gradients = _gradients(loss, scene)
    pieces = [_gradients(loss, scene.rows(rows)) for rows in torch.arange(n).tensor_split(cuts) if len(rows)]
    for what in ("total", "weight"):
        whole = float(getattr(value, what))
        added = sum(float(getattr(piece, what)) for piece, _ in pieces)
        require(
            _near(whole, added, EXACT, abs(added)),
            f"the {what} of {n} predictions is {whole:.9g}, of {len(pieces)} pieces together {added:.9g}",
        )
    for place, gradient in enumerate(gradients):
        parts = [found[place] for _, found in pieces]
        added_gradient = torch.cat(parts) if place == 0 else torch.stack(parts).sum(0)
        gap = moved(added_gradient, gradient)
        require(
            gap <= EXACT * largest(*gradients),
            f"the gradient of the {_name(place)} of {n} predictions is off by {gap:.3g} of "
            f"{largest(*gradients):.3g} from {len(pieces)} pieces together",
        )


@states(
    "loss",
    6,
    "Blocks inside change nothing: a large batch over a large table equals the sum of small ones.",
)
def check_blocks(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)
    random = case.generator("blocks")
    for n, v in ((1_500, 12), (70, 1_100), (1_025, 513)):
        scene = make_scene(part, random, n, v=v, retired=True)
        _adds_up(loss, scene, list(range(37, n, max(37, n // 6))))
    return Evidence("up to 1,500 predictions and 1,100 items")


@states("loss", 7, "`weight(targets)` is the weight that the loss reports, without a forward pass.")
def check_weight(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)

    def holds(example: tuple[torch.Generator, int]) -> None:
        random, n = example
        scene = make_scene(part, random, n)
        said, found = float(loss.weight(scene.targets)), float(_value(loss, scene).weight)
        require(
            _near(said, found, EXACT, abs(said)), f"`weight` says {said:.9g}, the loss reports {found:.9g}"
        )

    for_all(case, st.tuples(_seeds(case), _sizes()), holds)
    return Evidence()


@states("loss", 8, "Retired rows are no candidates: what stands in them changes nothing.")
def check_retired(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)
    if _claims(part).negatives:
        return Evidence("candidates are what the sampler draws", claimed=False)

    def holds(example: tuple[torch.Generator, int]) -> None:
        random, n = example
        scene = make_scene(part, random, n, retired=True)
        gone = scene.table.retired
        assert gone is not None
        weight = torch.where(gone[:, None], scene.table.weight * 3 + 1, scene.table.weight)
        one, found = _gradients(loss, scene)
        two, others = _gradients(loss, evolve(scene, table=Table(weight, scene.table.bias, gone)))
        require(
            _near(float(two.total), float(one.total), EXACT, abs(float(one.total))),
            f"the total was {float(one.total):.9g} and is {float(two.total):.9g} after retired rows changed",
        )
        gap = max(map(moved, found[:1], others[:1]))
        require(gap <= EXACT * largest(*found), f"gradients of hidden states moved by {gap:.3g}")
        left = largest(found[1][gone])
        require(left == 0, f"retired rows have a gradient of {left:.3g}")

    for_all(case, st.tuples(_seeds(case), _sizes()), holds)
    return Evidence()


def _needs_draws(part: Part[Any]) -> bool:
    return _claims(part).negatives


@states("loss", 9, "A draw whose `keep` is False is no candidate: which item it is changes nothing.")
def check_keep(part: Part[Any], case: Case) -> Evidence:
    if not _needs_draws(part):
        return Evidence("no negatives are needed", claimed=False)
    loss = _build(part, case)

    def holds(example: tuple[torch.Generator, int]) -> None:
        random, n = example
        scene = make_scene(part, random, n)
        drawn = scene.negatives
        assert drawn is not None
        assert drawn.keep is not None
        assert drawn.log_q is not None
        v = len(scene.table.weight)
        other = torch.where(drawn.keep, drawn.items, (drawn.items + 1) % v)
        q = torch.where(drawn.keep, drawn.log_q, drawn.log_q + 2)
        one, found = _gradients(loss, scene)
        two, others = _gradients(loss, evolve(scene, negatives=evolve(drawn, items=other, log_q=q)))
        gap = max(map(moved, found, others))
        require(
            _near(float(two.total), float(one.total), EXACT, abs(float(one.total)))
            and gap <= EXACT * largest(*found),
            f"the total was {float(one.total):.9g} and is {float(two.total):.9g} after draws that are not "
            "kept became other items",
        )

    for_all(case, st.tuples(_seeds(case), _sizes()), holds)
    return Evidence()


def _with(scene: Scene, change: Callable[[Negatives], Negatives]) -> Scene:
    assert scene.negatives is not None
    return evolve(scene, negatives=change(scene.negatives))


@states(
    "loss",
    10,
    "`log_q` is subtracted and `log_weight` added where a correction is claimed: `symmetric` on draws and "
    "target, `partition` on draws alone; without one neither changes anything.",
)
def check_correction(part: Part[Any], case: Case) -> Evidence:
    claims, loss = _claims(part), _build(part, case)
    if not claims.negatives:
        return Evidence("no negatives are needed", claimed=False)

    def shift(
        q: float = 0.0, w: float = 0.0, own_q: float = 0.0, own_w: float = 0.0
    ) -> Callable[[Negatives], Negatives]:
        def changed(drawn: Negatives) -> Negatives:
            return Negatives(
                drawn.items,
                None if drawn.log_q is None else drawn.log_q + q,
                None if drawn.log_q_target is None else drawn.log_q_target + own_q,
                drawn.keep,
                None if drawn.log_weight is None else drawn.log_weight + w,
                None if drawn.log_weight_target is None else drawn.log_weight_target + own_w,
            )

        return changed

    def holds(example: tuple[torch.Generator, int]) -> None:
        random, n = example
        scene = make_scene(part, random, n)
        # A row none of whose draws is kept has nothing to correct.
        scene = evolve(scene, targets=evolve(scene.targets, weight=torch.ones(n, dtype=torch.float64)))
        drawn = scene.negatives
        assert drawn is not None
        assert drawn.keep is not None
        drawn.keep[:, 0] = True
        base = float(_value(loss, scene).total)

        def total(**by: float) -> float:
            return float(_value(loss, _with(scene, shift(**by))).total)

        if claims.correction == "none":
            for by in ("q", "w", "own_q", "own_w"):
                found = total(**{by: 0.7})
                require(
                    _near(found, base, EXACT, abs(base)),
                    f"with 0.7 added to {_SHIFTS[by]} the total {base:.9g} became {found:.9g}, and no "
                    "correction is claimed",
                )
            return
        both = total(q=0.7, w=0.7, own_q=0.7, own_w=0.7)
        require(
            _near(both, base, EXACT, abs(base)),
            f"with 0.7 added to log_q and to log_weight the total {base:.9g} became {both:.9g}: one of them "
            "does not enter as −log_q + log_weight",
        )
        up, down = total(w=0.7), total(q=-0.7)
        require(
            _near(up, down, EXACT, abs(up)) and abs(up - base) > 1e-6,
            f"0.7 more log_weight on draws gives {up:.9g}, 0.7 less log_q {down:.9g}, none {base:.9g}",
        )
        if claims.correction == "symmetric":
            up, down = total(own_w=0.7), total(own_q=-0.7)
            require(
                _near(up, down, EXACT, abs(up)) and abs(up - base) > 1e-6,
                f"0.7 more log_weight on targets gives {up:.9g}, 0.7 less log_q {down:.9g}, none {base:.9g}",
            )

    for_all(case, st.tuples(_seeds(case), _sizes()), holds)
    return Evidence(f"correction: {claims.correction}")


_SHIFTS = {
    "q": "log_q of draws",
    "w": "log_weight of draws",
    "own_q": "log_q of targets",
    "own_w": "log_weight of targets",
}


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Watches the size of every tensor that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                held = tensor.untyped_storage().nbytes() // max(1, tensor.element_size())
                self.most = max(self.most, held)
        return made


@states(
    "loss",
    11,
    "Memory is as stated: `blocks` and `negatives` never hold N × V numbers, forward or backward.",
)
def check_memory(part: Part[Any], case: Case) -> Evidence:
    claims, loss = _claims(part), _build(part, case)
    n, v, d, k = (4_096, 256, 4, 5) if claims.memory == "blocks" else (512, 4_096, 4, 5)
    scene = make_scene(part, case.generator("memory"), n, v=v, d=d, k=k)
    with _Largest() as watched:
        _gradients(loss, scene)
    said = f"the largest tensor has {watched.most:,} numbers with N = {n:,}, V = {v:,}: N · V = {n * v:,}"
    if claims.memory == "full":
        return Evidence(said, claimed=False)
    most = n * v // 2 if claims.memory == "blocks" else max(n * k * d, v * d) * 2
    require(watched.most <= most, f"{said}, and memory `{claims.memory}` is claimed")
    return Evidence(said)


@states("loss", 12, "In float32 the value and the gradient are those of float64, within a scaled bound.")
def check_float32(part: Part[Any], case: Case) -> Evidence:
    loss = _build(part, case)
    worst = [0.0]

    def narrow(value: Tensor | None) -> Tensor | None:
        return value.float() if value is not None and value.is_floating_point() else value

    def holds(example: tuple[torch.Generator, int]) -> None:
        random, n = example
        scene = make_scene(part, random, n)
        drawn = scene.negatives
        if drawn is not None:
            drawn = Negatives(
                drawn.items,
                narrow(drawn.log_q),
                narrow(drawn.log_q_target),
                drawn.keep,
                narrow(drawn.log_weight),
                narrow(drawn.log_weight_target),
            )
        table = Table(scene.table.weight.float(), narrow(scene.table.bias))
        targets = evolve(scene.targets, weight=scene.targets.weight.float())
        value, gradients = _gradients(loss, scene)
        small, smalls = _gradients(loss, Scene(scene.hidden.float(), targets, table, drawn))
        one, two = float(value.total), float(small.total)
        gap = max(map(moved, gradients, smalls)) / max(largest(*gradients), 1e-6)
        off = abs(one - two) / max(abs(one), 1e-6)
        worst[0] = max(worst[0], gap, off)
        require(
            max(gap, off) < 1e-4,
            f"the total is {one:.6g} in float64 and {two:.6g} in float32; gradients off by {gap:.1e}",
        )

    for_all(case, st.tuples(_seeds(case), _sizes()), holds)
    return Evidence(f"at most {worst[0]:.1e}")


@states(
    "loss",
    13,
    "Where `shift_invariant` is claimed, the same number added to the scores of all items changes nothing: what is "
    "compared are the items, and nothing beside them has a score, such as a class for padding.",
)
def check_shift(part: Part[Any], case: Case) -> Evidence:
    loss, claimed = _build(part, case), _claims(part).shift_invariant
    worst = [0.0]

    def holds(example: tuple[torch.Generator, int, float]) -> None:
        random, n, by = example
        scene = make_scene(part, random, n, retired=True)
        bias = scene.table.bias
        assert bias is not None
        one, found = _gradients(loss, scene)
        two, others = _gradients(loss, evolve(scene, table=evolve(scene.table, bias=bias + by)))
        before, after = float(one.total), float(two.total)
        gap = max(map(moved, found, others)) / max(1.0, largest(*found))
        worst[0] = max(worst[0], gap, abs(after - before) / max(abs(before), 1.0))
        require(
            not claimed or worst[0] <= EXACT,
            f"with {by:g} added to the score of every item the total {before:.9g} became {after:.9g} and gradients "
            f"moved by {gap:.3g}, as if something beside the items had a score that stayed where it was, such as a "
            "class for padding",
        )

    for_all(case, st.tuples(_seeds(case), _sizes(), st.sampled_from((-3.0, 0.5, 5.0))), holds)
    if claimed:
        return Evidence()
    hint = "; it could be claimed" if worst[0] <= EXACT else ""
    return Evidence(
        f"the total and gradients moved by up to {worst[0]:.1e} of themselves{hint}", claimed=False
    )
