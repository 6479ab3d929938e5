"""Evaluators for recore."""
