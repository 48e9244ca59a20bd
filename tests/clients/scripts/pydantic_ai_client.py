"""pydantic-ai's three kinds of output, and a tool. Argument: URL."""

import json
import sys
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

QUESTION = "What is the weather in Paris?"
# One kind only asks for JSON: an example shows a small model which.
HISTORY = [
    ModelRequest(parts=[UserPromptPart("What is the weather in London?")]),
    ModelResponse(parts=[TextPart('{"city": "London"}')]),
]


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "London"]


def main(url: str) -> dict[str, Any]:
    model = OpenAIChatModel("tgi", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="-"))
    settings: dict[str, Any] = {"temperature": 0, "max_tokens": 100}
    answers: dict[str, Any] = {}
    for kind in (ToolOutput, NativeOutput, PromptedOutput):
        agent = Agent(model, output_type=kind(Weather), model_settings=settings, retries=0)
        try:
            answers[kind.__name__] = agent.run_sync(QUESTION, message_history=HISTORY).output.model_dump()
        except Exception as error:
            answers[kind.__name__] = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
    return answers


print(json.dumps(main(sys.argv[1])))
