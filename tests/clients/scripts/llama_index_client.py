"""llama-index: chat, streams, and structured output by a tool. Argument: URL."""

import json
import sys
from typing import Any, Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

QUESTION = "What is the weather in Paris?"


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "London"]


def get_weather(city: Literal["Paris", "London"]) -> str:
    """The weather of a city."""
    return "rain"


def main(url: str) -> dict[str, Any]:
    given: dict[str, Any] = {
        "model": "tgi",
        "api_base": f"{url}/v1",
        "api_key": "-",
        "temperature": 0,
        "max_tokens": 100,
    }
    model = OpenAILike(**given, is_chat_model=True, is_function_calling_model=True, context_window=2000)
    messages = [ChatMessage(role="user", content=QUESTION)]
    tools = [FunctionTool.from_defaults(get_weather)]
    called = model.chat_with_tools(tools, user_msg=QUESTION, tool_required=True)
    calls = model.get_tool_calls_from_response(called)
    return {
        "chat": model.chat(messages).message.content,
        "stream": "".join(chunk.delta or "" for chunk in model.stream_chat(messages)),
        "structured": model.as_structured_llm(Weather).chat(messages).raw.model_dump(),
        "call": {"name": calls[0].tool_name, "arguments": calls[0].tool_kwargs},
    }


print(json.dumps(main(sys.argv[1])))
