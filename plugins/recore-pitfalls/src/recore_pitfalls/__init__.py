"""Mistakes of real implementations as parts that recore catches."""
