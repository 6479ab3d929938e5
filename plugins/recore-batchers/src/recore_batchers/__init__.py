"""Batchers for recore."""
