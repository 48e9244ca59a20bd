"""Permits: who gets one, what the others are told, and that all come back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.types import Message

from tests.api.fake import FakeEngine, build_app
from tgi.api.server.admission import Permits

MESSAGES = [{"role": "user", "content": "Hi"}]
FLAT = {"error": "Model is overloaded", "error_type": "overloaded"}
SAMPLED = {"best_of": 2, "do_sample": True}


INFER = "/v2/models/m/versions/1/infer"


def infer(letters: str) -> dict[str, Any]:
    """A KServe body with one input for each letter."""
    inputs = [{"name": "in", "shape": [1, 1], "datatype": "BYTES", "data": [ord(letter)]} for letter in letters]
    return {"id": "1", "inputs": inputs, "outputs": [{"name": letter} for letter in letters]}


class Held:
    """A server with two permits, of which `open` requests hold one each."""

    def __init__(self, **settings: Any) -> None:
        self.engine = FakeEngine()
        self.engine.hold_after = 1
        self.app = build_app(self.engine, max_concurrent_requests=2, **settings)
        self.permits: Permits = self.app.state.api.permits
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")

    async def open(self) -> asyncio.Task[httpx.Response]:
        changed = self.engine.changed
        task = asyncio.create_task(self.client.post("/generate", json={"inputs": "x"}))
        await changed.wait()
        return task


async def test_refused_at_once() -> None:
    """Every route answers 429 with its clients' error and a time to come back; streams too, before they begin."""
    held = Held()
    open_calls = [await held.open(), await held.open()]
    for path in (
        "/generate",
        "/generate_stream",
        "/",
        "/vertex",
        INFER,
        "/invocations",
        "/tokenize",
        "/chat_tokenize",
        "/detokenize",
    ):
        answer = await held.client.post(path, content=b"not even json")
        assert (answer.status_code, answer.json()) == (429, FLAT)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    for path in ("/v1/chat/completions", "/v1/completions"):
        answer = await held.client.post(path, content=b"")
        assert answer.status_code == 429
        assert answer.json()["error"] == {
            "message": "Model is overloaded",
            "type": "rate_limit_error",
            "param": None,
            "code": None,
        }
        assert "retry-after" in answer.headers
    assert (await held.client.get("/health")).status_code == 200
    held.engine.release.set()
    assert [(await call).status_code for call in open_calls] == [200, 200]
    assert held.permits.taken == 0
    assert (await held.client.post("/generate", json={"inputs": "x"})).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": "x", "parameters": SAMPLED}),
        ("/v1/chat/completions", {"messages": MESSAGES, "n": 2}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/completions", {"prompt": "a", "n": 2, "stream": True}),
        ("/vertex", {"instances": [{"inputs": "a"}, {"inputs": "b"}]}),
    ],
)
async def test_several_samples_take_several_permits(path: str, body: dict[str, Any]) -> None:
    held = Held()
    one = await held.open()
    assert (await held.client.post(path, json=body)).status_code == 429
    assert held.permits.taken == 1
    held.engine.release.set()
    await one
    assert (await held.client.post(path, json=body)).status_code == 200
    assert held.permits.taken == 0


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/vertex", {"instances": [{"inputs": "a"}] * 3}, "`instances` holds 3 prompts: the server takes 2 at once"),
        (INFER, infer("abc"), "`inputs` holds 3 prompts: the server takes 2 at once"),
        ("/v1/completions", {"prompt": ["a", "b", "c"]}, "`prompt` holds 3 prompts: the server takes 2 at once"),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2}, "`prompt` holds 2 prompts with 2 samples each"),
        ("/v1/completions", {"prompt": ["a", "b"], "best_of": 2, "stream": True}, "2 prompts with 2 samples each"),
        ("/v1/completions", {"prompt": "a", "n": 3}, "`n` must be > 0 and <= 2. Given: 3"),
        ("/v1/chat/completions", {"messages": MESSAGES, "n": 3}, "`n` must be > 0 and <= 2. Given: 3"),
        ("/generate", {"inputs": "a", "parameters": {**SAMPLED, "best_of": 3}}, "`best_of` must be > 0 and <= 2"),
        ("/invocations", {"prompt": ["a", "b", "c"]}, "`prompt` holds 3 prompts"),
    ],
)
@pytest.mark.parametrize("busy", [False, True])
async def test_what_can_never_be_admitted_is_the_clients_mistake(
    path: str, body: dict[str, Any], says: str, busy: bool
) -> None:
    """Also while there are permits: to come back later would be of no use."""
    held = Held(max_best_of=4)
    open_calls = [await held.open()] if busy else []
    answer = await held.client.post(path, json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")
    assert says in answer.text
    assert "retry-after" not in answer.headers
    assert held.permits.taken == len(open_calls)
    held.engine.release.set()
    for call in open_calls:
        await call


async def test_as_many_as_there_are_permits_are_admitted() -> None:
    held = Held()
    held.engine.hold_after = None
    for path, body in (("/vertex", {"instances": [{"inputs": "a"}] * 2}), (INFER, infer("ab"))):
        assert (await held.client.post(path, json=body)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_permits_come_back_after_errors(stream: bool) -> None:
    held = Held()
    held.engine.hold_after = None
    bodies = [
        ("/", {"inputs": "", "stream": stream}),
        ("/v1/chat/completions", {"messages": [{"role": "bad", "content": ""}], "stream": stream}),
        ("/v1/completions", {"prompt": [], "stream": stream}),
    ]
    for path, body in bodies * 2:
        await held.client.post(path, json=body)
        assert held.permits.taken == 0
    held.engine.crash_after = 1
    for path, body in (
        ("/", {"inputs": "x", "stream": stream}),
        ("/v1/completions", {"prompt": "x", "stream": stream}),
    ):
        await held.client.post(path, json=body)
        assert held.permits.taken == 0
    assert held.engine.open_requests == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate_stream", {"inputs": "x"}),
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
        ("/v1/completions", {"prompt": ["x", "y"], "stream": True}),
    ],
)
@pytest.mark.parametrize("crash_after", [None, 0, 1], ids=["whole", "fails before a token", "fails after one"])
async def test_whoever_reads_the_end_of_a_stream_finds_its_permits_free(
    path: str, body: dict[str, Any], crash_after: int | None
) -> None:
    """Nothing else runs between the last byte and the return of the permits."""
    held = Held()
    held.engine.hold_after, held.engine.crash_after = None, crash_after
    taken: list[int] = []
    content = json.dumps(body).encode()
    requests: asyncio.Queue[Message] = asyncio.Queue()
    requests.put_nowait({"type": "http.request", "body": content})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            asyncio.get_running_loop().call_soon(lambda: taken.append(held.permits.taken))

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    scope |= {"http_version": "1.1", "scheme": "http", "headers": [(b"content-type", b"application/json")]}
    await held.app(scope, requests.get, send)
    await asyncio.sleep(0)
    assert taken == [0]
