"""Incremental text: whatever the tokens, the stream adds up to the text, and no character is torn."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import small_tokenizers as build
from tgi.serving.detokenizer import Detokenizer
from tgi.serving.tokenizer import Tokenizer

BYTE_LEVEL = build.tokenizer(build.byte_level())
SENTENCEPIECE = build.tokenizer(build.sentencepiece())
WORD_PIECE = build.tokenizer(build.word_piece())


def pieces(tokenizer: Tokenizer, ids: list[int], context: list[int] | None = None) -> list[str]:
    detokenizer = Detokenizer(tokenizer, context)
    return [detokenizer.step(id) for id in ids]


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCEPIECE], ids=["byte level", "sentencepiece"])
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\u2581")))
def test_stream_adds_up_to_the_text(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids) == text


@given(st.lists(st.integers(4, 259)), st.booleans())
@example([173, 98], False)
@example([173, 130], False)
def test_any_bytes_read_as_one_decode(ids, prompted):
    """Byte-level: random bytes, most of them invalid, equal the decoding of all, but for an incomplete end."""
    data = b"".join(BYTE_LEVEL.token_bytes(id) for id in ids)
    stream = "".join(pieces(BYTE_LEVEL, ids, [5] if prompted else None))
    whole = data.decode(errors="replace")
    assert whole == BYTE_LEVEL.decode(ids)
    missing = whole.removeprefix(stream)
    assert stream + missing == whole
    surrogate = len(data) > 1 and data[-2] == 0xED and 0xA0 <= data[-1] < 0xC0  # held back, too
    assert missing in ("", "\ufffd\ufffd" if surrogate else "\ufffd")
    assert (missing == "") == (not incomplete_end(data))


@given(st.lists(st.sampled_from("aé€🎉 \ufffd"), min_size=1), st.data())
def test_no_replacement_character_in_valid_text(characters, data):
    """Byte fallback, cut anywhere: no U+FFFD that the text does not have, and nothing after the cut."""
    raw = "".join(characters).encode()
    cut = data.draw(st.integers(0, len(raw)))
    ids = [SENTENCEPIECE.fast.token_to_id(f"<0x{byte:02X}>") for byte in raw[:cut]]
    assert "".join(pieces(SENTENCEPIECE, ids, [300])) == raw[:cut].decode(errors="ignore")


def incomplete_end(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return bool(decoder.getstate()[0])


def test_empty_until_the_character_is_whole():
    ids = BYTE_LEVEL.encode("🎉x", add_special_tokens=False)
    assert pieces(BYTE_LEVEL, ids) == ["", "", "", "🎉", "x"]
    assert pieces(BYTE_LEVEL, ids[:3]) == ["", "", ""]


def test_special_tokens_show_and_do_not_disturb():
    first, *rest = BYTE_LEVEL.encode("é", add_special_tokens=False)
    assert pieces(BYTE_LEVEL, [first, 1, *rest]) == ["", "</s>", "é"]


def test_an_incomplete_prompt_is_completed():
    *start, last = BYTE_LEVEL.encode("é", add_special_tokens=False)
    assert pieces(BYTE_LEVEL, [last], context=start) == ["é"]


def test_the_space_before_a_continuing_word_stays():
    prompt = SENTENCEPIECE.encode("hello")
    ids = SENTENCEPIECE.encode("world", add_special_tokens=False)
    assert pieces(SENTENCEPIECE, ids, prompt) == [" world"]
    assert pieces(SENTENCEPIECE, prompt + ids) == ["<s>", "hello", " world"]


@settings(max_examples=50)
@given(st.lists(st.sampled_from([*build.WORDS.split(), "dogs", "it's", "."]), min_size=1), st.booleans())
def test_window_decoder_adds_up(words, prompted):
    context = WORD_PIECE.encode("hello the") if prompted else []
    ids = WORD_PIECE.encode(" ".join(words))
    whole = WORD_PIECE.decode(context + ids).removeprefix(WORD_PIECE.decode(context))
    assert "".join(pieces(WORD_PIECE, ids, context)) == whole


def test_window_decoder_on_bytes_holds_no_more_than_a_character():
    """The same bytes through the window: incomplete characters wait, invalid ones do not wait for ever."""
    tokenizer = build.tokenizer(build.byte_level())
    tokenizer._piece_bytes = None
    ids = tokenizer.encode("aé🎉b", add_special_tokens=False)
    assert pieces(tokenizer, ids) == ["a", "", "é", "", "", "", "🎉", "b"]
    invalid = [id for id in range(4, 260) if BYTE_LEVEL.token_bytes(id) == b"\xff"] * 12
    assert "".join(pieces(tokenizer, invalid)) == "\ufffd" * 12


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, WORD_PIECE])
def test_ids_without_a_token_add_nothing(tokenizer):
    known = tokenizer.encode("hello", add_special_tokens=False)
    assert "".join(pieces(tokenizer, [10**6] * 100 + known)) == "hello"


def test_texts_that_clean_up_would_change():
    for text in (" 'm", " n't .", "do n't", " 's , !"):
        ids = BYTE_LEVEL.encode(text, add_special_tokens=False)
        assert "".join(pieces(BYTE_LEVEL, ids, [5])) == text
