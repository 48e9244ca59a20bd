"""From a GGUF file's metadata to tokenizer.json and tokenizer_config.json. Imports no torch.

Two kinds: byte-level BPE (`gpt2`), whose pattern that cuts texts into words llama.cpp knows by name, and
SentencePiece's BPE (`llama`), whose merges follow from the scores of its pieces.
"""

from __future__ import annotations

from typing import Any

from tgi.errors import ModelError
from tgi.untrusted import printable

Json = dict[str, Any]
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Kinds of tokens, beside normal, unused and byte ones."""
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
MOST_TOKENS = 1 << 22

_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*" + _END
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASES = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _END
)
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
LLAMA3, QWEN2 = _WORDS % r"\p{N}{1,3}", _WORDS % r"\p{N}"
TEKKEN, GPT4O = _CASES % ("", "", r"\p{N}"), _CASES % (_SHORT, _SHORT, r"\p{N}{1,3}")
PATTERNS: dict[str, str | None] = {
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "dbrx", "smaug-bpe", "falcon3", "pixtral"), LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kimi-k2"), QWEN2),
    "tekken": TEKKEN,
    **dict.fromkeys(("gpt-4o", "llama4"), GPT4O),
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "jina-es", "gigachat", "roberta-bpe"), None),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), "digits"),
}
"""llama.cpp's name -> the pattern; None: that of GPT-2; digits: GPT-2's, each digit by itself."""
WHOLE_WORDS = (
    "llama3",
    "llama-v3",
    "llama-bpe",
    "dbrx",
    "smaug-bpe",
    "falcon3",
    "pixtral",
    "tekken",
    "gpt-4o",
    "llama4",
)
"""Of these a word that is a token is not merged from its parts."""
BEGINS = ("llama3", "llama-v3", "llama-bpe", "tekken", "pixtral", "llama4")
"""Of these texts begin with a token where the file does not say whether they do."""


class Vocabulary:
    """The tokens of a file, checked. Raises ModelError."""

    def __init__(self, metadata: Json, where: str) -> None:
        self.metadata, self.where = metadata, where
        self.model = self._get("model", str)
        self.tokens: list[str] = self._list("tokens", str)
        if not 0 < len(self.tokens) <= MOST_TOKENS:
            raise ModelError(f"{where}: its tokenizer has {len(self.tokens)} tokens")
        self.kinds: list[int] = self._list("token_type", int) or [1] * len(self.tokens)
        if len(self.kinds) != len(self.tokens):
            raise ModelError(f"{where}: its tokenizer has {len(self.tokens)} tokens, but {len(self.kinds)} types")
        self.ids: dict[str, int] = {}
        for id, token in enumerate(self.tokens):
            self.ids.setdefault(token, id)

    def flag(self, name: str, default: bool) -> bool:
        value = self.metadata.get(f"tokenizer.ggml.{name}", default)
        return value if isinstance(value, bool) else default

    def token(self, role: str) -> str | None:
        id = self.metadata.get(f"tokenizer.ggml.{role}_token_id")
        known = isinstance(id, int) and not isinstance(id, bool) and 0 <= id < len(self.tokens)
        return self.tokens[id] if known and id is not None else None

    def pre(self) -> str:
        return self._get("pre", str) if "tokenizer.ggml.pre" in self.metadata else "default"

    def merges(self) -> list[list[str]]:
        pairs = [merge.split(" ", 1) for merge in self._list("merges", str)]
        if not all(
            len(pair) == 2 and pair[0] + pair[1] in self.ids and all(p in self.ids for p in pair) for pair in pairs
        ):
            raise ModelError(f"{self.where}: its tokenizer has merges of tokens that it does not have")
        return pairs

    def scores(self) -> list[float]:
        scores: list[float] = self._list("scores", float)
        if len(scores) != len(self.tokens):
            raise ModelError(f"{self.where}: its tokenizer has {len(self.tokens)} tokens, but {len(scores)} scores")
        return scores

    def added(self) -> list[Json]:
        """Tokens that stand in texts as they are."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        special = {UNKNOWN, CONTROL} if self.model == "llama" else {CONTROL}
        return [
            {"id": id, "content": token, **flags, "special": kind in special}
            for id, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
            if (kind in special or kind == USER_DEFINED) and self.ids[token] == id
        ]

    def _get(self, name: str, kind: type) -> Any:
        value = self.metadata.get(f"tokenizer.ggml.{name}")
        if not isinstance(value, kind):
            raise ModelError(
                f"{self.where} has no tokenizer: tokenizer.ggml.{name} of its metadata is missing or no text"
            )
        return value

    def _list(self, name: str, kind: type) -> list[Any]:
        values = self.metadata.get(f"tokenizer.ggml.{name}", [])
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise ModelError(f"{self.where}: tokenizer.ggml.{name} of its metadata is something else than it should be")
        return values


def make_tokenizer(metadata: Json, where: str) -> tuple[Json, Json]:
    """(tokenizer.json, tokenizer_config.json). where: the file, for messages. Raises ModelError."""
    vocabulary = Vocabulary(metadata, where)
    makers = {"gpt2": _byte_level, "llama": _sentencepiece}
    if vocabulary.model not in makers:
        raise ModelError(
            f"{where} has a tokenizer of kind {printable(vocabulary.model)}: {' and '.join(makers)} are read. Put the "
            "model's own tokenizer.json beside the file"
        )
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": vocabulary.added()}
    return tokenizer | makers[vocabulary.model](vocabulary), _tokenizer_config(vocabulary)


def _byte_level(vocabulary: Vocabulary) -> Json:
    name = vocabulary.pre()
    if name not in PATTERNS:
        raise ModelError(
            f"{vocabulary.where} has a tokenizer that cuts texts as {printable(name)} does, which is not known: put "
            "the model's own tokenizer.json beside the file"
        )
    pattern = PATTERNS[name]
    bytes_to_text = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps: list[Json] = []
    if pattern == "digits":
        steps = [{"type": "Digits", "individual_digits": True}]
    elif pattern is not None:
        steps = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}]
        bytes_to_text["use_regex"] = False
    return {
        "normalizer": {"type": "NFC"} if pattern == QWEN2 and name != "stablelm2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, bytes_to_text]} if steps else bytes_to_text,
        "post_processor": _ends(vocabulary, name in BEGINS),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": name in WHOLE_WORDS,
            "vocab": vocabulary.ids,
            "merges": vocabulary.merges(),
        },
    }


def _sentencepiece(vocabulary: Vocabulary) -> Json:
    prefix = vocabulary.flag("add_space_prefix", True)
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    before = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, space]},
        "pre_tokenizer": None,
        "post_processor": _ends(vocabulary, True),
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": vocabulary.token("unknown"),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary.ids,
            "merges": _merges_of_scores(vocabulary),
        },
    }


def _merges_of_scores(vocabulary: Vocabulary) -> list[list[str]]:
    """Every pair of pieces that makes a piece, the best piece first."""
    ids, found = vocabulary.ids, []
    apart = {id for id, kind in enumerate(vocabulary.kinds) if kind in (UNKNOWN, CONTROL, USER_DEFINED)}
    for id, (piece, score) in enumerate(zip(vocabulary.tokens, vocabulary.scores(), strict=True)):
        if id in apart or len(piece) > 256:
            continue
        for cut in range(1, len(piece)):
            left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
            if left is not None and right is not None:
                found.append((-score, id, left, right, [piece[:cut], piece[cut:]]))
    return [pair for *_, pair in sorted(found)]


def _ends(vocabulary: Vocabulary, begins: bool) -> Json | None:
    """The tokens that the file says texts begin and end with."""
    before = vocabulary.token("bos") if vocabulary.flag("add_bos_token", begins) else None
    after = vocabulary.token("eos") if vocabulary.flag("add_eos_token", False) else None
    if before is None and after is None:
        return None

    def single(kind: str, type_id: int) -> list[Json]:
        text = [{"Sequence": {"id": kind, "type_id": type_id}}]
        first, last = (
            [{"SpecialToken": {"id": token, "type_id": type_id}}] if token else [] for token in (before, after)
        )
        return [*first, *text, *last]

    tokens = {
        token: {"id": token, "ids": [vocabulary.ids[token]], "tokens": [token]} for token in (before, after) if token
    }
    return {
        "type": "TemplateProcessing",
        "single": single("A", 0),
        "pair": [*single("A", 0), *single("B", 1)],
        "special_tokens": tokens,
    }


def _tokenizer_config(vocabulary: Vocabulary) -> Json:
    config: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {role: token for role, name in ROLES.items() if (token := vocabulary.token(name)) is not None}
    template = vocabulary.metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return config
