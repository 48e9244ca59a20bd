"""Anthropic's library. Arguments: URL, URL of a busy server, its key."""

import asyncio
import json
import sys
from typing import Any

import anthropic

MESSAGES: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
GIVEN: dict[str, Any] = {"model": "tgi", "max_tokens": 64, "temperature": 0, "messages": MESSAGES}
SCHEMA = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
TOOLS: list[Any] = [{"name": "get_weather", "description": "The weather of a city", "input_schema": SCHEMA}]
SYSTEM: list[Any] = [{"type": "text", "text": "Answer briefly.", "cache_control": {"type": "ephemeral"}}]
SAMPLING = ("temperature",)
"""Fields that newer versions of the library send as extra ones."""


def given(**changes: Any) -> dict[str, Any]:
    both = {**GIVEN, **changes}
    return {**{k: v for k, v in both.items() if k not in SAMPLING}, "extra_body": {k: both[k] for k in SAMPLING}}


def raised(call: Any) -> dict[str, Any]:
    try:
        call()
    except anthropic.APIStatusError as error:
        body: Any = error.body
        return {
            "type": type(error).__name__,
            "status": error.status_code,
            "kind": body["error"]["type"],
            "text": body["error"]["message"],
            "same_id": error.request_id == body["request_id"],
            "retry_after": error.response.headers.get("retry-after"),
        }
    return {"type": "nothing"}


def streamed(client: anthropic.Anthropic, **changes: Any) -> dict[str, Any]:
    with client.messages.stream(**given(**changes)) as stream:
        events = [event.type for event in stream]
        return {"events": events, "message": stream.get_final_message()}


def tools(client: anthropic.Anthropic) -> dict[str, Any]:
    forced = {"tools": TOOLS, "tool_choice": {"type": "any"}}
    called = client.messages.create(**given(**forced))
    use = next(block for block in called.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "12 degrees and rain"}
    messages = [*MESSAGES, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    return {
        "called": called,
        "streamed": streamed(client, **forced)["message"],
        "named": client.messages.create(
            **given(tools=TOOLS, tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True})
        ),
        "answer": client.messages.create(**given(messages=messages, tools=TOOLS)),
        "answer_streamed": streamed(client, messages=messages, tools=TOOLS)["message"],
        "none": client.messages.create(**given(tools=TOOLS, tool_choice={"type": "none"})),
    }


def errors(url: str, busy: str, key: str) -> dict[str, Any]:
    client = anthropic.Anthropic(base_url=url, api_key="-", max_retries=0)
    full = anthropic.Anthropic(base_url=busy, api_key=key, max_retries=0)
    stranger = anthropic.Anthropic(base_url=busy, api_key="wrong", max_retries=0)
    image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/x.png"}}
    return {
        "no_messages": raised(lambda: client.messages.create(**given(messages=[]))),
        "image": raised(lambda: client.messages.create(**given(messages=[{"role": "user", "content": [image]}]))),
        "too_long": raised(
            lambda: client.messages.create(**given(messages=[{"role": "user", "content": "word " * 10_000}]))
        ),
        "wrong_key": raised(lambda: stranger.messages.create(**given())),
        "overloaded": raised(lambda: full.messages.create(**given())),
        "no_route": raised(lambda: client.messages.batches.list()),
    }


async def asynchronous(url: str) -> Any:
    async with anthropic.AsyncAnthropic(base_url=url, auth_token="-", api_key=None) as client:
        return await asyncio.gather(*(client.messages.create(**given()) for _ in range(4)))


def main(url: str, busy: str, key: str) -> dict[str, Any]:
    client = anthropic.Anthropic(base_url=url, api_key="-", max_retries=0)
    plain = client.messages.create(**given())
    text = "".join(block.text for block in plain.content if block.type == "text")
    return {
        "plain": plain,
        "streamed": streamed(client),
        "system": client.messages.create(**given(system=SYSTEM)),
        "stopped": client.messages.create(**given(stop_sequences=[text[2:4]])),
        "stop": text[2:4],
        "cut": client.messages.create(**given(max_tokens=2)),
        "counted": client.messages.count_tokens(model="tgi", messages=MESSAGES),
        "counted_more": client.messages.count_tokens(model="tgi", messages=MESSAGES, system=SYSTEM, tools=TOOLS),
        "tools": tools(client),
        "beta": client.beta.messages.create(**given(), betas=["unheard-of-2099-01-01"]).content[0],
        "async": asyncio.run(asynchronous(url)),
        "errors": errors(url, busy, key),
    }


print(json.dumps(main(*sys.argv[1:4]), default=lambda value: value.model_dump()))
