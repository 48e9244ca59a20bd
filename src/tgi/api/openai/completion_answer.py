"""One answer of `/v1/completions` while it grows.

Owns its id, indices, usage, echo and the legacy log-probabilities.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from tgi.api.openai.completion_types import (
    Chunk,
    CompletionChoice,
    CompletionFinal,
    CompletionLogprobs,
    CompletionRequest,
)
from tgi.api.openai.types import FINGERPRINT, FINISH_REASONS, known
from tgi.api.openai.usage import Tally
from tgi.api.wire.long_answer import LongLists
from tgi.serving.types import Completion, Delta, Prepared, TextToken


class CompletionAnswer:
    """Choice `prompt number * n + sample` is one sample of one prompt."""

    def __init__(self, model: str, body: CompletionRequest, prepared: list[Prepared]) -> None:
        self.body = body
        self.prepared = prepared
        self.prompt_tokens = sum(one.input_length for one in prepared)
        self._model = model
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._tally = Tally(self.prompt_tokens)
        self._shown: dict[int, int] = {}
        """Choice -> characters sent, prompt included."""

    def whole(self, groups: list[list[Completion]], lists: LongLists) -> CompletionFinal:
        """The samples of every prompt, in the order of the prompts."""
        choices = [self._choice(number, one, lists) for number, group in enumerate(groups) for one in group]
        return CompletionFinal(
            "text_completion", self._id, self._created, self._model, FINGERPRINT, choices, self._tally.usage()
        )

    def _choice(self, number: int, completion: Completion, lists: LongLists) -> CompletionChoice:
        prepared = self.prepared[number]
        text, tokens = completion.text, completion.tokens
        if self.body.wants_none:
            text, tokens = "", []
        self._tally.cached(number, completion.cached_tokens)
        self._tally.completion_tokens += len(tokens)
        offset = len(prepared.prompt)
        if self.body.echo:
            text, tokens, offset = prepared.prompt + text, completion.prefill + tokens, 0
        return CompletionChoice(
            index=number * self.body.samples + completion.index,
            text=text,
            logprobs=self._logprobs(tokens, offset, prepared.prompt if self.body.echo else None, lists),
            finish_reason="length" if self.body.wants_none else FINISH_REASONS[completion.finish_reason],
        )

    def echoes(self, number: int, delta: Delta) -> bool:
        """Whether the delta's event brings an echoed prompt: the first of each sample."""
        return self.body.echo and number * self.body.samples + delta.index not in self._shown

    def chunk(self, number: int, delta: Delta, lists: LongLists) -> Chunk:
        """The event of one token."""
        prepared, echoes = self.prepared[number], self.echoes(number, delta)
        index = number * self.body.samples + delta.index
        shown = self._shown.get(index, len(prepared.prompt))
        text, tokens = delta.text, [delta.token]
        if self.body.wants_none:
            text, tokens = "", []
        self._tally.cached(number, delta.cached_tokens)
        self._tally.completion_tokens += len(tokens)
        self._shown[index] = shown + len(text)
        if echoes:
            text, tokens, shown = prepared.prompt + text, delta.prefill + tokens, 0
        choice = CompletionChoice(
            index=index,
            text=text,
            logprobs=self._logprobs(tokens, shown, prepared.prompt if echoes else None, lists),
            finish_reason=None if delta.final is None else FINISH_REASONS[delta.final.finish_reason],
        )
        if delta.final is not None and self.body.wants_none:
            choice.finish_reason = "length"
        return self._chunk([choice])

    def last_chunk(self) -> Chunk:
        """The usage, with empty choices."""
        chunk = self._chunk([])
        chunk.usage = self._tally.usage()
        return chunk

    def _chunk(self, choices: list[CompletionChoice]) -> Chunk:
        chunk = Chunk("text_completion", self._id, self._created, choices, self._model, FINGERPRINT)
        if self.body.include_usage or self.body.usage_in_chunks:
            chunk.usage = self._tally.usage() if self.body.usage_in_chunks else None
        return chunk

    def _logprobs(
        self, tokens: Sequence[TextToken], offset: int, prompt: str | None, lists: LongLists
    ) -> CompletionLogprobs | None:
        if self.body.logprobs is None:
            return None
        return legacy_logprobs(tokens, self.body.logprobs, offset, prompt, lists)


def legacy_logprobs(
    tokens: Sequence[TextToken], alternatives: int, offset: int, prompt: str | None, lists: LongLists
) -> CompletionLogprobs:
    """OpenAI's four lists. `offset`: characters before the first token; `prompt`: what the tokens begin with."""
    nothing = tokens[0] if prompt is not None and tokens and tokens[0].logprob is None else None
    return CompletionLogprobs(
        lists.array(token_name, tokens),
        lists.array(lambda token: None if token is nothing else known(token.logprob), tokens),
        lists.array(lambda token: None if token is nothing else _top(token), tokens) if alternatives else None,
        lists.array(int, _offsets(tokens, offset, prompt or "")),
    )


def _offsets(tokens: Sequence[TextToken], offset: int, prompt: str) -> list[int]:
    """Characters before each token."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        # A special token such as BOS is in the list and, when the prompt was text, not in the text.
        if not (token.special and not prompt.startswith(token.text, offset)):
            offset += len(token.text)
    return offsets


def _top(token: TextToken) -> dict[str, float]:
    """Alternatives by text, the better of two with the same; the token itself is always there, as OpenAI has it."""
    top: dict[str, float] = {}
    for other in [*token.top, token]:
        top.setdefault(token_name(other), known(other.logprob))
    return top


def token_name(token: TextToken) -> str:
    """Its text, or `bytes:\\xe2\\x82` when it is only a part of a character."""
    if token.raw and (not token.text or "\ufffd" in token.text):
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.raw)
    return token.text
