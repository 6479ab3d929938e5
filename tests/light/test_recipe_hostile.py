"""Recipes made to do harm, or to be read for ever: refused at once, in words, with status 2, nothing executed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recore.plugins import Plugins
from recore.recipe.files import LONGEST_CHAIN

BASE = """\
recore: 1
data: {use: tiny-parts:toy}
split: {use: tiny-parts:last}
tokenizer: {use: tiny-parts:ids}
objective: {use: tiny-parts:next}
model: {embedder: {use: tiny-parts:table}, position: {use: tiny-parts:near}, encoder: {use: tiny-parts:mix}}
batcher: {use: tiny-parts:all}
loss: {use: tiny-parts:full}
trainer: {use: tiny-parts:plain}
evaluators: [{use: tiny-parts:rank}]
"""
Refused = Callable[..., list[str]]


@pytest.fixture
def refused(
    tiny: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """The lines with which `recore check` refuses a recipe; nothing came into the folder."""
    from recore.cli import check
    from recore.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECORE_DATA", raising=False)
    monkeypatch.setattr(check, "discover", lambda loose: tiny)
    Path("base.yaml").write_text(BASE, encoding="utf-8")

    def lines(content: str | bytes = "", *more: str, name: str = "x.yaml") -> list[str]:
        if content:
            Path("x.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
        before = sorted(tmp_path.rglob("*"))
        status = main(["check", name, *more])
        told = capsys.readouterr()
        assert (status, told.out) == (2, ""), told.err
        assert sorted(tmp_path.rglob("*")) == before
        return told.err.splitlines()

    return lines


HEAD = "recore: 1\nextends: base.yaml\n"
WRITE_OUT = "(write the value out, or use `extends:`)"
PLAIN = "(write the plain value)"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (
            HEAD + "data: !!python/object/apply:os.system ['touch executed']\n",
            [f"x.yaml:3: data: tags are not allowed, got '!!python/object/apply:os.system' {PLAIN}"],
        ),
        (
            HEAD + "data: !!python/name:os.system\nsplit: !!python/module:os\n",
            [
                f"x.yaml:3: data: tags are not allowed, got '!!python/name:os.system' {PLAIN}",
                f"x.yaml:4: split: tags are not allowed, got '!!python/module:os' {PLAIN}",
            ],
        ),
        (
            HEAD + "base: &b {rows: 1}\ndata: {<<: *b}\n",
            [
                f"x.yaml:3: base: anchors and aliases are not allowed, got '&b' {WRITE_OUT}",
                "x.yaml:4: data: merges (`<<`) are not allowed (write the keys out, or use `extends:`)",
                f"x.yaml:4: data.<<: anchors and aliases are not allowed, got '*b' {WRITE_OUT}",
            ],
        ),
        (
            HEAD + "data:\n\t{use: toy}\n",
            [
                "x.yaml:4: not YAML: while scanning for the next token, found character '\\t' that cannot start "
                "any token"
            ],
        ),
        (
            HEAD + "data: {name: a\x00b}\n",
            ["x.yaml:3: not YAML: unacceptable character #x0000: special characters are not allowed"],
        ),
        (HEAD.encode() + b"data: {name: \xff}\n", ["x.yaml: not UTF-8 text (byte 42)"]),
        (HEAD + "data: " + "[" * 100_000, ["x.yaml:3: data" + ".0" * 63 + ": nested deeper than 64"]),
        (HEAD + "data: " + "{a: " * 30_000, ["x.yaml:3: data" + ".a" * 62 + ": nested deeper than 64"]),
        (
            HEAD + "- " * 60_000,
            ["x.yaml:3: not YAML: while parsing a block mapping, expected <block end>, but found '-'"],
        ),
        (
            "? " * 60_000,
            ["x.yaml:1: expected a text as key, got a mapping", "x.yaml:1: nested deeper than 64"],
        ),
        ("x" * 10_000_000, ["x.yaml: expected at most 262,144 bytes, got 10,000,000"]),
        (HEAD + "data: {rows: " + "9" * 10_000 + "}\n", ["x.yaml:3: data.rows: a number of 10000 digits"]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_a_hostile_file_gets(content: str | bytes, lines: list[str], refused: Refused) -> None:
    started = time.process_time()
    assert refused(content) == lines
    assert time.process_time() - started < 20


def test_billion_laughs_get_few_lines(refused: Refused) -> None:
    laughs = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    told = refused(HEAD + "\n".join(laughs))
    rule = "anchors and aliases are not allowed, got"
    assert told[0] == "x.yaml: and 88 more anchors and aliases, not allowed either"
    assert told[1:4] == [
        f"x.yaml:3: a0: {rule} '&a0' {WRITE_OUT}",
        f"x.yaml:4: a1: {rule} '&a1' {WRITE_OUT}",
        f"x.yaml:4: a1.0: {rule} '*a0' {WRITE_OUT}",
    ]
    assert all(": unknown key (" in line for line in told[4:])
    assert len(told) <= 14


# ---- extends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (
            ".",
            "x.yaml:2: extends: expected a recipe file, got the folder '.' (in it: base.yaml, closed.yaml, "
            "link.yaml, round.yaml, x.yaml)",
        ),
        ("sub", "x.yaml:2: extends: expected a recipe file, got the folder 'sub' (in it: pipe.yaml)"),
        (
            "https://example.org/base.yaml",
            "x.yaml:2: extends: expected a recipe file, got the address 'https://example.org/base.yaml' "
            "(fetch it first)",
        ),
        ("x.yaml", "x.yaml:2: extends: recipes extend each other in a circle: x.yaml → x.yaml"),
        ("./sub/../x.yaml", "x.yaml:2: extends: recipes extend each other in a circle: x.yaml → x.yaml"),
        ("link.yaml", "x.yaml:2: extends: recipes extend each other in a circle: x.yaml → link.yaml"),
        ("round.yaml", "x.yaml:2: extends: no recipe 'round.yaml', neither a file nor a shipped recipe"),
        (
            "a" * 5_000,
            f"x.yaml:2: extends: no recipe '{'a' * 76}..., neither a file nor a shipped recipe",
        ),
        ('"a\\0b"', "x.yaml:2: extends: no recipe 'a\\x00b', neither a file nor a shipped recipe"),
        ("3", "x.yaml:2: extends: expected the file or the name of one recipe, as text"),
        ("{a: b}", "x.yaml:2: extends: expected the file or the name of one recipe, as text"),
        (
            "sub/pipe.yaml",
            "x.yaml:2: extends: no recipe 'sub/pipe.yaml', neither a file nor a shipped recipe",
        ),
        ("closed.yaml", "closed.yaml: expected a mapping of keys such as `recore: 1`, got nothing"),
    ],
    ids=lambda value: value[:40],
)
def test_what_cannot_be_extended(base: str, line: str, refused: Refused, tmp_path: Path) -> None:
    import os

    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "sub" / "pipe.yaml")
    (tmp_path / "link.yaml").symlink_to("x.yaml")
    (tmp_path / "round.yaml").symlink_to("round.yaml")
    (tmp_path / "closed.yaml").write_text("")
    (told,) = refused(f"recore: 1\nextends: {base}\n")
    assert told.partition(" (did you mean")[0].partition(" (known:")[0] == line


def test_a_circle_of_three(refused: Refused, tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"recore: 1\nextends: {base}.yaml\n")
    circle = "a.yaml → b.yaml → c.yaml → a.yaml"
    assert refused(name="a.yaml") == [f"c.yaml:2: extends: recipes extend each other in a circle: {circle}"]
    circle = "b.yaml → c.yaml → a.yaml → b.yaml"
    assert refused("recore: 1\nextends: b.yaml\n") == [
        f"a.yaml:2: extends: recipes extend each other in a circle: {circle}"
    ]


def test_a_long_chain_is_refused_and_a_shorter_one_is_not(refused: Refused, tmp_path: Path) -> None:
    from recore.cli.main import main

    for number in range(3_000):
        (tmp_path / f"c{number}.yaml").write_text(f"recore: 1\nextends: c{number + 1}.yaml\n")
    assert refused(name="c0.yaml") == [
        f"c{LONGEST_CHAIN - 1}.yaml:2: extends: recipes extend each other more than {LONGEST_CHAIN} deep"
    ]
    (tmp_path / f"c{LONGEST_CHAIN - 2}.yaml").write_text("recore: 1\nextends: base.yaml\n")
    assert main(["check", "c0.yaml"]) == 0


def test_one_outside_the_folder_is_fine(refused: Refused, tmp_path: Path) -> None:
    from recore.cli.main import main

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "y.yaml").write_text("recore: 1\nextends: ../base.yaml\n")
    assert main(["check", "sub/y.yaml"]) == 0


# ---- --set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data.rows.x=3", "--set data.rows.x=3: data.rows: expected int, got a mapping"),
        (
            "evaluators.k=3",
            "--set evaluators.k=3: evaluators.k: expected the number of an entry of the list (0)",
        ),
        (
            "evaluators.-1={}",
            "--set evaluators.-1={}: evaluators.-1: expected the number of an entry of the list (0)",
        ),
        (
            "data.use.x=3",
            "--set data.use.x=3: data.use.x: 'data.use' is no mapping, so it has no 'x'",
        ),
        ("=3", "--set =3: expected PATH=VALUE, as in model.history.last=50"),
        ("data.rows", "--set data.rows: expected PATH=VALUE, as in model.history.last=50"),
        (
            "data.rows={",
            "--set data.rows={: data.rows: not YAML: while parsing a flow node, expected the node content, but "
            "found '<stream end>'",
        ),
        (
            "data.rows=&a 3",
            f"--set data.rows=&a 3: data.rows: anchors and aliases are not allowed, got '&a' {WRITE_OUT}",
        ),
        (
            "data.name=!!python/name:os.system ''",
            "--set data.name=!!python/name:os.system '': data.name: tags are not allowed, got "
            f"'!!python/name:os.system' {PLAIN}",
        ),
        (".".join(["a"] * 5_000) + "=1", f"--set {'a.' * 98}a...: nested deeper than 64"),
        (
            "data.rows=" + "[" * 5_000,
            f"--set data.rows={'[' * 187}...: data.rows: nested deeper than 64",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_what_cannot_be_set(text: str, line: str, refused: Refused) -> None:
    assert refused(HEAD, "--set", text) == [line]


def test_what_is_set_deepest_is_told_and_not_a_recursion(refused: Refused) -> None:
    told = refused(HEAD, "--set", ".".join(["data", "name", *["a"] * 61]) + "=" + "[" * 60 + "]" * 60)
    assert told[0].endswith(": expected str, got a mapping")
