"""Building: factories are imported late, called with options and a context at their place, and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recore import Context, Facts
from recore.component import Part
from recore.errors import PluginError
from recore.plugins import Plugins
from recore.recipe import make_builder
from recore.recipe.structure import Structurer
from recore.recipe.tree import node_of


def part_of(plugins: Plugins, kind: str, tree: Any, path: str = "here") -> Part[Any]:
    """A part of a plain tree."""
    part = Structurer(plugins).part(kind, node_of(tree, "x.yaml:3", Path(), []), path)
    assert isinstance(part, Part)
    return part


def test_a_part_is_built_at_its_place_with_the_facts_it_is_given(tiny: Plugins) -> None:
    build = make_builder(tiny)
    tree = {
        "use": "stack",
        "inner": [{"use": "mix"}, {"use": "stack", "inner": [{"use": "mix", "heads": 1}]}],
    }
    context = Context(seed=5, facts=Facts(width=8), builder=build)
    built = context.build(part_of(tiny, "encoder", tree, "model.encoder"), Facts(items=3))
    assert (built.context.path, built.context.seed) == ("model.encoder", 5)
    assert (built.context.facts.width, built.context.facts.items) == (8, 3)
    assert [inner.context.path for inner in built.inner] == ["model.encoder.inner.0", "model.encoder.inner.1"]
    assert built.inner[1].inner[0].options.heads == 1


def test_a_context_without_builder_gets_one(tiny: Plugins) -> None:
    tree = {"use": "stack", "inner": [{"use": "mix"}]}
    built = make_builder(tiny)(part_of(tiny, "encoder", tree), Context())
    assert built.inner[0].context.path == "here.inner.0"


def test_an_exception_of_the_factory_keeps_its_traceback_and_says_what_was_built(tiny: Plugins) -> None:
    part = part_of(tiny, "dataset", {"use": "toy", "rows": 13}, "data")
    with pytest.raises(ZeroDivisionError) as caught:
        make_builder(tiny)(part, Context())
    assert str(caught.value) == "bad luck"
    assert caught.value.__notes__ == ["while building dataset 'tiny-parts:toy' (x.yaml:3: data)"]
    assert Path(caught.traceback[-1].path).name == "tiny_parts_build.py"


def test_what_is_built_keeps_the_contract_of_its_kind(tiny: Plugins) -> None:
    with pytest.raises(PluginError) as caught:
        make_builder(tiny)(part_of(tiny, "batcher", {"use": "all"}, "batcher"), Context())
    assert str(caught.value) == (
        "x.yaml:3: batcher: batcher 'tiny-parts:all' was built as an object, which lacks epoch of the contract Batcher"
    )


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "no_such_module:build",
            (
                "dataset 'acme:x': its factory 'no_such_module:build' cannot be imported: "
                "ModuleNotFoundError: No module named 'no_such_module'"
            ),
        ),
        (
            "math:build",
            (
                "dataset 'acme:x': its factory 'math:build' cannot be imported: "
                "AttributeError: module 'math' has no attribute 'build'"
            ),
        ),
        ("math:pi", "dataset 'acme:x': its factory 'math:pi' is a float, expected something to call"),
        (
            "acme_broken:build",
            (
                "dataset 'acme:x': its factory 'acme_broken:build' cannot be imported: "
                "SystemExit: 3 [acme_broken.py:2]"
            ),
        ),
    ],
)
def test_a_factory_that_cannot_be_imported_names_the_plugin(here: Any, factory: str, message: str) -> None:
    from recore.plugins import discover

    here.plugin("acme", "1.0", "acme_plugin", plugin_text(factory))
    (here.folder / "acme_broken.py").write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    plugins = discover()
    with pytest.raises(PluginError) as caught:
        make_builder(plugins)(part_of(plugins, "dataset", {"use": "acme:x"}), Context())
    assert str(caught.value) == message


def plugin_text(factory: str) -> str:
    """A plugin with one dataset `x`."""
    return f"""
        import attrs
        from recore import Component, hookimpl

        @attrs.frozen
        class Options:
            '''None.'''

        @hookimpl
        def recore_datasets():
            yield Component("x", Options, {factory!r}, summary="x")
        """
