"""Datasets, transforms and splits for recore: CSV, Parquet, JSON lines, sequences, MovieLens-1M."""
