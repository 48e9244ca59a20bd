"""Formats of strings that no grammar knows.

JSON Schema has `format` as an annotation, which nobody need keep; some name what no grammar can express. They are left
out before a schema is compiled, and whoever asked is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgi.serving.tools.schema_check import LISTS, MAPS, SCHEMAS

KNOWN_FORMATS: frozenset[str] = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid")
)
"""Those of llguidance."""


def without_unknown_formats(schema: Any, path: str, left_out: list[str]) -> Any:
    """The schema without them; their paths, which begin with `path`, are added to `left_out`.

    Values that are no schemas (`enum`, `default`, `examples`) are as they were. Raises RecursionError.
    """
    if isinstance(schema, list):
        return [without_unknown_formats(one, f"{path}.{place}", left_out) for place, one in enumerate(schema)]
    if not isinstance(schema, Mapping):
        return schema
    kept = {}
    for name, value in schema.items():
        below = f"{path}.{name}"
        if name == "format" and isinstance(value, str) and value not in KNOWN_FORMATS:
            left_out.append(below)
        elif name in MAPS and isinstance(value, Mapping):
            kept[name] = {key: without_unknown_formats(one, f"{below}.{key}", left_out) for key, one in value.items()}
        elif name in SCHEMAS or name in LISTS:
            kept[name] = without_unknown_formats(value, below, left_out)
        else:
            kept[name] = value
    return kept
