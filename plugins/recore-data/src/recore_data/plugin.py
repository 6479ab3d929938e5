"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_data.options import (
    CollapseRepeats,
    Events,
    KCore,
    LeaveLast,
    MovieLens1M,
    RatingAtLeast,
    Sequences,
    Since,
)


@hookimpl
def recore_datasets() -> Iterator[Component]:
    """Logs from files and frames."""
    yield Component(
        "sequences",
        Sequences,
        "recore_data.sequences:build",
        summary="Lines of `user item`, or a line per user; the file's order is the order.",
        source="the form of SASRec's ml-1m.txt (Kang & McAuley 2018) and of S3-Rec's Beauty.txt",
    )
    yield Component(
        "events",
        Events,
        "recore_data.events:build",
        summary="CSV, TSV, Parquet or JSON lines, or a polars or pandas frame, with the columns named.",
    )
    yield Component(
        "movielens-1m",
        MovieLens1M,
        "recore_data.movielens:build",
        summary="MovieLens-1M as its publisher packs it: a zip or its folder, with titles and users.",
        source="Harper & Konstan 2015, The MovieLens Datasets, https://grouplens.org/datasets/movielens/1m/",
    )


@hookimpl
def recore_transforms() -> Iterator[Component]:
    """What is done to a log before it is split, in the order written."""
    yield Component(
        "k-core",
        KCore,
        "recore_data.transforms:k_core",
        summary="Only users and items with enough events among each other, to the fixed point.",
        source="Seidman 1983, Network structure and minimum degree",
    )
    yield Component(
        "rating-at-least",
        RatingAtLeast,
        "recore_data.transforms:rating_at_least",
        summary="Only events whose rating reaches a threshold.",
    )
    yield Component("since", Since, "recore_data.transforms:since", summary="Only events at or after a time.")
    yield Component(
        "collapse-repeats",
        CollapseRepeats,
        "recore_data.transforms:collapse_repeats",
        summary="Of an item that a user has several times in a row, only the first event.",
    )


@hookimpl
def recore_splits() -> Iterator[Component]:
    """What is trained on, validated on and tested on."""
    yield Component(
        "leave-last",
        LeaveLast,
        "recore_data.leave_last:build",
        summary="Each user's last event tests, the one before it validates, the rest trains.",
        source="Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section IV-A",
    )
