"""What a run tells while it goes on. The engine calls a Reporter; the command line has some, Python none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Reporter(Protocol):
    """Hears a run. All values are plain, as JSON has them."""

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...

    def plan(self, plan: Mapping[str, Any]) -> None:
        """What will be done: data, parts, parameters, folder."""
        ...

    def epoch(self, line: Mapping[str, Any]) -> None:
        """An epoch was trained and validated."""
        ...

    def done(self, record: Mapping[str, Any], folder: Path) -> None:
        """The final record was written."""
        ...


class Silent:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Nothing."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Nothing."""

    def done(self, record: Mapping[str, Any], folder: Path) -> None:
        """Nothing."""
