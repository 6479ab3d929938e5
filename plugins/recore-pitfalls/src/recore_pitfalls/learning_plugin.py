"""Mistakes of learning and measuring, as pairs of kind and component. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recore import Component
from recore_pitfalls import learning_options as options


def _mistake(
    kind: str, name: str, kept: type[Any], factory: str, summary: str, source: str
) -> tuple[str, Component]:
    return kind, Component(
        name, kept, f"recore_pitfalls.learning_{factory}", summary=f"Mistake: {summary}", source=source
    )


def learning_mistakes() -> Iterator[tuple[str, Component]]:
    """Objectives, losses, samplers, batchers, splits, tokenizers, evaluators. What each claims is what its options
    say."""
    yield _mistake(
        "objective",
        "padding-predicts",
        options.PaddingPredicts,
        "objective:padding_predicts",
        "the loss is counted on rows of padding.",
        "RUCAIBox/RecBole, issue 1483",
    )
    yield _mistake(
        "objective",
        "predicts-itself",
        options.PredictsItself,
        "objective:predicts_itself",
        "targets are not shifted, so that each event predicts itself.",
        "KempnerInstitute/KempnerForge, pull request 155",
    )
    yield _mistake(
        "objective",
        "shifted-twice",
        options.ShiftedTwice,
        "objective:shifted_twice",
        "targets are shifted twice, so that each event predicts the one after the next.",
        "InternLM/InternLM, issue 318",
    )
    yield _mistake(
        "objective",
        "last-column-asked",
        options.LastColumnAsked,
        "objective:last_column_asked",
        "the last column of a rectangle padded on the right asks, which is padding.",
        "CarperAI/trlx, issue 341",
    )
    yield _mistake(
        "loss",
        "padding-class",
        options.PaddingClass,
        "loss:padding_class",
        "the row of padding is a class of the softmax.",
        "RUCAIBox/RecBole, sasrec.py",
    )
    yield _mistake(
        "loss",
        "mean-of-batch",
        options.MeanOfBatch,
        "loss:mean_of_batch",
        "a mean of each micro-batch, averaged again.",
        "meta-pytorch/torchtune, pull request 1875",
    )
    yield _mistake(
        "loss",
        "log-q-added",
        options.LogQAdded,
        "loss:log_q_added",
        "the logarithm of the sampling probability is added, not subtracted.",
        "tensorflow/recommenders, issue 219",
    )
    yield _mistake(
        "sampler",
        "padding-drawn",
        options.PaddingDrawn,
        "sampler:padding_drawn",
        "padding is drawn as a negative.",
        "maciejkula/spotlight, sampling.py",
    )
    yield _mistake(
        "sampler",
        "own-items-drawn",
        options.OwnItemsDrawn,
        "sampler:own_items_drawn",
        "the user's own items are drawn as negatives, though it is said that they are not.",
        "datawhalechina/torch-rechub, issue 51",
    )
    yield _mistake(
        "sampler",
        "log-q-of-one-draw",
        options.LogQOfOneDraw,
        "sampler:log_q_of_one_draw",
        "log_q forgets the number of draws.",
        "tensorflow/recommenders, issue 635",
    )
    yield _mistake(
        "batcher",
        "last-batch-dropped",
        options.LastBatchDropped,
        "batcher:last_batch_dropped",
        "the last, smaller batch of an epoch is dropped.",
        "fastai/fastai, issue 1557",
    )
    yield _mistake(
        "batcher",
        "order-kept",
        options.OrderKept,
        "batcher:order_kept",
        "the same batches in the same order in every epoch.",
        "ant-research/EasyTemporalPointProcess, issue 54",
    )
    yield _mistake(
        "split",
        "validation-left-out",
        options.ValidationLeftOut,
        "split:build",
        "the validation event is left out of the test's history.",
        "jaywonchung/BERT4Rec-VAE-Pytorch, dataloaders/bert.py",
    )
    yield _mistake(
        "tokenizer",
        "first-item-is-padding",
        options.FirstItemIsPadding,
        "tokenizer:build",
        "items are numbered from 0, and 0 is padding.",
        "jaywonchung/BERT4Rec-VAE-Pytorch, issue 17",
    )
    yield _mistake(
        "evaluator",
        "ties-won",
        options.TiesWon,
        "evaluator:ties_won",
        "ties go the model's way, so that collapsed scores are perfect.",
        "mlcommons/training_policies, issue 131",
    )
    yield _mistake(
        "evaluator",
        "mean-of-blocks",
        options.MeanOfBlocks,
        "evaluator:mean_of_blocks",
        "metrics are averaged per batch, and then over batches.",
        "siyongxu/GNUD, issue 3",
    )
