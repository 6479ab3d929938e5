"""Options of the mistakes of positions. Free of torch."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import frozen

from recore import BOTH_SIDES, Facts, Part, PositionClaims, option
from recore.contracts.model import Position


def _at_least_one(instance: object, attribute: Any, value: int) -> None:
    if value < 1:
        raise ValueError(f"`{attribute.name}`: expected at least 1, got {value}")


def _not_negative(instance: object, attribute: Any, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"`{attribute.name}`: expected a number of at least 0, got {value}")


def _untaken(name: str, facts: Facts) -> list[str]:
    if facts.terms is None or "pair-table" in facts.terms:
        return []
    return [f"pitfall {name!r} needs an encoder that takes pair tables, and this one does not"]


@frozen
class WindowCalledStart:
    """A vector per column of the padded rectangle, said to be one per place from the start of the history. With
    padding on the left the first event of a short history gets the number of a late column, and of a longer one,
    or in a wider rectangle, another: the numbers are counted from the window's edge.

    `recore-positions:window-absolute` does the same and says so, which makes it no mistake.

    Caught by position 6; by 3, too, since a history that ends earlier is padded further. Seen in: kang205/SASRec and
    pmixer/SASRec.pytorch (`range(maxlen)` over sequences padded on the left, in `model.py` of both).
    """

    std: float = option(0.02, help="The deviation of the initial vectors.", validator=_not_negative)

    def claims(self) -> PositionClaims:
        """Those of places from the start."""
        return PositionClaims("start", prefix_consistent=True, padding=BOTH_SIDES)

    def problems(self, facts: Facts) -> list[str]:
        """One vector per column needs a bound."""
        unbounded = facts.history == "all"
        return (
            ["pitfall 'window-called-start' needs a bounded history (set model.history.last)"]
            if unbounded
            else []
        )


@frozen
class BiasShifted:
    """A learned number per head and distance, read one place too far: biases `(W, W)` are moved into place by padding
    and reshaping the flat rectangle, and one more cell is skipped than should be. Row `i` and column `j` then read
    the number of row `i` and column `j + 1`, and at the last column that of the *next* row's column 0: the last
    event of the rectangle takes itself for the oldest event that there is. A bias that is only numbered otherwise
    would do no harm; the fold at the last column does.

    Caught by position 3; by 4 to 7, too. Seen in: labmlai/annotated_deep_learning_paper_implementations, issue 185;
    ZhengkunTian/OpenTransformer, issue 25; espnet/espnet, issue 2684 (the shift of Transformer-XL, which
    brings in cells of another row).
    """

    max_distance: int = option(
        128, help="Distances at or beyond this share one number.", validator=_at_least_one
    )
    std: float = option(0.02, help="Numbers are drawn from normal(0, std).", validator=_not_negative)

    def claims(self) -> PositionClaims:
        """Those of distances."""
        return PositionClaims("prediction", prefix_consistent=True, shift_invariant=True, padding=BOTH_SIDES)

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes pair tables."""
        return _untaken("bias-shifted", facts)


@frozen
class IntervalsOfTheFuture:
    """Time intervals as keys and values, scaled by the shortest gap of the *whole* history: the published form of
    TiSASRec. A row of the past is so told how near to each other later events are. `recore-positions:time-intervals`
    is the sound form, scaled by the shortest gap of the prefix.

        r_ij = min( max_interval, floor( |t_i − t_j| / g ) ),   g = min { t_m − t_{m−1} > 0 : all m }

    Here the whole history is all that the batch holds of it; the published code takes the minimum before it splits
    off validation and test, so that their times enter as well.

    Caught by position 10; by 3 and 5, too. Seen in: JiachengLi1995/TiSASRec, `util.py` (`cleanAndsort` takes
    `time_scale` from all of a user's events, and is called before `data_partition` splits them).
    """

    max_interval: int = option(
        256, help="Intervals at or beyond this share one vector.", validator=_at_least_one
    )
    std: float = option(0.02, help="Vectors are drawn from normal(0, std).", validator=_not_negative)

    def claims(self) -> PositionClaims:
        """Those of the sound form."""
        return PositionClaims("start", prefix_consistent=True, padding=BOTH_SIDES, query_time="last-event")

    def columns(self) -> frozenset[str]:
        """Times."""
        return frozenset({"time"})

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes pair tables."""
        return _untaken("intervals-of-the-future", facts)


@frozen
class TargetTimeUnsaid:
    """The time of the event to be predicted is read, and nothing says so: a scheme with `query_time: target` that
    claims `last-event`. In training each row is told when its target happens; at prediction nobody gives the time,
    so the last row asks at its own: what was learned of gaps does not hold, and figures look like those of a model
    that knows no future.

    Caught by position 10. Seen in: meta-recsys/generative-recommenders, issues 55, 181 and 348: intended there, since
    the moment of the request is known, and stumbled upon by readers; the last column repeats its own time.
    alibaba/TorchEasyRec, pull request 526, mends the difference between training and serving.
    """

    position: Part[Position] = option(help="A scheme with the option `query_time`.")

    def claims(self) -> PositionClaims:
        """Those of the scheme, but for the time."""
        claims = self.position.claims
        known = claims if isinstance(claims, PositionClaims) else PositionClaims()
        return attrs.evolve(known, query_time="last-event")

    def provides(self) -> Facts:
        """As the scheme does."""
        return self.position.provides()

    def columns(self) -> frozenset[str]:
        """Those of the scheme."""
        return self.position.columns()

    def problems(self, facts: Facts) -> list[str]:
        """The scheme can read the target's time."""
        if any(field.name == "query_time" for field in attrs.fields(type(self.position.options))):
            return []
        return [
            f"pitfall 'target-time-unsaid' needs a scheme with the option `query_time`, which {self.position.name!r} "
            "has not (use recore-positions:time-bias)"
        ]
