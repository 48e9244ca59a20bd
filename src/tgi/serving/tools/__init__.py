"""Calls of tools: how models write them, found from the checkpoint; reading them, and constraining answers to them."""
