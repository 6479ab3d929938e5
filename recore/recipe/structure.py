"""Strict structuring: a tree becomes the typed options of a component, or a list of problems.

Nothing is converted: `'5'` is no int, `true` is no int, `3.0` is no int; only an int is also a float. Every
problem is collected with its place; unknown keys come with the nearest name.
"""

from __future__ import annotations

import math
import os
import types
import typing
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import define, field

from recore.component import Frame, Part
from recore.errors import PluginError, Problem, nearest
from recore.plugins import RESERVED, Found, Plugins
from recore.recipe.options import LISTS, MAPPINGS, bare, in_words, members, options_of, part_kind
from recore.recipe.tree import Node, a, got, is_frame, joined, plain

DATA = "RECORE_DATA"
FAILED: Any = type("Failed", (), {"__repr__": lambda self: "FAILED"})()


@define
class Structurer:
    """Collects `problems` while structuring. `written` keeps paths as the recipe wrote them, by place, where
    that differs from what they stand for."""

    plugins: Plugins
    problems: list[Problem] = field(factory=list)
    written: dict[str, str] = field(factory=dict)

    def problem(self, node: Node, path: str, message: str, hint: str = "") -> Any:
        """Note a problem at a node; gives FAILED."""
        self.problems.append(Problem(message, node.where, path, hint))
        return FAILED

    def part(self, kind: str, node: Node, path: str) -> Any:
        """A part of this kind: a mapping with `use:` and the component's options."""
        if node.mapping is None:
            message = f"expected {a(kind)}, as a mapping with `use:`, got {got(node.value)}"
            return self.problem(node, path, message, _as_part(node))
        use = node.mapping.get("use")
        if use is None:
            known = [found.name for found in self.plugins.of(kind)]
            hint = f"known: {', '.join(known)}" if known else ""
            return self.problem(node, path, f"missing key `use:`, which says which {kind}", hint)
        if not isinstance(use.value, str):
            return self.problem(
                use, joined(path, "use"), f"expected the name of {a(kind)}, got {got(use.value)}"
            )
        try:
            found = self.plugins.find(kind, use.value)
        except PluginError as error:
            for problem in error.problems:
                self.problem(use, joined(path, "use"), problem.message, problem.hint)
            return FAILED
        options = self.options(found.component.options, node.without("use"), path, found)
        if options is FAILED:
            return FAILED
        return Part(kind, found.component, found.provider, options, node.where, path)

    def options(self, options: type[Any], node: Node, path: str, owner: Found | None = None) -> Any:
        """An instance of an attrs class from a mapping."""
        if node.mapping is None:
            return self.problem(node, path, f"expected {in_words(options)}, got {got(node.value)}")
        known = {option.key: option for option in options_of(options)}
        before = len(self.problems)
        values = {}
        for key, entry in node.mapping.items():
            if key not in known:
                of = "" if owner is None else f" of {owner.name}"
                beside = () if owner is None else RESERVED.get(owner.kind, ("use",))
                hint = (
                    nearest(key, {*known, *beside})
                    if known or nearest(key, beside)[:3] == "did"
                    else "it has none"
                )
                self.problem(entry, joined(path, key), f"unknown option{of}", hint)
                continue
            values[key] = self.value(known[key].type, entry, joined(path, key))
        for key, option in known.items():
            if option.required and key not in values:
                self.problem(node, joined(path, key), f"missing option, expected {in_words(option.type)}")
        failed = len(self.problems) > before
        good = {key: value for key, value in values.items() if value is not FAILED}
        if failed:
            # Ranges of the values that have the right type can still be told, all at once.
            missing = [key for key, option in known.items() if option.required and key not in good]
            if not missing:
                self.construct(options, good, node, path)
            return FAILED
        return self.construct(options, good, node, path)

    def construct(self, options: type[Any], values: dict[str, Any], node: Node, path: str) -> Any:
        """Make the instance; every validator that refuses is a problem of its own."""
        entries = node.mapping or {}
        try:
            with attrs.validators.disabled():
                made = options(**values)
        except Exception as error:  # converters and __attrs_post_init__ are the plugin's
            return self.problem(node, path, _message(error))
        failed = False
        for attribute in attrs.fields(options):
            if attribute.validator is None:
                continue
            try:
                attribute.validator(made, attribute, getattr(made, attribute.name))
            except Exception as error:  # any exception of a validator is a refusal
                failed = True
                self.problem(
                    entries.get(attribute.alias, node), joined(path, attribute.alias), _message(error)
                )
        return FAILED if failed else made

    def value(self, annotation: Any, node: Node, path: str) -> Any:
        """A value of a type."""
        choices = members(annotation)
        if len(choices) > 1:
            return self.union(annotation, choices, node, path)
        wanted = choices[0]
        origin, arguments = typing.get_origin(wanted) or wanted, typing.get_args(wanted)
        kind = part_kind(wanted)
        if kind is not None:
            return self.part(kind.name, node, path)
        if origin in LISTS:
            return self.entries(origin, arguments, node, path)
        if origin in MAPPINGS:
            return self.mapping(arguments, node, path)
        if isinstance(wanted, type) and attrs.has(wanted):
            return self.options(wanted, node, path)
        if wanted is Path:
            return self.path(node, path)
        if wanted is Frame:
            return node.value if is_frame(node.value) else self.path(node, path)
        if wanted in (Any, object):
            return plain(node)
        return self.scalar(wanted, origin, arguments, node, path)

    def scalar(self, wanted: Any, origin: Any, arguments: tuple[Any, ...], node: Node, path: str) -> Any:
        """null, bool, int, float, str or one of some literals."""
        value = node.value
        if isinstance(value, float) and math.isnan(value):
            return self.problem(node, path, f"expected {in_words(wanted)}, got not-a-number (.nan)")
        if origin is Literal:
            if any(type(value) is type(choice) and value == choice for choice in arguments):
                return value
            hint = nearest(value, _texts(arguments)) if isinstance(value, str) else ""
            hint = hint if hint.startswith("did") else ""
            return self.problem(node, path, f"expected {in_words(wanted)}, got {got(value)}", hint)
        if wanted is float and type(value) is int:
            try:
                return float(value)
            except OverflowError:
                return self.problem(node, path, f"expected float, got {got(value)}, which is too large")
        if wanted in (bool, int, float, str, type(None)):
            if type(value) is wanted:
                return value
            return self.problem(node, path, f"expected {in_words(wanted)}, got {got(value)}")
        return self.problem(
            node, path, f"its type {wanted!r} is none that a recipe can write (a plugin's mistake)"
        )

    def path(self, node: Node, path: str) -> Any:
        """A file or folder: relative to the file that writes it, or under $RECORE_DATA."""
        value = node.value
        if isinstance(value, Path):
            return value if value.is_absolute() else (node.folder or Path.cwd()) / value
        if not isinstance(value, str) or not value:
            return self.problem(node, path, f"expected path, got {got(value)}")
        if value == f"${DATA}" or value.startswith(f"${DATA}/"):
            root = os.environ.get(DATA, "")
            if not root:
                hint = f"export {DATA}=/the/folder/of/the/data"
                return self.problem(node, path, f"{value!r} needs ${DATA}, which is not set", hint)
            self.written[path] = value
            return Path(root).absolute() / value[len(DATA) + 1 :].lstrip("/")
        if value.startswith(("$", "~")):
            return self.problem(
                node, path, f"expected path, got {value!r}", f"only a leading ${DATA}/ is expanded"
            )
        return (node.folder or Path.cwd()) / value

    def entries(self, origin: Any, arguments: tuple[Any, ...], node: Node, path: str) -> Any:
        """A list, tuple or set, entry by entry."""
        if node.entries is None:
            words = in_words(origin[arguments] if arguments else origin)
            return self.problem(node, path, f"expected {words}, got {got(node.value)}")
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(arguments) != len(node.entries):
                words = in_words(types.GenericAlias(tuple, arguments))
                return self.problem(node, path, f"expected {words}, got a list of {len(node.entries)}")
            kinds = arguments
        else:
            kinds = (arguments[0] if arguments else Any,) * len(node.entries)
        made = [
            self.value(kind, entry, joined(path, number))
            for number, (kind, entry) in enumerate(zip(kinds, node.entries, strict=True))
        ]
        if any(value is FAILED for value in made):
            return FAILED
        return made if origin not in (tuple, set, frozenset) else origin(made)

    def mapping(self, arguments: tuple[Any, ...], node: Node, path: str) -> Any:
        """A dict; its keys are text as written, or scalars of the key's type."""
        if node.mapping is None:
            return self.problem(node, path, f"expected mapping, got {got(node.value)}")
        key_type, value_type = arguments or (str, Any)
        made = {}
        failed = False
        for key, entry in node.mapping.items():
            here = joined(path, key)
            made_key: Any = key
            if bare(key_type) not in (str, Any):
                made_key = self.value(key_type, Node(_scalar(key), entry.where, entry.folder), here)
            made_value = self.value(value_type, entry, here)
            failed = failed or made_key is FAILED or made_value is FAILED
            made[made_key] = made_value
        return FAILED if failed else made

    def union(self, annotation: Any, choices: tuple[Any, ...], node: Node, path: str) -> Any:
        """The first member that takes the value: literals first, float after int."""
        fitting = sorted((one for one in choices if _fits(one, node)), key=_preference)
        trials = []
        for choice in fitting:
            trial = Structurer(self.plugins)
            value = trial.value(choice, node, path)
            if value is not FAILED:
                self.written |= trial.written
                return value
            trials.append(trial)
        composite = isinstance(node.value, dict | list)
        if trials and (composite or (len(trials) == 1 and typing.get_origin(fitting[0]) is not Literal)):
            best = min(trials, key=lambda trial: len(trial.problems))
            self.problems += best.problems
            return FAILED
        texts = _texts(argument for one in choices for argument in typing.get_args(one))
        hint = nearest(node.value, texts) if isinstance(node.value, str) else ""
        hint = hint if hint.startswith("did") else ""
        if any(part_kind(one) is not None for one in choices):
            hint = _as_part(node)
        return self.problem(node, path, f"expected {in_words(annotation)}, got {got(node.value)}", hint)


def _as_part(node: Node) -> str:
    return f"write {{use: {node.value}}}" if isinstance(node.value, str) else ""


def _texts(values: typing.Iterable[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _scalar(text: str) -> Any:
    from recore.recipe.text import scalar

    try:
        return scalar(text)
    except ValueError:
        return text


def _preference(choice: Any) -> int:
    if typing.get_origin(choice) is Literal:
        return 0
    return 2 if choice is float else 1


def _fits(choice: Any, node: Node) -> bool:
    """Whether a value could be of a type, by its outer shape."""
    value = node.value
    origin = typing.get_origin(choice) or choice
    if choice in (Any, object):
        return True
    if isinstance(value, dict):
        if part_kind(choice) is not None:
            return "use" in value
        return origin in MAPPINGS or (isinstance(choice, type) and attrs.has(choice) and "use" not in value)
    if isinstance(value, list):
        return origin in LISTS
    if is_frame(value):
        return choice is Frame
    if origin is Literal:
        return any(type(value) is type(argument) for argument in typing.get_args(choice))
    if choice is float:
        return type(value) in (int, float)
    if choice in (Path, Frame):
        return isinstance(value, str | Path)
    return type(value) is choice


def _message(error: Exception) -> str:
    """What a validator says; those of attrs carry their text as the first argument."""
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return text if isinstance(error, ValueError | TypeError) and text else f"{type(error).__name__}: {text}"
