"""Objectives for recore: what is predicted from where.

`options` says what a recipe may set (free of torch), `next_item` computes it, `plugin` is the entry point.
"""
