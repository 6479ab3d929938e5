"""What several schemes check alike: ranges of options, what the encoder takes and states. Free of torch."""

from __future__ import annotations

from typing import Any

from recore import Context, Facts, Problem, RecipeError


def at_least_one(instance: object, attribute: Any, value: int) -> None:
    """A validator. Raises ValueError below 1."""
    if value < 1:
        raise ValueError(f"`{attribute.name}`: expected at least 1, got {value}")


def not_negative(instance: object, attribute: Any, value: float) -> None:
    """A validator. Raises ValueError below 0, and for what is no number."""
    if not value >= 0:
        raise ValueError(f"`{attribute.name}`: expected 0 or more, got {value}")


def untaken(name: str, term: str, facts: Facts) -> list[str]:
    """That the encoder does not take a term; nothing where it does, or where nobody said."""
    if facts.terms is None or term in facts.terms:
        return []
    takes = ", ".join(sorted(facts.terms)) or "none"
    problem = (
        f"position {name!r} needs an encoder that takes the term {term!r}, but this one takes: {takes} (use an "
        "encoder with attention, or positions that change inputs)"
    )
    return [problem]


def untimed(name: str, facts: Facts) -> list[str]:
    """That the data has no times; nothing where it has, or where only the data itself can tell."""
    if facts.timed is not False:
        return []
    problem = (
        f"position {name!r} reads times, and the data has none (name their column, as in `time: timestamp` of "
        "recore-data:events, use data that has times, or a position that reads none)"
    )
    return [problem]


def refuse(problems: list[str], context: Context) -> None:
    """Raises RecipeError with what stands against a scheme, if anything does."""
    if problems:
        raise RecipeError([Problem(text, path=context.path or "model.position") for text in problems])


def heads_and_layers(name: str, problems: list[str], context: Context, layers: str) -> tuple[int, int]:
    """H, and how many tables there are to be. Raises RecipeError with `problems`, and where the encoder states no
    heads or layers."""
    facts = context.facts
    number = 1 if layers == "shared" else facts.layers
    if facts.heads is None or number is None:
        problems = [
            *problems,
            f"position {name!r} needs an encoder that states its heads and layers, got heads {facts.heads} and layers "
            f"{facts.layers} (use an encoder with attention, such as recore-sasrec:sasrec)",
        ]
    refuse(problems, context)
    assert facts.heads is not None
    assert number is not None
    return facts.heads, number
