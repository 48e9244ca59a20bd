"""Codes of 2 to 8 bits in words of 32: unpacking."""

from __future__ import annotations

import torch

WORD = 32


def unpack(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """words [rows, n] int32, each row a stream of codes from the lowest bit on -> codes [rows, count] uint8.

    Codes of 3 bits and other sizes that do not divide a word go on in the next one.
    """
    mask = (1 << bits) - 1
    if WORD % bits == 0:
        shifts = torch.arange(0, WORD, bits, dtype=torch.int32)
        return ((words.unsqueeze(-1) >> shifts) & mask).to(torch.uint8).flatten(1)[:, :count]
    at = torch.arange(count) * bits
    first, shift = at // WORD, at % WORD
    second = torch.clamp(first + 1, max=words.shape[1] - 1)
    streams = words.long() & 0xFFFFFFFF
    low = streams[:, first] >> shift
    high = torch.where(shift + bits > WORD, streams[:, second] << (WORD - shift), 0)
    return ((low | high) & mask).to(torch.uint8)


def stream_words(bits: int, count: int) -> int:
    """Words that codes take without gaps, as `unpack` reads them."""
    return -(-count * bits // WORD)


def whole_words(bits: int, count: int) -> int:
    """Words that codes take where each holds only whole ones: 10 of 3 bits, and two bits that mean nothing."""
    return -(-count // (WORD // bits))


def unpack_either(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The same as `unpack` of a stream or of whole codes: how many words there are says which."""
    if words.shape[1] == stream_words(bits, count):
        return unpack(words, bits, count)
    shifts = torch.arange(WORD // bits, dtype=torch.int32) * bits
    return ((words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).to(torch.uint8).flatten(1)[:, :count]


def nibbles(packed: torch.Tensor, *, high_first: bool = False) -> torch.Tensor:
    """packed [rows, n] uint8 -> codes [rows, 2 n] of 4 bits."""
    pair = (packed >> 4, packed & 15) if high_first else (packed & 15, packed >> 4)
    return torch.stack(pair, -1).flatten(1)
