"""The light command line: fast, free of torch, and clear about what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recore.cli import main as cli
from recore.cli.check import summary
from recore.cli.common import table
from recore.cli.show import part as show_part
from recore.errors import RecoreError
from recore.kinds import KINDS
from recore.plugins import Plugins
from recore.recipe import from_tree, load_cells, shipped
from recore.recipe.compose import KEYS
from recore.recipe.schema import schema

RECIPE = """\
recore: 1
data: {use: tiny-parts:toy}
split: {use: tiny-parts:last}
model: {use: tiny-parts:count}
"""
HEAVY = ("torch", "polars", "pandas", "numpy", "rich", "tokenizers", "safetensors", "scipy")
LIGHT = [
    ("--help",),
    ("--version",),
    ("plugins",),
    ("plugins", "--no-load"),
    ("plugins", "--json"),
    ("show",),
    ("show", "position"),
    ("show", "model", "recore:sequential"),
    ("show", "dataset", "tiny-parts:toy"),
    ("check", "x.yaml"),
    ("check", "sasrec"),
    ("schema",),
    ("estimate", "--help"),
    ("new-recipe", "--help"),
    ("update", "--help"),
    ("recommend", "--help"),
    ("recipes",),
    ("run", "--help"),
    ("update", "--help"),
]
PROBE = """
import sys, time
started = time.process_time()
from recore.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as error:
    status = error.code
seconds = time.process_time() - started
print("PROBE", status, seconds, *sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_import_nothing_heavy_and_are_fast(tiny_site: Any, arguments: tuple[str, ...]) -> None:
    (tiny_site.folder / "x.yaml").write_text(RECIPE, encoding="utf-8")
    done = tiny_site.run("-c", PROBE, *arguments)
    probe = next(line for line in done.stderr.splitlines() if line.startswith("PROBE"))
    _, status, seconds, *modules = probe.split()
    assert status in ("0", "None", "2" if arguments == ("check", "sasrec") else "0"), done.stderr
    assert not set(HEAVY) & set(modules)
    assert float(seconds) < 0.5  # of the processor, beyond the interpreter's own start: others may be busy


def test_with_200_plugins_listing_stays_fast_and_imports_none(site: Any) -> None:
    for number in range(200):
        site.plugin(f"acme-{number}", "1.0", f"acme_{number}", "raise SystemExit('imported')")
    done = site.run("-c", PROBE, "plugins", "--no-load")
    _, status, seconds, *_ = next(
        line for line in done.stderr.splitlines() if line.startswith("PROBE")
    ).split()
    assert status == "0"
    assert float(seconds) < 0.5  # of the processor, as above
    assert done.stdout.count("entry point main: acme_") == 200


def test_check_says_ok_with_parts_and_distributions(tiny_site: Any) -> None:
    (tiny_site.folder / "x.yaml").write_text(RECIPE, encoding="utf-8")
    done = tiny_site.recore("check", "x.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "x.yaml: ok\n"
        "  data   tiny-parts:toy    tiny-parts 1.0\n"
        "  split  tiny-parts:last   tiny-parts 1.0\n"
        "  model  tiny-parts:count  tiny-parts 1.0\n"
    )


def test_check_tells_all_problems_of_all_recipes(tiny_site: Any) -> None:
    (tiny_site.folder / "x.yaml").write_text(RECIPE + "seeds: 3\nsedes: 3\n", encoding="utf-8")
    (tiny_site.folder / "y.yaml").write_text(RECIPE, encoding="utf-8")
    (tiny_site.folder / "z.yaml").write_text(
        "recore: 1\nextends: y.yaml\ndata: {rows: '5'}\n", encoding="utf-8"
    )
    done = tiny_site.recore("check", "x.yaml", "y.yaml", "z.yaml", "no.yaml")
    assert done.returncode == 2
    assert done.stdout.startswith("y.yaml: ok\n")
    assert done.stderr.splitlines() == [
        "x.yaml:5: seeds: expected a list of ints of at least 0, got 3",
        "x.yaml:6: sedes: unknown key (did you mean 'seeds'?)",
        "z.yaml:3: data.rows: expected int, got '5'",
        "no recipe 'no.yaml', neither a file nor a shipped recipe (known: "
        + ", ".join(sorted([*shipped(), "x", "y", "z"]))
        + ")",
    ]


def test_check_takes_sets_and_loose_plugins(tiny_site: Any) -> None:
    (tiny_site.folder / "x.yaml").write_text(RECIPE, encoding="utf-8")
    text = """
from attrs import frozen
from recore import Component, hookimpl

@frozen
class Options:
    k: int = 3

@hookimpl
def recore_splits():
    yield Component("mine", Options, "this:build", summary="mine")
"""
    file = tiny_site.folder / "loose_part.py"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    done = tiny_site.recore(
        "check", "x.yaml", "--plugin", "loose_part.py", "--set", "split={use: mine, k: 5}"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "split  loose_part:mine   loose_part (loose file)" in done.stdout
    file.chmod(0o606)
    done = tiny_site.recore("check", "x.yaml", "--plugin", "loose_part.py")
    assert done.returncode == 2
    assert done.stderr == (
        "loose_part.py: others can write to it (mode 606), so it is not run (chmod go-w loose_part.py)\n"
    )


def test_a_plugin_that_breaks_is_an_error_only_where_it_is_used(tiny_site: Any) -> None:
    tiny_site.plugin("acme", "1.0", "acme_plugin", "raise SystemExit(7)")
    (tiny_site.folder / "x.yaml").write_text(RECIPE, encoding="utf-8")
    assert tiny_site.recore("check", "x.yaml").returncode == 0
    (tiny_site.folder / "y.yaml").write_text(RECIPE.replace("tiny-parts:toy", "acme:toy"), encoding="utf-8")
    done = tiny_site.recore("check", "y.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        "y.yaml:2: data.use: dataset 'acme:toy' cannot be used: acme 1.0 is broken: importing 'acme_plugin' "
        "(entry point 'main') raised SystemExit: 7 [acme_plugin.py:1]\n"
    )
    done = tiny_site.recore("check", "x.yaml", env={"RECORE_STRICT_PLUGINS": "1"})
    assert done.returncode == 2
    assert done.stderr == (
        "acme 1.0: importing 'acme_plugin' (entry point 'main') raised SystemExit: 7 [acme_plugin.py:1] "
        "[RECORE_STRICT_PLUGINS=1]\n"
    )


def test_plugins_shows_everything(tiny_site: Any) -> None:
    tiny_site.plugin("acme", "1.0", "acme_plugin", "1 / 0")
    tiny_site.distribution("later", "9.0", "[recore.v9]\nmain = later\n")
    copy = (tiny_site.folder / "tiny_parts.py").read_text(encoding="utf-8")
    tiny_site.plugin(
        "twin-parts", "2.0", "twin_parts", copy + "\n@hookimpl\ndef recore_sampler():\n    pass\n"
    )
    done = tiny_site.recore("plugins")
    assert done.returncode == 1
    for piece in (
        "dataset: toy",
        "encoder: mix, stack",
        "dataset 'toy': choose with `use: tiny-parts:toy` or `use: twin-parts:toy`",
        "acme 1.0: importing 'acme_plugin' (entry point 'main') raised ZeroDivisionError: division by zero",
        "later 9.0: it is made for recore.v9, this is recore.v1 (update one of the two)",
        "twin-parts 2.0: 'recore_sampler' is no hook and is never called (did you mean 'recore_samplers'?)",
    ):
        assert piece in done.stdout
    done = tiny_site.recore("plugins", "--json")
    records = {record["name"]: record for record in json.loads(done.stdout)}
    assert {name: records[name]["status"] for name in ("acme", "later", "tiny-parts", "twin-parts")} == {
        "acme": "broken",
        "later": "incompatible",
        "tiny-parts": "ok",
        "twin-parts": "warning",
    }
    assert {"kind": "dataset", "name": "toy", "summary": "The tiny toy."} in records["tiny-parts"][
        "components"
    ]
    assert records["tiny-parts"]["seconds"] >= 0


def test_a_plugin_that_imports_torch_is_named(site: Any) -> None:
    site.plugin("acme", "1.0", "acme_plugin", "import torch")
    (site.folder / "torch.py").write_text("", encoding="utf-8")  # stands for the real one
    done = site.recore("plugins")
    assert done.returncode == 0
    assert "acme 1.0: importing it imported torch (0.0 s), which slows every command down" in done.stdout


def test_show_is_documentation(tiny: Plugins) -> None:
    assert (
        show_part(tiny, tiny.find("position", "near"))
        == """\
tiny-parts:near
The tiny near.

A bias by distance.

Options
  max_distance: int; default 16
      Distances are clipped here.
  unit: 'rows' or 'days'; default rows
      The unit.

In a recipe
  model:
    position:
      use: tiny-parts:near
      max_distance: 16
      unit: rows

A position of tiny-parts 1.0"""
    )


def test_show_tells_claims_source_required_and_nested_options(tiny: Plugins) -> None:
    text = show_part(tiny, tiny.find("encoder", "mix"))
    assert "Claims (with the default options)\n  causal:           yes\n" in text
    assert "  terms:            pair-table" in text
    text = show_part(tiny, tiny.find("dataset", "toy"))
    assert "Source\n  Nobody 2024, A toy" in text
    assert "  bounds.low: int; default 0\n      At least." in text
    assert "    bounds: {low: 0, high: 9}" in text
    text = show_part(tiny, tiny.find("transform", "drop"))
    assert "  below: int; required\n" in text
    assert "  transforms:\n    - use: tiny-parts:drop\n      below: …  # required: int" in text


def test_what_show_writes_as_a_recipe_can_be_used(tiny: Plugins) -> None:
    from recore.cli.show import fragment
    from recore.recipe.text import read_text
    from recore.recipe.tree import plain

    count = 0
    for found in [one for kind in KINDS for one in tiny.of(kind) if one.provider == "tiny-parts"]:
        node, problems = read_text(fragment(found), "x")
        assert problems == []
        assert node is not None
        tree = plain(node)
        if "…" in fragment(found):
            continue
        base: dict[str, Any] = {
            "recore": 1,
            **{key: {"use": f"tiny-parts:{use}"} for key, use in [("data", "toy"), ("split", "last")]},
            "model": {"use": "tiny-parts:count"},
        }
        if found.component.name in ("raises", "answers") or ("model" in tree and "use" not in tree["model"]):
            continue
        if found.kind == "sampler":
            base["loss"] = {"use": "tiny-parts:pairs"}
        if found.component.name == "pairs":
            base["sampler"] = {"use": "tiny-parts:uniform"}
        from_tree({**base, **tree}, plugins=tiny)
        count += 1
    assert count >= 9


def test_show_lists_kinds_and_parts(tiny_site: Any) -> None:
    done = tiny_site.recore("show")
    assert done.returncode == 0
    assert all(any(line.startswith(f"{kind} ") for line in done.stdout.splitlines()) for kind in KINDS)
    done = tiny_site.recore("show", "dataset")
    assert "The tiny toy." in done.stdout
    done = tiny_site.recore("show", "dataset", "tiny-parts:toi")
    assert (done.returncode, done.stderr) == (2, "unknown dataset 'tiny-parts:toi' (did you mean 'toy'?)\n")
    done = tiny_site.recore("show", "datset")
    assert (done.returncode, done.stderr) == (2, "unknown kind 'datset' (did you mean 'dataset'?)\n")


def test_the_schema_knows_every_key_kind_and_option(tiny: Plugins) -> None:
    made = schema(tiny)
    assert set(made["properties"]) == set(KEYS)
    assert set(made["$defs"]) == {*KINDS, "overlay"}
    json.dumps(made)
    branches = made["$defs"]["dataset"]["allOf"]
    toy = next(one["then"] for one in branches if "tiny-parts:toy" in one["if"]["properties"]["use"]["enum"])
    assert toy["additionalProperties"] is False
    assert toy["properties"]["rows"] == {"description": "How many events.", "type": "integer", "default": 10}
    assert toy["properties"]["ids"]["enum"] == ["int", "str", "int64"]
    assert toy["properties"]["last"]["anyOf"] == [{"type": "integer"}, {"enum": ["all"]}]
    assert toy["properties"]["bounds"]["properties"]["high"]["type"] == "integer"
    stack = made["$defs"]["encoder"]["allOf"][1]["then"]["properties"]
    assert stack["inner"]["items"] == {"$ref": "#/$defs/encoder"}
    loss = made["$defs"]["loss"]["allOf"][0]["then"]["properties"]
    assert {"use", "name", "weight", "sampler"} <= set(loss)


def test_check_tells_of_further_cells_what_differs(tiny: Plugins, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"{RECIPE}seeds: [1, 2]\nmatrix: {{m: {{a: {{}}, b: {{evaluators: {{use: tiny-parts:rank}}}}}}}}\n"
    Path("x.yaml").write_text(text, encoding="utf-8")
    assert (
        summary("x.yaml", load_cells("x.yaml", plugins=tiny), tiny)
        == """\
x.yaml: ok, 2 cells, seeds 1, 2
  m=a
  data   tiny-parts:toy    tiny-parts 1.0
  split  tiny-parts:last   tiny-parts 1.0
  model  tiny-parts:count  tiny-parts 1.0
  m=b
  evaluators  tiny-parts:rank  tiny-parts 1.0"""
    )


def test_recipes_are_listed_and_copied(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in shipped())
    for name, file in shipped().items():
        target = tmp_path / f"{name.replace('/', '-').replace(':', '-')}.yaml"
        assert cli.main(["recipes", "copy", name, str(target)]) == 0
        assert target.exists()
        text = target.read_text(encoding="utf-8")
        # The copy extends what the original extends, wherever it now is.
        assert text.count("\n") == file.read_text(encoding="utf-8").count("\n")
    assert cli.main(["recipes", "copy", "sasrec", str(tmp_path / "sasrec.yaml")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'sasrec.yaml'}: exists already (name another file)\n"
    assert cli.main(["recipes", "copy", "sasrek"]) == 2
    assert capsys.readouterr().err == "no shipped recipe 'sasrek' (did you mean 'sasrec'?)\n"


def test_a_copied_recipe_still_finds_what_it_extends(tmp_path: Path, monkeypatch: Any) -> None:
    from recore.recipe.files import load_source

    monkeypatch.chdir(tmp_path)
    for name, file in shipped().items():
        target = tmp_path / "deep" / "copy.yaml"
        target.unlink(missing_ok=True)
        assert cli.main(["recipes", "copy", name, str(target)]) == 0
        copied, original = load_source(target), load_source(file)
        assert copied.problems == original.problems == ()
        assert set(copied.root.value) == set(original.root.value)


def test_an_unknown_command_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chek"]) == 2
    assert capsys.readouterr().err == "recore: unknown command 'chek' (did you mean 'check'?)\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"    {name}" in text for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_a_plugin_adds_a_command(site: Any) -> None:
    text = """
from recore import hookimpl

@hookimpl
def recore_commands(subcommands):
    parser = subcommands.add_parser("greet", help="say hello")
    parser.add_argument("name")
    parser.set_defaults(run=lambda arguments: print("hello", arguments.name))
"""
    site.plugin("acme", "1.0", "acme_plugin", text)
    site.plugin("bad", "1.0", "bad_plugin", text.replace('"greet"', "1 / 0"))
    site.plugin("thief", "1.0", "thief_plugin", text.replace('"greet"', '"check"'))
    done = site.recore("greet", "you")
    assert (done.returncode, done.stdout) == (0, "hello you\n")
    assert done.stderr.splitlines()[0] == (
        "warning: bad: recore_commands raised ZeroDivisionError: division by zero [bad_plugin.py:6]"
    )
    assert done.stderr.splitlines()[1].startswith("warning: thief: recore_commands raised ArgumentError")
    assert "greet" in site.recore("--help").stdout


def test_a_reader_that_leaves_is_no_error(tiny_site: Any) -> None:
    command = f"{sys.executable} -m recore.cli.main schema | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        cwd=tiny_site.folder,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_tables_cut_nothing_off_and_know_wide_signs() -> None:
    assert table([("a", "bb"), ("東京", "c")], ("x", "y")) == "x     y\n────  ──\na     bb\n東京  c"
    assert table([], ()) == ""


@pytest.mark.usefixtures("tiny")
def test_the_commands_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(RECIPE, encoding="utf-8")
    Path("y.yaml").write_text(RECIPE + "sedes: 3\n", encoding="utf-8")
    expected = [
        (["check", "x.yaml"], 0, "x.yaml: ok"),
        (["check", "x.yaml", "y.yaml"], 2, "x.yaml: ok"),
        (["check", "x.yaml", "--set", "data.rows='5'"], 2, ""),
        (["plugins"], 0, "tiny-parts"),
        (["plugins", "--no-load"], 0, "    entry point tiny: tiny_parts"),
        (["plugins", "--json"], 0, '"name": "tiny-parts"'),
        (["show"], 0, "dataset "),
        (["show", "dataset"], 0, "The tiny toy."),
        (["show", "dataset", "tiny-parts:toy"], 0, "Nobody 2024"),
        (["show", "dataset", "tiny-parts:toi"], 2, ""),
        (["schema"], 0, "tiny-parts:toy"),
        (["recipes", "list"], 0, "recipe "),
    ]
    for arguments, status, piece in expected:
        assert cli.main(arguments) == status, arguments
        told = capsys.readouterr()
        assert piece in told.out
        assert bool(told.err) == (status == 2)


def test_interrupted_and_broken_runs_end_with_their_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(error: BaseException) -> Any:
        def run(arguments: list[str]) -> int:
            raise error

        return run

    monkeypatch.setattr(cli, "_main", raising(KeyboardInterrupt()))
    assert cli.main([]) == 130
    error = RecoreError("oh")
    error.add_note("while building")
    monkeypatch.setattr(cli, "_main", raising(error))
    assert cli.main([]) == 1
    assert capsys.readouterr().err == "interrupted\noh\nwhile building\n"
    monkeypatch.setattr(cli, "_main", raising(ZeroDivisionError("a bug keeps its traceback")))
    with pytest.raises(ZeroDivisionError):
        cli.main([])
