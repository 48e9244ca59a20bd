"""tokenizer.json of a tekken.json, the vocabulary that Mistral publishes for its models.

The file has byte strings in the order of their ranks, a pattern that splits texts, and special tokens, whose ids come
first. Merging neighbours whose joint bytes have the lowest rank, as tiktoken does, is byte-level BPE with a merge for
each way of halving a token. Imports no torch.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from tgi.errors import ModelError
from tgi.serving.piece_bytes import byte_level_alphabet
from tgi.untrusted import printable, read_json

FILE = "tekken.json"
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
FIRST_SPECIAL = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
"""Special tokens of files that name none, as mistral_common has them."""
MOST_TOKENS = 1 << 22
LONGEST_TOKEN = 4096
"""Bytes."""


def convert(path: Path) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer of a tekken.json, and the tokens that have a role in it. Raises ModelError."""
    content = read_json(path)
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("pattern"), str):
        raise ModelError(f"{printable(path)} has no `config` with a `pattern`: it is not a tekken.json")
    special = _special(content.get("special_tokens"), _count(config, "default_num_special_tokens", path), path)
    size = _count(config, "default_vocab_size", path)
    ranked = _ranked(content.get("vocab"), None if size is None else size - len(special), path)
    fast = Tokenizer(_model(ranked, special))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(config["pattern"]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    roles = {role: text for role, text in ROLES.items() if text in special}
    if bos := roles.get("bos_token"):
        pair = (bos, special.index(bos))
        fast.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=[pair])
    return fast, roles


def _count(config: dict[str, Any], name: str, path: Path) -> int | None:
    value = config.get(name)
    if value is not None and (type(value) is not int or not 0 <= value <= MOST_TOKENS):
        raise ModelError(f"{printable(path)}: `{name}` is {printable(value, 40)}, not a number of tokens")
    return value


def _special(listed: Any, count: int | None, path: Path) -> list[str]:
    """The special tokens in the order of their ids; those without a name are called after their number."""
    texts: list[str] = list(FIRST_SPECIAL)
    if listed is not None:
        entries = listed if isinstance(listed, list) and all(isinstance(one, dict) for one in listed) else []
        by_rank = {one.get("rank"): one.get("token_str") for one in entries}
        texts = [text for rank in range(len(entries)) if isinstance(text := by_rank.get(rank), str) and text]
        if not entries or not len(set(texts)) == len(texts) == len(entries):
            raise ModelError(f"{printable(path)}: `special_tokens` must have a text for each rank from 0 on")
    if count is None:
        return texts
    if count < len(texts):
        raise ModelError(f"{printable(path)} names {len(texts)} special tokens, and counts {count}")
    return texts + [f"<SPECIAL_{rank}>" for rank in range(len(texts), count)]


def _ranked(listed: Any, count: int | None, path: Path) -> list[bytes]:
    """The tokens' bytes in the order of their ranks, at most `count`: files have more than models use."""
    if not isinstance(listed, list) or not 256 <= len(listed) <= MOST_TOKENS:
        raise ModelError(f"{printable(path)}: `vocab` must be a list of at least 256 tokens")
    if count is not None and not 256 <= count <= len(listed):
        raise ModelError(f"{printable(path)} has {len(listed)} tokens, and `default_vocab_size` asks for {count}")
    ranked = []
    for rank, entry in enumerate(listed[:count]):
        try:
            data = base64.b64decode(entry["token_bytes"], validate=True)
        except (TypeError, KeyError, ValueError, binascii.Error):
            data = b""
        if not 0 < len(data) <= LONGEST_TOKEN or entry.get("rank", rank) != rank:
            raise ModelError(f"{printable(path)}: entry {rank} of `vocab` is not the token of that rank")
        ranked.append(data)
    if len(set(ranked)) != len(ranked) or len({data for data in ranked if len(data) == 1}) != 256:
        raise ModelError(f"{printable(path)}: `vocab` must have every byte, and each token once")
    return ranked


def _model(ranked: Sequence[bytes], special: Sequence[str]) -> models.BPE:
    ranks = {data: rank for rank, data in enumerate(ranked)}
    alphabet = {byte: character for character, byte in byte_level_alphabet().items()}

    def text(data: bytes) -> str:
        return "".join(map(alphabet.__getitem__, data))

    vocabulary = {token: id for id, token in enumerate(special)}
    vocabulary |= {text(data): rank + len(special) for rank, data in enumerate(ranked)}
    merges = [(text(left), text(right)) for data in ranked for left, right in _halves(data, ranks)]
    return models.BPE(vocabulary, merges, ignore_merges=True)


def _halves(data: bytes, ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Pairs of tokens that are this one together, those of lower ranks first."""
    pairs = [(data[:cut], data[cut:]) for cut in range(1, len(data))]
    known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
    return iter(sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]])))
