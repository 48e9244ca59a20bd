"""Structured answers and tools by huggingface_hub. Argument: URL."""

import json
import sys
from typing import Any

from huggingface_hub import InferenceClient

MESSAGES = [{"role": "user", "content": "What is the weather in Paris?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "London"]}, "degrees": {"type": "integer", "minimum": 0, "maximum": 40}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}}]


def main(url: str) -> dict[str, Any]:
    client = InferenceClient(base_url=url)
    named = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}
    answers = {}
    for name, format in (("json_schema", named), ("json", {"type": "json", "value": SCHEMA})):
        try:
            answer = client.chat_completion(MESSAGES, max_tokens=100, temperature=0, response_format=format)
            answers[name] = answer.choices[0].message.content
        except Exception as error:
            answers[name] = f"{type(error).__name__}: {error}"
    called = client.chat_completion(MESSAGES, max_tokens=100, tools=TOOLS, tool_choice="required")
    stream = client.chat_completion(MESSAGES, max_tokens=100, tools=TOOLS, tool_choice="required", stream=True)
    calls = [call for chunk in stream for call in (chunk.choices[0].delta.tool_calls or [])]
    deltas = [call for call in calls if call.index == calls[0].index]
    direct = InferenceClient(model=url)
    text = direct.text_generation(
        "Paris: ", max_new_tokens=100, return_full_text=False, grammar={"type": "json", "value": SCHEMA}
    )
    regex = direct.text_generation(
        "It is ", max_new_tokens=8, return_full_text=False, grammar={"type": "regex", "value": "[0-9]{2} degrees"}
    )
    call = called.choices[0].message.tool_calls[0].function
    return answers | {
        "call": {"name": call.name, "arguments": call.arguments},
        "stream": {"name": deltas[0].function.name, "arguments": "".join(d.function.arguments or "" for d in deltas)},
        "grammar": text,
        "regex": regex,
    }


print(json.dumps(main(sys.argv[1])))
