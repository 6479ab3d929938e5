"""Negative samplers for recore, each with its exact probability."""
