"""`view:` of a loss entry, the views that a model encodes (`Facts.views`), and which parts belong to which view."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import field, frozen

from recore import Component, Facts, Part, option
from recore.errors import RecipeError
from recore.plugins import Plugins
from recore.recipe import Recipe, from_tree, load_cells

BASE = """\
recore: 1
data: {use: tiny-parts:toy}
split: {use: last}
tokenizer: {use: ids}
objective: {use: next}
model:
  use: two_views:two
  embedder: {use: table, width: 16}
  encoder: {use: mix, heads: 4}
  other:
    embedder: {use: table, width: 8}
    encoder: {use: mix, heads: 2, causal: false}
batcher: {use: all}
loss:
  - {use: full, name: one}
  - {use: full, name: two, view: item, weight: 0.5}
trainer: {use: plain}
evaluators: {use: rank}
"""
PLUGIN = '''\
"""A model of two views, as a stranger would write it."""
from typing import ClassVar

from attrs import frozen
from recore import Component, Facts, Part, hookimpl, option
from recore.contracts.model import Embedder, Encoder


@frozen
class Other:
    """The other view."""

    view: ClassVar[str] = "item"

    embedder: Part[Embedder] = option(help="Vectors.")
    encoder: Part[Encoder] = option(help="States.")


@frozen
class Two:
    """Two views."""

    embedder: Part[Embedder] = option(help="Vectors.")
    encoder: Part[Encoder] = option(help="States.")
    other: Other = option(help="The other view.")

    def provides(self):
        return Facts(history=50, views={"user": Facts(), "item": Facts(history=7)})


@frozen
class Asks:
    """Says what it was told."""

    def problems(self, facts):
        told = sorted(facts.views or ())
        return [f"views {told}, learned {sorted(facts.learned or ())}"]


@hookimpl
def recore_models():
    yield Component("two", Two, "this:build", "Two views.")


@hookimpl
def recore_evaluators():
    yield Component("asks", Asks, "this:build", "Asks.")


def build(options, context):
    return options
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE, encoding="utf-8")
    Path("two_views.py").write_text(PLUGIN, encoding="utf-8")
    return tmp_path / "two_views.py"


@pytest.fixture
def composed(plugin: Path, tiny: Plugins) -> Any:
    """`composed("loss: …")`: the recipe with something laid over it."""

    def one(text: str = "", **more: Any) -> Recipe:
        Path("x.yaml").write_text(f"recore: 1\nextends: base.yaml\n{text}\n", encoding="utf-8")
        (recipe,) = load_cells("x.yaml", loose=[plugin], **more)
        return recipe

    return one


def problems(composed: Any, text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        composed(text)
    return [str(problem) for problem in caught.value.problems]


# ---- losses ---------------------------------------------------------------------------------------------------


def test_a_loss_learns_from_the_view_user_unless_it_says_another(composed: Any) -> None:
    recipe = composed()
    assert [(loss.name, loss.view, loss.weight) for loss in recipe.losses] == [
        ("one", "user", 1.0),
        ("two", "item", 0.5),
    ]
    assert [(loss["name"], loss["view"]) for loss in recipe.tree["loss"]] == [
        ("one", "user"),
        ("two", "item"),
    ]
    assert recipe.facts.learned == frozenset({"user", "item"})


def test_a_resolved_recipe_says_the_views_and_composes_to_the_same(composed: Any, plugin: Path) -> None:
    recipe = composed()
    again = from_tree(recipe.tree, "again", plugins=recipe.plugins)
    assert again.tree == recipe.tree
    assert [loss.view for loss in again.losses] == ["user", "item"]


def test_a_loss_of_weight_0_teaches_no_view(composed: Any) -> None:
    recipe = composed("loss: [{use: full, name: one}, {use: full, name: two, view: item, weight: 0}]")
    assert [loss.name for loss in recipe.losses] == ["one"]
    assert recipe.facts.learned == frozenset({"user"})


def test_a_view_that_is_misspelt_is_refused_whatever_its_weight(composed: Any) -> None:
    text = "loss: [{use: full, name: one}, {use: full, name: two, view: itme, weight: 0}]"
    assert problems(composed, text) == [
        "x.yaml:3: loss.1.view: loss 'two' learns from the view 'itme', which the model does not encode (it encodes: "
        "user, item)"
    ]


def test_a_view_is_a_word(composed: Any) -> None:
    assert problems(composed, "loss: {use: full, view: [item]}") == [
        "x.yaml:3: loss.view: expected a word, got a list"
    ]
    assert problems(composed, "loss: {use: full, view: 'the item'}") == [
        "x.yaml:3: loss.view: expected a word, got 'the item'"
    ]


def test_a_single_loss_may_say_its_view(composed: Any) -> None:
    recipe = composed("loss: {use: full, view: item}")
    assert [(loss.name, loss.view) for loss in recipe.losses] == [("full", "item")]
    assert recipe.tree["loss"]["view"] == "item"


def test_the_assembled_model_encodes_users_only(composed: Any) -> None:
    model = "model: {use: recore:sequential, embedder: {use: table}, encoder: {use: mix}}"
    assert problems(composed, model) == [
        "base.yaml:16: loss.1.view: loss 'two' learns from the view 'item', which the model does not encode (it "
        "encodes: user)"
    ]


def test_of_a_model_that_cannot_be_read_nobody_knows_what_it_encodes(composed: Any) -> None:
    """One mistake, one line: losses and other parts are not blamed for it."""
    text = "evaluators: {use: two_views:asks}\nmodel: {other: {embedder: {use: table, width: many}}}"
    found = problems(composed, text)
    assert found == [
        "x.yaml:3: evaluators: views [], learned ['item', 'user']",
        "x.yaml:4: model.other.embedder.width: expected int, got 'many'",
    ]


# ---- facts ----------------------------------------------------------------------------------------------------


def test_each_view_has_the_facts_of_its_own_parts(composed: Any) -> None:
    facts = composed().facts
    assert list(facts.views) == ["user", "item"]
    assert (facts.width, facts.heads, facts.history, facts.causal) == (16, 4, 50, True)
    item = facts.views["item"]
    assert (item.width, item.heads, item.history, item.causal) == (8, 2, 7, False)
    user = facts.views["user"]
    assert (user.width, user.heads, user.history, user.causal) == (16, 4, 50, True)
    assert item.views is None


def test_what_the_parts_of_a_view_do_not_say_is_as_in_the_whole(composed: Any) -> None:
    """The keys of the recipe, for one; what was never said stays unknown."""
    facts = composed().facts
    assert facts.views["item"].keys == facts.keys
    assert facts.views["item"].order_across_users is None


def test_parts_are_asked_among_the_facts_of_their_view(composed: Any) -> None:
    """Three heads do not divide 8, the width of the other view; four would divide 16."""
    text = "model: {other: {encoder: {use: mix, heads: 3}}}"
    assert problems(composed, text) == ["x.yaml:3: model.other.encoder: 3 heads do not divide a width of 8"]
    assert problems(composed, "model: {encoder: {use: mix, heads: 3}}") == [
        "x.yaml:3: model.encoder: 3 heads do not divide a width of 16"
    ]


def test_parts_are_asked_again_among_them_when_the_data_is_known(composed: Any) -> None:
    recipe = composed("model: {other: {encoder: {use: mix, heads: 2, causal: false}}}")
    assert recipe.problems(Facts(items=3, columns=frozenset())) == []


def test_parts_of_one_view_may_say_what_those_of_another_do_not(composed: Any) -> None:
    """Widths of 16 and 8 are no contradiction; two widths within a view are."""
    text = "model: {other: {embedder: {use: table, width: 8}, encoder: {use: mix, width: 6}}}"
    (found,) = [line for line in problems(composed, text) if "says width" in line]
    assert "encoder 'tiny-parts:mix' says width = 6, but embedder 'tiny-parts:table'" in found
    assert found.endswith("says 8")


def test_evaluators_are_told_the_views_and_what_is_learned(composed: Any) -> None:
    assert problems(composed, "evaluators: {use: two_views:asks}") == [
        "x.yaml:3: evaluators: views ['item', 'user'], learned ['item', 'user']"
    ]


# ---- Part.views -----------------------------------------------------------------------------------------------


@frozen
class _Leaf:
    """An option of its own is named like the class variable of others."""

    view: str = option("x", help="No view at all.")
    inner: Any = option(None, help="A part.")


@frozen
class _Within:
    view: ClassVar[str] = "item"

    leaf: Any = field(default=None)
    deep: Any = field(default=None)


@frozen
class _Top:
    own: Any = field(default=None)
    within: Any = field(default=None)
    many: Any = field(default=())
    named: Any = field(factory=dict)


def part(options: Any, kind: str = "encoder") -> Part[Any]:
    return Part(
        kind, Component(type(options).__name__, type(options), "nowhere:build", "For a test."), "me", options
    )


def test_the_parts_of_another_view_at_any_depth() -> None:
    """Within a part of a view all is of that view; beside it nothing is."""
    deepest = part(_Top())
    leaf, deep = part(_Leaf()), part(_Top(own=deepest))
    own, listed, under = part(_Top()), part(_Top()), part(_Top())
    top = part(_Top(own=own, within=_Within(leaf=leaf, deep=deep), many=[listed], named={"a": under}))
    assert [id(one) for one in top.parts()] == [id(one) for one in (own, leaf, deep, deepest, listed, under)]
    assert top.views() == {id(leaf): "item", id(deep): "item", id(deepest): "item"}
    assert own.views() == {}


def test_an_option_that_is_named_view_is_an_option() -> None:
    inner = part(_Top())
    assert part(_Leaf(inner=inner)).views() == {}
    nested = part(_Top(within=_Within(deep=_Leaf(inner=inner))))
    assert nested.views() == {id(inner): "item"}
