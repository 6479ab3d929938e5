"""What this distribution offers to recore. Light: no torch here."""
