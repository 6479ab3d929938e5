"""Losses for recore."""
