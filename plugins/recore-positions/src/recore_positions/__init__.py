"""Position schemes for recore."""
