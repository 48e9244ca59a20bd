"""litellm by Responses and by Anthropic's Messages. Argument: URL."""

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network
import litellm

QUESTION = "What is the weather in Paris?"
SCHEMA = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}


def responses(url: str) -> dict[str, Any]:
    given: dict[str, Any] = {"model": "openai/tgi", "api_base": f"{url}/v1", "api_key": "-", "temperature": 0}
    given |= {"input": QUESTION, "max_output_tokens": 64}
    tools: list[Any] = [{"type": "function", "name": "get_weather", "parameters": SCHEMA}]
    return {
        "plain": litellm.responses(**given).model_dump(),
        "events": [str(getattr(event, "type", "")) for event in litellm.responses(**given, stream=True)],
        "called": litellm.responses(**given, tools=tools, tool_choice="required").model_dump(),
    }


def messages(url: str) -> dict[str, Any]:
    given: dict[str, Any] = {"model": "anthropic/tgi", "api_base": url, "api_key": "-", "temperature": 0}
    given |= {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64}
    function = {"name": "get_weather", "parameters": SCHEMA}
    tools: list[Any] = [{"type": "function", "function": function}]
    return {
        "plain": litellm.completion(**given).model_dump(),
        "stream": [chunk.choices[0].delta.content for chunk in litellm.completion(**given, stream=True)],
        "called": litellm.completion(**given, tools=tools, tool_choice="required").model_dump(),
    }


def main(url: str) -> dict[str, Any]:
    return {"responses": responses(url), "messages": messages(url)}


print(json.dumps(main(sys.argv[1]), default=str))
