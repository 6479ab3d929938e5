"""The SASRec encoder for recore, with the details where paper and codes differ as options."""
