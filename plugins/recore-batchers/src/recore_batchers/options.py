"""What a recipe may set, and what each batcher promises. Free of torch."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from attrs.validators import ge, optional

from recore import BatcherClaims, Facts, option

USERS = 128  # histories to a batch where neither `users` nor `tokens` is set


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
        if self.users is not None and self.tokens is not None:
            both = (
                f"users is {self.users} and tokens is {self.tokens}: expected one of them, since either says "
                "how large a batch is (set the other one to ~)"
            )
            return [both]
        return []


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
