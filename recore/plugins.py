"""Discovery: which distributions offer parts, which are broken, and which names collide.

    installed()   entry points of the group `recore.v1`, read without importing anything
    discover()    imports them, each in a guard, and collects their components
    Plugins       what was found: `find` a part by name, its `factory`, the `manager` for notifications
    Provider      one distribution, or one loose file, with its status and problems

The loop over `importlib.metadata` is our own: one broken plugin must not take the command line down, and two
distributions with one entry-point name must not shadow each other. Identity is the distribution's name.
Content hashes are in `recore.provenance`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.metadata
import importlib.util
import inspect
import itertools
import json
import os
import re
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal
from urllib.parse import unquote, urlparse

import attrs
import pluggy
from attrs import define, field, frozen

from recore import hookspecs
from recore.claims import Claims
from recore.component import Component, Part
from recore.errors import PluginError, Problem, nearest
from recore.hookspecs import GROUP
from recore.kinds import KINDS, Kind

Status = Literal["ok", "warning", "broken", "incompatible"]
STRICT = "RECORE_STRICT_PLUGINS"
MOST_COMPONENTS = 10_000  # of one hook: an endless generator must end
HOOKS = {name for name in vars(hookspecs) if name.startswith("recore_")}
ANY_GROUP = re.compile(r"recore\.v\d+")
NAME = re.compile(r"\w[\w.+-]*")
FACTORY = re.compile(r"(\w+(?:\.\w+)*):(\w+(?:\.\w+)*)")
RESERVED = {"loss": {"use", "name", "view", "weight", "sampler"}}  # keys of a recipe that are no options


class StrictPluginError(PluginError):
    """The first problem of any plugin, under RECORE_STRICT_PLUGINS=1."""


def canonical(name: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@frozen
class Found:
    """A component and the distribution that offers it."""

    kind: str
    component: Component
    provider: str

    @property
    def name(self) -> str:
        """The qualified name, `distribution:component`."""
        return f"{self.provider}:{self.component.name}"


@define(eq=False)
class Provider:
    """A distribution, or a loose file, that offers parts.

    `seconds`: how long importing its entry modules took (None: not imported). `entries`: entry-point name →
    object reference. `location`: where it is installed, or its source folder if `editable`. `loose` is the
    file of a loose plugin, `source` its bytes as they were run. `modules`: its imported entry modules.
    """

    name: str
    version: str = ""
    entries: dict[str, str] = field(factory=dict)
    location: str = ""
    editable: bool = False
    loose: Path | None = None
    source: bytes = b""
    seconds: float | None = None
    problems: list[Problem] = field(factory=list)
    components: list[Found] = field(factory=list)
    modules: dict[str, Any] = field(factory=dict)
    status: Status = "ok"
    metadata: importlib.metadata.Distribution | None = None

    @property
    def label(self) -> str:
        """Name and version, for messages."""
        return f"{self.name} {self.version}".strip()

    def report(self, status: Status, message: str, hint: str = "") -> None:
        """Note a problem; the worst status stays. The first one is fatal under RECORE_STRICT_PLUGINS=1."""
        problem = Problem(message, where=self.label, hint=hint)
        order: tuple[Status, ...] = ("ok", "warning", "incompatible", "broken")
        self.status = max(self.status, status, key=order.index)
        self.problems.append(problem)
        if os.environ.get(STRICT) == "1":
            raise StrictPluginError(attrs.evolve(problem, message=f"{message} [{STRICT}=1]"))


@frozen(eq=False, repr=False)
class Plugins:
    """What is installed. `loaded` is False when nothing was imported, and then there are no components."""

    distributions: tuple[Provider, ...]
    manager: pluggy.PluginManager
    loaded: bool = True

    @property
    def components(self) -> dict[str, list[Found]]:
        """Every component by kind, in the order of the distributions' names."""
        offered: dict[str, list[Found]] = {kind: [] for kind in KINDS}
        for provider in self.distributions:
            for found in provider.components:
                offered[found.kind].append(found)
        return offered

    def of(self, kind: str) -> list[Found]:
        """The components of one kind. Raises PluginError for an unknown kind."""
        if kind not in KINDS:
            raise PluginError(Problem(f"unknown kind {kind!r}", hint=nearest(kind, KINDS)))
        return [found for found in self._all() if found.kind == kind]

    def provider(self, name: str) -> Provider | None:
        """The distribution or loose file of that name, in any spelling."""
        wanted = canonical(name)
        return next((one for one in self.distributions if canonical(one.name) == wanted), None)

    def version(self, name: str) -> str:
        """The version of a distribution; empty for a loose file."""
        provider = self.provider(name)
        return "" if provider is None else provider.version

    def find(self, kind: str, name: str) -> Found:
        """The component called `name`, bare or qualified as `distribution:name`.

        Raises PluginError when it is unknown (with the nearest name), ambiguous (with every provider and how
        to choose) or offered by a plugin that is broken or incompatible.
        """
        offered = self.of(kind)
        owner, _, bare = name.rpartition(":")
        if owner:
            return self._qualified(kind, name, owner, bare)
        matches = [found for found in offered if found.component.name == name]
        if len(matches) == 1:
            return matches[0]
        if matches:
            labels = [provider.label for found in matches if (provider := self.provider(found.provider))]
            ways = " or ".join(f"`use: {found.name}`" for found in matches)
            raise PluginError(
                Problem(f"{kind} {name!r} is offered by {_and(labels)}", hint=f"choose with {ways}")
            )
        raise PluginError(Problem(f"unknown {kind} {name!r}", hint=self._hint(kind, name, offered)))

    def _qualified(self, kind: str, name: str, owner: str, bare: str) -> Found:
        provider = self.provider(owner)
        if provider is None:
            hint = nearest(owner, [one.name for one in self.distributions])
            raise PluginError(
                Problem(f"unknown {kind} {name!r}: no plugin {owner!r} is installed", hint=hint)
            )
        offered = [found for found in provider.components if found.kind == kind]
        for found in offered:
            if found.component.name == bare:
                return found
        if provider.status in ("broken", "incompatible"):
            raise PluginError(
                Problem(
                    f"{kind} {name!r} cannot be used: {provider.label} is {provider.status}: "
                    + "; ".join(problem.message for problem in provider.problems)
                )
            )
        hint = self._hint(kind, bare, offered) or f"{provider.label} offers no {kind}"
        raise PluginError(Problem(f"unknown {kind} {name!r}", hint=hint))

    def _hint(self, kind: str, name: str, offered: Sequence[Found]) -> str:
        elsewhere = [found for found in self._all() if found.component.name == name and found.kind != kind]
        if elsewhere:
            return f"{elsewhere[0].name} is of the kind {elsewhere[0].kind}"
        hint = nearest(name, {found.component.name for found in offered})
        down = [one.label for one in self.distributions if one.status in ("broken", "incompatible")]
        if down and not hint.startswith("did"):
            hint = f"{hint}; not available: {_and(down)}, see `recore plugins`".removeprefix("; ")
        return hint

    def _all(self) -> Iterator[Found]:
        return itertools.chain.from_iterable(provider.components for provider in self.distributions)

    def factory(self, part: Part[Any] | Found) -> Callable[..., Any]:
        """The callable that builds a part, imported now. Raises PluginError naming the plugin."""
        provider = self.provider(part.provider)
        what = f"{part.kind} {part.name!r}: its factory {part.component.factory!r}"
        matched = FACTORY.fullmatch(part.component.factory)
        if provider is None or matched is None:
            raise PluginError(f"{what} cannot be found: plugin {part.provider!r} is not installed")
        module, names = matched.groups()
        made: Any
        try:
            if module == "this" and provider.loose is not None:
                made = provider.modules["this"]
            else:
                made = importlib.import_module(module)
            for name in names.split("."):
                made = getattr(made, name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise PluginError(Problem(f"{what} cannot be imported: {told(error)}")) from error
        if not callable(made):
            raise PluginError(Problem(f"{what} is a {type(made).__name__}, expected something to call"))
        return made  # type: ignore[no-any-return]  # callable, and that is all one can know of it

    def notify(self, hook: str, arguments: Mapping[str, Any]) -> list[Problem]:
        """Tell every plugin that listens, in a guard: a listener that raises is reported, the rest hear."""
        problems: list[Problem] = []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as error:
                where = implementation.plugin_name.split(" ", 1)[0]
                problems.append(Problem(f"{hook} raised {told(error)}", where=where))
        return problems


def told(error: BaseException) -> str:
    """An exception in one line: what, and the last place of it in code that is not ours."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    own = os.path.dirname(os.path.abspath(__file__)) + os.sep
    own_or_frozen = (own, "<frozen")
    outside = [frame for frame in frames if not frame.filename.startswith(own_or_frozen)]
    outside = [frame for frame in outside if "importlib" not in frame.filename]
    if not outside:
        return text
    return f"{text} [{os.path.basename(outside[-1].filename)}:{outside[-1].lineno}]"


def _and(labels: Sequence[str]) -> str:
    return " and ".join(labels) if len(labels) < 3 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def installed() -> list[Provider]:
    """Every distribution with an entry point for some version of the plugin API, by name; no import."""
    providers: dict[str, Provider] = {}
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except Exception:  # unreadable metadata of somebody else is not ours to report
            continue
        if not ANY_GROUP.search(text):
            continue
        provider = _from_metadata(distribution)
        providers.setdefault(canonical(provider.name), provider)  # the first on the path, as in imports
    return sorted(providers.values(), key=lambda provider: canonical(provider.name))


def _from_metadata(distribution: importlib.metadata.Distribution) -> Provider:
    folder = getattr(distribution, "_path", None)
    stem = Path(str(folder)).stem.rsplit("-", 1)[0] if folder is not None else "?"
    try:
        name, version = (
            str(distribution.metadata["Name"] or stem),
            str(distribution.metadata["Version"] or ""),
        )
    except Exception:
        name, version = stem, ""
    provider = Provider(canonical(name), version, metadata=distribution)
    provider.location = str(Path(str(folder)).parent) if folder is not None else ""
    source = _editable_source(distribution)
    if source is not None:
        provider.editable, provider.location = True, source
    try:
        points = [point for point in distribution.entry_points if ANY_GROUP.fullmatch(point.group)]
    except Exception as error:
        provider.report("broken", f"its entry points cannot be read: {told(error)}")
        return provider
    for point in points:
        if point.group == GROUP:
            provider.entries[point.name] = point.value
    if not provider.entries:
        groups = _and(sorted({point.group for point in points}))
        provider.report("incompatible", f"it is made for {groups}, this is {GROUP}", "update one of the two")
    return provider


def _editable_source(distribution: importlib.metadata.Distribution) -> str | None:
    """The source folder of an editable install (PEP 610)."""
    try:
        record = json.loads(distribution.read_text("direct_url.json") or "{}")
        if record.get("dir_info", {}).get("editable"):
            return unquote(urlparse(record["url"]).path)
    except Exception:  # a malformed record only costs the mark
        return None
    return None


def discover(load: bool = True, loose: Sequence[Path | str] = ()) -> Plugins:
    """Find every plugin, import it unless `load` is False, and collect what it offers.

    Args:
        load: False lists from metadata alone and imports nothing.
        loose: single Python files that are plugins without being packaged.

    Raises PluginError for a loose file that is refused, and for the first problem of any plugin when
    RECORE_STRICT_PLUGINS=1. Otherwise problems are on the providers.
    """
    manager = pluggy.PluginManager("recore")
    manager.add_hookspecs(hookspecs)
    providers = installed()
    if load:
        for provider in providers:
            if provider.status != "incompatible":
                _load_distribution(provider, manager)
        for file in loose:
            providers.append(_load_loose(Path(file), providers, manager))
    return Plugins(tuple(providers), manager, load)


@contextlib.contextmanager
def _guarded(provider: Provider, what: str) -> Iterator[None]:
    """Whatever goes wrong inside is the plugin's: reported, not raised. Its prints go to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (KeyboardInterrupt, StrictPluginError):
        raise
    except BaseException as error:  # SystemExit too
        provider.report("broken", f"{what} raised {told(error)}")


def _load_distribution(provider: Provider, manager: pluggy.PluginManager) -> None:
    torch_before = "torch" in sys.modules
    provider.seconds = 0.0
    for name, reference in provider.entries.items():
        started = time.perf_counter()
        with _guarded(provider, f"importing {reference!r} (entry point {name!r})"):
            point = importlib.metadata.EntryPoint(name, reference, GROUP)
            provider.modules[name] = point.load()
        provider.seconds += time.perf_counter() - started
        if name in provider.modules:
            _register(provider, name, provider.modules[name], manager)
    if not torch_before and "torch" in sys.modules:
        provider.report(
            "warning",
            f"importing it imported torch ({provider.seconds:.1f} s), which slows every command down",
            "import torch where parts are built, not in the entry module",
        )


class _Bytes(importlib.abc.InspectLoader):
    """Runs the very bytes that were checked and are hashed, whatever becomes of the file."""

    def __init__(self, source: bytes, file: str) -> None:
        self.source, self.file = source, file

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.source)

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.source, self.file)


def _load_loose(file: Path, others: Sequence[Provider], manager: pluggy.PluginManager) -> Provider:
    provider = Provider(file.stem, loose=file.resolve(), location=str(file))
    taken = next((one for one in others if canonical(one.name) == canonical(file.stem)), None)
    if taken is not None:
        raise PluginError(
            Problem(f"its name is that of the plugin {taken.label}", where=str(file), hint="rename the file")
        )
    source = provider.source = _read_loose(file)
    module = ModuleType(f"_recore_loose_{re.sub(r'[^0-9a-zA-Z]', '_', file.stem)}")
    module.__file__ = str(provider.loose)
    # Annotations of its options are resolved through sys.modules.
    sys.modules[module.__name__] = module
    provider.modules["this"] = module
    provider.seconds = 0.0
    started = time.perf_counter()
    with _guarded(provider, "running it"):
        _Bytes(source, str(provider.loose)).exec_module(module)
    provider.seconds = time.perf_counter() - started
    if provider.status == "ok":
        _register(provider, "this", module, manager)
    return provider


def _read_loose(file: Path) -> bytes:
    """The bytes of a loose file that only its owner can write. Raises PluginError."""
    if file.suffix != ".py" or not file.is_file():
        raise PluginError(Problem("expected a Python file (`--plugin ./my_part.py`)", where=str(file)))
    with file.open("rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PluginError(
                Problem(
                    f"others can write to it (mode {stat.S_IMODE(mode):03o}), so it is not run",
                    where=str(file),
                    hint=f"chmod go-w {file}",
                )
            )
        return stream.read()


def _register(provider: Provider, entry: str, plugin: Any, manager: pluggy.PluginManager) -> None:
    """Hand a plugin to pluggy and take its components, each hook in a guard of its own."""
    name = f"{provider.name} {entry}"
    if manager.get_name(plugin) is not None:
        provider.report(
            "warning",
            f"entry point {entry!r} is the same object as {manager.get_name(plugin)!r} and was left out",
        )
        return
    with _guarded(provider, f"looking at its hooks (entry point {entry!r})"):
        _check_spelling(provider, plugin, manager)
    registered = False
    with _guarded(provider, f"registering its hooks (entry point {entry!r})"):
        manager.register(plugin, name)
        registered = True
    if not registered:
        if manager.get_name(plugin) is not None:
            manager.unregister(name=name)
        return
    for kind in KINDS.values():
        for implementation in getattr(manager.hook, kind.hook).get_hookimpls():
            if implementation.plugin_name == name:
                _take(provider, kind, implementation)


def _check_spelling(provider: Provider, plugin: Any, manager: pluggy.PluginManager) -> None:
    for name in dir(plugin):
        member = inspect.getattr_static(plugin, name, None)
        if isinstance(member, property) or not inspect.isroutine(member):
            continue
        marked = hasattr(member, f"{manager.project_name}_impl")
        if (marked or name.startswith("recore_")) and name not in HOOKS:
            provider.report("warning", f"{name!r} is no hook and is never called", nearest(name, HOOKS))
        elif name in HOOKS and not marked:
            provider.report(
                "warning", f"hook {name!r} is not marked and is never called", "put @hookimpl on it"
            )


def _take(provider: Provider, kind: Kind, implementation: pluggy.HookImpl) -> None:
    """The components of one hook; all of them, or none when anything is wrong."""
    if implementation.hookwrapper or implementation.wrapper:
        provider.report("broken", f"{kind.hook} is a wrapper, expected a plain hook that yields components")
        return
    taken: list[Found] | None = None
    with _guarded(provider, kind.hook):
        taken = _components(provider, kind, implementation.function())
    names = {found.name for found in taken or ()}
    twice = sorted(names & {found.name for found in provider.components if found.kind == kind.name})
    if twice:  # another entry point of the distribution yields it too; the first stays
        provider.report("broken", f"{kind.hook} yields {_and(twice)} once more; all of this hook is left out")
        return
    provider.components += taken or ()


def _components(provider: Provider, kind: Kind, yielded: object) -> list[Found] | None:
    if not isinstance(yielded, Iterable) or isinstance(yielded, str | bytes):
        hint = "a missing `yield`?" if yielded is None else ""
        provider.report("broken", f"{kind.hook} returned {_brief(yielded)}, expected Components", hint)
        return None
    records = list(itertools.islice(yielded, MOST_COMPONENTS + 1))
    if len(records) > MOST_COMPONENTS:
        provider.report("broken", f"{kind.hook} yields more than {MOST_COMPONENTS} components")
        return None
    wrong = [problem for record in records for problem in _wrong(kind, record)]
    names = [record.name for record in records if isinstance(record, Component)]
    wrong += [f"component {name!r} twice" for name in dict.fromkeys(n for n in names if names.count(n) > 1)]
    if wrong:
        provider.report("broken", f"{kind.hook} yields {'; '.join(wrong)}")
        return None
    return [Found(kind.name, record, provider.name) for record in records]


def _wrong(kind: Kind, record: Any) -> list[str]:
    """What is wrong with one record of a hook."""
    if not isinstance(record, Component):
        return [f"{_brief(record)}, expected a Component"]
    name, options, factory, summary, claims, source = attrs.astuple(record, recurse=False)
    wrong = []
    if not isinstance(name, str) or not NAME.fullmatch(name):
        wrong.append(f"a component named {name!r}, expected letters, digits and any of . + - _")
    if not isinstance(options, type) or not attrs.has(options):
        wrong.append(f"{name!r} with options {_brief(options)}, expected an attrs class")
    else:
        reserved = RESERVED.get(kind.name, {"use"})
        taken = sorted(reserved & {attribute.alias for attribute in attrs.fields(options)})
        wrong += [f"{name!r} with an option called {one!r}, a key of its own" for one in taken]
    if not isinstance(factory, str) or not FACTORY.fullmatch(factory):
        wrong.append(f"{name!r} with factory {factory!r}, expected 'module:callable'")
    if not isinstance(claims, Claims):
        wrong.append(f"{name!r} with claims {_brief(claims)}, expected Claims")
    if not isinstance(summary, str) or not isinstance(source, str):
        wrong.append(f"{name!r} whose summary or source is no text")
    return wrong


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
