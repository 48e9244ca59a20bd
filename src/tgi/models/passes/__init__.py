"""Passes: programs rewritten, from data to data."""
