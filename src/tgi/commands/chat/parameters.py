"""What `/set` knows: the names of parameters, their limits, and the sentences for what they are not.

The limits are those of `/v1/chat/completions`; the server checks again.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any


class ParameterError(Exception):
    """A name or a value that cannot be; the sentence is for the user."""


@dataclass(frozen=True)
class Parameter:
    """One field of a request."""

    kind: type
    about: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def limits(self) -> str:
        """`0 to 1`, for people."""
        if self.choices:
            return ", ".join(self.choices)
        if self.kind is str:
            return "text"
        low, high = _number(self.low), _number(self.high)
        return f"{low} to {high}" if high else f"{low} or more"


PARAMETERS = {
    "temperature": Parameter(float, "how freely tokens are chosen; 0: always the likeliest", 0),
    "top_p": Parameter(float, "choose among the likeliest tokens that have this much probability together", 0, 1),
    "top_k": Parameter(int, "choose among so many of the likeliest tokens; 0: among all", 0, 2**31 - 1),
    "max_tokens": Parameter(int, "longest answer in tokens", 1, 2**31 - 1),
    "repetition_penalty": Parameter(float, "above 1: make tokens that were used less likely", 0.01),
    "frequency_penalty": Parameter(float, "make tokens less likely by how often the answer has them", -2, 2),
    "presence_penalty": Parameter(float, "make tokens less likely that the answer has at all", -2, 2),
    "seed": Parameter(int, "the same seed gives the same answer", 0, 2**64 - 1),
    "stop": Parameter(str, "end the answer before this text"),
    "reasoning_effort": Parameter(str, "how much the model thinks", choices=("none", "low", "medium", "high")),
    "max_thinking_tokens": Parameter(int, "longest reasoning in tokens", 0, 2**31 - 1),
}


def named(word: str) -> str | None:
    """The parameter that a word names, or alone begins as `temp` does; None: none."""
    plain = word.lower().replace("-", "_")
    begun = [name for name in PARAMETERS if name.startswith(plain) and len(plain) > 2]
    return plain if plain in PARAMETERS else begun[0] if len(begun) == 1 else None


def read(name: str, text: str) -> tuple[str, Any]:
    """The parameter of a name, which may be nearly right, and the value of a text. Raises ParameterError."""
    plain = name.strip().lower().replace("-", "_")
    parameter = PARAMETERS.get(plain)
    if parameter is None:
        near = difflib.get_close_matches(plain, PARAMETERS, 1, 0.6)
        tip = f"did you mean {near[0]}?" if near else f"there are {', '.join(PARAMETERS)}"
        raise ParameterError(f"there is no parameter {name}: {tip}")
    if parameter.choices and text not in parameter.choices:
        raise ParameterError(f"{plain} is one of {parameter.limits()}, not {text}")
    if parameter.kind is str:
        return plain, text.replace("\\n", "\n").replace("\\t", "\t")
    try:
        value = parameter.kind(text)
    except ValueError:
        kind = "a whole number" if parameter.kind is int else "a number"
        raise ParameterError(f"{plain} is {kind}, {parameter.limits()}, not {text}") from None
    if not parameter.low <= value <= parameter.high or not math.isfinite(value):
        raise ParameterError(f"{plain} is {parameter.limits()}, not {text}")
    return plain, value


def body(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request; top_p 1 and top_k 0 say what leaving them out says."""
    return {**values, "stop": [values["stop"]]} if "stop" in values else dict(values)


def listed(values: dict[str, Any]) -> list[tuple[str, str, str]]:
    """A row for each parameter: name, value (or `-`), limits and meaning."""
    return [(name, str(values.get(name, "-")), f"{one.limits()}: {one.about}") for name, one in PARAMETERS.items()]


def _number(value: float) -> str:
    if not math.isfinite(value) or value >= 2**31 - 1:
        return ""
    return str(int(value)) if value == int(value) else str(value)
