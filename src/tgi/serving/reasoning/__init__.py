"""Reasoning: how models mark what they think before they answer."""
