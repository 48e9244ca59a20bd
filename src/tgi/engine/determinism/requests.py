"""The random requests of a verification: lengths at the edges of what the kernels cut, all kinds of sampling.

Plain data from a random generator.
"""

from __future__ import annotations

import random
from typing import Any

from tgi.engine.determinism.recorder import Request
from tgi.messages import EngineInfo, Sampling

NEW_TOKENS = 16
LENGTHS = (1, 17, 33, 100, 290, 530)
"""Attention works in pieces of 256 keys and blocks of 32; 530 spans three pieces and more than one step."""
KINDS: tuple[dict[str, Any], ...] = (
    {"top_n_tokens": 3},
    {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_n_tokens": 2},
    {"do_sample": True, "top_k": 40, "repetition_penalty": 1.2, "frequency_penalty": 0.3},
    {"prompt_logprobs": 2},
    {"do_sample": True, "temperature": 1.3},
    {},
)
MOST_STRANGERS = 24


def subjects(random: random.Random, info: EngineInfo) -> dict[int, Request]:
    """The requests that are compared, by number; as long as the engine's limits allow."""
    room = max(1, min(info.max_input_tokens, info.max_total_tokens - NEW_TOKENS))
    new = min(NEW_TOKENS, info.max_total_tokens - 1)
    lengths = [length for length in LENGTHS if length <= room]
    if len(lengths) < len(LENGTHS):
        lengths.append(room)
    return {
        number: Request(ids(random, info, length), Sampling(max_new_tokens=new, **KINDS[number]), (_seed(random),))
        for number, length in enumerate(lengths[: len(KINDS)])
    }


def strangers(random: random.Random, info: EngineInfo, first: int) -> dict[int, Request]:
    """Other people's requests, numbered from `first`: short ones that come and go meanwhile."""
    room = max(1, min(60, info.max_input_tokens, info.max_total_tokens - NEW_TOKENS))
    count = max(1, min(MOST_STRANGERS, info.max_batch_size - first))
    return {
        number: Request(
            ids(random, info, random.randint(1, room)),
            Sampling(max_new_tokens=min(random.randint(1, NEW_TOKENS), info.max_total_tokens - room), do_sample=True),
            (_seed(random),),
        )
        for number in range(first, first + count)
    }


def crowd(random: random.Random, info: EngineInfo, count: int) -> dict[int, Request]:
    """Requests that each begin with one block and end with three; none where the context is shorter."""
    length, new = info.block_size - 3, info.block_size + 8
    if length + new > min(info.max_total_tokens, info.max_input_tokens + new):
        return {}
    sampling = Sampling(max_new_tokens=new, do_sample=True, temperature=0.9)
    return {number: Request(ids(random, info, length), sampling, (_seed(random),)) for number in range(count)}


def ids(random: random.Random, info: EngineInfo, length: int) -> tuple[int, ...]:
    """A prompt of random tokens."""
    return tuple(random.randrange(info.vocab_size) for _ in range(length))


def _seed(random: random.Random) -> int:
    return random.getrandbits(64)
