"""A simulator with a known truth, as a recore dataset: tests and demos need no download."""
