"""The pages of `docs/reference/contracts` and the checks of `recore.testing` say the same, one to one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recore.kinds import KINDS
from recore.testing import CHECKS, load_checks

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = DOCS / "reference" / "contracts"
SENTENCE = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)


def page(kind: str) -> str:
    return (PAGES / f"{kind}.md").read_text(encoding="utf-8")


def test_every_kind_with_checks_has_a_page() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {name for name, kind in KINDS.items() if kind.checks}


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.checks])
def test_sentences_are_checks_one_to_one(kind) -> None:
    written = [(int(number), text) for number, text in SENTENCE.findall(page(kind))]
    checked = [(check.number, check.sentence) for check in load_checks()[kind]]
    assert written == checked
    assert [number for number, _ in written] == list(range(1, len(written) + 1))


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.checks])
def test_page_names_contract_and_hook(kind) -> None:
    text = page(kind)
    assert f"`recore.contracts.{KINDS[kind].contract.__name__}`" in text
    assert f"`{KINDS[kind].hook}`" in text
    claims = {"encoder", "position", "sampler", "batcher", "loss"}
    assert ("Claims: none are needed" in text) == (kind not in claims)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.checks])
def test_code_on_the_page_runs(kind) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page(kind), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    # The checks of tiny parts run in `test_testing_sound.py`; here their number is what counts.
    assert f"assert len(results) == {len(CHECKS[kind])}\n" in blocks[0]
    if kind in ("batcher", "evaluator", "sampler"):
        exec(compile(blocks[0], f"{kind}.md", "exec"), {})


def test_pages_on_contracts_name_all_thirteen_uses() -> None:
    text = (DOCS / "explanation" / "contracts.md").read_text(encoding="utf-8")
    uses = [int(number) for number in re.findall(r"^\*\*(\d+)\. ", text, re.MULTILINE)]
    assert uses == list(range(1, 14))


def test_names_in_code_quotes_exist() -> None:
    """Whatever the explanation of the contracts quotes as `Name.field` is there, so that it cannot go stale."""
    import recore.claims
    import recore.component
    import recore.contracts
    import recore.data
    import recore.ragged

    text = (DOCS / "explanation" / "contracts.md").read_text(encoding="utf-8")
    homes = [recore.contracts, recore.component, recore.ragged, recore.data, recore.claims]
    quoted = set(re.findall(r"`([A-Z]\w+)\.(\w+)`", text))
    assert len(quoted) > 15
    for name, member in quoted:
        owner = next((getattr(home, name) for home in homes if hasattr(home, name)), None)
        assert owner is not None, f"{name} is nowhere"
        fields = {a.name for a in getattr(owner, "__attrs_attrs__", ())}
        assert member in fields or hasattr(owner, member), f"{name} has no {member}"
