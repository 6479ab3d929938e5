"""The claims table says what the parts claim and what the kit measures, today."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import recore
from recore.claims import PositionClaims
from recore.component import Context
from recore.contracts import Placed
from recore.plugins import discover
from recore.ragged import Batch, View
from recore.testing import case_for, made_part

ROOT = Path(recore.__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    spec = importlib.util.spec_from_file_location("claims", ROOT / "docs" / "reference" / "claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(claims: ModuleType) -> str:
    text: str = claims.PAGE.read_text(encoding="utf-8")
    return text


def tables(page: str) -> dict[str, str]:
    """The tables of the page by the comment before them."""
    pieces = page.split("<!-- ")[1:]
    return dict(piece.split(" -->\n", 1) for piece in pieces if not piece.startswith("end"))


KINDS = ("position", "encoder", "embedder", "batcher", "sampler", "loss")


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_of_today(claims: ModuleType, page: str, kind: str) -> None:
    assert tables(page)[f"claims {kind}"] == claims.table(kind), "run docs/reference/claims.py"


def test_the_pitfalls_are_of_today(claims: ModuleType, page: str) -> None:
    found = [one for kind in claims.KINDS for one in discover().of(kind) if one.provider == claims.PITFALLS]
    if not found:
        pytest.skip("recore-pitfalls is not installed")
    table = tables(page)["pitfalls"]
    assert table == claims.pitfalls(), "run docs/reference/claims.py"
    assert all(f"| `{one.component.name}` |" in table for one in found)
    assert "**not by" not in table


def test_every_shipped_part_has_a_row(claims: ModuleType, page: str) -> None:
    for kind in KINDS:
        shipped = [one for one in discover().of(kind) if one.provider.startswith("recore")]
        sound = [one for one in shipped if one.provider != claims.PITFALLS]
        rows = tables(page)[f"claims {kind}"]
        assert [one.name for one in sound if f"| `{one.component.name}`" not in rows] == []


def test_no_claim_of_a_shipped_part_is_broken(page: str) -> None:
    assert [name for name, rows in tables(page).items() if name != "pitfalls" and "**" in rows] == []


class FromTheEnd:
    """A planted fault: the column of the rectangle's end is added, and padding on the left is claimed."""

    def place(self, x: Any, batch: Batch, view: View) -> Placed:
        after = view.lengths[view.sequence] - view.place
        return Placed(x + 0.3 * after[:, None], [()])


def test_a_claim_that_does_not_hold_is_set_in_bold(claims: ModuleType) -> None:
    said = PositionClaims("start", prefix_consistent=True, padding=frozenset({"left"}))

    def make(context: Context) -> FromTheEnd:
        return FromTheEnd()

    part = made_part("position", make, said)
    row = {key: str(value) for key, value in claims.measured("position", part).items()}
    assert row["no later events"].startswith("**yes, 1e")
    assert row["padding left"] == "yes, 0"
    assert row["padding right"] == "no, 0"
    assert row["a later start"] == "no, 0"
    assert case_for(part).facts.layers == 2


@pytest.mark.parametrize(
    ("far", "text"), [(0.0, "0"), (9e-10, "0"), (2e-9, "1e-9"), (0.2, "1e-1"), (4.0, "1e+1"), (1.0, "1e+0")]
)
def test_measurements_are_rounded_to_powers_of_ten(claims: ModuleType, far: float, text: str) -> None:
    assert claims.rounded(far) == text
    assert claims.rounded(float("inf")) == "not finite"
