"""All in order: look, find the columns, read, choose, write, check. The file appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from attrs import evolve, frozen

from recore.errors import DataError, Problem, RecipeError
from recore.newrecipe.choose import Choices, choose, speed_here
from recore.newrecipe.columns import Roles, find_columns
from recore.newrecipe.findings import Findings, read_findings
from recore.newrecipe.look import Flags, Look, look
from recore.newrecipe.write import recipe_text
from recore.recipe import Recipe, load_cells


@frozen
class Made:
    """What was seen and chosen, and where the recipe stands."""

    look: Look
    roles: Roles
    found: Findings
    chosen: Choices
    out: Path
    recipe: Recipe


def default_out(path: Path) -> Path:
    """`<stem>.yaml` in the working folder."""
    return Path(f"{path.name.removesuffix('.gz').rpartition('.')[0] or path.name}.yaml")


def new_recipe(path: Path, flags: Flags, out: Path | None = None, force: bool = False) -> Made:
    """Write a recipe for a file. Raises DataError and RecipeError; nothing is written then."""
    out = out or default_out(path)
    _check_out(path, out, force)
    seen = look(path, flags)
    roles = find_columns(seen, flags)
    roles, found = _read(seen, roles, flags)
    chosen = choose(found, speed_here())
    text = recipe_text(out.name, seen, roles, found, chosen, written_path(path, out), told(seen, found))
    return Made(seen, roles, found, chosen, out, _publish(text, out))


def _read(seen: Look, roles: Roles, flags: Flags) -> tuple[Roles, Findings]:
    """The log; where nothing but ratings that nobody asked for stands against it, without them. Raises
    DataError."""
    try:
        return roles, read_findings(seen, roles)
    except DataError as error:
        real, shown = str(seen.path.resolve()), str(seen.path)
        problems = [evolve(one, message=one.message.replace(real, shown)) for one in error.problems]
    if roles.rating is not None and flags.rating is None:
        note = f"ratings are not read: {problems[0].message}"
        without = evolve(roles, rating=None, notes=[*roles.notes, note])
        try:
            return without, read_findings(seen, without)
        except DataError:
            pass
    if any("set `" in problem.hint for problem in problems):
        said = "options such as `time_format:` are flags here: --time-format, --encoding, --separator"
        problems.append(Problem("no recipe was written", hint=said))
    raise DataError(problems)


def told(seen: Look, found: Findings) -> str:
    """The log in one sentence."""
    return (
        f"{seen.in_words()}; {found.events:,} events, {found.users:,} users, {found.items:,} items, "
        f"{found.mean:.1f} events a user (median history in training {found.lengths[50]}, longest "
        f"{found.lengths[100]:,})."
    )


def written_path(path: Path, out: Path) -> str:
    """How the recipe names its data: under `$RECORE_DATA` where it is there, relative where it stands beside or
    below the recipe, else absolute."""
    real = path.resolve()
    data = os.environ.get("RECORE_DATA")
    if data and real.is_relative_to(Path(data).resolve()):
        return f"$RECORE_DATA/{real.relative_to(Path(data).resolve()).as_posix()}"
    folder = out.resolve().parent
    return real.relative_to(folder).as_posix() if real.is_relative_to(folder) else str(real)


def _check_out(path: Path, out: Path, force: bool) -> None:
    if out.is_dir():
        raise RecipeError(Problem(f"{out} is a folder, expected a file", hint="say --out FILE"))
    if out.exists() and path.exists() and out.samefile(path):
        raise RecipeError(Problem(f"{out} is the data itself", hint="say --out FILE"))
    if out.exists() and not force:
        raise RecipeError(
            Problem(f"{out} is there already", hint="--force writes over it, --out FILE elsewhere")
        )
    if not out.resolve().parent.is_dir():
        raise RecipeError(f"{out.parent} is no folder")


def _publish(text: str, out: Path) -> Recipe:
    """Write aside, check there, rename."""
    try:
        handle, name = tempfile.mkstemp(dir=out.resolve().parent, prefix=f".{out.stem}-", suffix=".yaml")
    except OSError as error:
        raise RecipeError(f"{out} cannot be written: {error.strerror or error}") from error
    aside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        load_cells(aside)
        aside.chmod(0o644)
        aside.replace(out)
    except OSError as error:
        raise RecipeError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
    (recipe,) = load_cells(out)
    return recipe
