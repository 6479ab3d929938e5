"""The options of a world. Free of torch, polars and numpy."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from recore import Facts, option


class _Between:
    """A validator: a number from `low` to `high`, both inclusive (None: no bound)."""

    def __init__(self, low: float, high: float | None = None) -> None:
        self.low, self.high = low, high

    def __call__(self, instance: object, attribute: Any, value: float) -> None:
        if value < self.low or (self.high is not None and value > self.high) or value != value:
            bound = f"of at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
            raise ValueError(f"`{attribute.name}`: expected a number {bound}, got {value}")


def _above_zero_to_one(instance: object, attribute: Any, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"`{attribute.name}`: expected a number above 0 and at most 1, got {value}")


_SHARE = _Between(0, 1)
_WEIGHT = _Between(0, 1000)


@frozen
class WorldOptions:
    """A simulated log whose truth is known.

    *Items* have one of `topics` topics, a popularity (Zipf: weight rank^−popularity), a creator, a day of birth
    and perhaps of retirement. Their ids rise with birth. Items of one topic form a chain in order of birth; the
    item after one in its chain is its *sequel*: after "The Quiet Harbour (sea, 12)" comes number 13 of the sea.
    *Creators are users*: `creators` of them made all items, a few most of them, mostly in a topic of their own.

    *Users* have tastes θ over topics, normal with deviation `tastes`, which drift: after Δ days
    θ ← ρ·θ + √(1 − ρ²)·tastes·ξ with ρ = exp(−drift·Δ), ξ standard normal. They come, stay for some sessions and
    go; numbers of events are lognormal, cut to `shortest` … `longest`, of mean `events`.

    *Exposure.* Before each choice the system offers a slate of `slate` slots. Each slot is drawn independently
    and with replacement from one mixture: `explore` uniform over the items alive today; `popular` by popularity;
    `personal` by popularity within the topic of one of the user's last `window` items; `sequels` the sequel of
    one of those. Without a history the last two shares go to `popular`. What cannot be offered (no sequel today;
    where `repeats` is false an item that the user has had) is drawn again. So the probability q(i) that a slot
    holds item i is known exactly, and stands in the log as `propensity`, of the item chosen.

    *Choice.* One slot is chosen, by the softmax over slots of the utility

        U(i) = θ[topic of i] + appeal·z(i) + recency·Σ_j [ (continuation·w_j − fatigue)·1{topic of i = topic of h_j}
               + succession·w_j·1{i is the sequel of h_j} − boredom·w_j·1{i = h_j} ]

    where z is the standardised log popularity, h_j the item met j events ago (j = 1 … `memory`) and w_j =
    decay^(j−1), or with `clock: days` decay^(days since h_j). What was just met pulls; what is a while ago
    pushes. `recency: 0` makes choices among what is offered forget the past (offers still remember it unless
    `personal` and `sequels` are 0).

    The log has columns `event`, `user` ("u17"), `item` ("i42"), `time` (seconds since 1970, whole; they order
    events across users), `creator`, and `propensity` unless withheld; the table of items has `title`, `topic`,
    `creator`, `born`, `retired`. The same options give the same log, whatever the seed of the run.
    """

    users: int = option(2000, help="How many users.", validator=_Between(1))
    items: int = option(800, help="How many items ever exist.", validator=_Between(2))
    events: float = option(27.0, help="The mean number of events per user.", validator=_Between(1))
    shortest: int = option(5, help="Fewest events of a user.", validator=_Between(1))
    longest: int = option(200, help="Most events of a user.", validator=_Between(1))
    days: int = option(90, help="How long the world lasts, in days.", validator=_Between(1, 36500))
    topics: int = option(16, help="How many topics.", validator=_Between(1))
    popularity: float = option(0.8, help="Exponent of Zipf's law of popularity.", validator=_Between(0, 3))
    births: float = option(0.4, help="Share of items born after the first day.", validator=_SHARE)
    retirements: float = option(
        0.2,
        help="Share of items drawn to retire. Each lives a tenth of the world at least; one whose day would come "
        "after the end never retires.",
        validator=_SHARE,
    )
    creators: float = option(0.05, help="Share of users who make items, one at least.", validator=_SHARE)
    tastes: float = option(1.0, help="Deviation of tastes over topics.", validator=_WEIGHT)
    drift: float = option(
        0.01,
        help="Rate per day at which tastes are forgotten; half is left after ln 2 / drift days. 0: tastes stay.",
        validator=_Between(0),
    )
    slate: int = option(20, help="S, slots offered before each choice.", validator=_Between(1))
    explore: float = option(0.2, help="Share of uniform draws in the exposure policy.", validator=_SHARE)
    popular: float = option(0.35, help="Share of draws by popularity.", validator=_SHARE)
    personal: float = option(0.35, help="Share of draws from topics met lately.", validator=_SHARE)
    sequels: float = option(0.1, help="Share of sequels of items met lately.", validator=_SHARE)
    window: int = option(
        4, help="How many last items `personal` and `sequels` look at.", validator=_Between(1)
    )
    appeal: float = option(0.3, help="How strongly popularity draws users.", validator=_WEIGHT)
    recency: float = option(
        1.0, help="How strongly the past enters the choice; 0: not at all.", validator=_WEIGHT
    )
    decay: float = option(
        0.7, help="By what the pull of an item shrinks per event (or day).", validator=_above_zero_to_one
    )
    clock: Literal["events", "days"] = option(
        "events", help="Whether the pull decays by events since, or by days since."
    )
    memory: int = option(8, help="How many last events enter the choice.", validator=_Between(1))
    continuation: float = option(1.5, help="Pull of the topic of an item just met.", validator=_WEIGHT)
    fatigue: float = option(
        0.3, help="Push of a topic for each of the last `memory` events in it.", validator=_WEIGHT
    )
    succession: float = option(2.0, help="Pull of the sequel of an item just met.", validator=_WEIGHT)
    boredom: float = option(4.0, help="Push of an item just met (matters with `repeats`).", validator=_WEIGHT)
    repeats: bool = option(False, help="Whether a user may choose an item again.")
    propensities: bool = option(True, help="Whether the log tells them; false withholds the column.")
    seed: int = option(0, help="The world's own seed: a run's seed leaves the data as it is.")
    replica: int = option(
        0,
        help="Other users' draws in the same catalogue: worlds that differ in this only have the same items, "
        "creators and policy, and independent logs.",
        validator=_Between(0),
    )

    def provides(self) -> Facts:
        """That there are times, and that they order events across users."""
        return Facts(timed=True, order_across_users=True)

    def problems(self, facts: Facts) -> list[str]:
        """What does not fit together."""
        found = []
        shares = {name: getattr(self, name) for name in ("explore", "popular", "personal", "sequels")}
        if abs(sum(shares.values()) - 1) > 1e-9:
            given = " + ".join(f"{name} {value:g}" for name, value in shares.items())
            found.append(
                f"the shares of the exposure policy must sum to 1, got {given} = {sum(shares.values()):g}"
            )
        elif self.explore + self.popular < 0.01:
            found.append(
                "`explore` + `popular`: expected at least 0.01, so that something can always be offered, "
                f"got {self.explore + self.popular:g}"
            )
        if not self.shortest <= self.events <= self.longest:
            found.append(
                "`shortest` ≤ `events` ≤ `longest`: expected, "
                f"got {self.shortest}, {self.events:g} and {self.longest}"
            )
        if self.days * 86400 <= 60 * self.longest:
            found.append(
                f"`longest`: a user cannot have {self.longest} events in {self.days} days, a minute apart; "
                f"take at most {self.days * 1440 - 1}"
            )
        always = self.items - int(self.items * self.births) - int(self.items * self.retirements)
        if always < 1:
            found.append(
                f"`births` {self.births:g} and `retirements` {self.retirements:g} of {self.items} items leave "
                "none that is always alive; lower them"
            )
        elif not self.repeats and always <= self.longest:
            found.append(
                f"`longest`: without repeats a user with {self.longest} events could run out of items, since "
                f"only {always} are sure to be alive (items − births − retirements); take `longest` below "
                f"{always}, more items, or `repeats: true`"
            )
        return found
