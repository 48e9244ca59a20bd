"""litellm by its three ways to such a server. Arguments: URL, URL of a busy server, its key."""

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network
import litellm

MESSAGES = [{"role": "user", "content": "Count to 10"}]
PROVIDERS = ("openai", "hosted_vllm", "huggingface")


def raised(call: Any) -> dict[str, Any]:
    try:
        call()
    except litellm.exceptions.APIError as error:
        return {"type": type(error).__name__, "status": error.status_code, "text": str(error)}
    except Exception as error:  # its other classes have no common base
        return {"type": type(error).__name__, "status": getattr(error, "status_code", None), "text": str(error)}
    return {"type": "nothing"}


def provider(name: str, url: str) -> dict[str, Any]:
    given: dict[str, Any] = {"model": f"{name}/tgi", "api_base": url, "messages": MESSAGES, "max_tokens": 8}
    given |= {"temperature": 0, "api_key": "-"}
    return {
        "chat": litellm.completion(**given).model_dump(),
        "stream": [
            chunk.choices[0].delta.content for chunk in litellm.completion(**given, stream=True) if chunk.choices
        ],
    }


def main(url: str, busy: str, key: str) -> dict[str, Any]:
    given: dict[str, Any] = {"model": "openai/tgi", "messages": MESSAGES, "max_tokens": 8, "num_retries": 0}
    answer: dict[str, Any] = {name: provider(name, url if name == "huggingface" else f"{url}/v1") for name in PROVIDERS}
    text = litellm.text_completion(
        model="text-completion-openai/tgi",
        prompt="Hello, ",
        api_base=f"{url}/v1",
        api_key="-",
        max_tokens=8,
        temperature=0,
    )
    answer["text_completion"] = text.choices[0].text
    answer["invalid"] = raised(lambda: litellm.completion(**given, api_base=f"{url}/v1", api_key="-", temperature=-1))
    long = given | {"messages": [{"role": "user", "content": "word " * 10_000}]}
    answer["too_long"] = raised(lambda: litellm.completion(**long, api_base=f"{url}/v1", api_key="-"))
    answer["overloaded"] = raised(
        lambda: litellm.completion(**given, api_base=f"{busy}/v1", api_key=key, max_retries=0)
    )
    answer["wrong_key"] = raised(lambda: litellm.completion(**given, api_base=f"{busy}/v1", api_key="wrong"))
    return answer


print(json.dumps(main(*sys.argv[1:4])))
