"""`docs/explanation/writing-a-part.md` is executed as it stands, and its parts are held to the kit's checks."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from attrs import evolve

from recore import Facts
from recore.hookspecs import GROUP
from recore.kinds import HEART, KINDS
from recore.plugins import discover
from recore.recipe.build import make_builder
from recore.testing import case_for, counts, failures, load_checks, part_of, run_checks

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "writing-a-part.md"
BLOCK = re.compile(r"^```(\w+)( check)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str, check: bool = False) -> list[str]:
    return [code for name, word, code in BLOCK.findall(TEXT) if name == language and bool(word) == check]


@pytest.fixture(scope="module")
def my_part(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("loose") / "my_part.py"
    file.write_text("\n\n".join(blocks("python")[:-1]), encoding="utf-8")
    file.chmod(0o644)
    return file


def test_there_is_a_whole_part_of_each_heart_kind(my_part) -> None:
    provider = discover(loose=[my_part]).provider("my_part")
    assert provider is not None
    assert (provider.status, provider.problems) == ("ok", [])
    assert [found.kind for found in provider.components] == [kind for kind in KINDS if kind in HEART]
    assert {found.kind for found in provider.components} == set(HEART)
    for found in provider.components:
        assert found.component.options.__doc__
        assert found.component.summary.endswith(".")


@pytest.mark.parametrize("kind", HEART)
def test_the_part_keeps_its_word(kind, my_part) -> None:
    plugins = discover(loose=[my_part])
    provider = plugins.provider("my_part")
    assert provider is not None
    (found,) = [one for one in provider.components if one.kind == kind]
    part = part_of(found.kind, found.component, found.provider)
    results = run_checks(part, builder=make_builder(plugins))
    assert [result.measured for result in failures(results)] == []
    assert len(results) == counts()[kind]
    open_ = {result.name for result in results if result.status == "not claimed"}
    silent = {"position": {"position 12"}, "loss": {"loss 8", "loss 13"}, "evaluator": {"evaluator 9"}}
    assert open_ == silent.get(kind, set())


def test_the_page_shows_how_to_check(my_part, monkeypatch, tmp_path) -> None:
    (code,) = blocks("python", check=True)
    # The loop on the page runs every check; that they hold is tested part by part above.
    import recore.testing

    seen = []
    monkeypatch.setattr(recore.testing, "run_checks", lambda part, builder: seen.append(part.name) or [])
    monkeypatch.chdir(my_part.parent)
    exec(compile(code, "writing-a-part.md", "exec"), {})
    assert len(seen) == 6
    assert "my_part:alibi" in seen


def test_a_loose_part_without_its_builder_is_told_so(my_part) -> None:
    provider = discover(loose=[my_part]).provider("my_part")
    assert provider is not None
    found = next(one for one in provider.components if one.kind == "batcher")
    part = part_of(found.kind, found.component, found.provider)
    with pytest.raises(ValueError, match=r"builder=make_builder\(discover"):
        case_for(part).build(part)


def test_problems_are_said() -> None:
    namespace: dict[str, object] = {"__name__": "my_part"}
    exec(compile("\n\n".join(blocks("python")[:2]), "page", "exec"), namespace)
    exec(compile(blocks("python")[2], "page", "exec"), namespace)
    alibi = namespace["Alibi"]()
    assert alibi.problems(Facts(terms=frozenset({"rotate"}))) == [
        "position 'alibi' needs an encoder that takes the attention term 'pair-function'"
    ]
    assert alibi.problems(Facts()) == []


def test_the_distribution_is_one_that_recore_finds(my_part) -> None:
    (text,) = blocks("toml")
    project = tomllib.loads(text)["project"]
    assert project["entry-points"] == {GROUP: {"parts": "acme_recore.plugin"}}
    assert project["optional-dependencies"]["testing"] == ["recore[testing]"]
    assert project["dependencies"] == ["recore>=0.1,<0.2"]


def test_the_distributions_own_test_runs(my_part, monkeypatch) -> None:
    """The last block, with the hook of the page in the place of the distribution's."""
    plugins = discover(loose=[my_part])
    provider = plugins.provider("my_part")
    assert provider is not None
    module = ModuleType("acme_recore.plugin")
    home = provider.modules["this"]
    component = next(one.component for one in provider.components if one.kind == "position")
    here = evolve(component, factory="acme_recore.plugin:alibi")
    module.recore_positions, module.alibi = lambda: [here], home.alibi
    monkeypatch.setitem(sys.modules, "acme_recore", ModuleType("acme_recore"))
    monkeypatch.setitem(sys.modules, "acme_recore.plugin", module)
    namespace: dict[str, object] = {}
    exec(compile(blocks("python")[-1], "page", "exec"), namespace)
    test = namespace["test_keeps_its_word"]
    (mark,) = test.pytestmark
    bound = [case.values[0] for case in mark.args[1]]
    assert [one.check for one in bound] == load_checks()["position"]
    test(bound[0])
    with pytest.raises(pytest.skip.Exception, match="position 12 is not claimed: nothing trains"):
        test(bound[-1])
