"""How two resolved recipes differ, option by option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recore.recipe.tree import got, is_frame, joined

ABSENT = object()


def differences(one: Any, other: Any) -> list[str]:
    """`path: value → value` for every option in which two trees differ. Data frames are not compared: a run keeps
    them as files of its own."""
    return [f"{path}: {_shown(a)} → {_shown(b)}" for path, a, b in _walk(one, other, "")]


def _walk(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if is_frame(one) or is_frame(other):
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _walk(one.get(key, ABSENT), other.get(key, ABSENT), joined(path, key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _walk(a, b, joined(path, number))
    elif type(one) is not type(other) or one != other:
        yield path, one, other


def _shown(value: Any) -> str:
    return "not there" if value is ABSENT else got(value)
