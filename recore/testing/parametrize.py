"""One pytest test for each part and check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from recore.component import Part
from recore.testing.cases import case_for
from recore.testing.checks import Check, load_checks


def parametrize_with_checks(parts: Iterable[Part[Any]], profile: str = "quick") -> pytest.MarkDecorator:
    """Decorate a test of one argument `check`, and call it:

        @parametrize_with_checks([part_of("position", component)])
        def test_my_part(check):
            check()

    A sentence that is not claimed skips its test, with what was measured. Raises ValueError for a kind
    without checks.
    """
    found = []
    for part in parts:
        checks = load_checks().get(part.kind)
        if not checks:
            raise ValueError(f"{part.name}: there are no checks of kind {part.kind!r}")
        found += [
            pytest.param(Bound(part, check, profile), id=f"{part.name}-{check.name}") for check in checks
        ]
    return pytest.mark.parametrize("check", found)


class Bound:
    """A check of a part, to be called without arguments."""

    def __init__(self, part: Part[Any], check: Check, profile: str) -> None:
        self.part, self.check, self.profile = part, check, profile

    def __call__(self) -> None:
        """Raises AssertionError with the sentence; skips where it is not claimed."""
        evidence = self.check(self.part, case_for(self.part, self.profile))
        if not evidence.claimed:
            pytest.skip(f"{self.check.name} is not claimed: {evidence.measured or 'nothing was measured'}")
