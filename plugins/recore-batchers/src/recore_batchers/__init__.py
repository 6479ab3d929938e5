"""Batchers for recore: which histories stand together, in which layout.

`options` says what a recipe may set (free of torch); `ragged`, `padded`, `by_length`, `untruncated` and `windows`
plan epochs with the pieces of `grouping`; `plugin` is the entry point.
"""
