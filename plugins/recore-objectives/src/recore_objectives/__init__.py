"""Training objectives for recore."""
