"""Options of the positions that read times: `time-bias`, `time-intervals`, `time-features`. Free of torch."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from recore import BOTH_SIDES, Costs, Facts, Load, PositionClaims, option
from recore.costs import Product, linear
from recore_positions.checked import at_least_one, not_negative, untaken, untimed

QueryTime = Literal["last-event", "target"]

# Days. Powers of seven around one: half an hour, three and a half hours, a day, a week, seven weeks, a year.
PERIODS = (1 / 49, 1 / 7, 1.0, 7.0, 49.0, 343.0)


def above_zero(instance: object, attribute: Any, value: float) -> None:
    """A validator. Raises ValueError at or below 0, and for what is no finite number."""
    if not 0 < value < float("inf"):
        raise ValueError(f"`{attribute.name}`: expected a number above 0, got {value}")


def _at_least_two(instance: object, attribute: Any, value: int) -> None:
    if value < 2:
        raise ValueError(
            f"`{attribute.name}`: expected at least 2, got {value} (one number for all gaps says nothing)"
        )


def _periods(instance: object, attribute: Any, value: list[float]) -> None:
    if not value:
        raise ValueError(f"`{attribute.name}`: expected at least one period, got none")
    for entry in value:
        if not 0 < entry < float("inf"):
            raise ValueError(f"`{attribute.name}`: expected periods above 0, got {entry}")


@frozen
class _Gaps:
    """What schemes of the time gap have in common."""

    query_time: QueryTime = option(
        "last-event",
        help="At which time a row asks: that of its own event, or that of the event to be predicted.",
    )
    unit: float = option(
        1.0,
        help="How many seconds one unit of the log's times is: 60 where they are minutes, 0.001 where milliseconds.",
        validator=above_zero,
    )

    def claims(self) -> PositionClaims:
        """Only the gap between the asking time and the key's enters."""
        return PositionClaims(
            "prediction",
            prefix_consistent=True,
            shift_invariant=True,
            padding=BOTH_SIDES,
            query_time=self.query_time,
        )

    def columns(self) -> frozenset[str]:
        """Times."""
        return frozenset({"time"})


@frozen
class TimeBias(_Gaps):
    """A learned number per head and bucket of the time gap, added to the attention logit: with `t_i` the time at
    which row `i` asks and `t_j` that of key `j`

        logit_ij = q_i · k_j · scale + b[h, bucket(t_i − t_j)]
        bucket(Δ)  = min( floor( log(max(1, |Δ| · unit)) / width ), buckets − 1 )

    so that all gaps below a second share the first number and each further bucket is e^width times as wide. With
    the defaults, which are HSTU's (natural logarithm, 0.301), a bucket is 1.35 times as wide as the one before, a day
    falls into bucket 37 and ten years into 65: the others are never read. HSTU's code has one bucket more,
    beyond e^38 seconds.

    `query_time` says at which time a row asks:

    - `last-event`: at its own event's time. The gap to its own event is 0.
    - `target`: at the time of the event to be predicted, as HSTU's code does. The model is then told *when* the
      user comes back, in evaluation too, which a recommender that is asked at that moment knows, and a ranking
      made beforehand does not. Figures of the two are not comparable: the protocol card says which it was.
      Queries must say when (`Query.time`).

    HSTU's own bias adds one by distance: put `relative-bias` beside it in a list, with `layers: each`, and set
    `heads: shared`, since HSTU has one number for all heads of a layer.

    Claims: relative to the prediction, prefix consistent (given the target's time, where that is read), shift
    invariant, padding of either side changes nothing. Cost: no products, but a logarithm, a look-up and, backward, a
    sum into buckets for each pair, in tiles, made anew in the backward pass; memory grows with length times tile.

    Zhai et al. 2024, Actions Speak Louder than Words, equation 2 (rab), and its public code
    (`RelativeBucketedTimeAndPositionBasedBias`).
    """

    buckets: int = option(128, help="Numbers per head; larger gaps share the last.", validator=_at_least_two)
    width: float = option(
        0.301, help="The width of a bucket, in natural logarithm of the gap.", validator=above_zero
    )
    heads: Literal["each", "shared"] = option(
        "each", help="`each`: every head learns its own numbers; `shared`: one for all heads, as in HSTU."
    )
    layers: Literal["each", "shared"] = option(
        "each", help="`each`: every layer learns its own numbers, as in HSTU; `shared`: one table for all."
    )
    std: float = option(
        0.02,
        help="Numbers are drawn from normal(0, std); 0: training starts as if there were no times.",
        validator=not_negative,
    )

    def costs(self, facts: Facts, load: Load) -> Costs:
        """A logarithm for each pair, twice in training; attention leaves the fused kernel for tiles."""
        tables = 1 if self.layers == "shared" else (facts.layers or 0)
        heads = 1 if self.heads == "shared" else (facts.heads or 0)
        pairs = _pairs(facts, load)
        return Costs(
            tiles=True,
            exponentials=pairs * (1.0 + load.training),
            moved=pairs * 8 * 4 * (1.0 + load.training),
            parameters=tables * heads * self.buckets,
        )

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes pair tables, and times."""
        return untaken("time-bias", "pair-table", facts) + untimed("time-bias", facts)


@frozen
class TimeIntervals:
    """Learned vectors per head and time interval, added to keys and to values, intervals counted in the user's own
    rhythm (TiSASRec): asking event `i` and key `j` of times `t_i`, `t_j` give

        logit_ij   = scale · q_i · (k_j + a^K[r_ij])
        received_i = Σ_j softmax_j(logit_ij) · (v_j + a^V[r_ij])
        r_ij = min( max_interval, floor( |t_i − t_j| / g_i ) ),   g_i = min { t_m − t_{m−1} > 0 : m ≤ i }

    `g_i` is the shortest gap between two events in a row *up to event `i`*, those of equal time left out; where all
    events so far have one time, r = 0. The published scheme divides by the shortest gap of the *whole* history,
    targets and all: in training a row is then told something of the events after it, which no user who comes back
    can tell. That form is not offered here.

    The scale is that of the history that is read: drop its oldest events and the shortest gap may go with them. So
    the scheme is prefix consistent but not shift invariant, and, in the words of the contract, counted from the
    `start`. Two events in the same second after months of quiet make all older intervals `max_interval`: what the
    minimum does is the scheme's. TiSASRec adds absolute positions, as keys and values too: put
    `relative-keys-values` or `start-absolute` beside it in a list.

    Claims: prefix consistent, padding of either side changes nothing. Cost: one product of each row that asks with
    all `max_interval + 1` vectors, for keys and again for values, forward and twice backward, then a look-up for each
    pair, in tiles; no vector per pair is made, and memory grows with length times tile.

    Li et al. 2020, Time Interval Aware Self-Attention for Sequential Recommendation (TiSASRec), section 3.
    """

    max_interval: int = option(
        256, help="Intervals at or beyond this share one vector (the paper's k).", validator=at_least_one
    )
    layers: Literal["each", "shared"] = option(
        "shared",
        help="`shared`: one pair of tables for all layers, as published; `each`: one for each layer.",
    )
    std: float = option(
        0.02,
        help="Vectors are drawn from normal(0, std); 0: training starts as if there were no times.",
        validator=not_negative,
    )

    def claims(self) -> PositionClaims:
        """The scale is the prefix's: later events change nothing, dropped old ones may."""
        return PositionClaims("start", prefix_consistent=True, padding=BOTH_SIDES, query_time="last-event")

    def columns(self) -> frozenset[str]:
        """Times."""
        return frozenset({"time"})

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Each row that asks times all vectors; attention leaves the fused kernel for tiles."""
        vectors, layers, width = self.max_interval + 1, facts.layers or 0, facts.width or 0
        pairs = _pairs(facts, load)
        return Costs(
            products=linear(load.events, width, vectors, load.training, times=2 * layers),
            tiles=True,
            moved=pairs * 8 * 6 * (1.0 + load.training),
            parameters=2 * vectors * width * (1 if self.layers == "shared" else layers),
        )

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes pair tables, and times."""
        return untaken("time-intervals", "pair-table", facts) + untimed("time-intervals", facts)


@frozen
class TimeFeatures(_Gaps):
    """Waves of the time gap, added to the attention logit, so that daily and weekly rhythms show: with `t_i` the
    time at which row `i` asks and `t_j` that of key `j`

        logit_ij = q_i · k_j · scale + Σ_f a[h, f] sin(2π Δ / P_f) + b[h, f] cos(2π Δ / P_f),   Δ = t_i − t_j

    with learned a and b per layer and head, and learned periods `P_f`, the same for all: an event a week before the
    prediction, to the hour, can be paid more attention to than one three days and a half before. Periods start at
    `periods`, by default powers of seven around a day, among them a day and a week.

    *How periods are learned.* The phase at a gap of years is thousands of turns of a day's wave, so the smallest
    step of a period scrambles it, and its gradient is as large. Learned is hence how far the phase at a gap of
    `horizon` has moved, θ_f in radians, P_f = P_f⁰ · exp(θ_f · P_f⁰ / (2π · horizon)): gradients are of the order of
    gap / horizon whatever the period, and a step of the optimiser moves phases within the horizon by at most its
    own size. Phases are made in float64 from differences of times.

    `query_time` as in `time-bias`: `last-event` asks at the row's own event, `target` at the event to be
    predicted, of which the model is then told when it happens (queries must say: `Query.time`; the protocol
    card does).

    A sine of a difference is a product of sines and cosines of its two sides, sin(x − y) = sin x cos y − cos x sin y:
    so no wave is made per pair. Claims: relative to the prediction, prefix consistent (given the target's time,
    where that is read), shift invariant, padding of either side changes nothing. Cost: 2F waves for each event,
    and one product of 2F columns for each pair and head (q kᵀ has d/H), in tiles, forward, and three backward.

    The form is this project's own; learned frequencies of time follow Xu et al. 2019, Self-attention with
    Functional Time Representation Learning, and Kazemi et al. 2019, Time2Vec, equation 1.
    """

    periods: tuple[float, ...] = option(
        PERIODS, help="Where the periods start, in days; 1 is a daily rhythm.", validator=_periods
    )
    horizon: float = option(
        30.0, help="The gap, in days, at which a learned period counts its phase.", validator=above_zero
    )
    layers: Literal["each", "shared"] = option(
        "each", help="`each`: every layer learns its own a and b; `shared`: one for all layers."
    )
    std: float = option(
        0.02,
        help="a and b are drawn from normal(0, std); 0: training starts as if there were no times.",
        validator=not_negative,
    )

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Waves of events, products of pairs; attention leaves the fused kernel for tiles."""
        waves, heads = len(self.periods), facts.heads or 0
        layers, tables = facts.layers or 0, 1 if self.layers == "shared" else (facts.layers or 0)
        products = 3 if load.training else 1
        each = Product(load.events, 2 * waves, load.events / max(load.sequences, 1.0))
        rows = load.events * 2 * waves * (heads + 1) * layers * load.number
        return Costs(
            products=(each,) * (products * heads * layers) if heads * layers else (),
            tiles=True,
            exponentials=4 * waves * load.events,
            moved=rows * 2 * (1.0 + load.training),
            kept=rows,
            parameters=waves * (1 + 2 * heads * tables),
        )

    def problems(self, facts: Facts) -> list[str]:
        """Needs an encoder that takes functions of pairs, and times."""
        return untaken("time-features", "pair-function", facts) + untimed("time-features", facts)


def _pairs(facts: Facts, load: Load) -> float:
    """Pairs of events that see each other in all layers, about."""
    per_row = load.events / load.sequences if load.sequences else 0.0
    return load.asked * per_row * (0.5 if facts.causal else 1.0) * (facts.layers or 0)
