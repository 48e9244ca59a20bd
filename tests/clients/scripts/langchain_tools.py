"""LangChain's `bind_tools`, whole and streamed, with the result given back. Argument: URL."""

import json
import sys
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_weather(location: str) -> str:
    """The weather of a city."""
    return f"sunny in {location}"


def main(url: str) -> dict[str, Any]:
    model = ChatOpenAI(base_url=f"{url}/v1", api_key="-", model="tgi", temperature=0, max_tokens=80)  # type: ignore
    bound = model.bind_tools([get_weather])
    asked = HumanMessage("What is the weather in Paris?")
    whole: Any = bound.invoke([asked])
    pieces: Any = None
    for chunk in bound.stream([asked]):
        pieces = chunk if pieces is None else pieces + chunk
    call = whole.tool_calls[0]
    answer = bound.invoke([asked, whole, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])])
    required: Any = model.bind_tools([get_weather], tool_choice="required").invoke([asked])
    named: Any = model.bind_tools([get_weather], tool_choice="get_weather", strict=True).invoke([asked])
    return {
        "calls": [one.tool_calls for one in (whole, pieces, required, named)],
        "finish": whole.response_metadata["finish_reason"],
        "answer": answer.content,
    }


print(json.dumps(main(sys.argv[1])))
