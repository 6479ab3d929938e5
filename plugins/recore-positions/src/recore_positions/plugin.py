"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_positions.known_options import KnownItem
from recore_positions.options import NoPosition, PredictionAbsolute, StartAbsolute, WindowAbsolute
from recore_positions.ordered_options import Alibi, Rope
from recore_positions.relative_options import RelativeBias, RelativeKeys, RelativeKeysValues
from recore_positions.time_options import TimeBias, TimeFeatures, TimeIntervals


@hookimpl
def recore_positions() -> Iterator[Component]:
    """Where events stand."""
    yield Component(
        "none",
        NoPosition,
        "recore_positions.nothing:build",
        summary="Contributes nothing.",
        claims=NoPosition().claims(),
    )
    yield Component(
        "window-absolute",
        WindowAbsolute,
        "recore_positions.absolute:build_window",
        summary="A learned vector per column of the padded rectangle, SASRec's own.",
        claims=WindowAbsolute().claims(),
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III-A",
    )
    yield Component(
        "start-absolute",
        StartAbsolute,
        "recore_positions.absolute:build_start",
        summary="A learned vector per place counted from the start of the history that is read.",
        claims=StartAbsolute().claims(),
        source="Kang & McAuley 2018, section III-A, as codes that pad on the right have it",
    )
    yield Component(
        "prediction-absolute",
        PredictionAbsolute,
        "recore_positions.absolute:build_prediction",
        summary="A learned vector per place counted back from the prediction; every prefix is its own sequence.",
        claims=PredictionAbsolute().claims(),
        source="Revisiting Self-Attentive Sequential Recommendation, section 4.1",
    )
    yield Component(
        "relative-keys",
        RelativeKeys,
        "recore_positions.shaw:build_keys",
        summary="A learned vector per head and distance to the prediction, added to keys.",
        claims=RelativeKeys().claims(),
        source="Shaw et al. 2018, Self-Attention with Relative Position Representations, equation 4",
    )
    yield Component(
        "relative-keys-values",
        RelativeKeysValues,
        "recore_positions.shaw:build_keys_values",
        summary="Learned vectors per head and distance to the prediction, added to keys and values.",
        claims=RelativeKeysValues().claims(),
        source="Shaw et al. 2018, section 3.2, equations 3 and 4",
    )
    yield Component(
        "relative-bias",
        RelativeBias,
        "recore_positions.relative:build",
        summary="A learned number per head and distance to the prediction, added to attention logits.",
        claims=RelativeBias().claims(),
        source="Raffel et al. 2020 (T5), section 2.1; Shaw et al. 2018",
    )
    yield Component(
        "alibi",
        Alibi,
        "recore_positions.alibi:build",
        summary="A penalty per head that grows with the distance to the prediction, subtracted from attention logits.",
        claims=Alibi().claims(),
        source="Press et al. 2022, Train Short, Test Long (ALiBi), section 3",
    )
    yield Component(
        "rope",
        Rope,
        "recore_positions.rope:build",
        summary="Queries and keys turned by angles that grow with their place; nothing is learned.",
        claims=Rope().claims(),
        source="Su et al. 2021, RoFormer, equation 34",
    )
    yield Component(
        "time-bias",
        TimeBias,
        "recore_positions.time_bias:build",
        summary="A learned number per head and logarithmic bucket of the time gap, added to attention logits.",
        claims=TimeBias().claims(),
        source="Zhai et al. 2024 (HSTU), equation 2, and its public code",
    )
    yield Component(
        "time-intervals",
        TimeIntervals,
        "recore_positions.time_intervals:build",
        summary="Learned vectors per time interval, in units of the prefix's shortest gap, added to keys and values.",
        claims=TimeIntervals().claims(),
        source="Li et al. 2020 (TiSASRec), with the prefix's scale",
    )
    yield Component(
        "time-features",
        TimeFeatures,
        "recore_positions.time_features:build",
        summary="Sines and cosines of the time gap with learned periods, a day and a week among them, added to "
        "attention logits.",
        claims=TimeFeatures().claims(),
        source="this project; after Xu et al. 2019 and Kazemi et al. 2019 (Time2Vec), equation 1",
    )
    yield Component(
        "known-item",
        KnownItem,
        "recore_positions.known:build",
        summary="A learned function of how well a known item was predicted, added to the attention paid to it.",
        claims=KnownItem().claims(),
        source="Revisiting Self-Attentive Sequential Recommendation, section 4.1",
    )
