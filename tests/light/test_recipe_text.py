"""YAML text ⇄ trees: what every scalar means, what is refused, and that lines and values are kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recore.recipe.text import LARGEST, read_file, read_text, to_yaml
from recore.recipe.tree import Node, plain

TAB = (
    "x.yaml:2: not YAML: while scanning for the next token, found character '\\t' that cannot start any token"
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TRICKY = st.sampled_from(
    [
        *("yes", "no", "on", "off", "null", "~", "", "true", "3e-4", "1_000", "0o17", "0x1f", ".inf", ".nan"),
        *("1:30", "2020-01-01", "<<", "=", "- a", "a: b", "# c", "'", '"', "&a", "*a", "!t", "%d", "@", "`"),
        *("12", "+1.5", "a\u2028b", "\ufeff", "\x85", "a\n\nb\n", " a ", "\t", "a\\nb"),
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False), TEXT, TRICKY
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | TRICKY, inner, max_size=4),
    max_leaves=15,
)


def value_of(text: str) -> Any:
    """The plain value of a text without problems."""
    node, problems = read_text(text, "x.yaml")
    assert problems == []
    assert node is not None
    return plain(node)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5e+2", -150.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("5", 5),
        ("+5", 5),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("~", None),
        ("null", None),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("recore-positions:none", "recore-positions:none"),
        ("|\n  5\n", "5\n"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    read = value_of(f"a: {text}")["a"]
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(value_of("a: .nan")["a"])


def test_keys_are_text_as_written() -> None:
    assert value_of("32: a\n3e-4: b\ntrue: c\non: d\n") == {"32": "a", "3e-4": "b", "true": "c", "on": "d"}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3\n", ["x.yaml:3: a: key 'a' is written twice, first in x.yaml:1"]),
        (
            "m:\n  - k: {b: 1, b: 2}\n",
            ["x.yaml:2: m.0.k.b: key 'b' is written twice, first in x.yaml:2"],
        ),
        (
            "a: &x 1\nb: *x\n",
            [
                "x.yaml:1: a: anchors and aliases are not allowed, got '&x' (write the value out, or use `extends:`)",
                "x.yaml:2: b: anchors and aliases are not allowed, got '*x' (write the value out, or use `extends:`)",
            ],
        ),
        (
            "a: !!python/object/apply:os.system ['true']\n",
            [
                "x.yaml:1: a: tags are not allowed, got '!!python/object/apply:os.system' (write the plain value)"
            ],
        ),
        ("a: !mine 5\n", ["x.yaml:1: a: tags are not allowed, got '!mine' (write the plain value)"]),
        ("a: !!int '5'\n", ["x.yaml:1: a: tags are not allowed, got '!!int' (write the plain value)"]),
        ("a: ! 5\n", ["x.yaml:1: a: tags are not allowed, got '!' (write the plain value)"]),
        (
            "a: {b: 1}\nc:\n  <<: {b: 2}\n",
            ["x.yaml:3: c: merges (`<<`) are not allowed (write the keys out, or use `extends:`)"],
        ),
        ("? [a, b]\n: 1\n", ["x.yaml:1: expected a text as key, got a list"]),
        ("a: 1\n---\nb: 2\n", ["x.yaml:2: expected one document, got another one after `---`"]),
        ("%TAG ! tag:evil,2024:\n---\na: 1\n", ["x.yaml:1: %TAG directives are not allowed"]),
        (
            "a: 1e999\n",
            ["x.yaml:1: a: the number 1e999 is too large for a float (infinity is written .inf)"],
        ),
        (f"a: {'9' * 5000}\n", ["x.yaml:1: a: a number of 5000 digits"]),
        (
            "a: [1, 2\nb: 3\n",
            ["x.yaml:2: not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'"],
        ),
        (
            "a: 1\nb: \x00\n",
            ["x.yaml:2: not YAML: unacceptable character #x0000: special characters are not allowed"],
        ),
        (
            "a:\n\t- 1\n",
            [TAB],
        ),
    ],
)
def test_what_is_refused(text: str, problems: list[str]) -> None:
    _, found = read_text(text, "x.yaml")
    assert [str(problem) for problem in found] == problems


def test_all_problems_of_a_text_come_at_once() -> None:
    _, found = read_text("a: !t 1\na: &b 2\nc: *b\nd: 1e999\n", "x.yaml")
    assert [problem.where for problem in found] == [
        "x.yaml:1",
        "x.yaml:2",
        "x.yaml:2",
        "x.yaml:3",
        "x.yaml:4",
    ]


def test_billion_laughs_are_refused_without_expanding() -> None:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    node, found = read_text("\n".join(lines), "x.yaml")
    assert [str(problem) for problem in found] == [
        *(
            f"x.yaml:{line}: a{line - 1}{place}: anchors and aliases are not allowed, got {got!r} "
            "(write the value out, or use `extends:`)"
            for line, place, got in ((1, "", "&a0"), (2, "", "&a1"), (2, ".0", "*a0"))
        ),
        f"x.yaml: and {30 + 29 * 9 - 3} more anchors and aliases, not allowed either",
    ]
    assert node is not None


def test_a_text_of_nothing_but_problems_is_told_in_few_lines() -> None:
    _, found = read_text("a: 1\n" * 20_000, "x.yaml")
    assert len(found) == 101
    assert str(found[-1]) == "x.yaml:101: a: 100 problems up to here; the rest was not read"


def test_depth_is_bounded() -> None:
    _, found = read_text("[" * 100_000, "x.yaml")
    assert [problem.message for problem in found] == ["nested deeper than 64"]


def test_size_is_bounded(tmp_path: Path) -> None:
    _, found = read_text("a" * (LARGEST + 1), "x.yaml")
    assert [str(problem) for problem in found] == ["x.yaml: expected at most 262,144 characters, got 262,145"]
    file = tmp_path / "big.yaml"
    file.write_bytes(b"a" * (LARGEST + 1))
    _, found = read_file(file, "big.yaml")
    assert [str(problem) for problem in found] == ["big.yaml: expected at most 262,144 bytes, got 262,145"]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"a: \xff\n")
    assert [str(problem) for problem in read_file(file, "x.yaml")[1]] == ["x.yaml: not UTF-8 text (byte 3)"]
    assert [str(problem) for problem in read_file(tmp_path, "x.yaml")[1]] == [
        "x.yaml: cannot be read: Is a directory"
    ]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    node, found = read_file(file, "x.yaml")
    assert found == []
    assert node is not None
    assert plain(node) == {"a": 1}


def test_every_value_keeps_the_line_of_its_key() -> None:
    node, _ = read_text("a:\n  b:\n    - 1\n    - c: 2\n\n# note\nd: {e: 3,\n  f: 4}\n", "x.yaml")
    assert node is not None
    assert dict(places(node)) == {
        "a": "x.yaml:1",
        "a.b": "x.yaml:2",
        "a.b.0": "x.yaml:3",
        "a.b.1": "x.yaml:4",
        "a.b.1.c": "x.yaml:4",
        "d": "x.yaml:7",
        "d.e": "x.yaml:7",
        "d.f": "x.yaml:8",
    }


def places(node: Node, path: str = "") -> list[tuple[str, str]]:
    """Every path beneath a node with where it was written."""
    inner = [*(node.mapping or {}).items(), *enumerate(node.entries or ())]
    found = []
    for key, entry in inner:
        here = f"{path}.{key}".lstrip(".")
        found += [(here, entry.where), *places(entry, here)]
    return found


@settings(deadline=None, max_examples=300)
@given(TREES)
def test_a_tree_survives_yaml(tree: Any) -> None:
    read = value_of(to_yaml(tree))
    assert read == tree
    assert repr(read) == repr(tree)  # 1 is not 1.0 is not true


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    _, found = read_text(text, "x.yaml")
    assert all(str(problem).startswith("x.yaml") for problem in found)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_lines_are_counted_whatever_is_between(gaps: list[int]) -> None:
    lines: list[str] = []
    expected = {}
    for number, gap in enumerate(gaps):
        lines += ["# a comment", ""][: gap % 3] + [f"k{number}:", "  - x"][: 1 + gap % 2]
        expected[f"k{number}"] = f"x.yaml:{lines.index(f'k{number}:') + 1}"
    node, found = read_text("\n".join(lines), "x.yaml")
    assert found == []
    assert node is not None
    assert {key: entry.where for key, entry in (node.mapping or {}).items()} == expected


def test_what_yaml_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^a\.0: a set cannot be written as YAML$"):
        to_yaml({"a": [{1}]})
