"""Checks of samplers: `docs/reference/contracts/sampler.md` in executable form.

Legend: `N` predictions, `K` negatives, `V` items. Counts are held against `log_q` within six standard errors;
the same seed counts the same draws, so that nothing here fails by chance from one day to the next.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from recore.claims import SamplerClaims
from recore.component import Part
from recore.contracts.learning import Negatives, Sampler, StepModel
from recore.contracts.model import Table
from recore.histories import tokenise
from recore.ragged import Batch, Targets
from recore.testing.cases import Case
from recore.testing.checks import Evidence, broken, require, states

SIGMAS = 6.0


@frozen(eq=False)
class Scores:
    """A model within a step: hidden states `(N, d)` and a table that scores."""

    hidden: Tensor
    table: Table

    def score(self, ids: Tensor) -> Tensor:
        """`(N, K)`."""
        return self.table.score(self.hidden, ids)

    def top_k(self, k: int) -> Tensor:
        """`(N, k)`."""
        return (self.hidden @ self.table.weight.T).topk(k).indices


@frozen(eq=False)
class Scene:
    """A batch of the case's own histories, in which each row predicts the item after it; item ids of each
    row's history; a model."""

    batch: Batch
    targets: Targets
    history: list[set[int]]
    model: StepModel


def _scene(case: Case) -> Scene:
    log = case.interactions
    every = tokenise(log.events, log.offsets(), case.tokenizer, case.columns)
    index = torch.tensor([5, 0, 7])
    view = every.cut(every.offsets[index], every.offsets[index + 1], index)
    where = ((view.place + 1) < view.lengths[view.sequence]).nonzero().squeeze(-1)
    ids = view["item"][where + 1]
    time = view["time"][where + 1] if "time" in view.columns else None
    targets = Targets(where, ids, torch.ones(len(where)), time=time)
    random = case.generator("scene")
    hidden = torch.randn(len(where), case.width, generator=random)
    table = Table(torch.randn(case.items, case.width, generator=random))
    owners = view.index[view.sequence[where]].tolist() if view.index is not None else []
    history = [set(case.seen[int(owner)].tolist()) for owner in owners]
    return Scene(Batch({"user": view}, targets), targets, history, Scores(hidden, table))


def _claims(part: Part[Any]) -> SamplerClaims:
    claims = part.claims
    return claims if isinstance(claims, SamplerClaims) else SamplerClaims()


def _draw(sampler: Sampler, case: Case, scene: Scene, seed: int = 0) -> Negatives:
    with torch.no_grad():
        return sampler.draw(scene.batch, scene.model, case.generator("negatives", seed))


def _kept(drawn: Negatives, rows: int) -> tuple[Tensor, Tensor]:
    """Items and whether they are candidates, both `(N, K)`."""
    items = drawn.items.expand(rows, -1) if drawn.items.dim() == 1 else drawn.items
    keep = torch.ones_like(items, dtype=torch.bool) if drawn.keep is None else drawn.keep.expand(items.shape)
    return items, keep


def _excluded(scene: Scene, exclude: str) -> list[set[int]]:
    if exclude == "target":
        return [{item} for item in scene.targets.id.tolist()]
    return scene.history if exclude == "history" else [set() for _ in scene.history]


def _forbidden(scene: Scene, exclude: str, items: int) -> Tensor:
    """`(N, V)`, True where an item is never drawn."""
    table = torch.zeros(len(scene.history), items, dtype=torch.bool)
    for row, ids in enumerate(_excluded(scene, exclude)):
        table[row, list(ids)] = True
    return table


@states("sampler", 1, "Draws are items, from 0 to V − 1 and never a special row.")
def check_items_only(part: Part[Any], case: Case) -> Evidence:
    sampler, scene = case.build(part), _scene(case)
    for seed in range(50):
        drawn = _draw(sampler, case, scene, seed).items
        require(not drawn.is_floating_point(), f"draws are {drawn.dtype}")
        require(
            bool(((drawn >= 0) & (drawn < case.items)).all()),
            f"draws run from {int(drawn.min())} to {int(drawn.max())}, V = {case.items}",
        )
    return Evidence()


@states(
    "sampler",
    2,
    "`items` are `(K,)` or `(N, K)`, with the same K each time; all else is broadcastable to `(N, K)`, and "
    "of targets to `(N,)`.",
)
def check_shapes(part: Part[Any], case: Case) -> Evidence:
    sampler, scene = case.build(part), _scene(case)
    rows = len(scene.targets)
    first = _draw(sampler, case, scene)
    for seed in range(5):
        drawn = _draw(sampler, case, scene, seed)
        shape = tuple(drawn.items.shape)
        require(len(shape) == 1 or (len(shape) == 2 and shape[0] == rows), f"`items` are {shape}, N = {rows}")
        require(shape == tuple(first.items.shape), f"`items` were {tuple(first.items.shape)}, then {shape}")
        for name in ("keep", "log_q", "log_weight", "log_q_target", "log_weight_target"):
            value = getattr(drawn, name)
            wide = (rows,) if name.endswith("target") else (rows, shape[-1])
            if value is not None:
                try:
                    torch.broadcast_to(value, wide)
                except RuntimeError:
                    require(False, f"`{name}` is {tuple(value.shape)} and does not fit {wide}")
    shared = "shared by the batch" if first.items.dim() == 1 else "each prediction its own"
    return Evidence(f"K = {first.items.shape[-1]}, {shared}")


@states(
    "sampler",
    3,
    "What is excluded is never a candidate: `target` the item to be predicted, `history` every item of the "
    "user's training history; with `none` the user's own items are drawn like others.",
)
def check_exclusion(part: Part[Any], case: Case) -> Evidence:
    sampler, scene, claims = case.build(part), _scene(case), _claims(part)
    rows, excluded = len(scene.targets), _excluded(scene, claims.exclude)
    own = 0
    for seed in range(case.profile.draws // 5):
        items, keep = _kept(_draw(sampler, case, scene, seed), rows)
        for row in range(rows):
            drawn = set(items[row][keep[row]].tolist())
            bad = drawn & excluded[row]
            require(
                not bad,
                f"draw {seed} for prediction {row} holds {sorted(bad)}, excluded by `{claims.exclude}`: "
                f"{sorted(excluded[row])}",
            )
            own += len(drawn & scene.history[row])
    if claims.exclude == "none":
        require(own > 0, f"in {case.profile.draws // 5} draws no item of the user's own came, as if excluded")
    return Evidence(
        f"exclude: {claims.exclude}; {own} of the user's own items in {case.profile.draws // 5} draws"
    )


@states(
    "sampler", 4, "The same generator gives the same draws, another gives others; torch's own is left alone."
)
def check_deterministic(part: Part[Any], case: Case) -> Evidence:
    scene = _scene(case)
    one, other = case.build(part), case.build(part)
    before = torch.get_rng_state()
    drawn = _draw(one, case, scene)
    require(torch.equal(before, torch.get_rng_state()), "torch's default generator was advanced")
    varied = [_draw(one, case, scene, seed).items for seed in range(1, 20)]
    for name, again in (
        ("asked twice", _draw(one, case, scene)),
        ("by a fresh object", _draw(other, case, scene)),
    ):
        require(
            torch.equal(drawn.items, again.items),
            f"{name}: {drawn.items[:2].tolist()} became {again.items[:2].tolist()}",
        )
    if all(torch.equal(drawn.items, items) for items in varied):
        return Evidence("the draws follow from the batch alone: 20 generators gave the same")
    return Evidence()


@states("sampler", 5, "The `log_q` of a draw and of a target is what `log_q(batch, items)` says of it.")
def check_log_q_agrees(part: Part[Any], case: Case) -> Evidence:
    sampler, scene, claims = case.build(part), _scene(case), _claims(part)
    if claims.log_q == "none":
        return Evidence("log_q: none", claimed=False)
    rows = len(scene.targets)
    for seed in range(10):
        drawn = _draw(sampler, case, scene, seed)
        items, keep = _kept(drawn, rows)
        said = torch.broadcast_to(_there(drawn.log_q, "log_q", claims), items.shape).double()
        asked = torch.broadcast_to(sampler.log_q(scene.batch, drawn.items), items.shape).double()
        require(bool(said[keep].isfinite().all()), f"a kept draw has log_q {said[keep].min()}")
        gap = (said - asked)[keep].abs()
        require(
            not len(gap) or float(gap.max()) < 1e-5,
            f"a draw has log_q {float(said[keep][gap.argmax()]):.5f}, `log_q()` says "
            f"{float(asked[keep][gap.argmax()]):.5f}"
            if len(gap)
            else "",
        )
        mine = torch.broadcast_to(_there(drawn.log_q_target, "log_q_target", claims), (rows,)).double()
        theirs = sampler.log_q(scene.batch, scene.targets.id[:, None])
        theirs = torch.broadcast_to(theirs, (rows, 1))[:, 0].double()
        same = (mine == theirs) | ((mine - theirs).abs() < 1e-5)
        require(
            bool(same.all()),
            f"targets {scene.targets.id.tolist()} have log_q {_round(mine)}, `log_q()` says {_round(theirs)}",
        )
    return Evidence()


def _there(value: Tensor | None, name: str, claims: SamplerClaims) -> Tensor:
    if value is None:
        broken(f"`{name}` is None, and log_q: {claims.log_q} is claimed")
    return value


def _round(values: Tensor) -> list[float]:
    return [round(float(v), 3) for v in values]


def _all_log_q(sampler: Sampler, case: Case, scene: Scene) -> Tensor:
    """`log_q (N, V)` of every item."""
    said = sampler.log_q(scene.batch, torch.arange(case.items))
    return torch.broadcast_to(said, (len(scene.targets), case.items)).double()


@frozen(eq=False)
class Counted:
    """How often each item was a candidate, per draw: the mean `(N, V)`, its `variance`, the variance `together (V,)`
    of all predictions' sum, and the `draws`."""

    mean: Tensor
    variance: Tensor
    together: Tensor
    draws: int


def _counts(sampler: Sampler, case: Case, scene: Scene) -> Counted:
    rows, draws = len(scene.targets), case.profile.draws
    total = torch.zeros(rows, case.items, dtype=torch.float64)
    square = torch.zeros_like(total)
    pooled = torch.zeros(case.items, dtype=torch.float64)
    for seed in range(draws):
        items, keep = _kept(_draw(sampler, case, scene, seed), rows)
        once = torch.zeros_like(total).scatter_add_(1, items, keep.double())
        total += once
        square += once * once
        pooled += once.sum(0) ** 2
    mean = total / draws
    variance = (square / draws - mean * mean).clamp(min=0)
    return Counted(mean, variance, (pooled / draws - mean.sum(0) ** 2).clamp(min=0), draws)


@states(
    "sampler",
    6,
    "With `exact`, each item is among the K draws of a prediction exp(log_q) times on average; with "
    "`two-phase`, its count times exp(−log_q) averages 1. Items that are not excluded can all be drawn.",
)
def check_frequencies(part: Part[Any], case: Case) -> Evidence:
    sampler, scene, claims = case.build(part), _scene(case), _claims(part)
    if claims.log_q not in ("exact", "two-phase"):
        return Evidence(f"log_q: {claims.log_q}", claimed=False)
    never = _forbidden(scene, claims.exclude, case.items)
    if claims.log_q == "two-phase":
        return _two_phase(sampler, case, scene, never, claims)
    said = _all_log_q(sampler, case, scene)
    counted = _counts(sampler, case, scene)
    mean, variance, draws = counted.mean, counted.variance, counted.draws
    expected = torch.where(never, torch.zeros_like(said), said.exp())
    error = (torch.maximum(variance, expected) / draws).sqrt()
    gap = (mean - expected).abs() / error.clamp(min=1e-12)
    row, item = divmod(int(gap.argmax()), case.items)
    require(
        float(gap.max()) <= SIGMAS,
        f"for prediction {row} item {item} was drawn {float(mean[row, item]):.4f} times a draw over {draws} "
        f"draws, and exp(log_q) is {float(expected[row, item]):.4f}: {float(gap.max()):.1f} standard errors",
    )
    # Each item alone leaves room; all predictions together leave less, where they do not draw in common.
    pooled, wanted = mean.sum(0), expected.sum(0)
    spread = (torch.maximum(counted.together, wanted) / draws).sqrt()
    off = (pooled - wanted).abs() / spread.clamp(min=1e-12)
    require(
        float(off.max()) <= SIGMAS,
        f"item {int(off.argmax())} was drawn {float(pooled[off.argmax()]):.4f} times a draw over all "
        f"predictions, and exp(log_q) sums to {float(wanted[off.argmax()]):.4f}",
    )
    return Evidence(f"{draws} draws; at most {float(gap.max()):.1f} standard errors off")


def _two_phase(sampler: Sampler, case: Case, scene: Scene, never: Tensor, claims: SamplerClaims) -> Evidence:
    rows, draws = len(scene.targets), case.profile.draws
    total = torch.zeros(rows, case.items, dtype=torch.float64)
    square = torch.zeros_like(total)
    for seed in range(draws):
        drawn = _draw(sampler, case, scene, seed)
        items, keep = _kept(drawn, rows)
        log_q = torch.broadcast_to(_there(drawn.log_q, "log_q", claims), items.shape).double()
        weight = torch.where(keep, (-log_q).exp(), 0.0)
        once = torch.zeros_like(total).scatter_add_(1, items, weight)
        total += once
        square += once * once
    mean = total / draws
    error = ((square / draws - mean * mean).clamp(min=1e-12) / draws).sqrt()
    gap = torch.where(never, torch.zeros_like(mean), (mean - 1).abs() / error)
    row, item = divmod(int(gap.argmax()), case.items)
    require(
        float(gap.max()) <= SIGMAS,
        f"for prediction {row} count · exp(−log_q) of item {item} averages {float(mean[row, item]):.4f} over "
        f"{draws} draws: {float(gap.max()):.1f} standard errors from 1",
    )
    return Evidence(f"two-phase; {draws} draws, at most {float(gap.max()):.1f} standard errors off")


@states(
    "sampler",
    7,
    "With `exact`, exp(log_q) over all items that are not excluded sums to the number of candidates: K where "
    "every draw is kept.",
)
def check_sums_to_k(part: Part[Any], case: Case) -> Evidence:
    sampler, scene, claims = case.build(part), _scene(case), _claims(part)
    if claims.log_q != "exact":
        return Evidence(f"log_q: {claims.log_q}", claimed=False)
    rows = len(scene.targets)
    never = _forbidden(scene, claims.exclude, case.items)
    said = _all_log_q(sampler, case, scene).masked_fill(never, float("-inf")).exp().sum(-1)
    first = _draw(sampler, case, scene)
    if first.keep is None:
        k = first.items.shape[-1]
        worst = int((said - k).abs().argmax())
        require(
            float((said - k).abs().max()) < 1e-4 * k,
            f"for prediction {worst} exp(log_q) sums to {float(said[worst]):.5f}, and K = {k}",
        )
        return Evidence(f"K = {k}")
    draws = max(200, case.profile.draws // 2)
    held = torch.stack(
        [_kept(_draw(sampler, case, scene, seed), rows)[1].sum(-1).double() for seed in range(draws)]
    )
    error = (held.var(0).clamp(min=1e-4) / draws).sqrt()
    gap = (held.mean(0) - said).abs() / error
    worst = int(gap.argmax())
    require(
        float(gap.max()) <= SIGMAS,
        f"for prediction {worst} exp(log_q) sums to {float(said[worst]):.4f}, and "
        f"{float(held.mean(0)[worst]):.4f} draws are kept on average"
        + (": some draw no item, such as padding" if held.mean(0)[worst] < said[worst] else ""),
    )
    return Evidence(f"{float(held.mean()):.2f} of {first.items.shape[-1]} draws kept on average")


@states(
    "sampler",
    8,
    "`log_q` of a target is finite where targets may be drawn, and −inf where they are excluded.",
)
def check_log_q_of_targets(part: Part[Any], case: Case) -> Evidence:
    sampler, scene, claims = case.build(part), _scene(case), _claims(part)
    if claims.log_q == "none":
        return Evidence("log_q: none", claimed=False)
    said = _there(_draw(sampler, case, scene).log_q_target, "log_q_target", claims)
    values = torch.broadcast_to(said, (len(scene.targets),))
    if claims.exclude == "none":
        if claims.log_q == "exact":
            require(
                bool(values.isfinite().all()), f"log_q of targets is {_round(values)} and none is excluded"
            )
        return Evidence()
    require(
        bool((values == float("-inf")).all()),
        f"log_q of targets is {_round(values)}, and `{claims.exclude}` excludes them",
    )
    return Evidence("−inf: a symmetric correction is not possible")


@states(
    "sampler",
    9,
    "A saved state gives the draws that the sampler itself would have given, also after observing steps.",
)
def check_state(part: Part[Any], case: Case) -> Evidence:
    scene = _scene(case)
    sampler, fresh = case.build(part), case.build(part)
    with torch.no_grad():
        for _ in range(3):
            sampler.observe(scene.batch, scene.model)
    fresh.load_state_dict(sampler.state_dict())
    for seed in range(5):
        mine, theirs = _draw(sampler, case, scene, seed), _draw(fresh, case, scene, seed)
        require(
            torch.equal(mine.items, theirs.items),
            f"after three steps and a reload the draws are {theirs.items[:1].tolist()}, they would have been "
            f"{mine.items[:1].tolist()}",
        )
        one, two = mine.log_q, theirs.log_q
        require(
            (one is None and two is None) or (one is not None and two is not None and torch.equal(one, two)),
            "after three steps and a reload `log_q` differs",
        )
    return Evidence("state: " + (", ".join(sorted(sampler.state_dict())) or "none"))


@states("sampler", 10, "A batch without predictions gives draws for none, and does not fail.")
def check_no_predictions(part: Part[Any], case: Case) -> Evidence:
    sampler, scene = case.build(part), _scene(case)
    none = Targets(scene.targets.where[:0], scene.targets.id[:0], scene.targets.weight[:0])
    table = Table(torch.ones(case.items, case.width))
    drawn = sampler.draw(
        Batch(scene.batch.views, none), Scores(torch.ones(0, case.width), table), case.generator("none")
    )
    rows = drawn.items.shape[0] if drawn.items.dim() == 2 else 0
    require(rows == 0, f"without predictions {rows} rows of draws came")
    return Evidence()
