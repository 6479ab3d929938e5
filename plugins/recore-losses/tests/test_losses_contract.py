"""The kit's checks of losses, and what listing them costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from recore_losses.options import Ce
from recore_losses.plugin import recore_losses

from recore.testing import load_checks, parametrize_with_checks, part_of

COMPONENTS = {component.name: component for component in recore_losses()}
PARTS = [part_of("loss", component, "recore-losses") for component in COMPONENTS.values()]
PARTS.append(part_of("loss", COMPONENTS["ce"], "small-blocks", Ce(block=3)))


@parametrize_with_checks(PARTS)
def test_losses_keep_the_contract(check: Callable[[], None]) -> None:
    check()


def test_there_are_checks_and_parts() -> None:
    assert len(load_checks()["loss"]) >= 12
    assert set(COMPONENTS) == {"ce", "bce"}


def test_listing_does_not_import_torch() -> None:
    code = "import sys, recore_losses.plugin as p; list(p.recore_losses()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ranges_of_options() -> None:
    for options in ({"block": 0}, {"limit_mib": 0}):
        with pytest.raises(ValueError, match="must be >= 1: 0"):
            Ce(**options)
