"""OpenAI's library on responses. Arguments: URL, URL of a busy server, its key."""

import asyncio
import json
import sys
from typing import Any

import openai
import pydantic

QUESTION = "What is the weather in Paris?"
GIVEN: dict[str, Any] = {"model": "tgi", "input": QUESTION, "max_output_tokens": 64, "temperature": 0}
SCHEMA = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "name": "get_weather", "description": "Weather", "parameters": SCHEMA, "strict": True},
    {"type": "web_search"},
]


class Weather(pydantic.BaseModel):
    """What an answer is parsed into."""

    city: str = pydantic.Field(max_length=20)
    rains: bool


def checked(response: Any) -> Any:
    """The response, once it is read by the library's types as strictly as they can be."""
    openai.types.responses.Response.model_validate(response.model_dump(), strict=True)
    return response


def raised(call: Any) -> dict[str, Any]:
    try:
        call()
    except openai.APIStatusError as error:
        return {"status": error.status_code, "param": error.param, "code": error.code, "text": error.message}
    return {"status": 200}


def streamed(client: openai.OpenAI, **changes: Any) -> dict[str, Any]:
    with client.responses.stream(**{**GIVEN, **changes}) as stream:
        events = list(stream)
        return {
            "events": [event.type for event in events],
            "numbers": [event.sequence_number for event in events],
            "response": events[-1].response,  # type: ignore[union-attr]
        }


def tools(client: openai.OpenAI) -> dict[str, Any]:
    called = checked(client.responses.create(**GIVEN, tools=TOOLS, tool_choice="required"))
    call = next(item for item in called.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees and rain"}
    whole = [{"role": "user", "content": QUESTION}, *(item.model_dump() for item in called.output), result]
    named = {"type": "function", "name": "get_weather"}
    return {
        "called": called,
        "streamed": streamed(client, tools=TOOLS[:1], tool_choice="required"),
        "named": checked(client.responses.create(**GIVEN, tools=TOOLS, tool_choice=named)),
        "answer": checked(client.responses.create(**GIVEN | {"input": whole}, tools=TOOLS)),
        "answer_kept": checked(
            client.responses.create(**GIVEN | {"input": [result]}, tools=TOOLS, previous_response_id=called.id)
        ),
        "none": checked(client.responses.create(**GIVEN, tools=TOOLS, tool_choice="none")),
    }


def kept(client: openai.OpenAI) -> dict[str, Any]:
    first = client.responses.create(**GIVEN)
    second = client.responses.create(**GIVEN | {"input": "And in Rome?"}, previous_response_id=first.id)
    whole = [{"role": "user", "content": QUESTION}, *first.output, {"role": "user", "content": "And in Rome?"}]
    answer = {
        "second": second,
        "stateless": client.responses.create(**GIVEN | {"input": whole}, store=False),
        "retrieved": client.responses.retrieve(first.id).model_dump() == first.model_dump(),
        "input_items": list(client.responses.input_items.list(first.id)),
    }
    client.responses.delete(first.id)
    answer["gone"] = raised(lambda: client.responses.retrieve(first.id))
    answer["gone_before"] = raised(lambda: client.responses.create(**GIVEN, previous_response_id=first.id))
    return answer


def parsed(client: openai.OpenAI) -> dict[str, Any]:
    given = GIVEN | {"max_output_tokens": 128}
    tool = openai.pydantic_function_tool(Weather, name="report")["function"]
    as_tool: Any = {"type": "function", **tool}
    called = client.responses.parse(**given, tools=[as_tool], tool_choice="required", parallel_tool_calls=False)
    return {
        "whole": client.responses.parse(**given, text_format=Weather).output_parsed,
        "streamed": streamed(client, text_format=Weather, max_output_tokens=128)["response"].output_parsed,
        "object": client.responses.create(**given, text={"format": {"type": "json_object"}}).output_text,
        "tool": next(item.arguments for item in called.output if item.type == "function_call"),
    }


async def asynchronous(url: str) -> dict[str, Any]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-") as client:
        stream = await client.responses.create(**GIVEN, stream=True)
        return {
            "events": [event.type async for event in stream],
            "together": await asyncio.gather(*(client.responses.create(**GIVEN) for _ in range(4))),
        }


def main(url: str, busy: str, key: str) -> dict[str, Any]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    full = openai.OpenAI(base_url=f"{busy}/v1", api_key=key, max_retries=0)
    image: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1:9/x.png"}]}]
    return {
        "plain": checked(client.responses.create(**GIVEN)),
        "cut": checked(client.responses.create(**GIVEN | {"max_output_tokens": 2})),
        "streamed": streamed(client),
        "kept": kept(client),
        "tools": tools(client),
        "parsed": parsed(client),
        "async": asyncio.run(asynchronous(url)),
        "errors": {
            "image": raised(lambda: client.responses.create(**GIVEN | {"input": image})),
            "too_long": raised(lambda: client.responses.create(**GIVEN | {"input": "word " * 10_000})),
            "overloaded": raised(lambda: full.responses.create(**GIVEN)),
        },
    }


print(json.dumps(main(*sys.argv[1:4]), default=lambda value: value.model_dump()))
