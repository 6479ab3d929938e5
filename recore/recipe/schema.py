"""A JSON Schema (2020-12) of recipes with all that is installed.

It is looser than the checker where a file alone cannot tell: a recipe that extends another may leave out
options and `use:`, so nothing inside a part is required.
"""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, Literal

import attrs

from recore.component import Frame
from recore.kinds import KINDS
from recore.plugins import RESERVED, Found, Plugins
from recore.recipe.compose import ONE, REQUIRED, SOME
from recore.recipe.options import LISTS, MAPPINGS, members, options_of, part_kind
from recore.recipe.overlay import ASSEMBLED
from recore.recipe.resolved import unstructured

SCALARS: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
}
WORDS = r"^\w[\w.+-]*$"


def schema(plugins: Plugins) -> dict[str, Any]:
    """The schema as plain values."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "recore recipe",
        "type": "object",
        "required": ["recore"],
        "anyOf": [{"required": ["extends"]}, {"required": list(REQUIRED)}],
        "additionalProperties": False,
        "properties": {
            "recore": {"const": 1, "description": "The version of the recipe format."},
            "extends": {"type": "string", "description": "The file or name of one recipe to lay this over."},
            "requires": {
                "description": "Distributions that must be installed, as in acme-recore>=0.2.",
                "type": ["array", "null"],
                "items": {"type": "string"},
            },
            **_parts(),
            "seeds": {
                "description": "A run for each.",
                "type": "array",
                "items": {"type": "integer", "minimum": 0},
                "minItems": 1,
                "uniqueItems": True,
            },
            "matrix": {
                "description": "axis → label → overlay; a run for each combination of labels.",
                "type": ["object", "null"],
                "propertyNames": {"pattern": WORDS},
                "additionalProperties": {
                    "type": "object",
                    "propertyNames": {"pattern": WORDS},
                    "minProperties": 1,
                    "additionalProperties": {"$ref": "#/$defs/overlay"},
                },
            },
        },
        "$defs": {
            "overlay": {"type": "object", "additionalProperties": False, "properties": _parts()},
            **{kind: _kind(kind, plugins.of(kind)) for kind in KINDS},
        },
    }


def _parts() -> dict[str, Any]:
    """The keys that hold parts."""
    parts = {key: _reference(kind, many=False) for key, kind in ONE.items()}
    parts |= {key: _reference(kind, many=True) for key, kind in SOME.items()}
    return {**parts, "loss": _reference("loss", many=True)}


def _reference(kind: str, many: bool) -> dict[str, Any]:
    one = {"$ref": f"#/$defs/{kind}"}
    return {"anyOf": [one, {"type": "array", "items": one}]} if many else one


def _kind(kind: str, offered: list[Found]) -> dict[str, Any]:
    """A part of this kind: `use:`, and the options of whichever component it names."""
    bare = [found.component.name for found in offered]
    names = {found.name: [found.name] for found in offered}
    for found in offered:
        if bare.count(found.component.name) == 1:
            names[found.name].append(found.component.name)
    wrapper = _wrapper(kind)
    branches = []
    for found in offered:
        chosen: dict[str, Any] = {"type": "object", "properties": {"use": {"enum": names[found.name]}}}
        if found.name != ASSEMBLED:
            chosen["required"] = ["use"]
        branches.append({"if": chosen, "then": _component(found, wrapper)})
    return {
        "type": ["object", "null"],
        "properties": {"use": {"enum": [name for some in names.values() for name in some]}, **wrapper},
        "allOf": branches,
    }


def _wrapper(kind: str) -> dict[str, Any]:
    """Keys beside the options."""
    if kind not in RESERVED:
        return {}
    return {
        "name": {"type": "string", "pattern": WORDS},
        "weight": {"type": "number", "minimum": 0, "default": 1.0},
        "sampler": _reference("sampler", many=False),
    }


def _component(found: Found, wrapper: dict[str, Any]) -> dict[str, Any]:
    made = _options(found.component.options)
    made["properties"] = {"use": {"description": found.component.summary}, **wrapper, **made["properties"]}
    return made


def _options(options: type[Any]) -> dict[str, Any]:
    properties = {}
    for option in options_of(options):
        made = _type(option.type)
        if option.help:
            made = {"description": option.help, **made}
        if not option.required:
            default = unstructured(option.default(), "", {})
            if default is None or isinstance(default, bool | int | float | str | list | dict):
                made["default"] = default
        properties[option.key] = made
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _type(annotation: Any) -> dict[str, Any]:
    choices = members(annotation)
    if len(choices) > 1:
        return {"anyOf": [_type(choice) for choice in choices]}
    wanted = choices[0]
    origin, arguments = typing.get_origin(wanted) or wanted, typing.get_args(wanted)
    kind = part_kind(wanted)
    if kind is not None:
        return {"$ref": f"#/$defs/{kind.name}"}
    if wanted in SCALARS:
        return {"type": SCALARS[wanted]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if wanted in (Path, Frame):
        return {"type": "string"}
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        count = len(arguments)
        inner = [_type(argument) for argument in arguments]
        return {"type": "array", "prefixItems": inner, "minItems": count, "maxItems": count}
    if origin in LISTS:
        return {"type": "array", "items": _type(arguments[0]) if arguments else {}}
    if origin in MAPPINGS:
        return {"type": "object", "additionalProperties": _type(arguments[1]) if arguments else {}}
    if isinstance(wanted, type) and attrs.has(wanted):
        return _options(wanted)
    return {}
