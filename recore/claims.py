"""What a part promises about its behaviour, as data. `recore.testing` checks each promise.

A claim that is not made is not assumed: the defaults claim nothing, so a part states what it keeps.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Side = Literal["left", "right"]
BOTH_SIDES: frozenset[Side] = frozenset({"left", "right"})


@frozen
class Claims:
    """Nothing claimed: for kinds whose contract leaves no choice."""


@frozen
class EncoderClaims(Claims):
    """`causal`: the state at an event depends on it and earlier events only. `padding`: the sides on which
    padding of any width and any value changes nothing. `batch_invariant`: neighbours change nothing.
    `rows`: `encode(..., rows)` may be asked for some rows only. `terms`: names of the attention terms
    that the encoder takes, and `project` beside them where it passes its own key and value maps, without
    their biases (see `recore.attention`)."""

    causal: bool = False
    padding: frozenset[Side] = frozenset()
    batch_invariant: bool = False
    rows: bool = False
    terms: frozenset[str] = frozenset()


@frozen
class PositionClaims(Claims):
    """`relative_to`: what a position is counted from. `prefix_consistent`: the state at an event is the same
    whether or not later events stand in the batch. `shift_invariant`: events dropped from the old end of a
    history do not change what is contributed to those that stay. `padding`: as for encoders.
    `query_time`: whether the scheme reads times, and of which event on the asking side."""

    relative_to: Literal["prediction", "window", "start", "nothing"] = "nothing"
    prefix_consistent: bool = False
    shift_invariant: bool = False
    padding: frozenset[Side] = frozenset()
    query_time: Literal["none", "last-event", "target"] = "none"


@frozen
class SamplerClaims(Claims):
    """`log_q`: `exact` (frequencies match it), `two-phase`, `estimated` or `none`. `exclude`: which of the
    user's own items are never drawn."""

    log_q: Literal["exact", "two-phase", "estimated", "none"] = "none"
    exclude: Literal["none", "target", "history"] = "none"


@frozen
class BatcherClaims(Claims):
    """`each`: how often what is in an epoch. `once`: each history, in one piece. `target`: each event that has
    one before it is a target exactly once, in as many entries (windows, prefixes) as that takes. `drawn`: entries
    are drawn, each event that has one before it with a probability whose inverse is the entry's weight.
    `random`: the order is drawn anew each epoch."""

    each: Literal["once", "target", "drawn"] = "once"
    random: bool = True


@frozen
class LossClaims(Claims):
    """`memory`: `blocks` (grows with N·d + V·d, never N·V), `negatives` (N·K) or `full` (N·V).
    `negatives`: needs a sampler. `correction`: how `log_q` enters. `agreement`: compares what a view encoded
    with the sequence's own row of the table: `targets.id` is what the sequence is, not what comes next.
    `shift_invariant`: only differences of scores count, as in a softmax over the candidates: nothing else, such as
    a class for padding, has a score beside them."""

    memory: Literal["blocks", "negatives", "full"] = "full"
    negatives: bool = False
    correction: Literal["none", "symmetric", "partition"] = "none"
    agreement: bool = False
    shift_invariant: bool = False
