"""Every check of the kit has a planted fault on which it fails with its own sentence, and so has every condition in it.

`test_testing_faults_*.py` hold tables of planted faults: sound parts with one thing wrong, each beside the number of
the check that must say so. Here the tables are held against the kit itself:

- every number of every kind stands in a table: a check without a fault is one that may never have failed;
- every fault fails the check beside it, with the sentence of that check;
- every `require(…)` and `broken(…)` in the source of the checks is what some fault fell over. `UNPLANTED` names those
  that none does; it is exact, so that a new condition needs a fault, or to be named.
"""

from __future__ import annotations

import ast
import importlib.util
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import recore.testing
from recore.kinds import KINDS
from recore.testing import CHECKS, case_for, load_checks
from recore.testing.checks import Broken

HERE = Path(__file__).parent
KIT = Path(recore.testing.__file__).parent
FILES = sorted(HERE.glob("test_testing_faults_*.py"))
CHECKED = [name for name, kind in KINDS.items() if kind.checks]
# What checks of several kinds have in common, and who runs it.
SHARED = {"sequences": ("position", "encoder")}
ALONE = [kind for kind in CHECKED if not any(kind in owners for owners in SHARED.values())]
# Conditions that no fault falls over: the file, the function, and what is said.
UNPLANTED: set[tuple[str, str, str]] = set()


def _loaded(path: Path) -> ModuleType:
    """A file of faults: tests are no package, so that it is not simply imported."""
    spec = importlib.util.spec_from_file_location(f"faults_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = [(module.FIRST, fault) for module in map(_loaded, FILES) for fault in module.FAULTS]


def conditions(module: str) -> dict[int, tuple[str, str, str]]:
    """The line of each `require(…)` and `broken(…)` of a module of checks → file, function, what is said."""
    tree = ast.parse((KIT / f"{module}.py").read_text(encoding="utf-8"))
    return {call.lineno: (module, function, _said(call)) for function, call in _calls(tree)}


def _calls(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.Call]]:
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("require", "broken"):
            yield function, node
        yield from _calls(node, inner)


def _said(call: ast.Call) -> str:
    """The words of the message, without what is filled in."""
    texts = [node.value for node in ast.walk(call.args[-1]) if isinstance(node, ast.Constant)]
    return " … ".join(text.strip() for text in texts if isinstance(text, str) and text.strip())


def _fallen_over(found: Broken) -> tuple[str, int]:
    """The module and the line of the condition that did not hold."""
    frames = [f for f in traceback.extract_tb(found.__traceback__) if Path(f.filename).parent == KIT]
    last = next(frame for frame in reversed(frames) if Path(frame.filename).stem != "checks")
    assert last.lineno is not None
    return Path(last.filename).stem, last.lineno


def test_every_check_has_a_planted_fault() -> None:
    load_checks()
    assert len(FILES) == 3
    assert sorted(CHECKED) == sorted(CHECKS)
    planted = {(kind, number) for _, (kind, number, *_) in TABLES}
    stated = {(check.kind, check.number) for checks in CHECKS.values() for check in checks}
    assert stated - planted == set(), "these checks have no planted fault"
    assert planted - stated == set(), "these faults are of checks that there are not"


@pytest.mark.parametrize("kind", ALONE)
def test_every_condition_of_a_kind_has_a_planted_fault(kind: str) -> None:
    fallen = _run(kind)
    open_ = {said for line, said in conditions(kind).items() if (kind, line) not in fallen}
    assert open_ == {one for one in UNPLANTED if one[0] == kind}


def test_every_condition_that_kinds_share_has_a_planted_fault() -> None:
    for module, owners in SHARED.items():
        fallen = set().union(*map(_run, owners))
        open_ = {
            said
            for name in (module, *owners)
            for line, said in conditions(name).items()
            if (name, line) not in fallen
        }
        assert open_ == {one for one in UNPLANTED if one[0] in (module, *owners)}


def _run(kind: str) -> set[tuple[str, int]]:
    """Run every fault of a kind: each fails its check, with that check's sentence. Gives the conditions that did
    not hold."""
    fallen, wrong = set(), []
    for profile, (_, number, words, part) in (entry for entry in TABLES if entry[1][0] == kind):
        check = next(check for check in CHECKS[kind] if check.number == number)
        try:
            with torch.enable_grad():
                check.function(part, case_for(part, profile))
        except Broken as found:
            fallen.add(_fallen_over(found))
            if words not in f"{check.sentence} But {found}; `{part.name}`.":
                wrong.append(f"{check.name} says: {found}, expected: {words}")
        else:
            wrong.append(f"{check.name} passes, expected: {words}")
    assert wrong == []
    return fallen


def test_a_condition_without_a_fault_is_seen() -> None:
    """The method itself: of a check that is made up, the conditions are found and the one that fell is known."""
    tree = ast.parse(
        "def check(part):\n    require(part, f'{part} is bad')\n    def inner():\n        broken('so')\n"
    )
    assert [(name, call.lineno, _said(call)) for name, call in _calls(tree)] == [
        ("check", 2, "is bad"),
        ("inner", 4, "so"),
    ]
    assert {module for module, _, _ in UNPLANTED} <= {*CHECKED, *SHARED}
    assert sum(len(conditions(module)) for module in (*CHECKED, *SHARED)) > 200
