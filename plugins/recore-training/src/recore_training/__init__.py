"""Trainers for recore."""
