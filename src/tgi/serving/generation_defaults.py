"""How a checkpoint's author would sample: what generation_config.json says of temperature, top_p, top_k and penalty.

TGI does not look at it. It is always told in `/info`, and with `--generation-defaults model` it fills what a request of
the OpenAI routes leaves open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tgi.errors import ModelError
from tgi.json_files import read_json

FILE = "generation_config.json"


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """None: the file does not say. Values are those a request may have: `top_k` 0 and `top_p` 1 are off."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None

    def __str__(self) -> str:
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name} {value:g}" for name, value in given if value is not None)


NONE = GenerationDefaults()


def read_defaults(model_path: Path) -> GenerationDefaults:
    """The defaults of a directory; none without the file. Raises ModelError for values that no request may have."""
    content = read_json(model_path / FILE)
    return GenerationDefaults(
        temperature=_number(content, "temperature", lambda value: value >= 0, "a number from 0 on"),
        top_p=_number(content, "top_p", lambda value: 0 <= value <= 1, "a number from 0 to 1"),
        top_k=_integer(content, "top_k"),
        repetition_penalty=_number(content, "repetition_penalty", lambda value: value > 0, "a number above 0"),
    )


def _number(content: dict[str, Any], key: str, holds: Any, wanted: str) -> float | None:
    value = content.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not holds(value):
        raise ModelError(f"{FILE}: `{key}` must be {wanted}, it is {ascii(value)[:40]}")
    return float(value)


def _integer(content: dict[str, Any], key: str) -> int | None:
    value = content.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < 1 << 31:
        raise ModelError(f"{FILE}: `{key}` must be an integer from 0 on, or -1 for off, it is {ascii(value)[:40]}")
    return max(value, 0)
