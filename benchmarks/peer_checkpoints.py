"""Checkpoints that every peer can serve: our random weights, and a tokenizer that has a text for nearly every id.

`benchmarks.checkpoints` makes tokenizers of some hundred entries; a random model then mostly generates
ids without text, which some servers answer with no event at all. Here nearly every id of the vocabulary is a
byte-level BPE entry of one to three printable characters.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from tests.models.checkpoints import SPECIAL_TOKENS

from benchmarks.checkpoints import ensure

SPARE = 64
"""Ids at the end of the vocabulary without an entry: some libraries add special tokens of their own."""
PRINTABLE = [chr(code) for code in range(ord("!"), ord("~") + 1)]
COPIED = ("config.json", "generation_config.json", "tokenizer_config.json")


def ensure_for_peers(shape: str, directory: Path) -> Path:
    """The checkpoint of a shape under `directory`; its weights are a hard link to ours where that works."""
    path = directory / shape
    if (path / "tokenizer.json").exists():
        return path
    source = ensure(shape)
    path.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        (path / name).write_bytes((source / name).read_bytes())
    weights = path / "model.safetensors"
    weights.unlink(missing_ok=True)
    try:
        os.link(source / weights.name, weights)
    except OSError:  # another file system
        weights.symlink_to(source / weights.name)
    size = json.loads((path / "config.json").read_bytes())["vocab_size"]
    (path / "tokenizer.json").write_text(json.dumps(tokenizer(size - SPARE), ensure_ascii=False), encoding="utf-8")
    return path


def tokenizer(size: int) -> dict[str, Any]:
    """The content of tokenizer.json with exactly `size` entries (561 to 839,945)."""
    entries = [*SPECIAL_TOKENS, *byte_alphabet()]
    merges: list[list[str]] = []
    pairs = [["".join(pair), *pair] for pair in itertools.product(PRINTABLE, repeat=2)]
    triples = ([pair[0] + last, pair[0], last] for pair in pairs for last in PRINTABLE)
    for whole, *parts in itertools.islice(itertools.chain(pairs, triples), size - len(entries)):
        entries.append(whole)
        merges.append(parts)
    assert len(entries) == len(set(entries)) == size
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": name, **flags} for number, name in enumerate(SPECIAL_TOKENS)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {entry: number for number, entry in enumerate(entries)},
            "merges": merges,
        },
    }


def byte_alphabet() -> list[str]:
    """The character that byte-level BPE writes for each byte: itself where printable, else from 256 upwards."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = itertools.count(256)
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]
