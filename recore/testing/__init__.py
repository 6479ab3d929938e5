"""`recore.testing`: whether a part keeps its word. Needs the extra: `pip install 'recore[testing]'`.

`checks.py` runs checks and says what they found; one module per kind holds them, each the executable form of
a numbered sentence of `docs/reference/contracts/<kind>.md`. `cases.py` builds a part in a small synthetic
context, `strategies.py` are hypothesis strategies for anybody's tests, `tiny/` is the smallest sound
implementation of each contract, and `parametrize.py` makes one pytest test of each part and check.
"""

from __future__ import annotations

try:
    import hypothesis  # noqa: F401  # only whether it is there
    import pytest  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"recore.testing needs hypothesis and pytest, and {error.name!r} is not installed: "
        "pip install 'recore[testing]'"
    ) from error

from recore.testing.cases import Case, build_part, case_for, make_case
from recore.testing.checks import (
    CHECKS,
    PROFILES,
    Check,
    CheckResult,
    Evidence,
    Profile,
    counts,
    failures,
    load_checks,
    part_of,
    run_checks,
)
from recore.testing.made import made_part
from recore.testing.parametrize import parametrize_with_checks

load_checks()

__all__ = [
    "CHECKS",
    "PROFILES",
    "Case",
    "Check",
    "CheckResult",
    "Evidence",
    "Profile",
    "build_part",
    "case_for",
    "counts",
    "failures",
    "load_checks",
    "made_part",
    "make_case",
    "parametrize_with_checks",
    "part_of",
    "run_checks",
]
