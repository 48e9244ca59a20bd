"""What grammars need to know of a tokenizer, for the engine and for the processes that try grammars."""

from __future__ import annotations

import json

from tgi.messages import Vocabulary
from tgi.serving.piece_bytes import flatten
from tgi.serving.tokenizer import Tokenizer

KNOWN_DECODERS = ("ByteLevel", "ByteFallback")
"""Where one of these is in a tokenizer.json, llguidance finds the bytes of each token by itself, and cuts texts as the
tokenizer does."""


def make_vocabulary(tokenizer: Tokenizer, vocab_size: int, eos_token_ids: tuple[int, ...]) -> Vocabulary:
    """Of the tokens that the model has; takes a second for a large tokenizer."""
    special = tuple(sorted(id for id in tokenizer.special_ids if id < vocab_size))
    decoder = tokenizer.fast.decoder
    steps = [] if decoder is None else flatten(json.loads(decoder.__getstate__()))
    if any(step.get("type") in KNOWN_DECODERS for step in steps):
        return Vocabulary(eos_token_ids, tokenizer.fast.to_str().encode(), special_ids=special)
    tokens = [tokenizer.token_bytes(id) for id in range(min(vocab_size, tokenizer.vocab_size))]
    return Vocabulary(eos_token_ids, tokens=tokens, special_ids=special)
