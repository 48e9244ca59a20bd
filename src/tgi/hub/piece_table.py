"""tokenizer.json and the table of pieces for tokenizers that transformers has only Python classes for (M2M100, Marian).

tokenizer.json then says what ids mean, which is the target's side, and the table how a text becomes ids, which is the
source's; see `serving.source_pieces`. Works on an object of transformers, and imports none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from tgi.serving.source_pieces import FILE, AddedPiece, PieceTable

_SPACE = "\u2581"


@dataclass(frozen=True, slots=True)
class _Kind:
    """What distinguishes a class."""

    model: str
    """Attribute with the path of the source's SentencePiece model."""
    codes: bool


KINDS = {"M2M100Tokenizer": _Kind("spm_file", False), "MarianTokenizer": _Kind("spm_files", True)}
VOCABULARY = "vocab.json"


def texts_of(tokenizer: Any) -> dict[str, str] | None:
    """File name -> content for a tokenizer of transformers; None for a class that this does not know."""
    kind = KINDS.get(type(tokenizer).__name__)
    if kind is None:
        return None
    model = getattr(tokenizer, kind.model)
    table = PieceTable(
        model=Path(model if isinstance(model, str) else model[0]).name,
        vocabulary=VOCABULARY,
        unknown=tokenizer.encoder[str(tokenizer.unk_token)],
        added=[
            AddedPiece(token.content, id, token.lstrip, token.rstrip, token.single_word)
            for id, token in tokenizer.added_tokens_decoder.items()
        ],
        languages=_languages(tokenizer),
        codes=kind.codes,
    )
    return {FILE: msgspec.json.encode(table).decode(), "tokenizer.json": _target(tokenizer).to_str()}


def _target(tokenizer: Any) -> Tokenizer:
    """What ids mean. Of a text it makes whole words: good enough for a text of calibration."""
    vocabulary = _meanings(tokenizer)
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token=str(tokenizer.unk_token)))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always")
    fast.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    added |= dict.fromkeys(_languages(tokenizer), True)
    known = {text: special for text, special in added.items() if text in vocabulary}
    fast.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in known.items()])
    around = tokenizer.build_inputs_with_special_tokens([-1])
    names = {id: "$A" if id == -1 else tokenizer.convert_ids_to_tokens(id) for id in around}
    fast.post_processor = processors.TemplateProcessing(
        single=[names[id] for id in around], special_tokens=[(name, id) for id, name in names.items() if id != -1]
    )
    return fast


def _languages(tokenizer: Any) -> dict[str, int]:
    """M2M100's tokens of languages: their ids follow those of the vocabulary."""
    return dict(getattr(tokenizer, "lang_token_to_id", {}))


def _meanings(tokenizer: Any) -> dict[str, int]:
    """Token -> id on the target's side: its vocabulary, and added tokens that it leaves room for."""
    decoder: Mapping[int, str] = tokenizer.decoder
    meanings = {token: id for id, token in decoder.items()}
    added = {token.content: id for id, token in tokenizer.added_tokens_decoder.items()}
    for text, id in {**added, **_languages(tokenizer)}.items():
        if id not in decoder and text not in meanings:
            meanings[text] = id
    return meanings
