"""instructor in five modes. Argument: URL."""

import json
import sys
from typing import Any, Literal

import instructor
import openai
from pydantic import BaseModel

MODES = ("TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA", "RESPONSES_TOOLS")


# Some modes only ask for JSON: an example shows a small model which.
MESSAGES: list[Any] = [
    {"role": "user", "content": "The weather in London?"},
    {"role": "assistant", "content": '{"city": "London"}'},
    {"role": "user", "content": "The weather in Paris?"},
]


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "London"]


def main(url: str) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for name in MODES:
        client = instructor.from_openai(
            openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0), mode=instructor.Mode[name]
        )
        try:
            answer = client.chat.completions.create(
                model="tgi",
                messages=MESSAGES,
                response_model=Weather,
                max_retries=0,
                temperature=0,
                max_tokens=100,
            )
            answers[name] = answer.model_dump()
        except Exception as error:
            answers[name] = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
    return answers


print(json.dumps(main(sys.argv[1])))
