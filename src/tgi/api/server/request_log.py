"""What the log tells of a request: its parameters, cut in length, and how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from typing import Any

from tgi.messages import Grammar
from tgi.serving.types import Completion, SamplingParams
from tgi.shorten import shorten

LOGGED_CHARACTERS = 100
"""Of each text among the parameters."""
LOGGED_TEXT = 1_024
"""Characters of a prompt, or of the text made of it, at `debug`; of ids a sixteenth as many."""
LOGGED_ITEMS = 8
"""Of each list among the parameters."""


def parameters(params: SamplingParams) -> str:
    """The parameters that were given, long ones only by their beginning."""
    values = {field.name: getattr(params, field.name) for field in fields(params)}
    return repr({name: _beginning(value) for name, value in values.items() if value not in (None, [], {}, False)})


def _beginning(value: Any) -> Any:
    if isinstance(value, str):
        return shorten(value, LOGGED_CHARACTERS)
    if isinstance(value, Grammar):
        return {"kind": value.kind, "text": _beginning(value.text)}
    if isinstance(value, list):
        more = len(value) - LOGGED_ITEMS
        return [_beginning(item) for item in value[:LOGGED_ITEMS]] + ([f"... {more:,} more"] if more > 0 else [])
    if isinstance(value, dict):
        items = [(_beginning(key), _beginning(item)) for key, item in islice(value.items(), LOGGED_ITEMS)]
        more = len(value) - LOGGED_ITEMS
        return dict(items) | ({"...": f"{more:,} more"} if more > 0 else {})
    return value


def beginning_of(text: str | Sequence[int]) -> str:
    """Of a prompt, which may be token ids, or of an answer."""
    if isinstance(text, str):
        return shorten(text, LOGGED_TEXT)
    most = LOGGED_TEXT // 16
    return str(list(text[:most])) + (f"... {len(text) - most:,} more" if len(text) > most else "")


def facts_of(completion: Completion) -> dict[str, str | int]:
    """What TGI's `Success` line says of a request beside its parameters: never its text."""
    timings = completion.timings
    return {
        "total_time": f"{timings.total:.6f}s",
        "validation_time": f"{timings.validation:.6f}s",
        "queue_time": f"{timings.queue:.6f}s",
        "inference_time": f"{timings.inference:.6f}s",
        "time_per_token": f"{timings.time_per_token:.6f}s",
        "seed": str(completion.seed),
        "input_tokens": completion.input_length,
        "generated_tokens": completion.generated_tokens,
        "cached_tokens": completion.cached_tokens,
        "finish_reason": completion.finish_reason,
    }
