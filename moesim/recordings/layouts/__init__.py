"""Layouts of recordings."""
