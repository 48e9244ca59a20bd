"""huggingface_hub's client with tools, whole and streamed. Argument: URL."""

import json
import sys
from typing import Any

from huggingface_hub import InferenceClient

PARAMETERS = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]


def main(url: str) -> dict[str, Any]:
    client = InferenceClient(url)
    given: dict[str, Any] = {
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": TOOLS,
        "max_tokens": 80,
        "temperature": 0,
    }
    whole = client.chat_completion(**given)
    named: Any = {"function": {"name": "get_weather"}}
    forced = client.chat_completion(**given, tool_choice=named)
    chunks = list(client.chat_completion(**given, stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    return {
        "calls": [_called(one.choices[0].message.tool_calls) for one in (whole, forced)],
        "streamed": "".join(call.function.arguments for call in deltas),
        "name": deltas[0].function.name,
        "finish": [whole.choices[0].finish_reason, chunks[-1].choices[0].finish_reason],
    }


def _called(calls: Any) -> list[Any]:
    return [[call.function.name, call.function.arguments] for call in calls]


print(json.dumps(main(sys.argv[1])))
