"""Composition: what a recipe that is well becomes, its cells, its resolved tree, and the facts parts are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recore import Facts
from recore.errors import RecipeError
from recore.plugins import Plugins
from recore.recipe import Recipe, from_tree, load_cells, locate, shipped, to_yaml
from recore.recipe.compose import KEYS
from recore.recipe.files import core_recipes, load_source, recipe_name

BASE = """\
recore: 1
data: {use: tiny-parts:toy}
transforms: {use: tiny-parts:drop, below: 5}
split: {use: last}
tokenizer: {use: ids}
objective: {use: next}
model:
  history: {last: 50}
  embedder: {use: table, width: 16}
  position: [{use: near}, {use: nowhere}]
  encoder: {use: mix, heads: 4}
batcher: {use: all}
sampler: {use: uniform}
loss:
  - {use: pairs, name: main, weight: 0.5}
  - {use: pairs, name: own, sampler: {use: uniform, count: 9}, weight: 0}
  - {use: full, name: off, weight: 2}
trainer: {use: plain}
evaluators: {use: rank, k: [5, 10]}
seeds: [0, 7]
"""
Cells = Callable[..., list[Recipe]]


@pytest.fixture
def composed(tiny: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cells:
    """The cells of `base.yaml`, or of a recipe that extends it."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE, encoding="utf-8")

    def cells(
        text: str = "", sets: Sequence[str] = (), overlay: dict[str, Any] | None = None
    ) -> list[Recipe]:
        Path("x.yaml").write_text(f"recore: 1\nextends: base.yaml\n{text}\n", encoding="utf-8")
        return load_cells("x.yaml", sets, overlay, plugins=tiny)

    return cells


def test_a_recipe_becomes_parts(composed: Cells, tmp_path: Path) -> None:
    (recipe,) = composed()
    assert (recipe.name, recipe.cell, recipe.seeds) == ("x", "base", (0, 7))
    assert recipe.file == tmp_path / "x.yaml"
    assert [(part.path, part.kind, part.name) for part in recipe.parts()] == [
        ("data", "dataset", "tiny-parts:toy"),
        ("transforms", "transform", "tiny-parts:drop"),
        ("split", "split", "tiny-parts:last"),
        ("tokenizer", "tokenizer", "tiny-parts:ids"),
        ("objective", "objective", "tiny-parts:next"),
        ("model", "model", "recore:sequential"),
        ("model.embedder", "embedder", "tiny-parts:table"),
        ("model.encoder", "encoder", "tiny-parts:mix"),
        ("model.position.0", "position", "tiny-parts:near"),
        ("model.position.1", "position", "tiny-parts:nowhere"),
        ("batcher", "batcher", "tiny-parts:all"),
        ("loss.0", "loss", "tiny-parts:pairs"),
        ("sampler", "sampler", "tiny-parts:uniform"),
        ("loss.2", "loss", "tiny-parts:full"),
        ("trainer", "trainer", "tiny-parts:plain"),
        ("evaluators", "evaluator", "tiny-parts:rank"),
    ]
    assert recipe.transforms[0].options.below == 5
    assert [provider.name for provider in recipe.providers] == ["recore", "tiny-parts"]
    assert [entry["name"] for entry in recipe.provenance()] == ["recore", "tiny-parts"]


def test_losses_have_names_weights_and_samplers_and_weight_0_is_not_built(composed: Cells) -> None:
    (recipe,) = composed()
    found = [(loss.name, loss.weight, loss.sampler and loss.sampler.path) for loss in recipe.losses]
    assert found == [("main", 0.5, "sampler"), ("off", 2.0, None)]
    assert [loss["name"] for loss in recipe.tree["loss"]] == ["main", "own", "off"]


def test_parts_are_told_the_facts_of_others(composed: Cells) -> None:
    (recipe,) = composed()
    facts = recipe.facts
    assert (facts.width, facts.heads, facts.history, facts.causal) == (16, 4, 50, True)
    assert facts.terms == frozenset({"pair-table"})
    assert facts.keys == frozenset(KEYS) - {"extends", "requires", "matrix"}
    assert facts.columns is None
    assert facts.negatives is None
    main, off = (loss.facts for loss in recipe.losses)
    assert (main.negatives, main.log_q, main.exclude, main.width) == (True, "exact", "none", 16)
    assert (off.negatives, off.log_q) == (False, None)


def test_an_own_sampler_comes_before_the_default(composed: Cells) -> None:
    (recipe,) = composed(
        "loss: [{use: pairs}, {use: pairs, name: own, sampler: {use: mixture, of: [{use: uniform}]}}]"
    )
    assert [loss.sampler.name for loss in recipe.losses if loss.sampler] == [
        "tiny-parts:uniform",
        "tiny-parts:mixture",
    ]
    assert "loss.1.sampler.of.0" in [part.path for part in recipe.parts()]


def test_parts_are_asked_again_when_the_data_is_known(composed: Cells) -> None:
    (recipe,) = composed()
    assert recipe.problems(Facts(columns=frozenset({"user", "item"}), items=5)) == []
    assert [str(problem) for problem in recipe.problems(Facts(width=6))] == [
        "base.yaml:11: model.encoder: 4 heads do not divide a width of 6"
    ]
    assert [str(problem) for problem in recipe.problems(Facts(log_q="none"))] == [
        "base.yaml:15: loss.0: needs a sampler that knows its log_q"
    ]


def test_the_resolved_tree_composes_to_itself(composed: Cells, tiny: Plugins, tmp_path: Path) -> None:
    (recipe,) = composed("requires: [tiny-parts>=1]")
    tree = recipe.tree
    assert list(tree) == [key for key in KEYS if key not in ("extends", "matrix")]
    again = from_tree(tree, name="x", cell="base", plugins=tiny)
    assert again.tree == tree
    assert [(part.path, part.name, part.options) for part in again.parts() if part.path != "model"] == [
        (part.path, part.name, part.options) for part in recipe.parts() if part.path != "model"
    ]
    file = tmp_path / "resolved.yaml"
    file.write_text(to_yaml(tree), encoding="utf-8")
    from_file = from_tree(file, plugins=tiny)
    assert from_file.tree == tree
    assert from_file.file == file
    assert from_file.data.where == "resolved.yaml:4"


def test_one_part_and_a_list_of_one_keep_their_places(composed: Cells) -> None:
    (one,) = composed("loss: {use: full}\nsampler: ~")
    (many,) = composed("loss: [{use: full}]\nsampler: ~")
    assert (one.losses[0].part.path, many.losses[0].part.path) == ("loss", "loss.0")
    assert isinstance(one.tree["loss"], dict)
    assert isinstance(many.tree["loss"], list)


def test_cells_are_checked_recipes(composed: Cells) -> None:
    text = """\
matrix:
  position:
    none: {model: {position: ~}}
    near: {model: {position: {use: near, max_distance: 4}}}
  width: {8: {model: {embedder: {width: 8}}}, 16: {}}
"""
    cells = composed(text, ["trainer.epochs=3"])
    assert [cell.cell for cell in cells] == [
        "position=none,width=8",
        "position=none,width=16",
        "position=near,width=8",
        "position=near,width=16",
    ]
    assert [cell.facts.width for cell in cells] == [8, 16, 8, 16]
    assert [cell.tree["model"]["position"] for cell in cells[:1]] == [None]
    assert cells[3].tree["model"]["position"]["max_distance"] == 4
    assert {cell.tree["trainer"]["epochs"] for cell in cells} == {3}
    assert all("matrix" not in cell.tree for cell in cells)


def test_a_matrix_can_be_changed_before_it_is_spread(composed: Cells) -> None:
    text = "matrix: {rows: {few: {data: {rows: 2}}}}"
    cells = composed(text, ["matrix.rows.more={data: {rows: 5}}"])
    assert [cell.cell for cell in cells] == ["rows=few", "rows=more"]
    cells = composed(text, overlay={"matrix": {"share": {"half": {"data": {"share": 0.5}}}}})
    assert [cell.cell for cell in cells] == ["rows=few,share=half"]
    assert [cell.cell for cell in composed(text, ["matrix=~"])] == ["base"]


def test_a_refinement_of_what_an_axis_chose_is_no_clash(composed: Cells) -> None:
    text = """\
matrix:
  position: {near: {model: {position: {use: near}}}}
  distance: {4: {model: {position: {max_distance: 4}}}}
"""
    (cell,) = composed(text)
    assert cell.tree["model"]["position"]["max_distance"] == 4


def test_sets_and_overlays_reach_everything(composed: Cells) -> None:
    sets = [
        "model.position.0.max_distance=9",
        "loss.0.weight=3",
        "seeds=[3]",
        "transforms=~",
        "evaluators.k=3",
    ]
    (recipe,) = composed("", sets, {"data": {"rows": 3, "source": Path("a/b")}})
    assert recipe.tree["model"]["position"][0]["max_distance"] == 9
    assert recipe.losses[0].weight == 3.0
    assert recipe.seeds == (3,)
    assert recipe.transforms == ()
    assert recipe.evaluators[0].options.k == 3
    assert recipe.data.options.rows == 3
    assert recipe.data.options.source == Path.cwd() / "a/b"


def test_the_command_line_comes_after_the_overlay_from_python(composed: Cells) -> None:
    (recipe,) = composed("", ["data.rows=4"], {"data": {"rows": 3}})
    assert recipe.data.options.rows == 4


def test_paths_belong_to_the_file_that_writes_them(tiny: Plugins, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        Path(folder).mkdir()
    Path("one/base.yaml").write_text(BASE.replace("tiny-parts:toy", "toy, source: a.csv, files: [b.csv]"))
    Path("two/x.yaml").write_text(
        "recore: 1\nextends: ../one/base\ndata: {files: [c.csv]}\n", encoding="utf-8"
    )
    (recipe,) = load_cells("two/x.yaml", plugins=tiny)
    assert recipe.data.options.source == tmp_path / "one/a.csv"
    assert recipe.data.options.files == [tmp_path / "two/c.csv"]


def test_recipes_extend_recipes_that_extend(tiny: Plugins, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(f"{BASE}requires: [recore]\n", encoding="utf-8")
    Path("b.yaml").write_text(
        "recore: 1\nextends: a.yaml\nrequires: [tiny-parts]\ndata: {rows: 2}\n", encoding="utf-8"
    )
    Path("c.yaml").write_text("recore: 1\nextends: b\ndata: {share: 0.1}\n", encoding="utf-8")
    (recipe,) = load_cells("c.yaml", plugins=tiny)
    assert (recipe.data.options.rows, recipe.data.options.share) == (2, 0.1)
    # A requirement belongs to the file that states it: all of them must be met.
    assert recipe.tree["requires"] == ["tiny-parts", "recore"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=st.lists(st.floats(0, 10) | st.integers(0, 3), min_size=1, max_size=4).filter(any),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True),
    heads=st.sampled_from([1, 2, 4, 8]),
)
def test_trees_and_recipes_are_the_same_thing(
    tiny: Plugins, weights: list[float], seeds: list[int], heads: int
) -> None:
    tree = {
        "recore": 1,
        "data": {"use": "toy"},
        "split": {"use": "last"},
        "model": {"embedder": {"use": "table"}, "encoder": {"use": "mix", "heads": heads}},
        **{
            key: {"use": use}
            for key, use in [("tokenizer", "ids"), ("objective", "next"), ("batcher", "all")]
        },
        "trainer": {"use": "plain"},
        "loss": [{"use": "full", "name": f"l{n}", "weight": weight} for n, weight in enumerate(weights)],
        "seeds": seeds,
    }
    recipe = from_tree(tree, plugins=tiny)
    assert recipe.seeds == tuple(seeds)
    assert [loss.weight for loss in recipe.losses] == [weight for weight in weights if weight]
    assert from_tree(recipe.tree, plugins=tiny).tree == recipe.tree


def test_every_shipped_recipe_is_found_by_name() -> None:
    names = shipped()
    assert "sasrec" in names
    assert {name for name in names if ":" not in name} == {
        file.relative_to(core_recipes()).with_suffix("").as_posix() for file in core_recipes().rglob("*.yaml")
    }
    for name, file in names.items():
        assert locate(name) == locate(f"{name}.yaml") == file
        assert recipe_name(file) == name or ":" in name
        assert load_source(name).problems == ()


def test_a_file_comes_before_a_shipped_recipe_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("sasrec") == core_recipes() / "sasrec.yaml"
    Path("sasrec.yaml").write_text("recore: 1\n", encoding="utf-8")
    assert locate("sasrec") == tmp_path / "sasrec.yaml"
    assert recipe_name(locate("sasrec")) == "sasrec"


def test_another_distribution_ships_recipes_under_its_own_name(here: Any) -> None:
    files = {
        "acme/__init__.py": "",
        "acme/recipes/sasrec.yaml": "recore: 1\n",
        "acme/recipes/deep/x.yaml": "",
    }
    here.distribution("acme-recore", "1.0", "[recore.recipes]\nacme = acme\n", files)
    assert {name for name in shipped() if name.startswith("acme")} == {
        "acme-recore:sasrec",
        "acme-recore:deep/x",
    }
    assert locate("acme-recore:sasrec") == here.folder / "acme/recipes/sasrec.yaml"
    assert locate("sasrec") == core_recipes() / "sasrec.yaml"
    with pytest.raises(RecipeError) as caught:
        locate("acme-recore:sasrek")
    assert str(caught.value) == (
        "no recipe 'acme-recore:sasrek', neither a file nor a shipped recipe (did you mean 'acme-recore:sasrec'?)"
    )
