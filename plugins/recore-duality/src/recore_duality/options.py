"""What a recipe may set, and what each part promises. Free of torch and polars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs
from attrs import frozen
from recore_training.options import Standard

from recore import Costs, Facts, Load, LossClaims, Part, option
from recore.builtin import History, Sequential
from recore.contracts import Embedder, Encoder, Objective, Position
from recore.costs import linear

Metric = Literal["ndcg", "hr", "mrr"]


class _From:
    """A validator: a whole number from `low`."""

    def __init__(self, low: int) -> None:
        self.low = low

    def __call__(self, instance: object, attribute: Any, value: int) -> None:
        if value < self.low:
            raise ValueError(f"expected a whole number from {self.low}, got {value}")


def _bounded(instance: object, attribute: Any, value: History) -> None:
    if value.last == "all":
        raise ValueError("expected at least 2 users, got `all`: a popular item's users are too many to read")


@frozen
class ItemView:
    """An item as the encoded sequence of its users: the parts of the view `item`."""

    view: ClassVar[str] = "item"

    objective: Part[Objective] = option(help="What is predicted from an item's users: `next-user`.")
    embedder: Part[Embedder] = option(help="Vectors of users: the table that scores the next user.")
    encoder: Part[Encoder] = option(
        help="States of items from the vectors of their users. Causal where times order events across users; "
        "where they do not, an item's users are a set, and it must not be (`causal: false`)."
    )
    position: Part[Position] | list[Part[Position]] | None = option(
        None, help="Where users stand. None: nowhere, as it must be for a set."
    )
    history: History = option(
        factory=lambda: History(20),
        help="m: at most so many users of an item are read, in training, evaluation and serving alike.",
        validator=_bounded,
    )
    moments: int = option(
        16, help="How many moments of the log a training step asks about.", validator=_From(1)
    )
    questions: int = option(
        16,
        help="How many consecutive events of the log are asked about at one moment: all are answered from what "
        "was known before the first of them.",
        validator=_From(1),
    )

    @property
    def positions(self) -> list[Part[Position]]:
        """The positions as a list."""
        if self.position is None:
            return []
        return list(self.position) if isinstance(self.position, list | tuple) else [self.position]


@frozen(kw_only=True)
class Dual(Sequential):
    """Two views of one log: a user is the encoded sequence of the items met (as in `recore:sequential`), an item
    is the encoded sequence of the users who met it.

    Let h_u(τ) be the state of user u after the events strictly earlier than τ, s_i(τ) that of item i, e_i the
    item's own vector, p_u the user's own vector.

    **The view `item`.** The row of an event (v, i, t) is p_v + C·h_v(t): who came, and in which state. The
    encoder reads the last m rows before τ; s_i(τ) is the state of the last one, and zero where there is none.

    **Next user.** At the moment τ user u scores

        score(u | i, τ) = q₁·p_u + q₂·h_u(τ) + r(a_u(τ)),   [q₁; q₂] = W·[s_i(τ); e_i], W = I at first

    where a_u(τ) is the number of events of the whole log since u's last one and r is learned, piecewise linear
    in log₂(1 + a). With W = I this is s_i·p_u + e_i·h_u: the second term is the score of next-item prediction.
    In evaluation τ is the time of the question; a training step asks about `moments` · `questions` events, each
    answered at the moment of the first of its `questions`.

    **Strictly earlier.** Events of one time know nothing of each other across users. Within a user's own
    history the log's order counts, ties broken as the data says, as in every next-item recipe.

    **Where the order across users is unknown** an item's users are a *set* of training events: m others of them
    are drawn, without positions, states or moments, and the state is the mean over the encoder's rows, so no
    order enters. score(u | i) = q₁·p_u with q₁ = W·[s_i; e_i], W = [I, 0] at first. Nothing is claimed about
    causality across users, and the protocol card says `order across users: unknown`.

    **Gradients.** h is read from a table of the states of all training events, computed without gradient when
    an epoch begins: a state is at most one epoch old, and losses of the view `item` teach the user's encoder
    nothing directly. They teach p, the item encoder, C, W, r and, through W and `consistency`, e. Histories
    longer than `history.last` are read for that table in windows that overlap by half, so each state has seen
    at least half a window.
    """

    item: ItemView = option(help="The parts of the other view.")

    def provides(self) -> Facts:
        """The bounds of both views, and what the model makes of known items in the view `user`."""
        inner = Facts(history=self.item.history.last, computed=frozenset())
        return super().provides().merged(Facts(views={"user": Facts(), "item": inner}))

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Beside what its parts cost: a table of all users for each moment, `[p_u; h_u]` and its gradient, what asks,
        and the states in which users came."""
        if not load.training or "item" not in (facts.learned or ()):
            return Costs()
        asked, width = self.item.moments * self.item.questions, facts.width or 0
        ordered = facts.order_across_users is not False
        table = (facts.users or 0) * (2 * width * self.item.moments if ordered else width)
        rows = asked * int(self.item.history.last)  # never `all`: a validator says so
        return Costs(
            products=linear(asked, 2 * width, 2 * width, training=True)
            + (linear(rows, width, width, training=True) if ordered else ()),
            moved=(8.0 if ordered else 0.0) * table * load.number,
            gathered=table * load.number,
            calls=150.0 * self.item.moments if ordered else 100.0,
            kept=2.0 * table * load.number,
            large="tables of all users, one for each moment",
            instead="fewer `item.moments` of more `item.questions`",
        )

    def problems(self, facts: Facts) -> list[str]:
        """What has to stand beside it, and what a log's order allows."""
        found = [problem.replace("'sequential'", "'dual'") for problem in super().problems(facts)]
        inner = (facts.views or {}).get("item", Facts())
        if any(getattr(part.claims, "query_time", "none") == "target" for part in self.positions):
            found.append(
                "asks users' states at moments of other events, so none may know when the user's own next event "
                "happens (set `query_time: last-event` on `position`)"
            )
        if facts.causal is False:
            found.append(
                "reads users' states at events from their encoder, which is not causal: they would know the future "
                "(expected an encoder that claims `causal`)"
            )
        if facts.width is not None and inner.width is not None and facts.width != inner.width:
            found.append(
                f"compares users with items: expected `item.embedder` as wide as `embedder`, {facts.width}, got "
                f"{inner.width}"
            )
        if facts.order_across_users is True and inner.causal is False:
            found.append(
                "times order events across users here, so an item's users are a sequence: `item.encoder` must be "
                "causal (remove `causal: false`)"
            )
        if facts.order_across_users is False:
            if inner.causal is not False:
                found.append(
                    "nothing orders events across users here, so an item's users are a set: `item.encoder` must not "
                    "be causal (set `causal: false`)"
                )
            if self.item.position is not None:
                found.append(
                    "nothing orders events across users here, so an item's users have no positions (remove "
                    "`item.position`)"
                )
        return found


@frozen
class NextUser:
    """Of the users of an item, each predicts who is next: `next-item` on the transposed log.

    *Where times order events across users* the users x_1 … x_n of an item are a sequence, and x_j is predicted
    from the row of the last x_k with a time strictly before that of x_j; events of one time do not see each
    other. Users without an earlier one are no targets. Without times in the batch every row is earlier than
    those after it.

    *Where they do not*, the users of an item are a set: one, drawn, is predicted from m others, drawn too (m is
    the view's `history.last`). A set of one gives nothing. Every state reads the whole set.

    A query is the users as they are, asked from the last row.
    """

    def provides(self) -> Facts:
        """No row is appended."""
        return Facts(appended=0)


def _positive(instance: object, attribute: Any, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"expected a number above 0, got {value}")


@frozen
class Consistency:
    """An item's own vector e_i should agree with s_i, the one encoded from its users.

        cosine:    1 − cos(s_i, e_i)
        contrast:  −log( exp(cos(s_i, e_i)/T) / Σ_j exp(cos(s_i, e_j)/T) )  over all items j

    summed over the items of a batch, each weighted as its target. `cosine` asks for one direction and says
    nothing about other items; `contrast` asks that the item be told apart by its users (van den Oord et al.
    2018, equation 4, with all items as the other candidates). Vectors no longer than 1e-12 have cosine 0.
    """

    form: Literal["cosine", "contrast"] = option("cosine", help="See above.")
    temperature: float = option(0.1, help="T of `contrast`.", validator=_positive)
    stop: Literal["none", "own", "encoded"] = option(
        "none",
        help="Which side is taken as it is, without gradient: the item's `own` vector or the `encoded` one.",
    )

    def claims(self) -> LossClaims:
        """Takes no negatives; compares a sequence with its own row."""
        return LossClaims(memory="blocks" if self.form == "cosine" else "full", agreement=True)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Vectors of N items, or with `contrast` products and scores with all items, and their gradients."""
        width, items, count = facts.width or 0, facts.items or 0, load.predictions
        vectors = (2 * count + items) * width * load.number
        if self.form == "cosine":
            return Costs(gathered=2 * count * width * load.number, moved=12 * vectors, calls=40, kept=vectors)
        scores = count * items * load.number
        return Costs(
            products=linear(count, width, items, training=load.training),
            moved=12 * vectors + 6 * scores,
            exponentials=count * items,
            calls=60,
            kept=2 * scores + vectors,
            large=f"N × V scores of `contrast`, {count:,.0f} items against {items:,}",
            instead="`form: cosine`",
        )


def _turns(instance: object, attribute: Any, value: Sequence[Sequence[str]] | None) -> None:
    if value is not None and (not value or not all(value)):
        raise ValueError(f"expected one or more lists of names of losses, none empty, got {value}")


def _starts(instance: object, attribute: Any, value: dict[str, int]) -> None:
    wrong = {name: epoch for name, epoch in value.items() if epoch < 1}
    if wrong:
        raise ValueError(f"expected epochs from 1, got {wrong}")


@frozen(kw_only=True)
class Duality(Standard):
    """The trainer `recore-training:standard` with a pace for each loss of two views.

    Without options of its own it drives all losses in every step, each with its weight. `turns` gives steps to
    groups of losses in rotation; `from_epoch` leaves a loss out until an epoch: states of an encoder that has
    learned nothing tell the other view nothing. A loss that is left out is neither computed nor logged.
    """

    turns: list[list[str]] | None = option(
        None,
        validator=_turns,
        help="Groups of names of losses; step t, from 0, drives group t mod n. ~: all in every step.",
    )
    from_epoch: dict[str, int] = option(
        factory=dict, validator=_starts, help="Name of a loss → the first epoch, from 1, that drives it."
    )

    def problems(self, facts: Facts) -> list[str]:
        """It is for two views, and for losses that there are; `turns` leave none out."""
        found = []
        if facts.views is not None and set(facts.views) <= {"user"}:
            found.append(
                "drives losses on two views, but the model encodes only the view `user` (use a model such as "
                "recore-duality:dual, or the trainer recore-training:standard)"
            )
        if facts.losses is None:
            return found
        in_turn = {name for group in self.turns or [] for name in group}
        if unknown := sorted((in_turn | set(self.from_epoch)) - set(facts.losses)):
            there = ", ".join(facts.losses)
            found.append(
                f"no loss is named {', '.join(unknown)} (losses: {there}; those of weight 0 are not built)"
            )
        if self.turns is not None and (never := [name for name in facts.losses if name not in in_turn]):
            found.append(f"no turn drives {', '.join(never)} (name each loss in one, or give it weight 0)")
        return found


def _cutoffs(instance: Any, attribute: attrs.Attribute[Any], value: Sequence[int]) -> None:
    if not value or any(k < 1 for k in value) or len(set(value)) < len(value):
        raise ValueError(f"expected one or more different whole numbers from 1, got {list(value)}")


@frozen
class Audience:
    """The next user for an item, ranked among all users: `recore-evaluation:ranking` from the other side.

    A row is a target of the split, (user, item, time), asked about as: who is next for this item? Known are the
    events strictly earlier, of training and, for the test, of validation; where the order across users is
    unknown, the training events. r is the pessimistic rank of the user among the candidates, U the number of
    users:

        ndcg@k[next-user] = [r ≤ min(k, U)] / log2(1 + r),  hr@k = [r ≤ min(k, U)],  mrr@k = [r ≤ min(k, U)] / r

    Two baselines are ranked beside it on the same questions, candidates and rule for ties:
    `[next-user:most-active]` by the number of known events of a user; `[next-user:most-recent]` by the time of a
    user's last known event (where times order events across users). Users not in training are counted (cold).
    """

    k: tuple[int, ...] = option((10,), validator=_cutoffs, help="Cut-offs.")
    metrics: tuple[Metric, ...] = option(("ndcg", "hr"), help="Which metrics, in the order of tables.")
    seen: Literal["history", "none"] = option(
        "history",
        help="Which users are no candidates: `history`, all known users of the item; `none`, all stay.",
    )
    each_epoch: bool = option(False, help="Whether it is measured on validation after each epoch, too.")

    def costs(self, facts: Facts, load: Load) -> Costs:
        """A table of users for each question's moment, and two baselines with scores of all users in float64."""
        users, width = facts.users or 0, facts.width or 0
        asked = min(load.predictions, max(1.0, 8e6 / max(users, 1)))
        ordered = facts.order_across_users is not False
        tables = load.predictions * users * 2 * width * load.number if ordered else 0.0
        return Costs(
            moved=2 * tables + 100.0 * load.predictions * users,
            gathered=tables / 2,
            calls=(60.0 if ordered else 1.0) * load.predictions + 100,
            brief=5 * 8.0 * asked * users,
            large=f"scores of {users:,} users by two baselines, {asked:,.0f} questions at once",
        )

    def problems(self, facts: Facts) -> list[str]:
        """Users can only be ranked by a model that encodes items by their users and learned to."""
        if facts.views is not None and "item" not in facts.views:
            return ["ranks users for items, but the model encodes no view `item` (use recore-duality:dual)"]
        if facts.learned is not None and "item" not in facts.learned:
            return [
                "ranks users for items, but no loss learns from the view `item` (give one a weight above 0)"
            ]
        return []
