"""A model on this disk: found, downloaded, converted and checked before a process starts."""
