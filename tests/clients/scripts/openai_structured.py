"""Structured answers and tools by OpenAI's Python library on chat. Argument: URL."""

import json
import sys
from typing import Any, Literal

import openai
from pydantic import BaseModel, Field

MESSAGES: list[Any] = [{"role": "user", "content": "Anna and Ben meet in Paris on Friday. Tell me of it."}]
GIVEN: dict[str, Any] = {"model": "tgi", "messages": MESSAGES, "temperature": 0, "max_tokens": 200}
PARAMETERS = {
    "type": "object",
    "properties": {"location": {"type": "string", "enum": ["Paris", "London"]}},
    "required": ["location"],
    "additionalProperties": False,
}
FUNCTION = {"name": "get_weather", "description": "The weather of a place", "parameters": PARAMETERS, "strict": True}
TOOLS: list[Any] = [{"type": "function", "function": FUNCTION}]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


class Person(BaseModel):
    """Nested, so that the schema has a reference."""

    name: Literal["Anna", "Ben", "Carla"]
    age: int = Field(ge=0, le=120)


class Event(BaseModel):
    """What an answer is parsed into."""

    day: Literal["Friday", "Saturday"]
    people: list[Person] = Field(max_length=2)


def parsed(client: openai.OpenAI) -> dict[str, Any]:
    whole = client.chat.completions.parse(**GIVEN, response_format=Event)
    with client.chat.completions.stream(**GIVEN, response_format=Event) as stream:
        final = stream.get_final_completion()
    event, streamed = whole.choices[0].message.parsed, final.choices[0].message.parsed
    assert isinstance(event, Event) and isinstance(streamed, Event)
    return {"whole": event.model_dump(), "stream": streamed.model_dump()}


def tools(client: openai.OpenAI) -> dict[str, Any]:
    answer = client.chat.completions.create(**GIVEN, tools=TOOLS, tool_choice="required")
    with client.chat.completions.stream(**GIVEN, tools=TOOLS, tool_choice=NAMED) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    call = answer.choices[0].message.tool_calls[0]  # type: ignore[index]
    result = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
    told = [*MESSAGES, answer.choices[0].message.model_dump(exclude_none=True), result]
    after = client.chat.completions.create(
        **{**GIVEN, "messages": told, "max_tokens": 8}, tools=TOOLS, tool_choice="none"
    )
    return {
        "call": answer.model_dump(),
        "stream": final.model_dump(),
        "pieces": "".join(pieces),
        "after": after.model_dump(),
    }


def main(url: str) -> dict[str, Any]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    json_object = client.chat.completions.create(**GIVEN, response_format={"type": "json_object"})
    choice = client.chat.completions.create(**GIVEN, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    legacy = client.completions.create(
        model="tgi", prompt="Is it so? ", max_tokens=8, temperature=0, extra_body={"guided_regex": "(yes|no)!"}
    )
    return {
        "parsed": parsed(client),
        "tools": tools(client),
        "json_object": json_object.choices[0].model_dump(),
        "choice": choice.choices[0].message.content,
        "regex": legacy.choices[0].text,
    }


print(json.dumps(main(sys.argv[1])))
