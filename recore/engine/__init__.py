"""The engine: reads the data, drives training, evaluates, and keeps the run folder. It knows contracts only."""
