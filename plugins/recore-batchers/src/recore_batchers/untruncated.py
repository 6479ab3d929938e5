"""Untruncated: whole histories, as many as fit into a budget of events."""

from __future__ import annotations

from recore.component import Context
from recore_batchers.options import Ragged, Untruncated, refused
from recore_batchers.ragged import RaggedBatcher


class UntruncatedBatcher(RaggedBatcher):
    """The plans of `ragged` with a budget of events; see `recore_batchers.options.Untruncated`."""

    def __init__(self, options: Untruncated) -> None:
        super().__init__(Ragged(order=options.order, tokens=options.tokens))


def build(options: Untruncated, context: Context) -> UntruncatedBatcher:
    """Factory. Raises RecipeError where the model truncates."""
    refused("untruncated", options.problems(context.facts))
    return UntruncatedBatcher(options)
