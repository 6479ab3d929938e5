"""What a failure looks like: words for it, found by looking at one fixed batch once more.

A sentence of a contract says that nothing moved; these say what it was that moved, so that a mistake is named.
Nothing is required here, and nothing is said where the fixed batch does not show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recore.errors import RecoreError
from recore.ragged import Layout, View

if TYPE_CHECKING:
    from recore.claims import Side
    from recore.testing.sequences import Stack

SHOWN = 1e-9
RESTLESS = ": the same batch gives other states when it comes again"


def why_later(stack: Stack, view: View, layers: int) -> str:
    """Of an encoder whose states move with later events: which events move which states, in a batch of several
    histories."""
    states = stack.states(view)
    if not torch.equal(states, stack.states(view)):
        return RESTLESS
    seen = torch.stack(
        [_rows_moved(states, stack.states(_replaced(view, row))) for row in range(view.events)], 1
    )
    own = view.sequence[:, None] == view.sequence[None, :]
    if bool((seen & ~own).any()):
        return ": events of other histories reach it"
    gap = (
        view.place[None, :] - view.place[:, None]
    )  # of the item that changed, from the state that is looked at
    later, earlier = seen & (gap > 0), seen & (gap < 0)
    if not bool(later.any()):
        return ""
    if not bool(earlier.any()):
        return ": later events reach it and earlier ones do not, as when the mask is transposed"
    reach = int(gap[later].max())
    if reach <= layers:
        return f": events up to {reach} later reach it, one in each of {layers} layers, as when the mask is off by one"
    return f": events up to {reach} later reach it, as when there is no mask, or something is made of the whole history"


def _replaced(view: View, row: int) -> View:
    """The view with the item at one row as at another row of another item."""
    token, item = view["token"].clone(), view["item"].clone()
    other = int((item != item[row]).nonzero()[0, 0])
    token[row], item[row] = token[other], item[other]
    return view.with_columns(token=token, item=item)


def _rows_moved(one: Tensor, other: Tensor) -> Tensor:
    """Which rows differ, `(T,)`."""
    gap = (one - other).detach().abs().amax(-1)
    return ~(gap <= SHOWN * one.detach().abs().max())


def why_padding(stack: Stack, view: View, side: Side) -> str:
    """Of a part whose states move with padding on a side: what of padding reaches them."""
    tight = int(view.lengths.max())

    def states(side: Side, extra: int, fill: float) -> Tensor | None:
        try:
            return stack.states(view.laid_out(Layout(side, tight + extra, fill))).detach()
        except (ValueError, RecoreError):
            return None

    def differ(one: Tensor | None, other: Tensor | None) -> bool:
        return one is not None and other is not None and bool(_rows_moved(one, other).any())

    plain = states(side, 1, 0.0)
    if plain is None:
        return ""
    if bool(plain.isfinite().all()) and differ(plain, states(side, 1, 0.0)):
        return RESTLESS
    if not bool(plain.isfinite().all()):
        return ": states are not finite, as when a row of padding sees nothing, and its softmax is 0/0"
    if differ(plain, states(side, 1, 1e9)):
        return ": what padding is filled with reaches them"
    sides: tuple[Side, Side] = ("left", "right")
    found = [which for which in sides if differ(states(which, 0, 0.0), states(which, 1, 0.0))]
    if found == ["left"]:
        return (
            ": filled with zeros, padding before an event still takes part, as when it is not masked as a key, or "
            "places are counted from the padded edge"
        )
    if len(found) == 2:
        return ": filled with zeros and on either side, as when the padded length counts: in a mean, a norm, at an edge"
    if found:
        return ": filled with zeros, padding after an event takes part"
    if differ(plain, states(side, 1, float("nan"))):
        return ": only what is not a number does, as when padding is multiplied by zero and not masked"
    return ""
