"""What a recipe may set, and what each batcher promises. Free of torch."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from attrs.validators import ge, optional

from recore import BatcherClaims, Facts, option
from recore.errors import RecipeError

USERS = 128  # histories to a batch where neither `users` nor `tokens` is set
CONTEXTS = 128  # contexts to a batch where neither `contexts` nor `tokens` is set


def one_size(name: str, count: int | None, tokens: int | None) -> list[str]:
    """A problem where a batch has two sizes."""
    if count is None or tokens is None:
        return []
    both = (
        f"{name} is {count} and tokens is {tokens}: expected one of them, since either says how large a batch is "
        "(set the other one to ~)"
    )
    return [both]


def refused(name: str, problems: list[str]) -> None:
    """Raises RecipeError where something stands against a batcher, once the model's bound is known."""
    if problems:
        raise RecipeError(f"batcher '{name}': {'; '.join(problems)}")


def _all_or_some(instance: object, attribute: object, value: int | str) -> None:
    if value != "all" and int(value) < 1:
        raise ValueError(f"expected `all` or at least 1 prefix, got {value}")


@frozen
class Ragged:
    """Histories end to end, without padding: no rectangle is asked for.

    Each history stands exactly once in an epoch, whole, in an order drawn anew each epoch; the last batch may
    be smaller and is kept. A batch holds `users` histories, or as many as fit into `tokens` events:

    - `order: random`: the histories are shuffled and cut into batches.
    - `order: like-length`: the histories are sorted by length · (1 + spread · u), u uniform in [0, 1) and drawn
      for each history and epoch, cut into batches, and the batches are shuffled. Less is wasted where
      attention makes rectangles, but batches whose histories are alike learn worse per epoch.

    On several ranks every batch is divided among them (rank r takes its entries r, r + world, …): all ranks
    have equally many batches, the batches are those of one process, and a rank's share may be empty when a
    batch has fewer histories than there are ranks.
    """

    order: Literal["random", "like-length"] = option(
        "random", help="`random`, or histories of like length together (`like-length`)."
    )
    users: int | None = option(
        None,
        validator=optional(ge(1)),
        help=f"Histories to a batch. Where neither this nor `tokens` is set: {USERS}.",
    )
    tokens: int | None = option(
        None,
        validator=optional(ge(1)),
        help="Most events to a batch, instead of `users`; a history that is longer stands alone.",
    )
    spread: float = option(
        0.1,
        validator=ge(0.0),
        help="With `like-length`: how far lengths are blurred before sorting, so that it is not the same "
        "histories that meet in every epoch. 0: only equal lengths are shuffled.",
    )

    def claims(self) -> BatcherClaims:
        """Each history once an epoch, in an order drawn anew."""
        return BatcherClaims(each="once", random=True)

    def provides(self) -> Facts:
        """No rectangle is asked for."""
        return Facts(padding="none")

    def problems(self, facts: Facts) -> list[str]:
        """One size of batch, not two."""
        return one_size("users", self.users, self.tokens)


@frozen
class Padded:
    """The rectangle that most implementations use, for comparison: `users` histories at random, padded to the
    width of the model's history (`model.history`).

    Each history stands exactly once in an epoch, whole, in an order drawn anew each epoch; the last batch may
    be smaller and is kept. The batches are those of `ragged` with `order: random` and the same seed; only the
    rectangle differs. Several ranks divide every batch, as in `ragged`.
    """

    side: Literal["left", "right"] = option(
        "left", help="Where the padding stands: `left` in SASRec's own code, `right` in some later ones."
    )
    users: int = option(USERS, validator=ge(1), help="Histories to a batch.")

    def claims(self) -> BatcherClaims:
        """Each history once an epoch, in an order drawn anew."""
        return BatcherClaims(each="once", random=True)

    def provides(self) -> Facts:
        """The rectangle that batches and queries ask for."""
        return Facts(padding=self.side)


@frozen
class ByLength:
    """Every context is a row of its own, and a batch holds contexts of one length only: all of length 1, then of
    length 2, … Each row predicts once, from its last event; no rectangle ever has padding.

    Of a history x_1 … x_n each event x_t with t ≥ 2 is a target exactly once, after the context x_s … x_{t−1} with
    s = max(1, t − L), where L events are as many as the model reads (`model.history.last`; all, where that is `all`):
    what the model reads in a query, too. A history of one event has no context and stands in no batch.

    `order: shuffled`: the batches, of all lengths, come in random order. `ascending` keeps them in order of length,
    as in the words above; that is a curriculum, and changes more than how rows are laid out. In both, which contexts
    of a length meet is drawn anew each epoch. A batch may be smaller where the contexts of a length end.

    `prefixes: k`: in each epoch k of the n − 1 contexts of a history are drawn uniformly and without replacement,
    each with probability p = min(1, k / (n − 1)), and weigh 1 / p: the expected sum of the losses over an epoch, and
    of the weights that it is divided by, is that of `all`. A step divides by the weights in its own batch.

    Cost: a history of n events is n(n − 1) / 2 rows to encode instead of n − 1 (with the bound L, about L for each
    event): on MovieLens-1M with the last 200 180 times what `ragged` encodes, and with `prefixes: 4` 2.4 times.
    An epoch is planned in memory: about 100 bytes for each context. Several ranks divide every batch, as in `ragged`.
    """

    order: Literal["shuffled", "ascending"] = option(
        "shuffled",
        help="Of the batches: at random, or from the shortest contexts to the longest (`ascending`).",
    )
    contexts: int | None = option(
        None,
        validator=optional(ge(1)),
        help=f"Most contexts to a batch. Where neither this nor `tokens` is set: {CONTEXTS}.",
    )
    tokens: int | None = option(
        None,
        validator=optional(ge(1)),
        help="Most events in the contexts of a batch, instead of `contexts`; a context that is longer stands alone.",
    )
    prefixes: int | Literal["all"] = option(
        "all",
        validator=_all_or_some,
        help="How many contexts of each history are drawn anew in each epoch, or `all`.",
    )

    def claims(self) -> BatcherClaims:
        """Each target once an epoch, or drawn with known probability."""
        return BatcherClaims(each="target" if self.prefixes == "all" else "drawn", random=True)

    def provides(self) -> Facts:
        """No padding, one prediction for each row; histories are cut here."""
        return Facts(padding="none", one_prediction_per_row=True, whole_histories=True)

    def problems(self, facts: Facts) -> list[str]:
        """One size of batch, and room for a context and its target."""
        found = one_size("contexts", self.contexts, self.tokens)
        if facts.reach is not None and facts.reach < 2:
            found.append(
                f"the model reads {facts.reach} events of a history, expected at least a context and its target"
            )
        return found


@frozen
class Untruncated:
    """Whole histories without padding, however long, as many to a batch as fit into `tokens` events: nothing is cut
    off. Needs a model that reads all of a history (`model.history.last: all`).

    Each history stands exactly once in an epoch, whole; one that is longer than the budget stands alone. The batches
    are those of `ragged` with the same `order` and `tokens`. Cost: attention within a history grows with the square
    of its length; memory with `tokens`, or with the longest history where that is more.
    """

    tokens: int = option(
        16_384, validator=ge(1), help="Most events to a batch; a history that is longer stands alone."
    )
    order: Literal["random", "like-length"] = option(
        "random", help="`random`, or histories of like length together (`like-length`), as in `ragged`."
    )

    def claims(self) -> BatcherClaims:
        """Each history once an epoch, in an order drawn anew."""
        return BatcherClaims(each="once", random=True)

    def provides(self) -> Facts:
        """No rectangle is asked for; histories are not cut."""
        return Facts(padding="none", whole_histories=True)

    def problems(self, facts: Facts) -> list[str]:
        """A model that truncates would cut what this batcher is there to keep."""
        if facts.history in (None, "all") and facts.reach is None:
            return []
        bound = (
            f"the last {facts.history} events"
            if facts.history not in (None, "all")
            else f"{facts.reach} events"
        )
        cut = (
            f"keeps whole histories, but the model reads {bound} of each (set `model.history.last: all`, or use "
            "`windows`, which needs a bound)"
        )
        return [cut]


@frozen
class Windows:
    """Histories longer than the model reads, in overlapping windows: no event is dropped, and each is a target once.

    A window holds at most R events: as many as the model reads (`model.history.last`) and the target of the last.
    The first one holds the events 1 … R and predicts all of them but the first. Each later one predicts up to R − C
    events that no earlier one did, after C = `context` events that it only reads; the last is moved back until it is
    full, so that its targets have more context. A history of up to R events is one window; of n > R it is
    1 + ⌈(n − R) / (R − C)⌉. A history of one event predicts nothing and stands in no batch.

    So each event but the first of its history is a target exactly once, with at least min(C, events before it)
    events before it in its window. A query reads the last R − 1 events; training contexts are between C and R − 1
    events long where the history has them. A larger C is nearer to the query and costs R / (R − C) times the rows.

    Windows stand in random order, drawn anew each epoch, `users` or `tokens` to a batch; those of one history may
    meet in a batch or not. Several ranks divide every batch, as in `ragged`.
    """

    context: int | None = option(
        None,
        validator=optional(ge(1)),
        help="C, the events before the first new target of a window: at least 1 and less than R. ~: half of R.",
    )
    users: int | None = option(
        None,
        validator=optional(ge(1)),
        help=f"Windows to a batch. Where neither this nor `tokens` is set: {USERS}.",
    )
    tokens: int | None = option(
        None,
        validator=optional(ge(1)),
        help="Most events to a batch, instead of `users`; one window at least.",
    )

    def events_before(self, reach: int) -> int:
        """C for windows of R = `reach` events."""
        return reach // 2 if self.context is None else self.context

    def claims(self) -> BatcherClaims:
        """Each target once an epoch, in an order drawn anew."""
        return BatcherClaims(each="target", random=True)

    def provides(self) -> Facts:
        """No rectangle is asked for; histories are cut here."""
        return Facts(padding="none", whole_histories=True)

    def problems(self, facts: Facts) -> list[str]:
        """One size of batch; a bound, and room in a window for its context and something new."""
        found = one_size("users", self.users, self.tokens)
        if facts.history == "all":
            found.append(
                "cuts histories into windows of as many events as the model reads, but the model reads all of them "
                "(set `model.history.last` to a number, or use `untruncated`)"
            )
            return found
        # An objective says how many events fit when the model builds it; until then the rows and one target.
        room = (
            facts.reach if facts.reach is not None else None if facts.history is None else facts.history + 1
        )
        if room is not None and (room < 2 or self.events_before(room) >= room):
            found.append(
                f"context is {self.events_before(room)}, but a window holds {room} events: expected 1 to {room - 1}, "
                "so that each window has something new to predict (lower `context`, or raise `model.history.last`)"
            )
        return found
