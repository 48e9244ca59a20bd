"""Flags, environment and the settings that the API and the engine get of them."""
