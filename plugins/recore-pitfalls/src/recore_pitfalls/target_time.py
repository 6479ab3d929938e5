"""The position `target-time-unsaid`: the scheme itself, told to ask at the time of the target."""

from __future__ import annotations

from recore import Context, Problem, RecipeError
from recore.contracts import Position
from recore_pitfalls.position_options import TargetTimeUnsaid
from recore_pitfalls.rectangle import in_place


def build(options: TargetTimeUnsaid, context: Context) -> Position:
    """Raises RecipeError where the scheme has no such option."""
    found = options.problems(context.facts)
    if found:
        raise RecipeError([Problem(text, path=context.path or "model.position") for text in found])
    return in_place(context, options.position, {"query_time": "target"})
