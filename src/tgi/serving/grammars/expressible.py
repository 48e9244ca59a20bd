"""A JSON schema in the words of a grammar: the same values fit it, as far as JSON Schema binds anyone.

JSON Schema has `format` as an annotation, which nobody need keep; some name what no grammar can express. They are left
out before a schema is compiled, and whoever asked is told. `oneOf` becomes `anyOf` where that means the same. Digits of
patterns are 0 to 9, as in ECMAScript, which JSON Schema names; those of other scripts fit in some validators alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tgi.grammar import ascii_digits
from tgi.serving.grammars.one_of import Alternatives
from tgi.serving.grammars.simpler import simpler
from tgi.serving.tools.schema_check import LISTS, MAPS, SCHEMAS

KNOWN_FORMATS: frozenset[str] = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid")
)
"""Those of llguidance."""


def expressible(schema: Any, path: str, left_out: list[str]) -> Any:
    """The schema so rewritten; paths of formats that are left out, beginning with `path`, are added to `left_out`.

    Raises RecursionError.
    """
    alternatives = Alternatives(schema)

    def change(part: dict[str, Any], path: str) -> dict[str, Any]:
        if isinstance(name := part.get("format"), str) and name not in KNOWN_FORMATS:
            del part["format"]
            left_out.append(f"{path}.format")
        if isinstance(pattern := part.get("pattern"), str):
            part["pattern"] = ascii_digits(pattern)
        part = simpler(part)
        return alternatives.as_any_of(part) if "oneOf" in part else part

    return _rewritten(schema, path, change)


def _rewritten(schema: Any, path: str, change: Callable[[dict[str, Any], str], dict[str, Any]]) -> Any:
    """Every schema in it changed, the inner ones first. Values that are none (`enum`, `default`) are as they were."""
    if isinstance(schema, list):
        return [_rewritten(one, f"{path}.{place}", change) for place, one in enumerate(schema)]
    if not isinstance(schema, Mapping):
        return schema
    changed = {}
    for name, value in schema.items():
        below = f"{path}.{name}"
        if name in MAPS and isinstance(value, Mapping):
            changed[name] = {key: _rewritten(one, f"{below}.{key}", change) for key, one in value.items()}
        else:
            changed[name] = _rewritten(value, below, change) if name in SCHEMAS or name in LISTS else value
    return change(changed, path)
