"""Our own client package, in all modes. Arguments: URL, URL of a busy server, its key."""

import asyncio
import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from text_generation import AsyncClient, Client
from text_generation.errors import TextGenerationError

PROMPT = "Hello, "
PROMPTS = ["Hello, ", "One, two, "]
MESSAGES = [{"role": "user", "content": "Count to 10"}]
GREEDY: dict[str, Any] = {"max_tokens": 8, "temperature": 0}


def raised(call: Any) -> dict[str, Any]:
    try:
        call()
    except TextGenerationError as error:
        facts = {"status": error.status_code, "error_type": error.error_type, "retry_after": error.retry_after}
        return {"type": type(error).__name__, "text": error.message, **facts}
    return {"type": "nothing"}


def dump(value: Any) -> Any:
    return value.model_dump()


def sync(url: str, busy: str, key: str) -> dict[str, Any]:
    with Client(url, timeout=60) as client, ThreadPoolExecutor(16) as threads:
        return {
            "generate": client.generate(PROMPT, max_new_tokens=8, decoder_input_details=True),
            "stream": list(client.generate_stream(PROMPT, max_new_tokens=8)),
            "zero": client.generate(PROMPT, max_new_tokens=8, temperature=0).generated_text,
            "chat": client.chat(MESSAGES, **GREEDY),
            "chat_stream": list(client.chat(MESSAGES, stream=True, **GREEDY)),
            "completion": client.completion(PROMPTS, **GREEDY),
            "completion_stream": list(client.completion(PROMPTS, stream=True, **GREEDY)),
            "threads": list(threads.map(lambda _: client.generate(PROMPT, max_new_tokens=8).generated_text, range(32))),
            "broken_off": [next(client.generate_stream(PROMPT, max_new_tokens=1000)).token.id for _ in range(3)],
            "invalid": raised(lambda: client.generate(PROMPT, top_n_tokens=10**6)),
            "invalid_stream": raised(lambda: list(client.generate_stream(PROMPT, top_n_tokens=10**6))),
            "invalid_chat": raised(lambda: client.chat(MESSAGES, max_tokens=10**6, logit_bias={"999999": 1})),
            "invalid_chat_stream": raised(lambda: list(client.chat(MESSAGES, stream=True, logit_bias={"999999": 1}))),
            "overloaded": raised(lambda: Client(busy, api_key=key).generate(PROMPT)),
            "overloaded_stream": raised(lambda: list(Client(busy, api_key=key).generate_stream(PROMPT))),
            "overloaded_chat": raised(lambda: Client(busy, api_key=key).chat(MESSAGES)),
            "wrong_key": raised(lambda: Client(busy, api_key="wrong").generate(PROMPT)),
        }


async def asynchronous(url: str) -> dict[str, Any]:
    async with AsyncClient(url, timeout=60) as client:
        together = [client.generate(PROMPT, max_new_tokens=8) for _ in range(32)]
        return {
            "generate": await client.generate(PROMPT, max_new_tokens=8, decoder_input_details=True),
            "stream": [event async for event in client.generate_stream(PROMPT, max_new_tokens=8)],
            "chat": await client.chat(MESSAGES, **GREEDY),
            "chat_stream": [chunk async for chunk in await client.chat(MESSAGES, stream=True, **GREEDY)],
            "completion": await client.completion(PROMPTS, **GREEDY),
            "completion_stream": [chunk async for chunk in await client.completion(PROMPTS, stream=True, **GREEDY)],
            "together": [one.generated_text for one in await asyncio.gather(*together)],
        }


answer = {
    "torch": importlib.util.find_spec("torch") is not None,
    "sync": sync(*sys.argv[1:4]),
    "async": asyncio.run(asynchronous(sys.argv[1])),
}
print(json.dumps(answer, default=dump))
