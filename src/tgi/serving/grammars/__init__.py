"""Grammars of requests: what the fields of each dialect mean, and whether a grammar can be used."""
