"""What one vocabulary entry contributes to a text, read from the description of a tokenizer's decoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def piece_decoder(steps: list[dict[str, Any]]) -> Callable[[str], bytes] | None:
    """How one vocabulary entry turns into bytes, or None when the decoder works on more than one at once.

    Removal of the first space of a whole text is left out: a generated text continues a prompt.
    """
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        alphabet = byte_level_alphabet()
        return lambda piece: _byte_level(piece, alphabet)
    if any(not _local(step) for step in steps) or not {"ByteFallback", "Metaspace", "Fuse"} & set(kinds):
        return None
    if "Strip" in kinds and "Fuse" not in kinds[: kinds.index("Strip")]:
        return None  # would strip each token
    replacements = [_replacement(step) for step in steps if step["type"] in ("Replace", "Metaspace")]
    fallback = "ByteFallback" in kinds

    def decode(piece: str) -> bytes:
        if fallback and (match := _BYTE_TOKEN.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        for old, new in replacements:
            piece = piece.replace(old, new)
        return piece.encode()

    return decode


def flatten(component: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a decoder or a normaliser, in order."""
    if component["type"] != "Sequence":
        return [component]
    parts = component["decoders"] if "decoders" in component else component["normalizers"]
    return [step for part in parts for step in flatten(part)]


def _local(step: dict[str, Any]) -> bool:
    match step["type"]:
        case "ByteFallback" | "Fuse" | "Metaspace":
            return True
        case "Replace":
            return len(step["pattern"].get("String", "")) == 1  # longer ones could match across tokens
        case "Strip":
            return step["content"] == " " and step["stop"] == 0
        case _:
            return False


def strips_first_space(step: dict[str, Any]) -> bool:
    """Whether a step of a decoder takes away the space before the first word."""
    if step["type"] == "Metaspace":
        return step.get("prepend_scheme", "always") != "never"
    return step["type"] == "Strip" and step["start"] > 0


def _replacement(step: dict[str, Any]) -> tuple[str, str]:
    if step["type"] == "Metaspace":
        return step["replacement"], " "
    return step["pattern"]["String"], step["content"]


def _byte_level(piece: str, alphabet: dict[str, int]) -> bytes:
    try:
        return bytes([alphabet[character] for character in piece])
    except KeyError:
        return piece.encode()


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's mapping of printable characters to bytes: printable Latin-1 stands for itself, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
