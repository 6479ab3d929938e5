"""Discovery on real metadata: what works, what is broken, what collides, and that nothing takes us down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recore.errors import PluginError
from recore.kinds import KINDS
from recore.plugins import HOOKS, Plugins, Provider, canonical, discover, installed

HEAD = """
import attrs
from recore import Component, hookimpl

@attrs.frozen
class Options:
    '''None.'''

def part(name):
    return Component(name, Options, "math:sqrt", summary=name)

"""
GOOD = (
    HEAD
    + """
@hookimpl
def recore_positions():
    yield part("relative")
    yield part("other")
"""
)


def entry(here: Any, name: str, text: str, version: str = "1.0", module: str = "") -> Provider:
    """Install one plugin, and find it."""
    module = module or f"{canonical(name).replace('-', '_')}_plugin"
    here.plugin(name, version, module, text)
    provider = discover().provider(name)
    assert provider is not None
    return provider


def lines(provider: Provider) -> list[str]:
    """Its problems as they are shown."""
    return [str(problem) for problem in provider.problems]


def test_a_good_plugin_is_found(here: Any) -> None:
    provider = entry(here, "Acme.Recore", GOOD)
    assert (provider.name, provider.version, provider.status) == ("acme-recore", "1.0", "ok")
    assert lines(provider) == []
    assert provider.location == str(here.folder)
    assert provider.seconds is not None
    assert provider.seconds < 5
    assert [found.name for found in provider.components] == ["acme-recore:relative", "acme-recore:other"]
    plugins = discover()
    assert plugins.find("position", "Acme_Recore:relative").name == "acme-recore:relative"
    assert plugins.version("acme.recore") == "1.0"


def test_the_core_comes_through_the_same_door() -> None:
    found = discover().find("model", "recore:sequential")
    assert found.provider == "recore"


def test_hooks_and_kinds_are_the_same_list() -> None:
    assert {kind.hook for kind in KINDS.values()} < HOOKS
    assert len(KINDS) >= 14


def test_nothing_is_imported_without_loading(here: Any) -> None:
    here.plugin("acme", "1.0", "acme_plugin", "raise SystemExit('imported')")
    plugins = discover(load=False)
    provider = plugins.provider("acme")
    assert provider is not None
    assert (provider.status, provider.seconds, provider.components) == ("ok", None, [])
    assert provider.entries == {"main": "acme_plugin"}
    assert not plugins.loaded


BROKEN = [
    ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing' [acme_plugin.py:1]"),
    ("raise SystemExit(3)", "SystemExit: 3 [acme_plugin.py:1]"),
    ("import sys\nsys.exit()", "SystemExit [acme_plugin.py:2]"),
    ("class Odd(BaseException): pass\nraise Odd('x')", "Odd: x [acme_plugin.py:2]"),
    ("1 / 0", "ZeroDivisionError: division by zero [acme_plugin.py:1]"),
    ("def f(:\n  pass", "SyntaxError: invalid syntax (acme_plugin.py, line 1)"),
    (
        "from recore import PluginError\nraise PluginError('mine')",
        "PluginError: mine [acme_plugin.py:2]",
    ),
    ("def f():\n  f()\nf()", "RecursionError: maximum recursion depth exceeded [acme_plugin.py:2]"),
]


@pytest.mark.parametrize(("text", "told"), BROKEN, ids=[text for text, _ in BROKEN])
def test_what_breaks_at_import_is_reported_and_the_rest_works(here: Any, text: str, told: str) -> None:
    here.plugin("good-one", "1.0", "good_plugin", GOOD)
    provider = entry(here, "acme", text)
    assert provider.status == "broken"
    assert lines(provider) == [f"acme 1.0: importing 'acme_plugin' (entry point 'main') raised {told}"]
    assert discover().find("position", "good-one:relative").provider == "good-one"


def test_an_entry_point_to_nothing_is_reported(here: Any) -> None:
    here.distribution("acme", "1.0", "[recore.v1]\na = no_such_module\nb = math:no_such\nc = !?\n")
    provider = discover().provider("acme")
    assert provider is not None
    assert provider.status == "broken"
    assert [line.partition(" raised ")[2].partition(":")[0] for line in lines(provider)] == [
        "ModuleNotFoundError",
        "AttributeError",
        "AttributeError",
    ]


HOOK_FAULTS = [
    (
        "@hookimpl\ndef recore_positions():\n    yield part('a')\n    raise KeyError('x')",
        "recore_positions raised KeyError: 'x' [acme_plugin.py:15]",
    ),
    (
        "@hookimpl\ndef recore_positions():\n    yield part('a')\n    raise SystemExit(1)",
        "recore_positions raised SystemExit: 1 [acme_plugin.py:15]",
    ),
    (
        "@hookimpl\ndef recore_positions():\n    part('a')",
        "recore_positions returned None, expected Components (a missing `yield`?)",
    ),
    (
        "@hookimpl\ndef recore_positions():\n    return 'abc'",
        "recore_positions returned 'abc', expected Components",
    ),
    ("@hookimpl\ndef recore_positions():\n    return 5", "recore_positions returned 5, expected Components"),
    (
        "@hookimpl\ndef recore_positions():\n    return {'a': part('a')}",
        "recore_positions yields 'a', expected a Component",
    ),
    (
        "@hookimpl\ndef recore_positions():\n    yield part('a')\n    yield part('a')",
        "recore_positions yields component 'a' twice",
    ),
    (
        "@hookimpl\ndef recore_positions():\n    yield part('a:b')\n    yield part('')",
        (
            "recore_positions yields a component named 'a:b', expected letters, digits and any of . + - _; "
            "a component named '', expected letters, digits and any of . + - _"
        ),
    ),
    (
        "@hookimpl\ndef recore_positions():\n    yield Component('a', dict, 'build', 'x', claims=3, source=None)",
        (
            "recore_positions yields 'a' with options <class 'dict'>, expected an attrs class; "
            "'a' with factory 'build', expected 'module:callable'; 'a' with claims 3, expected Claims; "
            "'a' whose summary or source is no text"
        ),
    ),
    (
        (
            "@attrs.frozen\nclass Uses:\n    use: int = 0\n@hookimpl\ndef recore_positions():\n"
            "    yield Component('a', Uses, 'm:b', 'x')"
        ),
        "recore_positions yields 'a' with an option called 'use', a key of its own",
    ),
    (
        "import itertools\n@hookimpl\ndef recore_positions():\n    return map(part, itertools.count())",
        "recore_positions yields more than 10000 components",
    ),
    (
        "@hookimpl(wrapper=True)\ndef recore_positions():\n    yield",
        "recore_positions is a wrapper, expected a plain hook that yields components",
    ),
]


@pytest.mark.parametrize(("text", "told"), HOOK_FAULTS, ids=[told[:40] for _, told in HOOK_FAULTS])
def test_a_hook_that_fails_contributes_nothing(here: Any, text: str, told: str) -> None:
    good = "\n@hookimpl\ndef recore_samplers():\n    yield part('still')\n"
    provider = entry(here, "acme", f"{HEAD}{text}\n{good}")
    assert provider.status == "broken"
    assert lines(provider) == [f"acme 1.0: {told}"]
    assert [found.name for found in provider.components] == ["acme:still"]


def test_a_hook_with_other_arguments_is_reported(here: Any) -> None:
    text = f"{GOOD}\n@hookimpl\ndef recore_samplers(context):\n    yield part('x')\n"
    provider = entry(here, "acme", text)
    assert provider.status == "broken"
    assert provider.components == []
    assert "registering its hooks (entry point 'main') raised PluginValidationError" in lines(provider)[0]
    assert "context" in lines(provider)[0]
    plugins = discover()
    assert not plugins.manager.has_plugin("acme main")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "@hookimpl\ndef recore_position():\n    yield part('a')",
            "'recore_position' is no hook and is never called (did you mean 'recore_positions'?)",
        ),
        (
            "def recore_sampler():\n    yield part('a')",
            "'recore_sampler' is no hook and is never called (did you mean 'recore_samplers'?)",
        ),
        (
            "def recore_samplers():\n    yield part('a')",
            "hook 'recore_samplers' is not marked and is never called (put @hookimpl on it)",
        ),
        (
            "@hookimpl\ndef run_started():\n    pass",
            "'run_started' is no hook and is never called (did you mean 'recore_run_started'?)",
        ),
    ],
)
def test_a_misspelt_hook_is_a_warning_with_the_nearest_name(here: Any, text: str, told: str) -> None:
    provider = entry(here, "acme", f"{GOOD}{text}\n")
    assert provider.status == "warning"
    assert lines(provider) == [f"acme 1.0: {told}"]
    assert len(provider.components) == 2


def test_printing_at_import_does_not_disturb_the_output(
    here: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    entry(here, "acme", "print('hello')")
    assert capsys.readouterr().out == ""


def test_a_future_plugin_is_incompatible(here: Any) -> None:
    here.distribution(
        "acme", "3.0", "[recore.v2]\nmain = acme_plugin\n", {"acme_plugin.py": "raise SystemExit(1)"}
    )
    plugins = discover()
    provider = plugins.provider("acme")
    assert provider is not None
    assert provider.status == "incompatible"
    assert lines(provider) == [
        "acme 3.0: it is made for recore.v2, this is recore.v1 (update one of the two)"
    ]
    with pytest.raises(PluginError) as caught:
        plugins.find("position", "acme:relative")
    assert str(caught.value) == (
        "position 'acme:relative' cannot be used: acme 3.0 is incompatible: it is made for recore.v2, "
        "this is recore.v1"
    )


def test_a_plugin_for_both_versions_is_fine(here: Any) -> None:
    text = "[recore.v1]\nmain = acme_plugin\n[recore.v2]\nmain = acme_new\n"
    here.distribution("acme", "3.0", text, {"acme_plugin.py": GOOD})
    provider = discover().provider("acme")
    assert provider is not None
    assert provider.status == "ok"
    assert len(provider.components) == 2


@pytest.mark.parametrize("first", [0, 1])
def test_two_with_one_entry_point_name_and_one_component_name_stay(here: Any, first: int) -> None:
    names = [("acme-a", "a_plugin"), ("acme-b", "b_plugin")]
    for name, module in (names[first], names[1 - first]):
        here.plugin(name, f"{len(module)}.0", module, GOOD)
    plugins = discover()
    found = [one.name for one in plugins.of("position") if one.component.name == "relative"]
    assert found == ["acme-a:relative", "acme-b:relative"]
    with pytest.raises(PluginError) as caught:
        plugins.find("position", "relative")
    assert str(caught.value) == (
        "position 'relative' is offered by acme-a 8.0 and acme-b 8.0 "
        "(choose with `use: acme-a:relative` or `use: acme-b:relative`)"
    )
    assert plugins.find("position", "acme-b:relative").provider == "acme-b"


def test_one_module_of_two_distributions_is_taken_once(here: Any) -> None:
    here.plugin("acme-a", "1.0", "shared_plugin", GOOD)
    here.plugin("acme-b", "1.0", "shared_plugin", GOOD)
    plugins = discover()
    provider = plugins.provider("acme-b")
    assert provider is not None
    assert lines(provider) == [
        "acme-b 1.0: entry point 'main' is the same object as 'acme-a main' and was left out"
    ]
    assert plugins.find("position", "relative").provider == "acme-a"


def test_one_name_from_two_entry_points_of_one_distribution_is_reported(here: Any) -> None:
    files = {"acme_one.py": GOOD, "acme_two.py": GOOD}
    here.distribution("acme", "1.0", "[recore.v1]\na = acme_one\nb = acme_two\n", files)
    provider = discover().provider("acme")
    assert provider is not None
    assert provider.status == "broken"
    assert lines(provider) == [
        "acme 1.0: recore_positions yields acme:other and acme:relative once more; all of this hook is left out"
    ]
    assert len(provider.components) == 2


def test_the_first_copy_on_the_path_counts_as_in_imports(here: Any, tmp_path: Path, monkeypatch: Any) -> None:
    here.plugin("acme", "1.0", "acme_plugin", GOOD)
    other = tmp_path / "other" / "acme-2.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: Acme\nVersion: 2.0\n", encoding="utf-8")
    (other / "entry_points.txt").write_text("[recore.v1]\nmain = acme_plugin\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    assert [provider.version for provider in installed() if provider.name == "acme"] == ["2.0"]


def test_odd_names_and_namespace_packages_are_plugins_too(here: Any) -> None:
    files = {"räume/teil eins/__init__.py": ""}
    here.distribution(
        "Räume und Zeit", "1.0", "[recore.v1]\nmain = raum_plugin\n", {**files, "raum_plugin.py": GOOD}
    )
    here.distribution(
        "space", "1.0", "[recore.v1]\nmain = space.inner.plugin\n", {"space/inner/plugin.py": GOOD}
    )
    plugins = discover()
    assert plugins.find("position", "räume und zeit:relative").name == "räume und zeit:relative"
    assert plugins.find("position", "space:relative").name == "space:relative"


def test_metadata_that_cannot_be_read_is_reported(here: Any) -> None:
    info = here.distribution("acme", "1.0", "[recore.v1]\nmain = acme_plugin\nthis is no line\n")
    provider = discover().provider("acme")
    assert provider is not None
    assert provider.status == "broken"
    (info / "METADATA").unlink()
    assert discover().provider("acme") is not None


def test_strict_makes_the_first_problem_fatal(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here.plugin("acme", "1.0", "acme_plugin", "1 / 0")
    monkeypatch.setenv("RECORE_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError) as caught:
        discover()
    assert str(caught.value) == (
        "acme 1.0: importing 'acme_plugin' (entry point 'main') raised ZeroDivisionError: division by zero "
        "[acme_plugin.py:1] [RECORE_STRICT_PLUGINS=1]"
    )
    monkeypatch.setenv("RECORE_STRICT_PLUGINS", "0")
    discover()


def test_unknown_names_come_with_the_nearest_and_with_what_is_broken(here: Any, tiny: Plugins) -> None:
    def told(plugins: Plugins, kind: str, name: str) -> str:
        with pytest.raises(PluginError) as caught:
            plugins.find(kind, name)
        return str(caught.value)

    assert told(tiny, "dataset", "toi") == "unknown dataset 'toi' (did you mean 'toy'?)"
    assert told(tiny, "datset", "toy") == "unknown kind 'datset' (did you mean 'dataset'?)"
    assert told(tiny, "dataset", "uniform") == (
        "unknown dataset 'uniform' (tiny-parts:uniform is of the kind sampler)"
    )
    assert told(tiny, "dataset", "tiny-parts:toi") == "unknown dataset 'tiny-parts:toi' (did you mean 'toy'?)"
    assert told(tiny, "split", "recore:last").startswith("unknown split 'recore:last' (recore ")
    here.plugin("acme", "1.0", "acme_plugin", "1 / 0")
    plugins = discover()
    assert told(plugins, "position", "acme:relative") == (
        "position 'acme:relative' cannot be used: acme 1.0 is broken: importing 'acme_plugin' (entry point 'main') "
        "raised ZeroDivisionError: division by zero [acme_plugin.py:1]"
    )
    assert told(plugins, "position", "qqq").endswith("; not available: acme 1.0, see `recore plugins`)")


def test_a_listener_that_fails_does_not_stop_the_others(here: Any) -> None:
    text = "from recore import hookimpl\nheard = []\n@hookimpl\ndef recore_run_ended(run):\n    heard.append(run)\n"
    here.plugin("acme-a", "1.0", "a_plugin", text)
    here.plugin("acme-b", "1.0", "b_plugin", text.replace("heard.append(run)", "raise OSError('full')"))
    plugins = discover()
    problems = plugins.notify("recore_run_ended", {"run": Path("r"), "record": {}})
    assert [str(problem) for problem in problems] == [
        "acme-b: recore_run_ended raised OSError: full [b_plugin.py:5]"
    ]
    provider = plugins.provider("acme-a")
    assert provider is not None
    assert provider.modules["main"].heard == [Path("r")]


# Loose files.


def loose(tmp_path: Path, text: str = GOOD, name: str = "my_part.py", mode: int = 0o600) -> Path:
    """A loose file."""
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def test_a_loose_file_is_a_plugin(tmp_path: Path) -> None:
    text = GOOD.replace("math:sqrt", "this:build") + "\ndef build(options, context):\n    return 'built'\n"
    file = loose(tmp_path, text)
    plugins = discover(loose=[file])
    found = plugins.find("position", "my_part:relative")
    assert found.name == "my_part:relative"
    assert plugins.find("position", "my-part:relative") == found
    assert plugins.factory(found)(None, None) == "built"
    provider = plugins.provider("my_part")
    assert provider is not None
    assert (provider.status, provider.loose, provider.version) == ("ok", file, "")
    assert provider.source == file.read_bytes()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_loose_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = loose(tmp_path, mode=mode)
    with pytest.raises(PluginError) as caught:
        discover(loose=[file])
    assert str(caught.value) == (
        f"{file}: others can write to it (mode {mode:03o}), so it is not run (chmod go-w {file})"
    )


def test_a_loose_file_that_is_none_is_refused(tmp_path: Path) -> None:
    for file in (tmp_path / "no.py", tmp_path, loose(tmp_path, name="x.txt")):
        with pytest.raises(PluginError, match="expected a Python file"):
            discover(loose=[file])


def test_a_loose_file_cannot_take_a_name(tmp_path: Path) -> None:
    with pytest.raises(PluginError) as caught:
        discover(loose=[loose(tmp_path, name="recore.py")])
    assert "its name is that of the plugin recore" in str(caught.value)
    (tmp_path / "two").mkdir()
    with pytest.raises(PluginError, match="its name is that of the plugin my_part"):
        discover(loose=[loose(tmp_path), loose(tmp_path / "two", name="my-part.py")])


def test_a_loose_file_that_breaks_is_reported(tmp_path: Path) -> None:
    provider = discover(loose=[loose(tmp_path, "\n1 / 0\n")]).provider("my_part")
    assert provider is not None
    assert lines(provider) == [
        "my_part: running it raised ZeroDivisionError: division by zero [my_part.py:2]"
    ]


def test_options_of_a_loose_file_are_resolved(tmp_path: Path) -> None:
    text = """
from __future__ import annotations
from attrs import frozen
from recore import Component, Part, hookimpl, option
from recore.contracts import Position

@frozen
class Inner:
    k: int = 3

@frozen
class Options:
    inner: Inner = option(factory=Inner, help="x")
    below: Part[Position] | None = option(None, help="y")

@hookimpl
def recore_positions():
    yield Component("mine", Options, "this:build", summary="z")
"""
    from recore.recipe.options import in_words, options_of

    found = discover(loose=[loose(tmp_path, text)]).find("position", "mine")
    assert [in_words(option.type) for option in options_of(found.component.options)] == [
        "mapping (Inner)",
        "a position or ~",
    ]
