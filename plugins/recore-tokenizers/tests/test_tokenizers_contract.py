"""The kit's sentences about tokenizers, for every part of this distribution."""

from __future__ import annotations

from collections.abc import Callable

from recore_tokenizers.options import Items
from recore_tokenizers.plugin import recore_tokenizers

from recore.testing import load_checks, parametrize_with_checks, part_of

COMPONENTS = {component.name: component for component in recore_tokenizers()}
PARTS = [
    part_of("tokenizer", COMPONENTS["items"], "recore-tokenizers", options)
    for options in (Items(), Items(unknown="drop", mask=True))
]


@parametrize_with_checks(PARTS)
def test_contract(check: Callable[[], None]) -> None:
    check()


def test_every_part_is_checked() -> None:
    assert {part.component.name for part in PARTS} == set(COMPONENTS) == {"items"}
    assert len(load_checks()["tokenizer"]) == 8
