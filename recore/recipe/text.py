"""YAML text ⇄ trees: line numbers kept, scalars by the core schema of YAML 1.2.

`3e-4` is a float; `yes`, `on` and dates are text; keys are text as written. Duplicate keys, anchors, aliases,
tags, merges and several documents are problems. The tree is built from the parser's events, so nothing in a
recipe can construct an object, and nothing can expand. Size and depth are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from attrs import define

from recore.errors import Problem
from recore.recipe.tree import DEEPEST, Node, is_frame, joined

LARGEST = 262_144  # characters
MOST_PROBLEMS = 100  # of one text
MOST_ANCHORS = 3  # that are told one by one
LONGEST_NUMBER = 400  # digits

NULL = re.compile(r"~|null|Null|NULL|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
SPECIAL = re.compile(r"(?:([-+]?)\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)")
STANDARD = "tag:yaml.org,2002:"


def scalar(text: str) -> Any:
    """The value of a plain scalar. Raises ValueError for a number that no float or sensible int holds."""
    if NULL.fullmatch(text):
        return None
    if BOOL.fullmatch(text):
        return text.lower() == "true"
    if len(text) > LONGEST_NUMBER and (INT.fullmatch(text) or FLOAT.fullmatch(text)):
        raise ValueError(f"a number of {len(text)} digits")
    if INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ValueError(f"the number {text} is too large for a float (infinity is written .inf)")
        return number
    if special := SPECIAL.fullmatch(text):
        return math.nan if special[0].lower() == ".nan" else float(f"{special[1]}inf")
    return text


@define
class _Frame:
    """A mapping or list that is being read."""

    made: Any
    where: str
    path: str
    key: str | None = None
    key_where: str = ""
    is_key: bool = False  # it stands where a key is expected: reported, and left out with its value
    skip: bool = False  # the value that comes next is left out: its key is wrong


class _Reader:
    def __init__(self, label: str, folder: Path | None) -> None:
        self.label, self.folder = label, folder
        self.problems: list[Problem] = []
        self.frames: list[_Frame] = []
        self.root: Node | None = None
        self.lines: dict[tuple[int, str], str] = {}
        self.anchors = 0

    def where(self, event: yaml.Event) -> str:
        mark = event.start_mark
        return self.label if mark is None else f"{self.label}:{mark.line + 1}"

    def path(self) -> str:
        """The path of the value that comes next."""
        if not self.frames:
            return ""
        frame = self.frames[-1]
        if isinstance(frame.made, list):
            return joined(frame.path, len(frame.made))
        return frame.path if frame.key is None else joined(frame.path, frame.key)

    def problem(self, event: yaml.Event, message: str, hint: str = "") -> None:
        self.problems.append(Problem(message, self.where(event), self.path(), hint))

    def read(self, events: Iterator[yaml.Event]) -> None:
        documents = 0
        for event in events:
            if len(self.problems) >= MOST_PROBLEMS:
                self.problem(event, f"{MOST_PROBLEMS} problems up to here; the rest was not read")
                return
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.problem(event, "expected one document, got another one after `---`")
                    return
                if event.tags:
                    self.problem(event, "%TAG directives are not allowed")
            elif isinstance(event, yaml.NodeEvent):
                if len(self.frames) >= DEEPEST:
                    self.problem(event, f"nested deeper than {DEEPEST}")
                    return
                self.node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                frame = self.frames.pop()
                if frame.is_key:
                    self.no_key()
                else:
                    self.put(Node(frame.made, frame.where, self.folder))

    def node(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            self.anchors += 1
        if event.anchor is not None and self.anchors <= MOST_ANCHORS:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            self.problem(
                event,
                f"anchors and aliases are not allowed, got '{sign}{event.anchor}'",
                "write the value out, or use `extends:`",
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = tag.replace(STANDARD, "!!", 1)
            self.problem(event, f"tags are not allowed, got {shown!r}", "write the plain value")
        top = self.frames[-1] if self.frames else None
        wants_key = top is not None and isinstance(top.made, dict) and top.key is None
        if isinstance(event, yaml.ScalarEvent) and wants_key:
            self.key(event)
            return
        where = top.key_where if top is not None and top.key is not None else self.where(event)
        if isinstance(event, yaml.CollectionStartEvent):
            made: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            if wants_key:
                self.problem(event, f"expected a text as key, got a {'mapping' if made == {} else 'list'}")
            self.frames.append(_Frame(made, where, self.path(), is_key=wants_key))
        elif isinstance(event, yaml.ScalarEvent):
            self.put(Node(self.scalar(event), where, self.folder))
        elif wants_key:
            self.no_key()
        else:
            self.put(Node(None, where, self.folder))

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        if not event.implicit[0] or event.style:
            return event.value
        try:
            return scalar(event.value)
        except ValueError as error:
            self.problem(event, str(error))
            return None

    def key(self, event: yaml.ScalarEvent) -> None:
        frame = self.frames[-1]
        key, where = event.value, self.where(event)
        if key in frame.made:
            first = self.lines[id(frame.made), key]
            self.problems.append(
                Problem(f"key {key!r} is written twice, first in {first}", where, joined(frame.path, key))
            )
        frame.skip = key in frame.made
        if key == "<<" and event.implicit[0]:
            self.problem(event, "merges (`<<`) are not allowed", "write the keys out, or use `extends:`")
            frame.skip = True
        frame.key, frame.key_where = key, where
        self.lines.setdefault((id(frame.made), key), where)

    def no_key(self) -> None:
        """What stood where a key is expected was reported; its value is left out."""
        frame = self.frames[-1]
        frame.key, frame.key_where, frame.skip = "?", frame.where, True

    def put(self, node: Node) -> None:
        """A value is complete: it goes where it belongs."""
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        if isinstance(frame.made, list):
            frame.made.append(node)
            return
        if not frame.skip:
            frame.made[frame.key] = node
        frame.key, frame.skip = None, False


def read_text(text: str, label: str, folder: Path | None = None) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML text, and all its problems. `label` stands for the file in `file:line`."""
    if len(text) > LARGEST:
        return None, [Problem(f"expected at most {LARGEST:,} characters, got {len(text):,}", label)]
    reader = _Reader(label, folder)
    try:
        reader.read(yaml.parse(text, Loader=yaml.SafeLoader))
        if reader.anchors > MOST_ANCHORS:
            more = reader.anchors - MOST_ANCHORS
            reader.problems.append(Problem(f"and {more} more anchors and aliases, not allowed either", label))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark if error.problem_mark is not None else error.context_mark
        where = f"{label}:{mark.line + 1}" if mark is not None else label
        told = ", ".join(piece for piece in (error.context, error.problem) if piece)
        reader.problems.append(Problem(f"not YAML: {told}", where))
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        position = getattr(error, "position", None)
        where = label if position is None else f"{label}:{text.count(chr(10), 0, position) + 1}"
        reader.problems.append(Problem(f"not YAML: {reason}", where))
    return reader.root, reader.problems


def read_file(file: Path, label: str) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML file, and all its problems; paths in it are relative to its folder."""
    try:
        size = file.stat().st_size
        if size > LARGEST:
            return None, [Problem(f"expected at most {LARGEST:,} bytes, got {size:,}", label)]
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, [Problem(f"not UTF-8 text (byte {error.start})", label)]
    except OSError as error:
        return None, [Problem(f"cannot be read: {error.strerror or error}", label)]
    return read_text(text, label, file.resolve().parent)


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or our reader would not take for text; writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    """Line breaks that YAML folds away, and marks, are escaped."""
    style = '"' if any(sign in data for sign in "\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar(f"{STANDARD}str", data, style=style)


_Dumper.add_representer(str, _text)
for _tag, _pattern in (("null", NULL), ("bool", BOOL), ("int", INT), ("float", FLOAT), ("float", SPECIAL)):
    _Dumper.add_implicit_resolver(STANDARD + _tag, re.compile(f"(?:{_pattern.pattern})\\Z"), None)


def to_yaml(tree: Any) -> str:
    """A plain tree as YAML text that `read_text` reads back to the same values. Raises TypeError for what
    YAML cannot hold, such as a data frame."""
    return yaml.dump(_checked(tree, ""), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _checked(tree: Any, path: str) -> Any:
    if isinstance(tree, dict):
        return {str(key): _checked(value, joined(path, str(key))) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_checked(value, joined(path, number)) for number, value in enumerate(tree)]
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if isinstance(tree, Path):
        return str(tree)
    hint = "; write it to a Parquet file and name that" if is_frame(tree) else ""
    raise TypeError(f"{path}: a {type(tree).__name__} cannot be written as YAML{hint}")
