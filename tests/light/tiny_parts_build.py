"""Factories of the tiny parts."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from recore import Context


@frozen(eq=False)
class Built:
    """What it was built from."""

    options: Any
    context: Context
    inner: tuple[Any, ...] = ()

    def load(self, context: Context) -> Any:
        """A dataset."""

    def encode(self, *arguments: Any) -> Any:
        """An encoder."""


def dataset(options: Any, context: Context) -> Built:
    """A dataset; 13 rows bring bad luck."""
    if options.rows == 13:
        raise ZeroDivisionError("bad luck")
    return Built(options, context)


def encoder(options: Any, context: Context) -> Built:
    """An encoder."""
    return Built(options, context)


def stack(options: Any, context: Context) -> Built:
    """Encoders over each other."""
    return Built(options, context, tuple(context.build(part) for part in options.inner))


def empty(options: Any, context: Context) -> object:
    """Keeps no contract."""
    return object()
