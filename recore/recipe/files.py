"""Recipe files: found by path or by the name of a shipped one, and laid over what they extend.

Shipped recipes of the core go by their path (`folder/name.yaml`, with or without `.yaml`). Those of
another distribution (entry-point group `recore.recipes`, a package with a folder `recipes`) are qualified by
its name: `acme-recore:fast.yaml`. So nothing that is installed can stand in for a recipe of the core.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from attrs import frozen

import recore
from recore.errors import Problem, RecipeError, nearest
from recore.recipe.overlay import overlay
from recore.recipe.text import read_file
from recore.recipe.tree import Node, got

GROUP = "recore.recipes"
LONGEST_CHAIN = 32  # recipes that extend each other


@frozen(eq=False)
class Source:
    """A recipe as written, with everything that it extends beneath it.

    `root`: the tree, without `extends` and `requires`. `requires`: those of every file. `problems`: what was
    wrong in the files; the rest can be checked all the same.
    """

    name: str
    file: Path
    root: Node
    requires: tuple[Node, ...]
    problems: tuple[Problem, ...] = ()


def core_recipes() -> Path:
    """The folder of the recipes that the core ships."""
    return (Path(recore.__file__).parent / "recipes").resolve()


def shipped() -> dict[str, Path]:
    """Every shipped recipe by name, without `.yaml`."""
    found = _in_folder(core_recipes(), "")
    for distribution in importlib.metadata.distributions():
        if GROUP not in (distribution.read_text("entry_points.txt") or ""):
            continue
        name = distribution.metadata["Name"]
        if name == "recore":
            continue
        for point in distribution.entry_points.select(group=GROUP):
            spec = importlib.util.find_spec(point.value.partition(".")[0])
            for place in (spec.submodule_search_locations or ()) if spec is not None else ():
                inner = Path(place).joinpath(*point.value.split(".")[1:])
                found = {**_in_folder(inner / "recipes", f"{name}:"), **found}
    return found


def _in_folder(folder: Path, prefix: str) -> dict[str, Path]:
    files = sorted(folder.rglob("*.yaml")) if folder.is_dir() else []
    return {f"{prefix}{file.relative_to(folder).with_suffix('').as_posix()}": file for file in files}


def label_of(file: Path) -> str:
    """A file as messages show it: relative to the working folder where it is inside."""
    absolute, here = Path(os.path.normpath(file.absolute())), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def recipe_name(file: Path) -> str:
    """The name of a recipe in run folders and records: its path among the shipped ones, or its file's."""
    real, folder = file.resolve(), core_recipes().resolve()
    inside = real.relative_to(folder) if real.is_relative_to(folder) else Path(file.name)
    return inside.with_suffix("").as_posix()


def locate(name: str | Path, beside: Path | None = None) -> Path:
    """The file of a recipe: a path (relative to `beside`, or to the working folder), or else the name of a
    shipped recipe. Raises RecipeError with the nearest name."""
    written = str(name)
    start = beside or Path.cwd()
    candidates = [start / written] + ([] if written.endswith(".yaml") else [start / f"{written}.yaml"])
    for file in candidates:
        if os.path.isfile(file):  # a name that no file can have is no error here
            return file
    known = shipped()
    bare = written.removesuffix(".yaml")
    if bare in known:
        return known[bare]
    if "://" in written:
        raise RecipeError(
            Problem(f"expected a recipe file, got the address {got(written)}", hint="fetch it first")
        )
    folder = start / written
    if os.path.isdir(folder):
        inside = ", ".join(sorted(file.name for file in folder.glob("*.yaml"))[:5])
        hint = f"in it: {inside}" if inside else ""
        raise RecipeError(Problem(f"expected a recipe file, got the folder {got(written)}", hint=hint))
    siblings = [f"{file.stem}" for file in start.glob("*.yaml")] if start.is_dir() else []
    raise RecipeError(
        Problem(
            f"no recipe {got(written)}, neither a file nor a shipped recipe",
            hint=nearest(bare, {*known, *siblings}) if len(bare) < 200 else "",
        )
    )


def load_source(name: str | Path) -> Source:
    """Read a recipe and all that it extends. Raises RecipeError when a file cannot be found or parsed."""
    file = locate(name)
    problems: list[Problem] = []
    requires: list[Node] = []
    root = _with_bases(file, (), requires, problems)
    if root is None:
        raise RecipeError(problems)
    return Source(recipe_name(file), file, root, tuple(requires), tuple(problems))


def _with_bases(
    file: Path, above: tuple[Path, ...], requires: list[Node], problems: list[Problem]
) -> Node | None:
    label = label_of(file)
    node, found = read_file(file, label)
    problems += found
    if node is None or node.mapping is None:
        if not found:
            kind = "nothing" if node is None or node.value is None else "something else"
            problems.append(Problem(f"expected a mapping of keys such as `recore: 1`, got {kind}", label))
        return None
    problems += version_problems(node, label)
    requires += requirements(node, problems)
    extends = node.mapping.get("extends")
    own = node.without("extends", "requires")
    if extends is None:
        return own
    base = _base(extends, file, (*above, file), requires, problems)
    return None if base is None else overlay(base, own)


def _base(
    extends: Node, file: Path, chain: tuple[Path, ...], requires: list[Node], problems: list[Problem]
) -> Node | None:
    if not isinstance(extends.value, str):
        problems.append(
            Problem("expected the file or the name of one recipe, as text", extends.where, "extends")
        )
        return None
    try:
        below = locate(extends.value, file.parent)
    except RecipeError as error:
        first = error.problems[0]
        problems.append(Problem(first.message, extends.where, "extends", first.hint))
        return None
    real = [one.resolve() for one in chain]
    if below.resolve() in real:
        circle = [*chain[real.index(below.resolve()) :], below]
        told = " → ".join(label_of(one) for one in circle)
        problems.append(Problem(f"recipes extend each other in a circle: {told}", extends.where, "extends"))
        return None
    if len(chain) >= LONGEST_CHAIN:
        problems.append(
            Problem(f"recipes extend each other more than {LONGEST_CHAIN} deep", extends.where, "extends")
        )
        return None
    return _with_bases(below, chain, requires, problems)


def version_problems(node: Node, label: str) -> list[Problem]:
    """Whether a recipe says that it is one of version 1."""
    version = (node.mapping or {}).get("recore")
    if version is None:
        return [
            Problem("missing key, expected `recore: 1` (the version of the recipe format)", label, "recore")
        ]
    if type(version.value) is not int or version.value != 1:
        return [
            Problem(
                f"expected 1 (the version of the recipe format), got {got(version.value)}",
                version.where,
                "recore",
            )
        ]
    return []


def requirements(root: Node, problems: list[Problem]) -> tuple[Node, ...]:
    """The requirements that one file states; a malformed list is a problem."""
    node = (root.mapping or {}).get("requires")
    if node is None or node.value is None:
        return ()
    entries = node.entries
    if entries is None or not all(isinstance(entry.value, str) for entry in entries):
        problems.append(
            Problem("expected a list of distributions, as in [acme-recore>=0.2]", node.where, "requires")
        )
        return ()
    return tuple(entries)


def requirement_problems(requires: tuple[Node, ...]) -> list[Problem]:
    """Which requirements are malformed or not met by what is installed."""
    if not requires:
        return []
    from packaging.requirements import InvalidRequirement, Requirement

    problems = []
    for node in requires:
        try:
            wanted = Requirement(node.value)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            problems.append(Problem(f"{node.value!r} is no requirement: {reason}", node.where, "requires"))
            continue
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if not version or not wanted.specifier.contains(version, prereleases=True):
            is_there = f"{version} is installed" if version else "it is not installed"
            problems.append(
                Problem(
                    f"expected {node.value}, but {is_there}",
                    node.where,
                    "requires",
                    f"pip install '{node.value}'",
                )
            )
    return problems
