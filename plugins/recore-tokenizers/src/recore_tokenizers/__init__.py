"""Item tokenizers for recore, on the tokenizers library."""
