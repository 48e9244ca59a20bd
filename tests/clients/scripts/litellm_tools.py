"""litellm with tools, whole and its own reassembly of a stream. Argument: URL."""

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network
import litellm

PARAMETERS = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}


def main(url: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    answers: dict[str, Any] = {}
    for provider in ("openai", "hosted_vllm"):
        given: dict[str, Any] = {
            "model": f"{provider}/tgi",
            "api_base": f"{url}/v1",
            "api_key": "-",
            "messages": messages,
            "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}],
            "max_tokens": 80,
            "temperature": 0,
        }
        whole = litellm.completion(**given, tool_choice="required")
        built = litellm.stream_chunk_builder(list(litellm.completion(**given, stream=True)), messages=messages)
        answers[provider] = [_called(one) for one in (whole, built)]
    return answers


def _called(answer: Any) -> list[Any]:
    choice = answer.choices[0]
    calls = [[call.function.name, call.function.arguments] for call in choice.message.tool_calls]
    return [choice.finish_reason, calls]


print(json.dumps(main(sys.argv[1])))
