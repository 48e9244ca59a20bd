"""Usage of an OpenAI answer: tokens of the prompts, cached ones among them, and generated ones.

Owns its form, and counting it while an answer grows.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class PromptTokensDetails(msgspec.Struct):
    """What is known of the tokens of a prompt."""

    cached_tokens: int
    """How many were in the prefix cache when the request came."""


class CompletionTokensDetails(msgspec.Struct):
    """What is known of the tokens of an answer."""

    reasoning_tokens: int
    """How many the model thought before it answered."""


class Usage(msgspec.Struct):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | UnsetType = UNSET
    """Of models that reason."""


class Tally:
    """The usage of an answer so far."""

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.reasoning_tokens: int | None = None
        """None: the model does not reason."""
        self._cached: dict[int, int] = {}

    def cached(self, prompt: int, tokens: int) -> None:
        """A sample of prompt number `prompt` found this many of its tokens in the cache.

        The sample that found least counts: the others may have found what the first one computed.
        """
        self._cached[prompt] = min(tokens, self._cached.get(prompt, tokens))

    def usage(self) -> Usage:
        total = self.prompt_tokens + self.completion_tokens
        details = PromptTokensDetails(sum(self._cached.values()))
        thought = UNSET if self.reasoning_tokens is None else CompletionTokensDetails(self.reasoning_tokens)
        return Usage(self.prompt_tokens, self.completion_tokens, total, details, thought)
