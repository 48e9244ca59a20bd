"""Every parameter of every route at every strange value: an answer, never a 500, and the server goes on."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi.api.anthropic.types import CountRequest, MessagesRequest
from tgi.api.openai.chat_types import ChatRequest
from tgi.api.openai.completion_types import CompletionRequest
from tgi.api.openai.token_types import DetokenizeRequest
from tgi.api.platforms.kserve_routes import InferenceRequest
from tgi.api.platforms.platform_routes import VertexRequest
from tgi.api.responses.types import ResponsesRequest
from tgi.api.tgi.types import CompatGenerateRequest, GenerateParameters, GenerateRequest

LIMITS = (4, 5, 16, 255, 256, 2**32 - 1, 2**63 - 1, 2**64 - 1)
VALUES: list[Any] = [
    None,
    -1,
    0,
    1,
    *LIMITS,
    2**31,
    2**63,
    2**64,
    10**40,
    0.5,
    -0.0,
    1e308,
    -1e308,
    1e-320,
    "1",
    "",
    "\x00",
    True,
    False,
    [],
    {},
    [None],
    [[]],
    [{}],
    ["x"] * 100,
    {"1": 1},
    {"type": "text"},
    [[[[[[1]]]]]],
]

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"messages": MESSAGES, "max_tokens": 4}
INFER = {
    "id": "1",
    "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [65]}],
    "outputs": [{"name": "a"}],
}
ROUTES: list[tuple[str, dict[str, Any], Any]] = [
    ("/", {"inputs": "x"}, CompatGenerateRequest),
    ("/generate", {"inputs": "x"}, GenerateRequest),
    ("/generate_stream", {"inputs": "x"}, GenerateRequest),
    ("/tokenize", {"inputs": "x"}, GenerateRequest),
    ("/detokenize", {"tokens": [1]}, DetokenizeRequest),
    ("/v1/chat/completions", CHAT, ChatRequest),
    ("/v1/chat/completions", {**CHAT, "stream": True}, ChatRequest),
    ("/chat_tokenize", CHAT, ChatRequest),
    ("/v1/completions", {"prompt": "x", "max_tokens": 4}, CompletionRequest),
    ("/v1/completions", {"prompt": ["x", "y"], "stream": True}, CompletionRequest),
    ("/invocations", {"prompt": "x"}, CompletionRequest),
    ("/v1/messages", CHAT, MessagesRequest),
    ("/v1/responses", {"input": MESSAGES, "max_output_tokens": 4}, ResponsesRequest),
    ("/v1/responses", {"input": "Hi", "stream": True, "max_output_tokens": 4}, ResponsesRequest),
    ("/v1/messages", {**CHAT, "stream": True}, MessagesRequest),
    ("/v1/messages/count_tokens", {"messages": MESSAGES}, CountRequest),
    ("/vertex", {"instances": [{"inputs": "x"}]}, VertexRequest),
    ("/v2/models/m/versions/1/infer", INFER, InferenceRequest),
]


def bodies(path: str, body: dict[str, Any], model: Any) -> list[dict[str, Any]]:
    """Each field at each value, alone; those below `parameters` and in places that hold objects too."""
    found = [{**body, field: value} for field in model.model_fields for value in VALUES]
    if "parameters" in model.model_fields:
        fields = GenerateParameters.model_fields
        found += [{**body, "parameters": {field: value}} for field in fields for value in VALUES]
    if "messages" in model.model_fields:
        fields = ("role", "content", "name", "tool_calls", "tool_call_id")
        found += [{**body, "messages": [{**MESSAGES[0], field: value}]} for field in fields for value in VALUES]
        found += [{**body, "messages": [{"role": "user", "content": [value]}]} for value in VALUES]
    if not body.get("stream"):
        found += [{**body, name: value} for name, values in parts_of(model).items() for value in values]
    if "instances" in model.model_fields:
        found += [{"instances": [value]} for value in VALUES]
        fields = ("max_new_tokens", "seed")
        found += [
            {"instances": [{"inputs": "x", "parameters": {field: value}}]} for field in fields for value in VALUES
        ]
    return found


ODD: list[Any] = [None, -1, 10**40, "", "x", True, [], {}, [None], [{}], ["x"] * 100]
"""Values for the fields of parts of an input."""


def parts_of(model: Any) -> dict[str, list[Any]]:
    """Items and blocks of every kind, each of their fields at odd values."""
    if model is ResponsesRequest:
        kinds = ("message", "function_call", "function_call_output", "reasoning", "item_reference", "other")
        item = {
            "role": "user",
            "content": "x",
            "call_id": "1",
            "name": "f",
            "arguments": "{}",
            "output": "x",
            "id": "1",
        }
        fields = ("type", *item, "summary", "status")
        items = [{**item, "type": kind, "content": "x" if kind == "message" else None} for kind in kinds]
        return {"input": [[{**one, field: value}] for one in items for field in fields for value in ODD]}
    if model is MessagesRequest:
        kinds = ("text", "thinking", "redacted_thinking", "tool_use", "tool_result", "image")
        block = {"text": "x", "thinking": "x", "id": "1", "name": "f", "input": {}, "tool_use_id": "1", "content": "x"}
        fields = ("type", *block, "is_error", "signature")
        blocks = [{**block, "type": kind, field: value} for kind in kinds for field in fields for value in ODD]
        return {"messages": [[{"role": role, "content": [one]}] for role in ("user", "assistant") for one in blocks]}
    return {}


def internal(path: str, answer: httpx.Response) -> bool:
    """Whether an answer is a 500 of ours; TGI's own for vertex and KServe is part of the contract."""
    if answer.status_code == 500 and answer.json().get("error_type") == "Incomplete generation":
        return False
    return answer.status_code >= 500 or "Internal server error" in answer.text


@pytest.mark.parametrize("number", range(len(ROUTES)))
async def test_sweep(number: int) -> None:
    path, body, model = ROUTES[number]
    app = build_app(FakeEngine())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=20) as client:
        for one in bodies(path, body, model):
            answer = await client.post(path, json=one)
            assert not internal(path, answer), one
            if answer.headers.get("content-type", "").startswith("application/json"):
                answer.json()
            if path not in ("/tokenize", "/chat_tokenize", "/detokenize", "/v1/messages/count_tokens"):
                assert app.state.api.permits.taken == 0, one
        plain = await client.post("/generate", json={"inputs": "x", "parameters": {"max_new_tokens": 5}})
    assert plain.json() == {"generated_text": "Hello"}


async def test_many_and_large(client: httpx.AsyncClient) -> None:
    """Lists and objects as long as the body limit allows."""
    for path, body in (
        ("/generate", {"inputs": "x", "parameters": {"stop": ["x"] * 100_000}}),
        ("/generate", {"inputs": "x" * 1_900_000}),
        ("/generate", {"inputs": "x" * 190_000, "parameters": {"truncate": 3}}),
        ("/v1/completions", {"prompt": [1] * 500_000}),
        ("/v1/completions", {"prompt": [[1]] * 300_000}),
        ("/v1/completions", {"prompt": ["x"] * 300_000}),
        ("/v1/completions", {"prompt": "x", "logit_bias": {str(i): 1 for i in range(100_000)}}),
        ("/v1/chat/completions", {"messages": MESSAGES * 30_000}),
        ("/v1/chat/completions", {"messages": MESSAGES, "chat_template_kwargs": {"messages": 1, "tokenize": True}}),
        ("/vertex", {"instances": [{"inputs": "x"}] * 50_000}),
        ("/v1/responses", {"input": MESSAGES * 30_000}),
        ("/v1/responses", {"input": "x", "tools": [{"type": "x"}] * 50_000, "max_output_tokens": 1}),
        ("/v1/responses", {"input": "x", "metadata": {str(i): "" for i in range(100_000)}}),
    ):
        content = json.dumps(body)
        assert len(content) < 2_000_000
        answer = await client.post(path, content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 422, 429), (path, answer.status_code)
    assert (await client.post("/generate", json={"inputs": "x"})).json() == {"generated_text": "Hello world"}
