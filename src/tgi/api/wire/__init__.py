"""Bytes on the wire: bodies, fields, errors, event streams."""
