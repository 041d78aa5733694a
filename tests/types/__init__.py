"""Proofs of the values that travel between the stages."""
