"""Options of the positions: what each counts from and claims, what stands against it. Free of torch."""

from __future__ import annotations

from attrs import frozen

from recore import BOTH_SIDES, Costs, Facts, Load, PositionClaims, option
from recore_positions.checked import not_negative


def _unbounded(name: str, facts: Facts) -> list[str]:
    """A table of one row per place needs a bound on places."""
    if facts.history != "all":
        return []
    problem = (
        f"position {name!r} learns one vector per place and needs a bounded history, got `all` "
        "(set model.history.last to a number, or use positions that are relative)"
    )
    return [problem]


def _added(facts: Facts, load: Load) -> Costs:
    """A learned vector added to each event."""
    width = facts.width or 0
    places = 0 if facts.history in (None, "all") else int(facts.history or 0)
    rows, trained = load.events * width, 1.0 + load.training
    return Costs(
        gathered=rows * trained * load.number,
        moved=rows * 3 * trained * load.number,
        calls=8.0 * trained,
        kept=rows * load.number,
        parameters=places * width,
    )


@frozen
class NoPosition:
    """Contributes nothing: the inputs pass unchanged and attention gets no term. To an encoder that is not
    causal a history is then a set; a causal one still knows how many events came before."""

    def claims(self) -> PositionClaims:
        """Nothing contributed, so nothing can break."""
        return PositionClaims("nothing", prefix_consistent=True, shift_invariant=True, padding=BOTH_SIDES)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """Nothing."""
        return Costs(parameters=0)


@frozen
class WindowAbsolute:
    """SASRec's own: a learned vector for each *column* of a rectangle as wide as the model's history, counted
    from its left edge: `x_t + P[column(t)]`.

    What a column means is hence decided by the side of the padding. Padded on the left (the published code)
    the last event always stands in the last column, and every other one moves when an event is added; padded
    on the right the columns count from the start of the history, which is `start-absolute`. It is invariant
    to padding on the right and *not* to padding on the left; the tests measure by how much. There is no
    column without a rectangle: `padding: none` is refused. An unknown item keeps its column and its vector.

    Kang & McAuley 2018, section III-A, equation 2.
    """

    std: float = option(0.02, help="Vectors are drawn from normal(0, std).", validator=not_negative)

    def claims(self) -> PositionClaims:
        """Counted from the window; only padding on the right leaves columns where they are."""
        return PositionClaims("window", padding=frozenset({"right"}))

    def costs(self, facts: Facts, load: Load) -> Costs:
        """A learned vector added to each event."""
        return _added(facts, load)

    def problems(self, facts: Facts) -> list[str]:
        """Needs a rectangle of bounded width."""
        found = _unbounded("window-absolute", facts)
        if facts.padding == "none":
            found.append(
                "position 'window-absolute' counts columns of a padded rectangle, but the batcher asks for "
                "none (use a batcher that pads, such as recore-batchers:padded, or `start-absolute`)"
            )
        return found


@frozen
class StartAbsolute:
    """A learned vector for each place counted from the start of the history that the model reads:
    `x_t + P[t]`, `t = 0, 1, …`. It is what codes that pad on the right do.

    The history is cut to its last events *before* places are counted: for a user with a longer history, one
    more event shifts all places by one, so the scheme is not shift invariant. Computed from the events alone,
    whatever the padding. An unknown item keeps its place and gets that place's vector.
    """

    std: float = option(0.02, help="Vectors are drawn from normal(0, std).", validator=not_negative)

    def claims(self) -> PositionClaims:
        """Counted from the start: later events change nothing, earlier ones everything."""
        return PositionClaims("start", prefix_consistent=True, padding=BOTH_SIDES)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """A learned vector added to each event."""
        return _added(facts, load)

    def problems(self, facts: Facts) -> list[str]:
        """Needs a bounded history."""
        return _unbounded("start-absolute", facts)


@frozen
class PredictionAbsolute:
    """The scheme of "Revisiting Self-Attentive Sequential Recommendation": a learned vector for each place
    counted back from the prediction. For the prediction made after event `t`, event `p` carries number
    `t − p + 1`:

        x_p + P[t − p + 1],   p = 1 … t

    so the latest event always carries `P_1`, whatever came before it and however long the history is. Each
    prediction numbers the same events anew: every prefix is a sequence of its own, whose *last event* asks
    (`P[L − i]` for the event at place `i = 0, 1, …` of a sequence of `L`). A packed batch, in which one row
    predicts after each of its events, would need as many numbers for an event as there are predictions after
    it, in every layer: it is refused, not approximated. Use `recore-batchers:by-length`; evaluation and serving
    ask once per history anyway. With one layer and tied tables there is an exact packed form, `tied: true` of
    `relative-keys-values` (docs/explanation/positions.md).

    Shift invariant: events dropped from the old end renumber nothing. Not prefix consistent: one more event
    renumbers all, which is the point. Rows but the last of a sequence are contexts of that one prediction; do
    not read predictions from them. An unknown item keeps its place and gets that place's vector.

    Cost: as `start-absolute` for each row; but a history of `n` events is `n − 1` prefixes, `n(n − 1)/2` rows
    in place of `n − 1`, unless the batcher draws some of them.

    Revisiting Self-Attentive Sequential Recommendation, section 4.1.
    """

    std: float = option(0.02, help="Vectors are drawn from normal(0, std).", validator=not_negative)

    def claims(self) -> PositionClaims:
        """Counted back from the last row: the old end may go, the new end may not."""
        return PositionClaims("prediction", shift_invariant=True, padding=BOTH_SIDES)

    def costs(self, facts: Facts, load: Load) -> Costs:
        """A learned vector added to each event."""
        return _added(facts, load)

    def problems(self, facts: Facts) -> list[str]:
        """Needs a bounded history, and one prediction per row of a batch."""
        found = _unbounded("prediction-absolute", facts)
        said = facts.one_prediction_per_row
        # A batcher that says nothing may pack: what is not promised is not assumed. Without a batcher nobody could.
        silent = said is None and facts.keys is not None and "batcher" in facts.keys
        if said is False or silent:
            found.append(
                "position 'prediction-absolute' numbers events back from the one prediction of a row, but the "
                f"batcher {'does not promise one prediction per row' if silent else 'packs'}: a packed row predicts "
                "after each of its events, and each of these predictions would number the same events anew (use "
                "recore-batchers:by-length, or relative positions such as relative-keys-values)"
            )
        return found
