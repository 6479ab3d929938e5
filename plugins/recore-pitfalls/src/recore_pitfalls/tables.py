"""What positions of this kind need to know of an encoder."""

from __future__ import annotations

from recore import Context, Problem, RecipeError


def heads_and_layers(problems: list[str], context: Context) -> tuple[int, int]:
    """H and the layers. Raises RecipeError with `problems`, and where the encoder states neither."""
    heads, layers = context.facts.heads, context.facts.layers
    if heads is None or layers is None:
        problems = [*problems, f"tables need the encoder's heads and layers, got {heads} and {layers}"]
    if problems:
        raise RecipeError([Problem(text, path=context.path or "model.position") for text in problems])
    assert heads is not None
    assert layers is not None
    return heads, layers
