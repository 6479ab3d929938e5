"""Losses for recore.

`options` says what a recipe may set (free of torch), `ce` and `bce` compute it with `common`, `plugin` is the
entry point.
"""
