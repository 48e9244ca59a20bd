"""Text to token ids and back, from the files of a checkpoint, with the `tokenizers` library alone.

Owns the tokenizer object, its special ids and the bytes of each token. Does not own which special tokens there are
(`special_tokens`), what a tokenizer class changes (`tokenizer_class`), incremental text (`detokenizer`) nor limits
(`validation`).
"""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

from tgi.errors import ModelError
from tgi.json_files import read_json
from tgi.serving import tokenizer_class
from tgi.serving.long_texts import LongTexts
from tgi.serving.piece_bytes import flatten, piece_decoder, strips_first_space
from tgi.serving.source_pieces import SourcePieces
from tgi.serving.spans import TokenSpans
from tgi.serving.special_tokens import SpecialTokens, TokenFiles, merge, register
from tgi.serving.tokenizer_growth import check_growth
from tgi.serving.tokenizer_library import TokenizerError, guarded, without_panics
from tgi.serving.tokenizer_threads import LONG_TEXT

logger = logging.getLogger(__name__)

SLOW_FILES = (
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm", "tekken.json", "vocab.json", "vocab.txt"
)  # fmt: skip
"""Tokenizers of other formats, of which `hub.convert_tokenizer` makes a tokenizer.json."""
SHORT = 1_000
"""Token ids that are decoded in the place of whoever asks."""
PRINTABLE = string.printable[:-2]
PROBES = tuple(character * 48 + end for character in PRINTABLE for end in ("", "\u00a7" + PRINTABLE))
"""Texts that every tokenizer must be able to split: runs are what lets patterns backtrack."""


class Tokenizer:
    """A loaded tokenizer. Safe to use from several threads; holds no state of a request.

    tokenizer.json alone decides which special tokens surround a text, as in transformers 5: flags such
    as add_bos_token have been carried out in it when it was written.
    """

    def __init__(
        self,
        fast: FastTokenizer,
        config: Mapping[str, Any] | None = None,
        files: TokenFiles | None = None,
        source: SourcePieces | None = None,
    ) -> None:
        """`config`: the content of tokenizer_config.json; `files`: the same with the other files.

        `source`: makes ids of texts, in place of `fast`.
        """
        self._source = source
        self.fast, self.special = assemble(fast, files or TokenFiles(config or {}))
        fast = self.fast
        self.named_tokens = {role: str(token) for role, token in self.special.named.items()}
        """Special tokens by role (bos_token, eos_token ...), as chat templates see them."""
        self.bos_token = self.named_tokens.get("bos_token")
        self.eos_token = self.named_tokens.get("eos_token")
        self.bos_token_id = None if self.bos_token is None else fast.token_to_id(self.bos_token)
        self.eos_token_id = None if self.eos_token is None else fast.token_to_id(self.eos_token)
        self.vocab_size = fast.get_vocab_size(with_added_tokens=True)
        self.added = {id: token.content for id, token in fast.get_added_tokens_decoder().items()}
        self.special_ids = self._special_ids()
        self.special_texts = frozenset(self.added[id] for id in self.special_ids if self.added.get(id))
        self.longest_token = max((len(token.encode()) for token in fast.get_vocab()), default=1)
        """Bytes of the longest vocabulary entry."""
        steps = [] if fast.decoder is None else flatten(json.loads(fast.decoder.__getstate__()))
        self._piece_bytes = piece_decoder(steps)
        self.strips_first_space = any(map(strips_first_space, steps))
        """Whether the space before the first word of a text is the tokenizer's and not the text's."""
        self._bytes: dict[int, bytes] = {}
        self.around = _added_ids(fast)
        """The special ids that go before and after a text."""
        self.long_texts: LongTexts | None = None
        """Who tokenises those, where it must not hold up other threads."""

    @classmethod
    def load(cls, model_path: str | Path, tokenizer_config_path: str | Path | None = None) -> Tokenizer:
        """Read tokenizer.json and the small files about special tokens of a directory.

        Raises ModelError when there is no tokenizer.json (`hub.convert_tokenizer` makes one), or a file cannot be
        read or used.
        """
        path = Path(model_path)
        file = path / "tokenizer.json"
        if not file.is_file():
            slow = next((name for name in SLOW_FILES if (path / name).is_file()), None)
            found = f"only {slow}, which must be converted first" if slow else "no other tokenizer file either"
            raise ModelError(f"{path} has no tokenizer.json ({found})")
        if tokenizer_config_path and not Path(tokenizer_config_path).is_file():
            raise ModelError(f"--tokenizer-config-path: there is no file {tokenizer_config_path}")
        files = TokenFiles(
            config=read_json(Path(tokenizer_config_path) if tokenizer_config_path else path / "tokenizer_config.json"),
            special_map=read_json(path / "special_tokens_map.json"),
            added=read_json(path / "added_tokens.json"),
            model_config=read_json(path / "config.json"),
        )
        source = SourcePieces.load(path)
        try:
            with without_panics():
                fast = guarded(FastTokenizer.from_file, str(file))
                check_growth(fast)
                tokenizer = cls(fast, files=files, source=source)
                tokenizer.probe()
        except TokenizerError as error:
            raise ModelError(f"{file} cannot be read: {error}") from error
        return tokenizer

    def probe(self) -> None:
        """Refuse a tokenizer whose patterns give up on simple texts. Raises ModelError."""
        for text in PROBES:
            try:
                guarded(self.fast.encode_batch_fast, [text], add_special_tokens=False)
            except TokenizerError as error:
                if "too many steps" in str(error):  # a text outside of the vocabulary may well be refused
                    raise ModelError(f"tokenizer.json cannot be used: for the text {text[:8]!r}..., {error}") from error

    @property
    def model_max_length(self) -> int | None:
        """Longest input the tokenizer's author states; None when not stated (transformers writes 1e30 for that)."""
        value = self.special.settings.get("model_max_length")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return int(value) if 0 < value < 1e9 else None

    @property
    def byte_exact(self) -> bool:
        """Whether the bytes of each token are known, so that text is their plain concatenation."""
        return self._piece_bytes is not None

    def encode(self, text: str, add_special_tokens: bool = True, truncate: int | None = None) -> list[int]:
        """Token ids of a text; `truncate` keeps the last N, counting and keeping BOS when it is added.

        Holds no interpreter lock while it works, so call it from a thread for long texts. Raises TokenizerError.
        """
        ids = self._content_ids(text)
        before, after = self.around if add_special_tokens else ([], [])
        if truncate is not None:
            # Slicing, since `Encoding.truncate` also builds every piece it cuts off. At least one token
            # of the text itself must stay: BOS alone is nobody's prompt.
            added = len(before) + len(after)
            if truncate <= added:
                return ids[-truncate:]
            ids = ids[-(truncate - added) :]
        return before + ids + after

    def spans(self, text: str, add_special_tokens: bool = True) -> TokenSpans:
        """Tokens with their byte offsets in `text`. Raises TokenizerError."""
        if self.long_texts is not None and len(text) >= LONG_TEXT:
            spans = self.long_texts.spans(text, add_special_tokens)
            if spans is not None:
                return spans
        if self._source is None:
            encoding = guarded(self.fast.encode_batch, [text], add_special_tokens=add_special_tokens)[0]
            return TokenSpans.of(text, encoding)
        before, after = self.around if add_special_tokens else ([], [])
        found = guarded(self._source.spans, text)
        around = [[(id, 0, 0) for id in ids] for ids in (before, after)]
        tokens = [*around[0], *found, *around[1]]
        return TokenSpans(text, [id for id, _, _ in tokens], ((start, stop) for _, start, stop in tokens))

    def token_id(self, text: str) -> int | None:
        """The id of the token that is written so in inputs; None where there is none."""
        return self.fast.token_to_id(text) if self._source is None else self._source.token_id(text)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of complete token ids, never "cleaned up"."""
        if len(ids) <= SHORT:
            return guarded(self.fast.decode, list(ids), skip_special_tokens=skip_special_tokens)
        # Unlike `decode` it lets other threads run meanwhile.
        return guarded(self.fast.decode_batch, [list(ids)], skip_special_tokens=skip_special_tokens)[0]

    def is_special(self, id: int) -> bool:
        return id in self.special_ids

    def token_text(self, id: int) -> str:
        """A token as it stands in text, for messages."""
        return self.token_bytes(id).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes a token adds to a text; empty for an id without a token."""
        known = self._bytes.get(id)
        if known is None:
            known = self._bytes[id] = self._compute_bytes(id)
        return known

    def _content_ids(self, text: str) -> list[int]:
        """Token ids of a text without special ones around it. Raises TokenizerError."""
        if self.long_texts is not None and len(text) >= LONG_TEXT:
            ids = self.long_texts.ids(text, add_special_tokens=False)
            if ids is not None:
                return ids
        if self._source is not None:
            return guarded(self._source.encode, text)
        return guarded(self.fast.encode_batch_fast, [text], add_special_tokens=False)[0].ids

    def _special_ids(self) -> frozenset[int]:
        """Tokens that tokenizer.json calls special, and all that have a role."""
        special = {id for id, token in self.fast.get_added_tokens_decoder().items() if token.special}
        named = (self.fast.token_to_id(token) for token in self.named_tokens.values())
        return frozenset(special | {id for id in named if id is not None})

    def _compute_bytes(self, id: int) -> bytes:
        content = self.added.get(id)
        if content is not None:
            return content.encode()  # an added token stands for its own text, whatever the decoder makes of it
        piece = self.fast.id_to_token(id)
        if piece is None:
            return b""
        return self._piece_bytes(piece) if self._piece_bytes else self.decode([id]).encode()


def assemble(fast: FastTokenizer, files: TokenFiles) -> tuple[FastTokenizer, SpecialTokens]:
    """The tokenizer that transformers makes of a tokenizer.json and the files beside it. Raises ModelError."""
    name = tokenizer_class.class_of(files, fast)
    padding = fast.padding
    defaults: dict[str, str | None] = {"pad_token": padding["pad_token"]} if padding else {}
    defaults |= tokenizer_class.defaults_of(name)
    tokens = merge(files, fast.get_added_tokens_decoder(), defaults)
    if name in tokenizer_class.KEPT_CLASSES:
        name = None
    if name is not None:
        fast = tokenizer_class.rebuild(fast, name, tokens)
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = bool(tokens.settings.get("split_special_tokens"))
    register(fast, tokens)
    if name is not None:
        tokenizer_class.finish(fast, name, tokens)
    tokenizer_class.mend_mistral(fast, files)
    return fast, tokens


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
    for text in chain(["a"], _vocabulary_texts(fast)):
        try:
            encoding = guarded(fast.encode_batch_fast, [text], add_special_tokens=False)[0]
        except TokenizerError:  # text outside of a vocabulary without an unknown token
            continue
        if encoding.ids:
            return encoding
    raise ModelError("tokenizer.json cannot encode a single token of its own vocabulary")


def _vocabulary_texts(fast: FastTokenizer) -> Iterator[str]:
    for id in fast.get_vocab(with_added_tokens=False).values():  # slow, so only when it is needed
        yield fast.decode([id], skip_special_tokens=False)
