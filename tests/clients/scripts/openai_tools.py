"""OpenAI's library with tools: whole, streamed, by its helpers, and a round trip. Argument: URL."""

import json
import sys
from typing import Any

import openai
import pydantic

ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


class GetWeather(pydantic.BaseModel):
    """The weather of a city."""

    location: str


def run(client: openai.OpenAI) -> dict[str, Any]:
    strict: Any = openai.pydantic_function_tool(GetWeather, name="get_weather")
    given: dict[str, Any] = {"model": "tgi", "messages": ASKED, "tools": [strict], "temperature": 0, "max_tokens": 80}
    completions = client.chat.completions
    auto = completions.create(**given)
    required = completions.create(**given, tool_choice="required", parallel_tool_calls=False)
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    parsed = completions.parse(**given, tool_choice=named)
    with completions.stream(**given, tool_choice="required") as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_completion()
    call = auto.choices[0].message.tool_calls[0]  # type: ignore[index]
    turns = [*ASKED, auto.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 C"}]
    answer = completions.create(**given | {"messages": turns})
    return {
        "auto": auto.model_dump(),
        "required": required.model_dump(),
        "parsed": parsed.choices[0].message.tool_calls[0].function.parsed_arguments.model_dump(),  # type: ignore
        "kinds": sorted(set(kinds)),
        "streamed": streamed.model_dump(),
        "answer": answer.model_dump(),
    }


print(json.dumps(run(openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="-")), default=str))
