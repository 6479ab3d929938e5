"""Options, presets and what stands against them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import attrs
import pytest
from recore_sasrec.details import PRESETS, Details
from recore_sasrec.options import TERMS, Sasrec

from recore import Facts
from recore.attention import PROJECT, KeyBias, PairFunction, PairTable, Rotate

POST = (
    "`norm: post` normalises after the residual sum, so there is no normalised input to add "
    "(set `residual: input`)"
)


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys, recore_sasrec.plugin as p; list(p.recore_encoders()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    return "1e-8" if value == 1e-8 else str(value)


def test_the_documented_table_is_the_presets() -> None:
    rows = [line.strip() for line in str(Sasrec.__doc__).splitlines() if line.strip().startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[0] == ["option", *("no preset" if name is None else name for name in PRESETS)]
    expected = [
        [field.name, *(written(getattr(details, field.name)) for details in PRESETS.values())]
        for field in attrs.fields(Details)
    ]
    assert cells[2:] == expected


def test_every_detail_is_an_option_that_wins_over_the_preset() -> None:
    other: dict[str, Any] = {
        "norm": "post",
        "residual": "input",
        "final_norm": False,
        "attention_bias": False,
        "output_projection": False,
        "scale": "none",
        "dropouts": ["attention-output"],
        "initial": "xavier-normal",
        "initial_qkv": "normal",
        "ffn_bias": "uniform",
        "epsilon": 0.5,
    }
    assert set(other) == {field.name for field in attrs.fields(Details)}
    names = {field.name for field in attrs.fields(Sasrec)}
    for name, value in other.items():
        assert name in names
        details = attrs.evolve(Sasrec(), **{name: value}).details
        expected: Any = tuple(value) if isinstance(value, list) else value
        assert details == attrs.evolve(PRESETS[None], **{name: expected})


def test_unset_details_are_those_of_the_preset() -> None:
    assert Sasrec().details == PRESETS[None]
    assert Sasrec(preset="paper").details == PRESETS["paper"]
    assert Sasrec(preset="tensorflow").details == PRESETS["tensorflow"]
    assert Sasrec(preset="pytorch").details == PRESETS["pytorch"]
    assert len(set(PRESETS.values())) == 4


def test_terms_are_named_as_attention_names_them() -> None:
    assert {term.name for term in (Rotate, PairTable, KeyBias, PairFunction)} | {PROJECT} == TERMS


def test_facts_for_others() -> None:
    facts = Sasrec(preset="paper", heads=4, layers=3, causal=False).provides()
    assert facts == Facts(heads=4, layers=3, causal=False, terms=TERMS, item_scale="none")
    assert Sasrec().provides().item_scale == "sqrt-width"


@pytest.mark.parametrize(
    ("options", "facts", "problems"),
    [
        (Sasrec(), Facts(width=64), []),
        (Sasrec(heads=16), Facts(width=50), ["16 heads do not divide a width of 50"]),
        (Sasrec(heads=16), Facts(), []),
        (Sasrec(dropouts=["input", "input"]), Facts(), ["`dropouts` names a place twice: input, input"]),
        (
            Sasrec(norm="post"),
            Facts(),
            [POST],
        ),
        (Sasrec(norm="post", residual="input"), Facts(), []),
    ],
)
def test_what_cannot_stand_together(options: Sasrec, facts: Facts, problems: list[str]) -> None:
    assert options.problems(facts) == problems


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers", 0, "`layers`: expected at least 1, got 0"),
        ("heads", -1, "`heads`: expected at least 1, got -1"),
        ("ffn_width", 0, "`ffn_width`: expected at least 1, got 0"),
        ("dropout", 1.0, "`dropout`: expected a rate from 0 up to, not including, 1, got 1.0"),
        ("dropout", -0.1, "`dropout`: expected a rate from 0 up to, not including, 1, got -0.1"),
        ("std", 0.0, "`std`: expected a number above 0, got 0.0"),
        ("epsilon", 0.0, "`epsilon`: expected a number above 0, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        attrs.evolve(Sasrec(), **{name: value})
    assert str(error.value) == message
