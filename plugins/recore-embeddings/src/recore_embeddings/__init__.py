"""Embedders for recore."""
