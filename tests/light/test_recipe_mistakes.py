"""Every mistake gets its line, whole: file, line, path, what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from recore.errors import PluginError, RecipeError
from recore.plugins import Plugins
from recore.recipe import from_tree, load_cells

BASE = """\
recore: 1
data: {use: tiny-parts:toy}
split: {use: tiny-parts:last}
tokenizer: {use: tiny-parts:ids}
objective: {use: tiny-parts:next}
model:
  embedder: {use: tiny-parts:table}
  position: {use: tiny-parts:near}
  encoder: {use: tiny-parts:mix}
batcher: {use: tiny-parts:all}
loss: {use: tiny-parts:full}
trainer: {use: tiny-parts:plain}
evaluators:
  - {use: tiny-parts:rank}
"""
Told = Callable[..., list[str]]


@pytest.fixture
def told(tiny: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """The lines that a recipe's mistakes give; the recipe extends one that is well, from its third line on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECORE_DATA", raising=False)
    Path("base.yaml").write_text(BASE, encoding="utf-8")

    def lines(text: str, sets: Sequence[str] = (), overlay: dict[str, Any] | None = None) -> list[str]:
        Path("x.yaml").write_text(f"recore: 1\nextends: base.yaml\n{text}\n", encoding="utf-8")
        try:
            load_cells("x.yaml", sets, overlay, plugins=tiny)
        except RecipeError as error:
            return str(error).splitlines()
        return []

    return lines


def test_a_recipe_that_is_well_gives_no_line(told: Told) -> None:
    assert told("") == []


MISTAKES = [
    # names
    ("modle: {}", "x.yaml:3: modle: unknown key (did you mean 'model'?)"),
    ("data: {use: toi}", "x.yaml:3: data.use: unknown dataset 'toi' (did you mean 'toy'?)"),
    (
        "data: {use: tiny-parts:toi}",
        "x.yaml:3: data.use: unknown dataset 'tiny-parts:toi' (did you mean 'toy'?)",
    ),
    (
        "data: {use: tiny-party:toy}",
        (
            "x.yaml:3: data.use: unknown dataset 'tiny-party:toy': no plugin 'tiny-party' is installed "
            "(did you mean 'tiny-parts'?)"
        ),
    ),
    (
        "split: {use: tiny-parts:uniform}",
        "x.yaml:3: split.use: unknown split 'tiny-parts:uniform' (tiny-parts:uniform is of the kind sampler)",
    ),
    ("data: {use: 3}", "x.yaml:3: data.use: expected the name of a dataset, got 3"),
    (
        "data: toy",
        "x.yaml:3: data: expected a dataset, as a mapping with `use:`, got 'toy' (write {use: toy})",
    ),
    ("data: [1]", "x.yaml:3: data: expected a dataset, as a mapping with `use:`, got a list"),
    (
        "model: {position: near}",
        "x.yaml:3: model.position: expected a position, list of a position or ~, got 'near' (write {use: near})",
    ),
    (
        "model:\n  position:\n    - {use: near}\n    - {use: nowher}",
        "x.yaml:6: model.position.1.use: unknown position 'nowher' (did you mean 'nowhere'?)",
    ),
    (
        "model: {position: {max_distanc: 3}}",
        "x.yaml:3: model.position.max_distanc: unknown option of tiny-parts:near (did you mean 'max_distance'?)",
    ),
    (
        "model: {histori: {last: 3}}",
        "x.yaml:3: model.histori: unknown option of recore:sequential (did you mean 'history'?)",
    ),
    (
        "model: {history: {lst: 3}}",
        "x.yaml:3: model.history.lst: unknown option (did you mean 'last'?)",
    ),
    (
        "loss: {wieght: 2}",
        "x.yaml:3: loss.wieght: unknown option of tiny-parts:full (did you mean 'weight'?)",
    ),
    ("batcher: {size: 2}", "x.yaml:3: batcher.size: unknown option of tiny-parts:all (it has none)"),
    (
        "transforms: [{use: drop}]",
        "x.yaml:3: transforms.0.below: missing option, expected int",
    ),
    # types
    ("data: {rows: '5'}", "x.yaml:3: data.rows: expected int, got '5'"),
    ("data: {rows: 5.0}", "x.yaml:3: data.rows: expected int, got 5.0"),
    ("data: {rows: true}", "x.yaml:3: data.rows: expected int, got true"),
    ("data: {rows: ~}", "x.yaml:3: data.rows: expected int, got nothing (~)"),
    ("data: {rows: 1_000}", "x.yaml:3: data.rows: expected int, got '1_000'"),
    ("data: {share: '3e-4'}", "x.yaml:3: data.share: expected float, got '3e-4'"),
    ("data: {share: false}", "x.yaml:3: data.share: expected float, got false"),
    ("data: {share: .nan}", "x.yaml:3: data.share: expected float, got not-a-number (.nan)"),
    ("data: {name: 5}", "x.yaml:3: data.name: expected str, got 5"),
    ("data: {shuffle: yes}", "x.yaml:3: data.shuffle: expected bool, got 'yes'"),
    ("data: {shuffle: 1}", "x.yaml:3: data.shuffle: expected bool, got 1"),
    (
        "data: {ids: in}",
        "x.yaml:3: data.ids: expected 'int', 'str' or 'int64', got 'in' (did you mean 'int'?)",
    ),
    ("data: {last: al}", "x.yaml:3: data.last: expected int or 'all', got 'al' (did you mean 'all'?)"),
    ("data: {last: 2.0}", "x.yaml:3: data.last: expected int or 'all', got 2.0"),
    ("data: {pair: [1]}", "x.yaml:3: data.pair: expected [int, float], got a list of 1"),
    ("data: {pair: [1, x]}", "x.yaml:3: data.pair.1: expected float, got 'x'"),
    ("data: {many: 3}", "x.yaml:3: data.many: expected list of int, got 3"),
    ("data: {tags: [1]}", "x.yaml:3: data.tags.0: expected str, got 1"),
    ("data: {rename: [a]}", "x.yaml:3: data.rename: expected mapping, got a list"),
    ("data: {sizes: {a: 1}}", "x.yaml:3: data.sizes.a: expected int, got 'a'"),
    ("data: {bounds: 3}", "x.yaml:3: data.bounds: expected mapping (Bounds), got 3"),
    ("data: {all_bounds: [{low: x}]}", "x.yaml:3: data.all_bounds.0.low: expected int, got 'x'"),
    (
        "data: {either: {}}",
        "x.yaml:3: data.either: expected bool, int, float, str or ~, got an empty mapping",
    ),
    ("data: {rows: {use: x}}", "x.yaml:3: data.rows: expected int, got a mapping"),
    ("data: {source: 3}", "x.yaml:3: data.source: expected path or ~, got 3"),
    ("evaluators: [{use: rank, k: [5, x]}]", "x.yaml:3: evaluators.0.k.1: expected int, got 'x'"),
    (
        "model: {encoder: ~}",
        "x.yaml:3: model.encoder: expected an encoder, as a mapping with `use:`, got nothing (~)",
    ),
    (
        "data: {source: $RECORE_DATA/ml.txt}",
        (
            "x.yaml:3: data.source: '$RECORE_DATA/ml.txt' needs $RECORE_DATA, which is not set "
            "(export RECORE_DATA=/the/folder/of/the/data)"
        ),
    ),
    (
        "data: {source: $HOME/ml.txt}",
        "x.yaml:3: data.source: expected path, got '$HOME/ml.txt' (only a leading $RECORE_DATA/ is expanded)",
    ),
    # ranges
    ("data: {rows: 0}", "x.yaml:3: data.rows: expected more than 0, got 0"),
    ("data: {bounds: {high: -1}}", "x.yaml:3: data.bounds.high: expected more than 0, got -1"),
    (
        "model: {history: {last: 1}}",
        "x.yaml:3: model.history.last: expected at least 2 events or `all`, got 1",
    ),
    # losses and samplers
    ("loss: {use: pairs}", "x.yaml:3: loss 'pairs' needs negatives, but no sampler is set"),
    (
        "loss: [{use: full}, {use: pairs, name: bpr}]",
        "x.yaml:3: loss 'bpr' needs negatives, but no sampler is set",
    ),
    (
        "sampler: {use: uniform}",
        "x.yaml:3: sampler: no loss uses this sampler (remove it with `sampler: ~`)",
    ),
    (
        "loss: {sampler: {use: uniform}}",
        "x.yaml:3: loss.sampler: loss 'full' takes no negatives, but a sampler is set",
    ),
    (
        "loss: {use: pairs, sampler: {use: uniform, exact: false}}",
        "x.yaml:3: loss: needs a sampler that knows its log_q",
    ),
    (
        "loss: [{use: full}, {use: full}]",
        "x.yaml:3: loss.1: two losses are named 'full' (give each a `name:` of its own)",
    ),
    ("loss: {weight: 0}", "x.yaml:3: loss: expected a loss whose weight is not 0"),
    ("loss: {weight: -1}", "x.yaml:3: loss.weight: expected a float of at least 0, got -1"),
    ("loss: {weight: .inf}", "x.yaml:3: loss.weight: expected a float of at least 0, got inf"),
    ("loss: {weight: true}", "x.yaml:3: loss.weight: expected a float of at least 0, got true"),
    ("loss: {name: a b}", "x.yaml:3: loss.name: expected a word, got 'a b'"),
    ("loss: []", "x.yaml:3: loss: expected at least one loss, got an empty list"),
    # facts across parts
    ("model: {encoder: {heads: 3}}", "x.yaml:3: model.encoder: 3 heads do not divide a width of 8"),
    (
        "model: {encoder: {width: 6}}",
        (
            "x.yaml:3: model.encoder: encoder 'tiny-parts:mix' says width = 6, but embedder 'tiny-parts:table' "
            "(model.embedder) says 8"
        ),
    ),
    (
        "model: {encoder: {takes: []}}",
        "base.yaml:8: model.position: needs an encoder that takes the term 'pair-table'",
    ),
    ("trainer: ~", "base.yaml:6: model: model 'sequential' needs `trainer:`, but the recipe sets none"),
    # the frame
    ("split: ~", "x.yaml:1: split: missing key, expected a split"),
    ("data: ~", "x.yaml:1: data: missing key, expected a dataset"),
    ("seeds: 3", "x.yaml:3: seeds: expected a list of ints of at least 0, got 3"),
    ("seeds: []", "x.yaml:3: seeds: expected a list of ints of at least 0, got an empty list"),
    ("seeds: [1.0, true, -1]", "x.yaml:3: seeds: expected a list of ints of at least 0, got 1.0, true, -1"),
    ("seeds: [1, 1]", "x.yaml:3: seeds: expected distinct seeds, got [1, 1]"),
    ("matrix: 3", "x.yaml:3: matrix: expected axes, as axis → label → overlay, got 3"),
    ("matrix: {}", "x.yaml:3: matrix: expected axes, as axis → label → overlay, got an empty mapping"),
    ("matrix: {a: [1]}", "x.yaml:3: matrix.a: expected labels, each with an overlay, got a list"),
    ("matrix: {a: {x: 3}}", "x.yaml:3: matrix.a.x: expected an overlay, a mapping, got 3"),
    (
        "matrix: {a: {x: ~}}",
        "x.yaml:3: matrix.a.x: expected an overlay, a mapping, got nothing (~) (`{}` is the recipe as it is)",
    ),
    ("matrix: {a b: {x: {}}}", "x.yaml:3: matrix.a b: expected a word as the name of an axis, got 'a b'"),
    ("matrix: {a: {x/y: {}}}", "x.yaml:3: matrix.a.x/y: expected a word as a label, got 'x/y'"),
    (
        "matrix: {a: {x: {seeds: [1]}}}",
        "x.yaml:3: matrix.a.x.seeds: not allowed in a cell, only in the recipe itself",
    ),
    ("matrix:\n  a:\n    x: {modle: {}}", "x.yaml:5: modle: unknown key (did you mean 'model'?)"),
    (
        "matrix:\n  a:\n    x: {}\n    y: {model: {encoder: {heads: 3}}}",
        "x.yaml:6: model.encoder: 3 heads do not divide a width of 8",
    ),
    (
        "matrix:\n  a: {x: {data: {rows: 2}}}\n  b: {x: {data: {rows: 3}}}",
        "x.yaml:5: matrix.b: axes 'a' and 'b' both set data.rows",
    ),
    (
        "matrix:\n  a: {x: {data: {rows: 2}}}\n  b: {x: {data: {use: toy}}}",
        "x.yaml:5: matrix.b: axes 'a' and 'b' both set data",
    ),
    ("requires: recore", "x.yaml:3: requires: expected a list of distributions, as in [acme-recore>=0.2]"),
    (
        "requires: [tiny-parts>=2]",
        "x.yaml:3: requires: expected tiny-parts>=2, but 1.0 is installed (pip install 'tiny-parts>=2')",
    ),
    (
        "requires: [no-such-thing>=2]",
        "x.yaml:3: requires: expected no-such-thing>=2, but it is not installed (pip install 'no-such-thing>=2')",
    ),
    # YAML
    ("data: {rows: 1}\ndata: {rows: 2}", "x.yaml:4: data: key 'data' is written twice, first in x.yaml:3"),
    (
        "data: !!python/object/apply:os.system ['true']",
        "x.yaml:3: data: tags are not allowed, got '!!python/object/apply:os.system' (write the plain value)",
    ),
    (
        "data: {rows: !!int '5'}",
        "x.yaml:3: data.rows: tags are not allowed, got '!!int' (write the plain value)",
    ),
]


@pytest.mark.parametrize(("text", "line"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_mistake_gets_its_line(told: Told, text: str, line: str) -> None:
    assert told(text) == [line]


def test_all_mistakes_come_at_once_in_the_order_of_the_lines(told: Told) -> None:
    text = """\
data: {rows: '5', nam: x, bounds: {high: 0}}
tokenizer: {use: idz}
model: {encoder: {heads: 3}}
loss: {use: pairs, power: !t 1}
trainer: {epochs: 0, learning_rate: -1.0}
seeds: [x]
sedes: [1]
"""
    assert told(text) == [
        "x.yaml:3: data.rows: expected int, got '5'",
        "x.yaml:3: data.nam: unknown option of tiny-parts:toy (did you mean 'name'?)",
        "x.yaml:3: data.bounds.high: expected more than 0, got 0",
        "x.yaml:4: tokenizer.use: unknown tokenizer 'idz' (did you mean 'ids'?)",
        "x.yaml:5: model.encoder: 3 heads do not divide a width of 8",
        "x.yaml:6: loss.power: tags are not allowed, got '!t' (write the plain value)",
        "x.yaml:7: trainer.learning_rate: expected more than 0, got -1.0",
        "x.yaml:7: trainer.epochs: expected more than 0, got 0",
        "x.yaml:8: seeds: expected a list of ints of at least 0, got 'x'",
        "x.yaml:9: sedes: unknown key (did you mean 'seeds'?)",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a", "--set a: expected PATH=VALUE, as in model.history.last=50"),
        ("a..b=1", "--set a..b=1: expected PATH=VALUE, as in model.history.last=50"),
        ("modle.x=3", "--set modle.x=3: modle: unknown key (did you mean 'model'?)"),
        (
            "model.positon.max_distance=3",
            (
                "--set model.positon.max_distance=3: model.positon: unknown option of recore:sequential "
                "(did you mean 'position'?)"
            ),
        ),
        (
            "model.position.max_distanc=3",
            (
                "--set model.position.max_distanc=3: model.position.max_distanc: unknown option of tiny-parts:near "
                "(did you mean 'max_distance'?)"
            ),
        ),
        (
            "model.position.max_distance='3'",
            "--set model.position.max_distance='3': model.position.max_distance: expected int, got '3'",
        ),
        (
            "evaluators.1.k=3",
            "--set evaluators.1.k=3: evaluators.1: expected the number of an entry of the list (0)",
        ),
        (
            "evaluators.first.k=3",
            "--set evaluators.first.k=3: evaluators.first: expected the number of an entry of the list (0)",
        ),
        ("data.rows=", "--set data.rows=: data.rows: expected a value (`~` removes what is there)"),
        (
            "data.rows=[",
            (
                "--set data.rows=[: data.rows: not YAML: while parsing a flow node, expected the node content, "
                "but found '<stream end>'"
            ),
        ),
        (
            "data.rows=!!int 5",
            "--set data.rows=!!int 5: data.rows: tags are not allowed, got '!!int' (write the plain value)",
        ),
        ("recore=2", "--set recore=2: recore: can be written in a file only"),
        ("extends=x", "--set extends=x: extends: can be written in a file only"),
        ("data.use.x=3", "--set data.use.x=3: data.use.x: 'data.use' is no mapping, so it has no 'x'"),
    ],
)
def test_a_mistake_on_the_command_line_gets_its_line(told: Told, text: str, line: str) -> None:
    assert told("", [text]) == [line]


def test_an_axis_cannot_be_set_away(told: Told) -> None:
    matrix = "matrix: {rows: {few: {data: {rows: 2}}, many: {data: {rows: 9}}}}"
    assert told(matrix, ["data.rows=5"]) == [
        (
            "--set data.rows=5: data.rows: the axis 'rows' of the matrix sets it too, so its cells would all be alike "
            "(`--set matrix=~` drops the matrix)"
        )
    ]
    assert told(matrix, overlay={"data": {"rows": 5}}) == [
        (
            "overlay: data.rows: the axis 'rows' of the matrix sets it too, so its cells would all be alike "
            "(`--set matrix=~` drops the matrix)"
        )
    ]
    assert told(matrix, ["data.rows=5", "matrix=~"]) == []
    assert told(matrix, ["data.name=x"]) == []


def test_an_overlay_from_python_is_checked_alike(told: Told) -> None:
    assert told("", overlay={"data": {"rows": "5", "name": object()}, "extends": "x"}) == [
        "overlay: data.name: expected a plain value, a path or a data frame, got object",
        "overlay: extends: can be written in a file only",
        "overlay: data.rows: expected int, got '5'",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "y.yaml: expected a mapping of keys such as `recore: 1`, got nothing"),
        ("- a", "y.yaml: expected a mapping of keys such as `recore: 1`, got something else"),
        (
            "recore: 2\nextends: base.yaml",
            "y.yaml:1: recore: expected 1 (the version of the recipe format), got 2",
        ),
        (
            "recore: true\nextends: base.yaml",
            "y.yaml:1: recore: expected 1 (the version of the recipe format), got true",
        ),
        (
            "extends: base.yaml",
            "y.yaml: recore: missing key, expected `recore: 1` (the version of the recipe format)",
        ),
        (
            "recore: 1\nextends: bse.yaml",
            "y.yaml:2: extends: no recipe 'bse.yaml', neither a file nor a shipped recipe (did you mean 'base'?)",
        ),
        (
            "recore: 1\nextends: [base.yaml]",
            "y.yaml:2: extends: expected the file or the name of one recipe, as text",
        ),
        (
            "recore: 1\nextends: y.yaml",
            "y.yaml:2: extends: recipes extend each other in a circle: y.yaml → y.yaml",
        ),
        (
            "recore: 1\nextends: z.yaml",
            "z.yaml:2: extends: recipes extend each other in a circle: y.yaml → z.yaml → y.yaml",
        ),
        (
            "recore: 1\ndata: [",
            "y.yaml:2: not YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
        ),
    ],
)
def test_a_file_that_is_no_recipe_gets_its_line(told: Told, tiny: Plugins, text: str, line: str) -> None:
    told("")
    Path("y.yaml").write_text(text, encoding="utf-8")
    Path("z.yaml").write_text("recore: 1\nextends: y.yaml\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_cells("y.yaml", plugins=tiny)
    assert str(caught.value) == line


def test_a_recipe_that_is_not_there(told: Told, tiny: Plugins) -> None:
    told("")
    with pytest.raises(RecipeError) as caught:
        load_cells("bas", plugins=tiny)
    assert str(caught.value) == "no recipe 'bas', neither a file nor a shipped recipe (did you mean 'base'?)"


def test_a_tree_is_checked_alike(tiny: Plugins) -> None:
    with pytest.raises(RecipeError) as caught:
        from_tree({"data": {"use": "toy", "rows": "5"}, "matrix": {}, "extends": "x"}, plugins=tiny)
    assert str(caught.value).splitlines() == [
        "tree: recore: missing key, expected `recore: 1` (the version of the recipe format)",
        "tree: extends: not allowed in a resolved recipe",
        "tree: matrix: not allowed in a resolved recipe",
        "tree: data.rows: expected int, got '5'",
        "tree: split: missing key, expected a split",
        "tree: model: missing key, expected a model",
    ]


def test_an_exception_of_a_plugin_keeps_its_traceback_and_says_where(told: Told) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        told("model: {use: raises}")
    assert caught.value.__notes__ == [
        "while asking the problems of model 'tiny-parts:raises' (x.yaml:3: model)"
    ]
    with pytest.raises(PluginError) as answered:
        told("model: {use: answers}")
    assert str(answered.value) == "problems() of tiny-parts:answers returned 'oh', expected texts"
