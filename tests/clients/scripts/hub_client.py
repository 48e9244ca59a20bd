"""huggingface_hub's InferenceClient, synchronous and not. Arguments: URL, URL of a busy server, its key."""

import asyncio
import json
import sys
from typing import Any

import huggingface_hub
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError, TextGenerationError

PROMPT = "Hello, "
MESSAGES = [{"role": "user", "content": "Count to 10"}]
FULL: dict[str, Any] = {
    "best_of": 2,
    "decoder_input_details": True,
    "details": True,
    "do_sample": True,
    "frequency_penalty": 0.1,
    "max_new_tokens": 8,
    "repetition_penalty": 1.1,
    "return_full_text": True,
    "stop": ["\n", "."],
    "temperature": 0.5,
    "top_k": 10,
    "top_n_tokens": 2,
    "top_p": 0.95,
    "truncate": 4,
    "typical_p": 0.95,
    "watermark": True,
}


def raised(call: Any) -> dict[str, Any]:
    """Class, words and status of what a call raises."""
    try:
        call()
    except (TextGenerationError, HfHubHTTPError) as error:
        response = getattr(error, "response", None)
        return {"type": type(error).__name__, "text": str(error), "status": getattr(response, "status_code", None)}
    return {"type": "nothing"}


def sync(url: str, busy: str, key: str) -> dict[str, Any]:
    client = InferenceClient(url, timeout=60)
    full = InferenceClient(busy, token=key, timeout=60)
    openai_style = InferenceClient(base_url=url, timeout=60)
    return {
        "text": client.text_generation(PROMPT, max_new_tokens=8, return_full_text=False),
        "default": client.text_generation(PROMPT, max_new_tokens=8),
        "details": client.text_generation(PROMPT, max_new_tokens=8, details=True, return_full_text=False),
        "every_parameter": client.text_generation("Hello, how are you today?", **FULL),
        "stream": list(client.text_generation(PROMPT, max_new_tokens=8, stream=True)),
        "stream_details": list(client.text_generation(PROMPT, max_new_tokens=8, stream=True, details=True)),
        "chat": client.chat_completion(MESSAGES, max_tokens=8, temperature=0.0, logprobs=True, top_logprobs=2),
        "chat_stream": list(
            client.chat_completion(
                MESSAGES, max_tokens=8, temperature=0.0, stream=True, stream_options={"include_usage": True}
            )
        ),
        "chat_openai_style": list(
            openai_style.chat.completions.create(messages=MESSAGES, max_tokens=8, temperature=0.0, stream=True)
        ),
        "invalid": raised(lambda: client.text_generation(PROMPT, top_k=-1)),
        "invalid_stream": raised(lambda: list(client.text_generation(PROMPT, top_k=-1, stream=True))),
        "invalid_chat": raised(lambda: client.chat_completion(MESSAGES, temperature=-1.0)),
        "overloaded": raised(lambda: full.text_generation(PROMPT)),
        "overloaded_stream": raised(lambda: list(full.text_generation(PROMPT, stream=True))),
        "overloaded_chat": raised(lambda: full.chat_completion(MESSAGES)),
        "wrong_key": raised(lambda: InferenceClient(busy, token="wrong").text_generation(PROMPT)),
    }


async def asynchronous(url: str) -> dict[str, Any]:
    async with AsyncInferenceClient(url, timeout=60) as client:
        return {
            "text": await client.text_generation(PROMPT, max_new_tokens=8, return_full_text=False),
            "stream": [piece async for piece in await client.text_generation(PROMPT, max_new_tokens=8, stream=True)],
            "chat_stream": [
                chunk
                async for chunk in await client.chat_completion(MESSAGES, max_tokens=8, temperature=0.0, stream=True)
            ],
        }


answer = {
    "version": huggingface_hub.__version__,
    "sync": sync(*sys.argv[1:4]),
    "async": asyncio.run(asynchronous(sys.argv[1])),
}
print(json.dumps(answer, default=vars))
