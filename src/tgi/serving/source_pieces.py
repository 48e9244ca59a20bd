"""Text to ids where pieces of a SentencePiece model have ids of their own in a vocabulary beside it (M2M100, Marian).

Such tokenizers have two sides: what a text becomes is told by the source's model and vocabulary, what an id means by
the target's vocabulary, which is in tokenizer.json. Owns the first. Special tokens are cut out of a text before, as in
transformers' Python classes (5.24), of which `hub.piece_table` makes the table that is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tgi.errors import ModelError
from tgi.json_files import read_json
from tgi.untrusted import check_file, printable

FILE = "tokenizer_pieces.json"
"""Name of the table, beside tokenizer.json."""


class AddedPiece(msgspec.Struct, frozen=True):
    """A token that is found in a text before it is cut into pieces."""

    content: str
    id: int
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class PieceTable(msgspec.Struct, frozen=True):
    """How a text becomes ids; the content of `FILE`."""

    model: str
    """File with the SentencePiece model."""
    vocabulary: str
    """File with piece -> id."""
    unknown: int
    """Id of what the vocabulary lacks."""
    added: list[AddedPiece]
    languages: dict[str, int] = {}
    """Tokens of languages, which have ids and need not be found in texts."""
    codes: bool = False
    """A text may begin with a language in the form of `>>fra<<`."""


@dataclass(slots=True)
class _Segment:
    text: str
    start: int
    added: AddedPiece | None = None


class SourcePieces:
    """Encodes texts. Safe to use from several threads."""

    def __init__(self, table: PieceTable, vocabulary: Mapping[str, int], processor: Any) -> None:
        """processor: a `sentencepiece.SentencePieceProcessor`."""
        self._table, self._vocabulary, self._processor = table, vocabulary, processor
        self._added = {one.content: one for one in table.added if one.content}
        texts = sorted(self._added, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, texts))) if texts else None

    @classmethod
    def load(cls, directory: Path) -> SourcePieces | None:
        """Of a checkpoint that has a table; None for others. Raises ModelError."""
        file = directory / FILE
        if not file.is_file():
            return None
        check_file(file)
        try:
            table = msgspec.json.decode(file.read_bytes(), type=PieceTable)
        except (OSError, msgspec.DecodeError) as error:
            where = printable(file)
            raise ModelError(f"{where} cannot be read: {printable(error)}; remove it, and tokenizer.json") from None
        for name in (table.model, table.vocabulary):
            if not name or Path(name).name != name:
                raise ModelError(f"{printable(file)} names {printable(name)}, which is not a file of its directory")
        vocabulary = read_json(directory / table.vocabulary)
        if not all(type(id) is int and id >= 0 for id in vocabulary.values()) or not vocabulary:
            raise ModelError(f"{printable(directory / table.vocabulary)} does not map pieces to ids")
        return cls(table, vocabulary, _processor(directory / table.model))

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = []
        for segment in self._segments(text):
            if segment.added is not None:
                ids.append(segment.added.id)
                continue
            code, rest = self._code(segment.text)
            pieces = self._processor.encode([rest], out_type=str)[0]  # of a list: other threads run meanwhile
            ids += map(self._id, [*([code] if code else []), *pieces])
        return ids

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """Id, first byte and the one after the last of each token of a text."""
        found: list[tuple[int, int, int]] = []
        at = start = 0
        for segment in self._segments(text):
            at, start = segment.start, start + len(text[at : segment.start].encode())
            if segment.added is not None:
                found.append((segment.added.id, start, start + len(segment.text.encode())))
                continue
            code, rest = self._code(segment.text)
            place = start + len(code.encode())
            if code:
                found.append((self._id(code), start, place))
            for piece in self._processor.encode(rest, out_type="proto").pieces:
                found.append((self._id(piece.piece), place + piece.begin, place + piece.end))
        return found

    def token_id(self, text: str) -> int | None:
        """The id of a whole token, special or not."""
        if text in self._added:
            return self._added[text].id
        return self._table.languages.get(text, self._vocabulary.get(text))

    def _id(self, piece: str) -> int:
        id = self.token_id(piece)
        return self._table.unknown if id is None else id

    def _code(self, text: str) -> tuple[str, str]:
        """The language that a text begins with, and the rest."""
        end = text.find("<<") if self._table.codes and text.startswith(">>") else -1
        return ("", text) if end < 0 else (text[: end + 2], text[end + 2 :])

    def _segments(self, text: str) -> Iterator[_Segment]:
        """The text cut at added tokens, without what these take from their neighbours, and without empty parts."""
        parts = list(self._cut(text))
        for number, part in enumerate(parts):
            token = part.added
            if token is None:
                continue
            left = parts[number - 1] if number else None
            right = parts[number + 1] if number + 1 < len(parts) else None
            if token.rstrip and right is not None and right.text:
                stripped = right.text.lstrip()
                right.start += len(right.text) - len(stripped)
                right.text = stripped
            if token.lstrip and left is not None:
                left.text = left.text.rstrip()
            if token.single_word:
                _join_words(left, part, right)
        return (part for part in parts if part.text)

    def _cut(self, text: str) -> Iterator[_Segment]:
        at = 0
        for match in self._split.finditer(text) if self._split else ():
            if match.start() > at:
                yield _Segment(text[at : match.start()], at)
            yield _Segment(match[0], match.start(), self._added[match[0]])
            at = match.end()
        if at < len(text):
            yield _Segment(text[at:], at)


def _join_words(left: _Segment | None, part: _Segment, right: _Segment | None) -> None:
    """A token that is to be a word of its own, and is a part of one, is text like any other."""
    if left is not None and left.text and not left.text.endswith(" "):
        left.text, left.added, part.text = left.text + part.text, None, ""
    elif right is not None and right.text and not right.text.startswith(" "):
        right.text, right.start, right.added, part.text = part.text + right.text, part.start, None, ""


def _processor(file: Path) -> Any:
    check_file(file)
    try:
        import sentencepiece  # only few models need it

        return sentencepiece.SentencePieceProcessor(model_file=str(file))
    except ImportError:
        raise ModelError(f"{printable(file.name)} needs the package sentencepiece: pip install sentencepiece") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{printable(file)} is not a SentencePiece model: {printable(error)}") from None
