"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_tokenizers.options import Items


@hookimpl
def recore_tokenizers() -> Iterator[Component]:
    """One token per item."""
    yield Component(
        "items",
        Items,
        "recore_tokenizers.items:build",
        summary="One token per item of the training events, saved as a `tokenizer.json`.",
        source="WordLevel model of the tokenizers library",
    )
