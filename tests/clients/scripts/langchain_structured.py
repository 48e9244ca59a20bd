"""LangChain's structured output in its three methods, and tools. Argument: URL."""

import json
import sys
from typing import Any, Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

QUESTION = "What is the weather in Paris?"
# One method only asks for JSON: an example shows a small model which.
QUESTIONS = [("user", "What is the weather in London?"), ("assistant", '{"city": "London"}'), ("user", QUESTION)]


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "London"]


@tool
def get_weather(city: Literal["Paris", "London"]) -> str:
    """The weather of a city."""
    return "rain"


def main(url: str) -> dict[str, Any]:
    chat = ChatOpenAI(base_url=f"{url}/v1", api_key="-", model="tgi", temperature=0, max_completion_tokens=100)
    answers: dict[str, Any] = {}
    for method in ("json_schema", "function_calling", "json_mode"):
        structured = chat.with_structured_output(Weather, method=method)
        try:
            answers[method] = structured.invoke(QUESTIONS).model_dump()
        except Exception as error:
            answers[method] = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
    bound = chat.bind_tools([get_weather], tool_choice="any")
    called = bound.invoke(QUESTION)
    streamed = None
    for chunk in bound.stream(QUESTION):
        streamed = chunk if streamed is None else streamed + chunk
    answers["tools"] = called.tool_calls
    answers["streamed"] = streamed.tool_calls  # type: ignore[union-attr]
    told = [("user", QUESTION), called, get_weather.invoke(called.tool_calls[0])]
    answers["after"] = chat.bind_tools([get_weather], tool_choice="none").invoke(told).content
    return answers


print(json.dumps(main(sys.argv[1])))
