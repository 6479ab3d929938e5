"""What this distribution offers to recore: parts that claim what they should keep, and do not. Light: no torch.

Each is one mistake: of the model (`options.model_mistakes`) or of learning and measuring
(`learning_plugin.learning_mistakes`), given as pairs of kind and component.
"""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_pitfalls.learning_plugin import learning_mistakes
from recore_pitfalls.options import model_mistakes


def _of(kind: str) -> Iterator[Component]:
    for found, component in (*model_mistakes(), *learning_mistakes()):
        if found == kind:
            yield component


@hookimpl
def recore_splits() -> Iterator[Component]:
    """What is trained on, validated on and tested on."""
    yield from _of("split")


@hookimpl
def recore_tokenizers() -> Iterator[Component]:
    """Items to ids and back."""
    yield from _of("tokenizer")


@hookimpl
def recore_objectives() -> Iterator[Component]:
    """What is predicted from where."""
    yield from _of("objective")


@hookimpl
def recore_embedders() -> Iterator[Component]:
    """Vectors of events, and the table that scores."""
    yield from _of("embedder")


@hookimpl
def recore_positions() -> Iterator[Component]:
    """Where events stand."""
    yield from _of("position")


@hookimpl
def recore_encoders() -> Iterator[Component]:
    """One hidden state per event."""
    yield from _of("encoder")


@hookimpl
def recore_batchers() -> Iterator[Component]:
    """Which histories together, in which layout."""
    yield from _of("batcher")


@hookimpl
def recore_samplers() -> Iterator[Component]:
    """Negatives."""
    yield from _of("sampler")


@hookimpl
def recore_losses() -> Iterator[Component]:
    """What is minimised."""
    yield from _of("loss")


@hookimpl
def recore_evaluators() -> Iterator[Component]:
    """What is measured."""
    yield from _of("evaluator")
