"""The keyword arguments of `chat` and `completion` as types.

Only for type checkers: they let the overloads tell a streamed answer from a whole one. The
arguments themselves are in `arguments`; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from text_generation.types import Grammar, Tool


class _Options(TypedDict, total=False):
    """What both calls share."""

    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    max_tokens: int | None
    n: int | None
    seed: int | None
    temperature: float | None
    top_p: float | None
    stop: str | Sequence[str] | None
    model: str
    stream_options: dict[str, Any] | None
    extra_body: Mapping[str, Any] | None


class ChatOptions(_Options, total=False):
    """Keyword arguments of `chat` beside `messages` and `stream`."""

    logit_bias: Sequence[float] | Mapping[int, float] | Mapping[str, float] | None
    logprobs: bool | None
    top_logprobs: int | None
    tools: Sequence[Tool | dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    tool_prompt: str | None
    max_completion_tokens: int | None
    response_format: Grammar | dict[str, Any] | None


class CompletionOptions(_Options, total=False):
    """Keyword arguments of `completion` beside `prompt` and `stream`."""

    best_of: int | None
    echo: bool | None
    logprobs: int | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
