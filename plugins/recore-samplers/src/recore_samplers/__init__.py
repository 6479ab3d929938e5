"""Negative samplers for recore, each with its exact probability.

`options` says what a recipe may set (free of torch), `own` knows which items are a user's own, `uniform` draws,
`plugin` is the entry point.
"""
