"""Token ids to text, one token at a time.

Owns the incomplete UTF-8 character at the end of a growing text. The text of a sample is, by
definition, the concatenation of what `step` gives, so that streamed and whole answers cannot
differ.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from tgi.serving.tokenizer import Tokenizer

CONTEXT_TOKENS = 5
"""Prompt tokens that a decoder sees before the first generated one (as TGI)."""
MAX_HELD_TOKENS = 4
"""A character has at most four bytes: more tokens than that are not one incomplete character."""

MAX_EMPTY_TOKENS = 16
"""Most tokens without any text that are remembered: a run of them would cost quadratic time."""


class _Text(Protocol):
    def step(self, id: int) -> str: ...


class Detokenizer:
    """The text that each token adds to a text.

    Where the bytes of a token are known (byte-level BPE, SentencePiece), they are strung together
    and decoded; elsewhere a short window of tokens is decoded with and without the new one.
    Invalid bytes become U+FFFD; an incomplete character at the end never shows.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] | None = None) -> None:
        """`context`: the token ids before the first one (a prompt); None: a text starts here."""
        self._tokenizer = tokenizer
        self._strip = context is None and tokenizer.strips_first_space
        recent = [id for id in (context or ())[-CONTEXT_TOKENS:] if id not in tokenizer.special_ids]
        self._text: _Text = (_ByteText if tokenizer.byte_exact else _WindowText)(tokenizer, recent)

    def step(self, id: int) -> str:
        """Text added by the token; special tokens show their own text.

        Empty while a character is incomplete: the token that completes it carries it. A special
        token in between does not disturb it.
        """
        if id in self._tokenizer.special_ids:
            return self._tokenizer.token_bytes(id).decode(errors="replace")
        text = self._text.step(id)
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text


class _ByteText:
    """Text as the concatenated bytes of the tokens."""

    def __init__(self, tokenizer: Tokenizer, context: list[int]) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for id in context:  # a prompt of token ids may end within a character
            self.step(id)

    def step(self, id: int) -> str:
        return self._decoder.decode(self._token_bytes(id))


class _WindowText:
    """Text as the difference of two decoded windows, for decoders that look at neighbours."""

    def __init__(self, tokenizer: Tokenizer, context: list[int]) -> None:
        self._decode = tokenizer.decode
        self._shown = context  # tokens whose text is out, as far back as the decoder needs
        self._held: list[int] = []  # tokens whose text is not

    def step(self, id: int) -> str:
        self._held.append(id)
        before = self._decode(self._shown)
        after = self._decode(self._shown + self._held)
        incomplete = after.endswith("\ufffd") and len(self._held) < MAX_HELD_TOKENS
        if incomplete or len(after) <= len(before):
            del self._held[:-MAX_EMPTY_TOKENS]
            return ""
        self._shown, self._held = self._held, []
        return after[len(before) :]
