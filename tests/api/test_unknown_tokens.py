"""A token that the model has no embedding for is refused on every route, by name, before the engine sees it."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from tests.api.fake import EOS, INFO, FakeEngine

CHAT = [{"role": "user", "content": "Hi</s>"}]
BODIES: list[tuple[str, Any]] = [
    ("/generate", {"inputs": "Hi</s>there"}),
    ("/generate", {"inputs": "Hi</s>", "parameters": {"truncate": 2}}),
    ("/generate", {"inputs": "Hi</s>", "parameters": {"decoder_input_details": True}}),
    ("/generate_stream", {"inputs": "</s>"}),
    ("/", {"inputs": "Hi</s>", "stream": True}),
    ("/invocations", {"inputs": "Hi</s>"}),
    ("/invocations", {"messages": CHAT}),
    ("/v1/completions", {"prompt": "Hi</s>"}),
    ("/v1/completions", {"prompt": ["Hi", "Hi</s>"]}),
    ("/v1/chat/completions", {"messages": CHAT}),
    ("/v1/chat/completions", {"messages": CHAT, "stream": True}),
    ("/v1/chat/completions", {"messages": [*CHAT, {"role": "assistant", "content": "a"}]}),
    ("/v1/responses", {"input": "Hi</s>"}),
    ("/vertex", {"instances": [{"inputs": "Hi</s>"}]}),
    ("/vertex", {"instances": [{"messages": CHAT}]}),
]


@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_refused_by_name(client: httpx.AsyncClient, engine: FakeEngine, path: str, body: dict[str, Any]) -> None:
    engine.info = msgspec.structs.replace(INFO, vocab_size=EOS)
    answer = await client.post(path, json=body)
    if path != "/vertex":  # which, like TGI's, does not say what was wrong with an instance
        assert "holds the token '</s>' with id 257, which is out of vocabulary" in answer.text
    assert answer.status_code == 422 or path == "/vertex" or "event-stream" in answer.headers["content-type"]
    assert all(EOS not in request.prompt_ids for request in engine.requests)
    engine.info = INFO
    assert (await client.post(path, json=body)).status_code == 200, "the model has it"


async def test_stop_token_ids_and_bias(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.info = msgspec.structs.replace(INFO, vocab_size=EOS)
    for more in ({"stop_token_ids": [EOS]}, {"logit_bias": {str(EOS): 1}}, {"stop_token_ids": [2**40]}):
        answer = await client.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, **more})
        assert (answer.status_code, next(iter(more)) in answer.text) == (422, True)
    assert engine.requests == []


async def test_info_shows_what_ends_answers(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    shown = (await client.get("/info")).json()["runtime"]["end_tokens"]
    assert shown == [{"id": EOS, "text": "</s>", "sources": ["tokenizer"]}]
    engine.info = msgspec.structs.replace(INFO, vocab_size=EOS)
    assert (await client.get("/info")).json()["runtime"]["end_tokens"] == []
