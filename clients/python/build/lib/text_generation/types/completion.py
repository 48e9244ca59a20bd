"""Types of `/v1/completions`: request, answer, chunk."""

from __future__ import annotations

from typing import Any

from text_generation.types.base import Answer, Wire
from text_generation.types.chat import Usage

Prompt = str | list[str] | list[int] | list[list[int]]


class CompletionRequest(Wire):
    """Body of a completion request. `model` names an adapter; `tgi` is the served model."""

    model: str
    prompt: Prompt
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    stream: bool = False
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    logit_bias: dict[int | str, float] | None = None
    presence_penalty: float | None = None
    stream_options: dict[str, Any] | None = None


class CompletionComplete(Answer):
    """One choice, whole or (in a chunk) the text it adds.

    In chunks `finish_reason` is None or, from TGI, the empty string until the choice has ended.
    """

    index: int = 0
    text: str = ""
    logprobs: Any = None
    finish_reason: str | None = None


class Completion(Answer):
    """A whole completion answer. TGI gives the choices in the order they ended: use `index`."""

    id: str = ""
    object: str = "text_completion"
    created: int = 0
    model: str = ""
    system_fingerprint: str = ""
    choices: list[CompletionComplete]
    usage: Usage | None = None


class CompletionChunk(Completion):
    """One event of a completion stream."""
