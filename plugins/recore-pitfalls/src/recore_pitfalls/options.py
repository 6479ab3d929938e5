"""Mistakes of the model, as pairs of kind and component. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recore import Component
from recore_pitfalls.embedder_options import PaddingRowTrained
from recore_pitfalls.encoder_options import (
    DropoutInEvaluation,
    HeadsByView,
    MaskInferred,
    MaskMissing,
    MaskNextVisible,
    MaskTransposed,
    NeighboursAttended,
    NormOverHistory,
    PaddingAttended,
    PaddingNan,
    PaddingPositions,
    PaddingTrained,
    StateCarried,
    WidthMean,
)
from recore_pitfalls.position_options import (
    BiasShifted,
    IntervalsOfTheFuture,
    TargetTimeUnsaid,
    WindowCalledStart,
)


def _mistake(
    kind: str, name: str, options: type[Any], factory: str, summary: str, source: str
) -> tuple[str, Component]:
    return kind, Component(
        name, options, f"recore_pitfalls.{factory}", summary=f"Mistake: {summary}", source=source
    )


def model_mistakes() -> Iterator[tuple[str, Component]]:
    """Embedders, positions, encoders. What each claims is what its options say."""
    yield _mistake(
        "embedder",
        "padding-row-trained",
        PaddingRowTrained,
        "padding_row:build",
        "the rows of pad and unknown are no zero rows, and train.",
        "pmixer/SASRec.pytorch, issue 24",
    )
    yield _mistake(
        "position",
        "window-called-start",
        WindowCalledStart,
        "window:build",
        "columns of the padded window, said to be places from the start.",
        "kang205/SASRec, model.py",
    )
    yield _mistake(
        "position",
        "bias-shifted",
        BiasShifted,
        "shifted:build",
        "a bias by distance read one place too far, into the next row at the last column.",
        "labmlai/annotated_deep_learning_paper_implementations, issue 185",
    )
    yield _mistake(
        "position",
        "intervals-of-the-future",
        IntervalsOfTheFuture,
        "intervals:build",
        "time intervals scaled by the shortest gap of the whole history.",
        "JiachengLi1995/TiSASRec, util.py",
    )
    yield _mistake(
        "position",
        "target-time-unsaid",
        TargetTimeUnsaid,
        "target_time:build",
        "the time of the event to be predicted is read in training, and nothing says so.",
        "meta-recsys/generative-recommenders, issue 55",
    )
    yield _mistake(
        "encoder",
        "padding-attended",
        PaddingAttended,
        "padding:build_attended",
        "padding is not masked as a key.",
        "pmixer/SASRec.pytorch, issues 27 and 36",
    )
    yield _mistake(
        "encoder",
        "padding-trained",
        PaddingTrained,
        "padding:build_trained",
        "padding carries one trained vector and is attended to.",
        "pmixer/SASRec.pytorch, issue 24",
    )
    yield _mistake(
        "encoder",
        "padding-positions",
        PaddingPositions,
        "padding:build_positions",
        "padding carries position vectors and is attended to.",
        "maxjcohen/transformer, issue 11",
    )
    yield _mistake(
        "encoder",
        "padding-nan",
        PaddingNan,
        "padding:build_nan",
        "rows of padding see nothing, and their softmax is not a number.",
        "pytorch/pytorch, issue 41508",
    )
    yield _mistake(
        "encoder",
        "mask-inferred",
        MaskInferred,
        "inferred:build",
        "what is padding is inferred from vectors that sum to zero.",
        "kang205/SASRec, issues 2 and 14",
    )
    yield _mistake(
        "encoder",
        "mask-next-visible",
        MaskNextVisible,
        "masks:build_next_visible",
        "the causal mask is off by one, so that the target is visible.",
        "NVIDIA-Merlin/Transformers4Rec, issue 765",
    )
    yield _mistake(
        "encoder",
        "mask-transposed",
        MaskTransposed,
        "masks:build_transposed",
        "the causal mask is transposed: rows see later events.",
        "harvard-edge/cs249r_book, pull request 1785",
    )
    yield _mistake(
        "encoder",
        "mask-missing",
        MaskMissing,
        "masks:build_missing",
        "there is no causal mask.",
        "ZiyaoGeng/RecLearn, issue 81",
    )
    yield _mistake(
        "encoder",
        "neighbours-attended",
        NeighboursAttended,
        "neighbours:build",
        "attention runs along the batch, over other histories.",
        "IBM/TabFormer, pull request 14",
    )
    yield _mistake(
        "encoder",
        "state-carried",
        StateCarried,
        "carried:build",
        "in evaluation the states of one batch start the next.",
        "hungpthanh/GRU4REC-pytorch, issue 7",
    )
    yield _mistake(
        "encoder",
        "width-mean",
        WidthMean,
        "mean:build",
        "a mean over the padded length.",
        "alibaba/TorchEasyRec, pull request 480",
    )
    yield _mistake(
        "encoder",
        "norm-over-history",
        NormOverHistory,
        "norm:build",
        "a layer norm over the whole history, later events and padding included.",
        "OpenNMT/OpenNMT-tf, pull request 6",
    )
    yield _mistake(
        "encoder",
        "heads-by-view",
        HeadsByView,
        "heads:build",
        "heads split by a view without a transposition.",
        "reczoo/FuxiCTR, issue 30",
    )
    yield _mistake(
        "encoder",
        "dropout-in-evaluation",
        DropoutInEvaluation,
        "dropping:build",
        "dropout stays on in evaluation.",
        "RUCAIBox/RecBole, pull request 1946",
    )
