"""Comparisons with transformers."""
