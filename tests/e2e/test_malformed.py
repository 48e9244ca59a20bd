"""What no client should send, over a real socket to the real engine: an answer each time, and the server goes on."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.api.test_sweep import ROUTES, bodies
from tests.e2e.launched import Launched
from tests.e2e.test_load import client_of, wait_until_idle

PLAIN = {"inputs": "Hello, ", "parameters": {"max_new_tokens": 8}}
POSTS = [path for path, _, _ in ROUTES if path != "/tokenize"]
LEAK = re.compile(r"Traceback|File \"|0x[0-9a-f]{6,}|/site-packages/|/src/tgi/")
"""What must not be in any answer: code, files, addresses."""
KINDS = ("validation", "template_error", "tool_error", "invalid_request_error", "request_too_large")
ANSWER_S = 20.0
GROWTH = 256 << 20
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def expected(cramped: Launched) -> str:
    """What the server says to a plain request."""
    return cramped.post(**PLAIN).json()["generated_text"]


@pytest.fixture(scope="module", autouse=True)
def memory_stays(cramped: Launched, expected: str) -> Iterator[None]:
    processes = [psutil.Process(cramped.pid), *cramped.children()]
    before = sum(process.memory_info().rss for process in processes)
    yield
    assert sum(process.memory_info().rss for process in processes) - before < GROWTH


@pytest.fixture(autouse=True)
def goes_on(cramped: Launched, expected: str) -> Iterator[None]:
    yield
    assert cramped.post(timeout=ANSWER_S, **PLAIN).json() == {"generated_text": expected}
    wait_until_idle(cramped)


def check(response: httpx.Response, *statuses: int) -> None:
    """One of the statuses (any but a server error if none is given), JSON, and no word of our code."""
    assert response.status_code in statuses if statuses else response.status_code < 424, response.text[:500]
    if response.status_code >= 400:
        body = response.json()
        kind = body["error_type"] if "error_type" in body else body["error"]["type"]  # the latter in Anthropic's form
        assert kind in KINDS
    assert not LEAK.search(response.text[:100_000])


def post(server: Launched, path: str, content: bytes | str | Iterator[bytes]) -> httpx.Response:
    return httpx.post(server.url + path, content=content, headers=JSON, timeout=ANSWER_S)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{not json",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xef\xbb\xbf" + json.dumps(PLAIN).encode(),
        json.dumps(PLAIN).encode("utf-16"),
        b"[" * 100_000,
        b'{"inputs":' * 100_000,
        b'{"inputs":"x","parameters":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"inputs":"x","parameters":{"temperature":NaN}}',
        b'{"inputs":"x","parameters":{"temperature":Infinity}}',
        b'{"inputs":"x","prompt":"x","messages":[],"parameters":{"temperature":1e400}}',
        b'{"inputs":"x' + b"\xff" * 100 + b'"}',
        b" " * 3_000_000,
    ],
    ids=lambda content: repr(content[:24]),
)
def test_bodies(cramped: Launched, content: bytes) -> None:
    for path in POSTS:
        check(post(cramped, path, content), 400, 413, 422)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_bodies_of_50_megabytes(cramped: Launched, declared: bool) -> None:
    """Refused by their stated length, or as soon as too much has come: some clients then see a reset."""
    body = b'{"inputs":"' + b"x" * (50 << 20) + b'"}'
    for path in POSTS:
        try:
            response = post(cramped, path, body if declared else iter([body[:-1], body[-1:]]))
        except httpx.TransportError:
            continue
        check(response, 413)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"inputs":"a","inputs":"Hello","parameters":{"max_new_tokens":2}}', 200),
        (b'{"inputs":"x","parameters":{"max_new_tokens":2,"temperature":-0}}', 200),
        (b'{"inputs":"a\\u0000b\\u001b[31m","parameters":{"max_new_tokens":2,"return_full_text":true}}', 200),
        (b'{"inputs":"\\ud800","parameters":{"max_new_tokens":2}}', 400),
        (b'{"inputs":"x","parameters":{"max_new_tokens":2,"stop":["\\udfff"]}}', 400),
        (b'{"inputs":"\xf0\x9f\x91\x8b\xef\xbf\xbf","parameters":{"max_new_tokens":2}}', 200),
    ],
)
def test_strange_but_valid(cramped: Launched, content: bytes, status: int) -> None:
    check(post(cramped, "/generate", content), status)


PROMPTS: list[Any] = [
    "",
    [],
    [[]],
    [[40], []],
    [-1],
    [384],
    [999999],
    [2**70],
    [True],
    [1.5],
    [None],
    ["a", 1],
    [["a"]],
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=repr)
def test_prompts(cramped: Launched, prompt: Any) -> None:
    for stream in (False, True):
        body = {"prompt": prompt, "max_tokens": 2, "stream": stream}
        check(httpx.post(f"{cramped.url}/v1/completions", json=body, timeout=ANSWER_S), 422)
    if isinstance(prompt, str):
        check(cramped.post(inputs=prompt), 422)


MANY = {str(number): 1.0 for number in range(100_000)}
TOO_MUCH: list[dict[str, Any]] = [
    {"logit_bias": {"AI": 1}},
    {"logit_bias": {"-1": 1}},
    {"logit_bias": {"384": 1}},
    {"logit_bias": {"40": 101}},
    {"logit_bias": {"40": None}},
    {"logit_bias": MANY},
    {"stop_token_ids": [384]},
    {"stop_token_ids": list(range(100_000))},
    {"stop": [""]},
    {"stop": ["x"] * 100_000},
    {"n": 10**9},
    {"n": 0},
    {"best_of": 10**9},
    {"max_tokens": 10**9, "n": 10**9, "best_of": 10**9},
    {"logprobs": 21},
    {"top_p": -1},
    {"temperature": -1},
    {"min_tokens": 3},
]


@pytest.mark.parametrize("fields", TOO_MUCH, ids=lambda fields: str(fields)[:32])
def test_too_much(cramped: Launched, fields: dict[str, Any]) -> None:
    began = time.monotonic()
    for stream in (False, True):
        body = {"prompt": "x", "max_tokens": 2, "stream": stream} | fields
        check(httpx.post(f"{cramped.url}/v1/completions", json=body, timeout=ANSWER_S), 422)
    assert time.monotonic() - began < 10


def test_a_million_biases_and_a_stop_string_of_a_megabyte(cramped: Launched) -> None:
    biases = {str(number): 1 for number in range(1_000_000)}
    check(httpx.post(f"{cramped.url}/v1/completions", json={"prompt": "x", "logit_bias": biases}, timeout=60), 413)
    body = {"prompt": "x", "max_tokens": 20, "stop": "x" * 1_000_000}
    check(httpx.post(f"{cramped.url}/v1/completions", json=body, timeout=ANSWER_S), 422)
    body |= {"stop": "x" * 1024}
    check(httpx.post(f"{cramped.url}/v1/completions", json=body, timeout=ANSWER_S), 200)
    body |= {"stop": [], "logit_bias": {str(number): -100 for number in range(384)}}
    check(httpx.post(f"{cramped.url}/v1/completions", json=body, timeout=ANSWER_S), 200)


EXTREMES: dict[str, list[Any]] = {
    "temperature": [0, 1e-38, 1e-5, 1e5, 3e38],
    "top_k": [1, 2, 2**31 - 1],
    "top_p": [1e-38, 0.5, 0.99999994],
    "typical_p": [1e-38, 0.5, 0.99999994],
    "repetition_penalty": [1e-38, 0.5, 3e38],
    "frequency_penalty": [-2, 2],
    "presence_penalty": [-2, 2],
    "seed": [0, -(2**63), 2**64 - 1],
    "logprobs": [0, 5, 20],
    "watermark": [True],
    "min_tokens": [0, 4],
    "stop_token_ids": [[0, 383]],
    "logit_bias": [{"0": 100, "1": -100}, {str(number): -100 for number in range(384)}],
    "n": [1, 3],
    "echo": [True],
}


async def test_extreme_numbers_together(cramped: Launched) -> None:
    """Allowed one by one, so allowed together: no step of the engine may fail of them, nobody's neighbour either."""
    generator = random.Random(4)
    requests = []
    for _ in range(400):
        names = generator.sample(list(EXTREMES), generator.randrange(1, len(EXTREMES)))
        fields = {name: generator.choice(EXTREMES[name]) for name in names}
        requests.append({"prompt": "Hello, ", "max_tokens": 4} | fields)
    gate = asyncio.Semaphore(32)

    async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        async with gate:
            response = await client.post("/v1/completions", json=body)
        assert response.status_code == 200, (body, response.text)
        assert len(response.json()["choices"]) == body.get("n", 1)

    async with client_of(cramped) as client:
        await asyncio.gather(*(ask(client, body) for body in requests))


def test_nothing_left_to_choose(cramped: Launched) -> None:
    """Every token ends the text, and none may before the fourth: the one request fails, with a sentence."""
    body = {"prompt": "x", "max_tokens": 8, "min_tokens": 4, "stop_token_ids": list(range(384))}
    response = httpx.post(f"{cramped.url}/v1/completions", json=body, timeout=ANSWER_S)
    assert response.status_code == 424
    assert "leave no finite logit" in response.json()["error"]["message"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(len(ROUTES)))
async def test_every_field_at_every_value(cramped: Launched, number: int) -> None:
    path, body, model = ROUTES[number]
    gate = asyncio.Semaphore(16)

    async def ask(client: httpx.AsyncClient, one: dict[str, Any]) -> None:
        async with gate:
            response = await client.post(path, json=one)
        assert "Internal server error" not in response.text
        assert '"generation"' not in response.text, (one, response.text)
        if response.status_code != 500:  # TGI's own answer of two platform routes to whatever fails
            assert response.status_code < 424, (one, response.text)

    async with client_of(cramped) as client:
        await asyncio.gather(*(ask(client, one) for one in bodies(path, body, model)))


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *lines, "", ""]).encode()


def exchange(server: Launched, data: bytes, *, finish: bool = False) -> bytes:
    """Everything that comes back until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=ANSWER_S) as connection:
        try:
            connection.sendall(data)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except ConnectionError:
            pass
    assert not LEAK.search(received.decode(errors="replace"))
    return received


CONTENT = json.dumps(PLAIN).encode()
CLOSE = "connection: close"
BAD_HEADS = {
    "header of 10 MB": head("/generate", CLOSE, "x-long: " + "a" * 10_000_000),
    "100,000 headers": head("/generate", CLOSE, *(f"x-{number}: 1" for number in range(100_000))),
    "path of 1 MB": head("/" + "a" * 1_000_000, CLOSE),
    "length too short": head("/generate", CLOSE, "content-length: 5") + CONTENT,
    "negative length": head("/generate", CLOSE, "content-length: -5") + CONTENT,
    "two lengths": head("/generate", CLOSE, "content-length: 5", "content-length: 6") + CONTENT,
    "length and chunks": head("/generate", CLOSE, "content-length: 5", "transfer-encoding: chunked") + b"0\r\n\r\n",
    "chunks that are none": head("/generate", CLOSE, "transfer-encoding: chunked") + b"zz\r\n" + CONTENT,
    "chunk beyond all bounds": head("/generate", CLOSE, "transfer-encoding: chunked") + b"f" * 17 + b"\r\n",
    "NUL in the path": b"POST /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD_HEADS.values(), ids=BAD_HEADS)
def test_what_is_not_quite_http(cramped: Launched, data: bytes) -> None:
    """A 4xx and the end; where the server closes on a client that still sends, the answer may be lost."""
    answer = exchange(cramped, data)
    assert answer.startswith(b"HTTP/1.1 4") or (not answer and len(data) > 500_000)


def test_length_too_long(cramped: Launched) -> None:
    assert exchange(cramped, head("/generate", f"content-length: {len(CONTENT) + 9}") + CONTENT, finish=True) == b""


def test_slow_bodies_hold_nobody_up(cramped: Launched, expected: str) -> None:
    """Twice as many as there are permits: a permit is only taken when a body is there."""
    start = head("/generate", f"content-length: {len(CONTENT)}", CLOSE)
    slow = [socket.create_connection(("127.0.0.1", cramped.port), timeout=ANSWER_S) for _ in range(320)]
    try:
        for connection in slow:
            connection.sendall(start + CONTENT[:10])
        began = time.monotonic()
        assert cramped.post(**PLAIN).json()["generated_text"] == expected
        assert time.monotonic() - began < 5
        slow[0].sendall(CONTENT[10:])
        assert b"200 OK" in slow[0].recv(65536)
    finally:
        for connection in slow:
            connection.close()


MOMENTS = ("in the head", "in the body", "at once", "soon", "later", "after the end")
LONG = json.dumps({"inputs": "Hello, " * 20, "parameters": {"max_new_tokens": 300, "ignore_eos": True}}).encode()
SHORT = json.dumps({"inputs": "Hello, ", "parameters": {"max_new_tokens": 1}}).encode()


def leave(server: Launched, path: str, moment: str, generator: random.Random) -> None:
    """One client that goes away, by a reset or an orderly close."""
    body = SHORT if moment == "after the end" else LONG
    request = head(path, f"content-length: {len(body)}") + body
    cut = {"in the head": 40, "in the body": len(request) - 20}.get(moment, len(request))
    with socket.create_connection(("127.0.0.1", server.port), timeout=ANSWER_S) as connection:
        if generator.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        connection.sendall(request[:cut])
        if moment == "soon":
            time.sleep(generator.uniform(0, 0.02))
        elif moment == "later":
            time.sleep(generator.uniform(0, 0.2))
        elif moment == "after the end":
            connection.recv(65536)


async def test_300_clients_that_leave(cramped: Launched, expected: str) -> None:
    """At every moment, on every way to generate; one plain request after another is answered right meanwhile."""
    generator = random.Random(5)
    paths = ["/generate", "/generate_stream", "/"]
    plan = [(generator.choice(paths), MOMENTS[number % len(MOMENTS)]) for number in range(300)]
    gate = asyncio.Semaphore(24)

    async def one(path: str, moment: str) -> None:
        async with gate:
            await asyncio.to_thread(leave, cramped, path, moment, generator)

    leaving = asyncio.gather(*(one(path, moment) for path, moment in plan))
    async with client_of(cramped) as client:
        while not leaving.done():
            response = await client.post("/generate", json=PLAIN)
            assert response.json() == {"generated_text": expected}
    await leaving


def test_a_reader_that_never_reads(cramped: Launched, expected: str) -> None:
    """Its answer piles up for it alone."""
    body = json.dumps({"inputs": "x", "parameters": {"max_new_tokens": 1000, "ignore_eos": True, "top_n_tokens": 5}})
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", cramped.port))
        connection.sendall(head("/generate_stream", f"content-length: {len(body)}") + body.encode())
        for _ in range(20):
            assert cramped.post(**PLAIN).json()["generated_text"] == expected
