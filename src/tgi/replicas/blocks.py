"""A prompt as a chain of hashes: what two prompts have in common at their beginnings, without keeping any text.

Owns where blocks end. Bytes are those of the request's values in one spelling of JSON (`prompt`): whoever sends a
conversation's next turn sends its beginning again. So nothing is tokenised and no chat template is rendered here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

BLOCK = 256
"""Bytes of the first blocks: about two blocks of the engine's cache."""
BLOCKS_OF_A_SIZE = 64
"""After so many blocks the next ones are twice as long, so that a megabyte is a few hundred blocks."""
LONGEST = 1 << 22
"""Bytes of a prompt that are looked at."""
BYTES_PER_TOKEN = 4
"""Of prompts in English; only the proportion of prompts to queues depends on it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The blocks of one prompt."""

    hashes: np.ndarray
    """uint64, one a block; each depends on all bytes before it and on the salt."""
    ends: np.ndarray
    """float64, bytes of the prompt up to the end of each block."""
    size: int
    """Bytes of the whole prompt, the last piece included that fills no block."""
    whole: int
    """Hash of the whole prompt."""


def chain(parts: Sequence[bytes], salt: int) -> Chain:
    """The blocks of a prompt that is given in pieces, as conversations are; where pieces end makes no difference."""
    data = b"".join(parts)
    view = memoryview(data)[:LONGEST]
    digest, hashes, ends = salt, list[int](), list[int]()
    begin, step = 0, BLOCK
    last = len(view)
    hash_of = xxhash.xxh3_64_intdigest
    while begin + step <= last:
        digest = hash_of(view[begin : begin + step], digest)
        begin += step
        hashes.append(digest)
        ends.append(begin)
        if len(hashes) % BLOCKS_OF_A_SIZE == 0:
            step *= 2
    whole = hash_of(view[begin:], digest)
    return Chain(np.array(hashes, np.uint64), np.array(ends, np.float64), len(data), whole)


def key_of(data: bytes, salt: int) -> int:
    """What stands for a conversation in place of its text."""
    return xxhash.xxh3_64_intdigest(data, salt)
