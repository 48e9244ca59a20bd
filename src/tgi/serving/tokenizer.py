"""Text to token ids and back, from the files of a checkpoint, with the `tokenizers` library alone.

Owns the tokenizer object, its special tokens and the bytes of each token. Does not own incremental
text (`detokenizer`) nor limits (`validation`). Called by `service`, `validation`, `generation`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding
from tokenizers import Tokenizer as FastTokenizer

from tgi.errors import ModelError
from tgi.serving.types import TokenSpan

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
SLOW_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """A loaded tokenizer. Safe to use from several threads; holds no state of a request.

    tokenizer.json alone decides which special tokens surround a text, as in transformers 5: flags such
    as add_bos_token have been carried out in it when it was written.
    """

    def __init__(self, fast: FastTokenizer, config: dict[str, Any] | None = None) -> None:
        """`config`: the content of tokenizer_config.json, with special_tokens_map.json beneath it."""
        self.config = config or {}
        self.fast = fast
        fast.no_truncation()
        fast.no_padding()
        self.named_tokens = {name: text for name in NAMED_TOKENS if (text := _content(self.config.get(name)))}
        """Special tokens by role (bos_token, eos_token ...), as chat templates see them."""
        self.bos_token = self.named_tokens.get("bos_token")
        self.eos_token = self.named_tokens.get("eos_token")
        self.special_ids = _register_special_tokens(fast, list(self.named_tokens.values()))
        self.bos_token_id = None if self.bos_token is None else fast.token_to_id(self.bos_token)
        self.eos_token_id = None if self.eos_token is None else fast.token_to_id(self.eos_token)
        self.vocab_size = fast.get_vocab_size(with_added_tokens=True)
        self.added = {id: token.content for id, token in fast.get_added_tokens_decoder().items()}
        self.special_texts = frozenset(self.added[id] for id in self.special_ids if self.added.get(id))
        self.longest_token = max((len(token.encode()) for token in fast.get_vocab()), default=1)
        """Bytes of the longest vocabulary entry."""
        steps = [] if fast.decoder is None else _flatten(json.loads(fast.decoder.__getstate__()))
        self._piece_bytes = _piece_decoder(steps)
        self.strips_first_space = any(map(_strips_first_space, steps))
        """Whether the space before the first word of a text is the tokenizer's and not the text's."""
        self._bytes: dict[int, bytes] = {}
        self._added_ids = _added_ids(fast)

    @classmethod
    def load(cls, model_path: str | Path, tokenizer_config_path: str | Path | None = None) -> Tokenizer:
        """Read tokenizer.json, tokenizer_config.json and special_tokens_map.json of a directory.

        Raises ModelError when there is no tokenizer.json (see `ensure_fast_tokenizer`), or it cannot be read or used.
        """
        path = Path(model_path)
        file = path / "tokenizer.json"
        if not file.is_file():
            slow = next((name for name in SLOW_FILES if (path / name).is_file()), None)
            found = f"only {slow}, which must be converted first" if slow else "no other tokenizer file either"
            raise ModelError(f"{path} has no tokenizer.json ({found})")
        try:
            fast = FastTokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{file} cannot be read: {error}") from error
        stated = read_json(Path(tokenizer_config_path) if tokenizer_config_path else path / "tokenizer_config.json")
        config = read_json(path / "special_tokens_map.json")
        return cls(fast, config | {name: value for name, value in stated.items() if value is not None})

    @property
    def model_max_length(self) -> int | None:
        """Longest input the tokenizer's author states; None when not stated (transformers writes 1e30 for that)."""
        value = self.config.get("model_max_length")
        return int(value) if isinstance(value, (int, float)) and 0 < value < 1e9 else None

    @property
    def byte_exact(self) -> bool:
        """Whether the bytes of each token are known, so that text is their plain concatenation."""
        return self._piece_bytes is not None

    def encode(self, text: str, add_special_tokens: bool = True, truncate: int | None = None) -> list[int]:
        """Token ids of a text; `truncate` keeps the last N, counting and keeping BOS when it is added.

        Holds no interpreter lock while it works, so call it from a thread for long texts.
        """
        ids = self.fast.encode_batch_fast([text], add_special_tokens=False)[0].ids
        before, after = self._added_ids if add_special_tokens else ([], [])
        if truncate is not None:
            # Slicing, since `Encoding.truncate` also builds every piece it cuts off. At least one token
            # of the text itself must stay: BOS alone is nobody's prompt.
            added = len(before) + len(after)
            if truncate <= added:
                return ids[-truncate:]
            ids = ids[-(truncate - added) :]
        return before + ids + after

    def spans(self, text: str, add_special_tokens: bool = True) -> list[TokenSpan]:
        """Tokens with their byte offsets in `text`; a token without source text has "" and 0, 0."""
        encoding = self.fast.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        byte_at = [0, *accumulate(len(character.encode()) for character in text)]
        return [
            TokenSpan(id, text[start:stop], byte_at[start], byte_at[stop]) if stop > start else TokenSpan(id, "", 0, 0)
            for id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
        ]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of complete token ids, never "cleaned up"."""
        return self.fast.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def is_special(self, id: int) -> bool:
        return id in self.special_ids

    def token_bytes(self, id: int) -> bytes:
        """The bytes a token adds to a text; empty for an id without a token."""
        known = self._bytes.get(id)
        if known is None:
            known = self._bytes[id] = self._compute_bytes(id)
        return known

    def _compute_bytes(self, id: int) -> bytes:
        content = self.added.get(id)
        if content is not None:
            return content.encode()  # an added token stands for its own text, whatever the decoder makes of it
        piece = self.fast.id_to_token(id)
        if piece is None:
            return b""
        return self._piece_bytes(piece) if self._piece_bytes else self.fast.decode([id]).encode()


def ensure_fast_tokenizer(model_path: str | Path, timeout: float = 600.0) -> Path:
    """Give the directory's tokenizer.json, converting another tokenizer format into it if need be.

    The conversion needs transformers, so it runs as a short-lived command. Raises ModelError.
    """
    file = Path(model_path) / "tokenizer.json"
    if file.is_file() or not any((Path(model_path) / name).is_file() for name in SLOW_FILES):
        return file
    command = [sys.executable, "-m", "tgi.launcher.convert_tokenizer", str(model_path)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"converting the tokenizer of {model_path} took more than {timeout:.0f} s") from error
    if result.returncode != 0 or not file.is_file():
        reason = result.stderr.strip().rpartition("\n")[2] or f"exit status {result.returncode}"
        raise ModelError(f"the tokenizer of {model_path} cannot be converted to tokenizer.json: {reason}")
    return file


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file. Raises ModelError when it is not one."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return content


def _content(token: Any) -> str | None:
    """A special token is written as a string or as {"content": ...}."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def _register_special_tokens(fast: FastTokenizer, named: list[str]) -> frozenset[int]:
    """Make named tokens of the vocabulary special, as transformers does, and give all special ids."""
    special = {token.content for token in fast.get_added_tokens_decoder().values() if token.special}
    missing = [AddedToken(t, special=True, normalized=False) for t in named if t not in special and _known(fast, t)]
    if missing:
        fast.add_special_tokens(missing)
    ids = {id for id, token in fast.get_added_tokens_decoder().items() if token.special}
    return frozenset(ids | {id for token in named if (id := fast.token_to_id(token)) is not None})


def _known(fast: FastTokenizer, token: str) -> bool:
    return fast.token_to_id(token) is not None


def _piece_decoder(steps: list[dict[str, Any]]) -> Callable[[str], bytes] | None:
    """How one vocabulary entry turns into bytes, or None when the decoder works on more than one at once.

    Removal of the first space of a whole text is left out: a generated text continues a prompt.
    """
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        alphabet = _byte_level_alphabet()
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


def _flatten(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [step for part in decoder["decoders"] for step in _flatten(part)]


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


def _strips_first_space(step: dict[str, Any]) -> bool:
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


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's mapping of printable characters to bytes: printable Latin-1 stands for itself, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _added_ids(fast: FastTokenizer) -> tuple[list[int], list[int]]:
    """The special ids that the post-processor puts before and after a text."""
    content = _any_encoding(fast)
    whole = fast.post_process(content, add_special_tokens=True)
    added = whole.special_tokens_mask
    if 0 not in added:  # a post-processor that drops the text
        return [], []
    first = added.index(0)
    return whole.ids[:first], whole.ids[first + len(content.ids) :]


def _any_encoding(fast: FastTokenizer) -> Encoding:
    """At least one token without special ones around it, of "a" or, if that cannot be written, of any text.

    Raises ModelError when nothing can be encoded.
    """
    texts = chain(["a"], (fast.decode([id], skip_special_tokens=False) for id in fast.get_vocab().values()))
    for text in texts:
        try:
            encoding = fast.encode_batch_fast([text], add_special_tokens=False)[0]
        except Exception:  # the library raises bare Exception for text outside of a vocabulary without an unknown token
            continue
        if encoding.ids:
            return encoding
    raise ModelError("tokenizer.json cannot encode a single token of its own vocabulary")
