"""Batchers for recore: which histories stand together, in which layout.

`options` says what a recipe may set (free of torch), `ragged` and `padded` plan epochs with the pieces of
`grouping`, `plugin` is the entry point.
"""
