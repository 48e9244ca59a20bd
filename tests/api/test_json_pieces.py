"""Bodies read in pieces: the same values and errors as from the decoder in one go."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from tgi.api.tgi.types import GenerateParameters
from tgi.api.wire import json_pieces
from tgi.api.wire.json_pieces import decode_in_pieces, take_apart


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that short texts are cut everywhere."""
    monkeypatch.setattr(json_pieces, "FEW_VALUES", 0)
    monkeypatch.setattr(json_pieces, "PIECE_BYTES", 3)


def outcome(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return f"refused: {type(error).__mro__[-4:]}"


def random_value(random: random.Random, depth: int) -> Any:
    kind = random.randrange(7 if depth else 4)
    if kind == 0:
        return random.choice([None, True, False, 0, -1, 2**63, 1.5, -1e300])
    if kind <= 3:
        return "".join(random.choices('ab",[]{}\\\n: éß😀', k=random.randrange(9)))
    if kind == 4:
        return [random_value(random, depth - 1) for _ in range(random.randrange(6))]
    names = "".join(random.choices('ab"]}', k=2))
    return {names + str(number): random_value(random, depth - 1) for number in range(random.randrange(6))}


def test_values_are_those_of_the_decoder() -> None:
    for seed in range(500):
        source = random.Random(seed)
        value = [random_value(source, 5), random_value(source, 6)]
        text = json.dumps(value, ensure_ascii=source.random() < 0.5, indent=source.choice([None, 1]))
        assert decode_in_pieces(text.encode()) == value


def test_damaged_bodies_are_refused_as_by_the_decoder() -> None:
    for seed in range(3000):
        source = random.Random(seed)
        text = bytearray(json.dumps(random_value(source, 5)).encode())
        for _ in range(source.randrange(1, 3)):
            place = source.randrange(len(text) + 1)
            damage = source.choice([b"", b",", b"]", b"[", b"{", b"}", b'"', b"1", b"\\", b" "])
            text[place : place + source.randrange(2)] = damage
        body = bytes(text)
        assert outcome(decode_in_pieces, body) == outcome(msgspec.json.decode, body), body


@pytest.mark.parametrize(
    "body",
    [
        b'["aaaa","bbbb",,1]', b'["aaaa","bbbb"', b'["aaaa","bbbb" 2]', b'{"aaaa":1,"bbbb":2,}', b'["aaaa","bbbb"]]',
        b'["aaaa","bbbb"}', b'["aaaa","b', b'["aaaa","bbbb",]', b',"aaaa"', b'["aaaa","bbbb"]x',
        b'{"aaaa":[1234] [2345]}',
        b'[["aaaa"]["bbbb"]]', b'["aaaa","bbbb",NaN]', b'["aaaa","bbbb","\\x"]', b'{"aaaa":1,"bbbb" 2}',
        b"", b'{"aaaa":1,2:3}',
        b'["aaaa","bbbb",01]', b"  1 2", b'"aaaa" []',
    ],
)  # fmt: skip
def test_sentences_are_those_of_the_decoder(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError) as expected:
        msgspec.json.decode(body)
    with pytest.raises(msgspec.DecodeError) as given:
        decode_in_pieces(body)
    assert str(given.value) == str(expected.value)


def test_numbers_beyond_a_double_and_broken_text_are_refused() -> None:
    with pytest.raises(msgspec.DecodeError, match=r"^Number out of range$"):
        decode_in_pieces(b'["aaaa", [1, 2, 1e999]]')
    with pytest.raises((UnicodeDecodeError, msgspec.DecodeError), match=r"(?i)utf-8"):  # msgspec's own since 0.23
        decode_in_pieces(b'["aaaa", "\xff"]')
    for depth in (2_000, 200_000):
        with pytest.raises(RecursionError):
            decode_in_pieces(b"[" * depth + b"]" * depth)


def test_names_that_come_twice_count_once() -> None:
    body = b'{"aaaa": [1, 2, 3], "b": 1, "aaaa": {"c": [4, 5, 6]}, "b": [7, 8, 9]}'
    assert decode_in_pieces(body) == msgspec.json.decode(body) == {"aaaa": {"c": [4, 5, 6]}, "b": [7, 8, 9]}


def test_what_is_taken_apart_is_empty() -> None:
    items, names = list(range(5_000)), {str(number): [number] for number in range(3_000)}
    stop = ["a"] * 2_500
    model = GenerateParameters.model_construct(stop=stop)
    take_apart([{"a": [items, {"b": names}]}, "text", model, None])
    assert (items, names, stop) == ([], {}, [])
