"""The decoder of event streams: any cut, any line end, with or without the space, comments between."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from conftest import Talk
from fake_server import FakeServer, stream_answer
from hypothesis import given
from hypothesis import strategies as st

from text_generation.streaming import EventDecoder


def decode(*chunks: bytes) -> list[str]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + list(decoder.close())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


# Text as JSON escapes it: no line ends, but U+2028 and friends, at which str.splitlines would break a line.
payloads = st.lists(st.text().map(lambda text: json.dumps(text, ensure_ascii=False)), max_size=5)


@given(
    events=payloads,
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    space=st.booleans(),
    comment=st.sampled_from([b"", b":", b": keep-alive", b"event: message", b"id: 7", b"retry"]),
    places=st.lists(st.integers(0, 10_000), max_size=20),
)
def test_any_framing_gives_the_same_events(
    events: list[str], line_end: bytes, space: bool, comment: bytes, places: list[int]
) -> None:
    events = [event for event in events if event < "\ud800" or event.isprintable() or True]
    prefix = b"data: " if space else b"data:"
    stream = b""
    for event in events:
        stream += comment + line_end * (2 if comment.startswith(b":") else 1)
        stream += prefix + event.encode() + line_end * 2
    assert decode(*cut(stream, places)) == events
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == events


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data:  a\n\n", [" a"]),
        (b"data\n\n", [""]),
        (b"\n\n\n: x\n\n", []),
        (b"database: a\n\n", []),
        (b"data: a", ["a"]),
        (b"data: a\r\r\ndata: b\r\r", ["a", "b"]),
        (b"", []),
    ],
)
def test_the_rules_of_the_specification(stream: bytes, expected: list[str]) -> None:
    assert decode(stream) == expected
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == expected


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("prefix", ["data:", "data: "])
def test_over_the_network_byte_by_byte(
    server: FakeServer, talk: Talk, shapes: dict[str, Any], line_end: str, prefix: str
) -> None:
    payloads = [json.loads(json.dumps(payload)) for payload in shapes["constructed/generate_stream_events"]]
    payloads[0]["token"]["text"] = "é日\u2028"
    frames = [f":{line_end}{line_end}{prefix}{json.dumps(p, ensure_ascii=False)}{line_end}{line_end}" for p in payloads]
    stream = "".join(frames).encode()
    server.answers["/"] = stream_answer(*(stream[i : i + 1] for i in range(len(stream))))
    received = talk("generate_stream", "Hi")
    assert [event.token.text for event in received] == ["é日\u2028", " world", "</s>"]
