"""Options. Light: neither torch, nor polars, nor tokenizers."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from attrs.validators import in_

from recore import option


@frozen
class Items:
    """One token per item.

    The items are those of the training events, numbered in the order of their ids: integers by value, strings
    by code point. So the numbers depend on which items were trained on, and on nothing else. The rows of the
    embedder are the special rows first, then the items: token = item id + number of special rows.

    Special rows: `pad` (0) and `unknown` (1), which never train, and with `mask: true` also `mask` (2), which
    does. Items added later get the next numbers, removed ones are retired: their numbers stay readable in
    histories, never score, and are never given again, not even to the same item.
    """

    unknown: Literal["keep", "drop"] = option(
        "keep",
        help="What becomes of an item in a history that was not in training: `keep` (its place, as the zero "
        "row `unknown`) or `drop` (the history closes up).",
        validator=in_(("keep", "drop")),
    )
    mask: bool = option(
        False, help="Whether there is a trainable row `mask`, for objectives that hide items of a history."
    )
