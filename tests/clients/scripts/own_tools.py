"""Our client package with tools, whole and streamed. Argument: URL."""

import json
import sys
from typing import Any

from text_generation import Client

PARAMETERS = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]


def main(url: str) -> dict[str, Any]:
    client = Client(url)
    asked: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    given: dict[str, Any] = {"tools": TOOLS, "max_tokens": 80, "temperature": 0.0}
    whole = client.chat(asked, **given)
    named: Any = {"function": {"name": "get_weather"}}
    forced = client.chat(asked, **given, tool_choice=named)
    chunks = list(client.chat(asked, **given, stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    return {
        "calls": [one.choices[0].message.tool_calls for one in (whole, forced)],
        "streamed": "".join(call.function.arguments for call in deltas),
        "finish": [whole.choices[0].finish_reason, chunks[-1].choices[0].finish_reason],
    }


print(json.dumps(main(sys.argv[1])))
