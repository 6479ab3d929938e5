"""What this distribution offers to recore. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from recore import Component, hookimpl
from recore_duality.options import Audience, Consistency, Dual, Duality, NextUser

PAPER = "after: Revisiting Self-Attentive Sequential Recommendation, on users and items as duals"


@hookimpl
def recore_models() -> Iterator[Component]:
    """`dual`."""
    yield Component(
        "dual",
        Dual,
        "recore_duality.model:build",
        summary="A user as the encoded sequence of items, an item as the encoded sequence of users.",
        source=PAPER,
    )


@hookimpl
def recore_objectives() -> Iterator[Component]:
    """`next-user`."""
    yield Component(
        "next-user",
        NextUser,
        "recore_duality.next_user:build",
        summary="Of an item's users each predicts who is next.",
        source=PAPER,
    )


@hookimpl
def recore_losses() -> Iterator[Component]:
    """`consistency`."""
    yield Component(
        "consistency",
        Consistency,
        "recore_duality.consistency:build",
        summary="An item's own vector and the one encoded from its users should agree.",
        source=PAPER,
    )


@hookimpl
def recore_trainers() -> Iterator[Component]:
    """`duality`."""
    yield Component(
        "duality",
        Duality,
        "recore_duality.trainer:build",
        summary="The standard trainer with a pace for each loss of two views.",
        source="recore-training:standard",
    )


@hookimpl
def recore_evaluators() -> Iterator[Component]:
    """`audience`."""
    yield Component(
        "audience",
        Audience,
        "recore_duality.audience:build",
        summary="The next user for an item, ranked among all users, beside the most active and most recent.",
        source=PAPER,
    )
