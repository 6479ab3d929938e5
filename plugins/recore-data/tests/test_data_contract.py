"""The kit's sentences about splits, and what this distribution offers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from recore_data import plugin

from recore.testing import load_checks, parametrize_with_checks, part_of

PARTS = [part_of("split", component, "recore-data") for component in plugin.recore_splits()]


@parametrize_with_checks(PARTS)
def test_contract(check: Callable[[], None]) -> None:
    check()


def test_every_split_is_checked() -> None:
    assert [part.component.name for part in PARTS] == ["leave-last"]
    assert len(load_checks()["split"]) == 8


def test_what_is_offered() -> None:
    hooks = (plugin.recore_datasets, plugin.recore_transforms, plugin.recore_splits)
    assert [[component.name for component in hook()] for hook in hooks] == [
        ["sequences", "events", "movielens-1m"],
        ["k-core", "rating-at-least", "since", "collapse-repeats"],
        ["leave-last"],
    ]


def test_listing_is_light() -> None:
    code = (
        "import sys, recore_data.plugin as plugin\n"
        "for hook in (plugin.recore_datasets, plugin.recore_transforms, plugin.recore_splits): list(hook())\n"
        "print(sorted({'torch', 'polars', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
