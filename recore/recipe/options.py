"""Options classes as data: names, resolved types, defaults and help; and types in words.

Annotations are text (`from __future__ import annotations`) and are resolved here, once per class. What a
recipe may set is exactly what the class's `__init__` takes.
"""

from __future__ import annotations

import collections.abc
import functools
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

import attrs
from attrs import frozen

from recore.component import Frame, Part
from recore.errors import PluginError
from recore.kinds import Kind, kind_of
from recore.recipe.tree import a, got

LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Set)
MAPPINGS = (dict, collections.abc.Mapping)


@frozen(eq=False)
class Option:
    """One option. `key` is its name in recipes, `name` that of the attribute."""

    key: str
    name: str
    type: Any
    required: bool
    help: str
    attribute: Any

    def default(self) -> Any:
        """Its default, made anew; meaningless where it is required."""
        made = self.attribute.default
        if isinstance(made, attrs.Factory):  # type: ignore[arg-type]  # a class at run time, a function in stubs
            return None if made.takes_self else made.factory()
        return made


def options_of(options: type[Any]) -> tuple[Option, ...]:
    """The options of a class. Raises PluginError when an annotation cannot be resolved."""
    wanted: Any = options  # types are hashable, which type[Any] does not say
    made: tuple[Option, ...] = _options_of(wanted)
    return made


@functools.cache
def _options_of(options: Any) -> tuple[Option, ...]:
    try:
        hints = typing.get_type_hints(options)
    except Exception as error:  # whatever an annotation may raise
        raise PluginError(
            f"options {options.__module__}.{options.__qualname__}: an annotation cannot be resolved: {error}"
        ) from error
    return tuple(
        Option(
            attribute.alias,
            attribute.name,
            hints.get(attribute.name, Any),
            attribute.default is attrs.NOTHING,
            str(attribute.metadata.get("help", "")),
            attribute,
        )
        for attribute in attrs.fields(options)
        if attribute.init
    )


def bare(annotation: Any) -> Any:
    """A type without `Annotated`, `Final` and aliases."""
    while True:
        if typing.get_origin(annotation) in (typing.Annotated, typing.Final):
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, flat, in the order written; the type itself where it is none."""
    annotation = bare(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for member in typing.get_args(annotation) for inner in members(member))
    return (annotation,)


def part_kind(annotation: Any) -> Kind | None:
    """The kind of `Part[Contract]`; None for other types. Raises PluginError for a contract of no kind."""
    if annotation is Part or typing.get_origin(annotation) is not Part:
        return None
    (contract,) = typing.get_args(annotation)
    kind = kind_of(contract)
    if kind is None:
        raise PluginError(f"Part[{getattr(contract, '__name__', contract)}]: no kind has that contract")
    return kind


def in_words(annotation: Any) -> str:
    """A type as messages and help show it, as in `int or 'all'`."""
    words = []
    for member in members(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        kind = part_kind(member)
        if member is type(None):
            words.append("~")
        elif kind is not None:
            words.append(a(kind.name))
        elif origin is Literal:
            words += [got(value) for value in arguments]
        elif (origin or member) is tuple and arguments and arguments[-1] is not Ellipsis:
            words.append(f"[{', '.join(in_words(argument) for argument in arguments)}]")
        elif (origin or member) in LISTS:
            words.append(f"list of {in_words(arguments[0])}" if arguments else "list")
        elif (origin or member) in MAPPINGS:
            words.append(f"mapping of {in_words(arguments[1])}" if arguments else "mapping")
        elif member in (Any, object):
            words.append("any value")
        elif member is Path:
            words.append("path")
        elif member is Frame:
            words.append("data frame")
        elif isinstance(member, type):
            words.append(f"mapping ({member.__name__})" if attrs.has(member) else member.__name__)
        else:
            words.append(str(member))
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
