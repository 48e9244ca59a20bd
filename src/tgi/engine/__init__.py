"""Continuous batching over a paged cache: schedule, run, commit."""
