"""TGI's own client package, in all modes that work in it. Arguments: URL, URL of a busy server, its key, a chunk.

Its chat streams are broken in themselves: every delta must hold `tool_calls`, which TGI leaves out
(shown with the given chunk, one that TGI sent), and `[DONE]` is read as JSON.
"""

import asyncio
import json
import sys
from typing import Any

import pydantic
from text_generation import AsyncClient, Client
from text_generation.errors import OverloadedError, ValidationError
from text_generation.types import ChatCompletionChunk, Message

PROMPT = "Hello, "
MESSAGES = [Message(role="user", content="Count to 10")]
FULL = {
    "do_sample": True,
    "max_new_tokens": 8,
    "best_of": 2,
    "return_full_text": True,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.1,
    "stop_sequences": ["\n", "."],
    "temperature": 0.5,
    "top_k": 10,
    "top_p": 0.95,
    "truncate": 4,
    "typical_p": 0.95,
    "watermark": True,
    "decoder_input_details": True,
    "top_n_tokens": 2,
}


def raised(call: Any, *arguments: Any, **more: Any) -> str:
    """Class and words of what a call raises."""
    try:
        call(*arguments, **more)
    except (OverloadedError, ValidationError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def sync(url: str, busy: str, key: str) -> dict[str, Any]:
    client = Client(url, timeout=60)
    stream = list(client.generate_stream(PROMPT, max_new_tokens=8, top_n_tokens=2))
    return {
        "generate": client.generate(PROMPT, max_new_tokens=8).dict(),
        "every_parameter": client.generate("Hello, how are you today?", **FULL).dict(),
        "seeded": [client.generate(PROMPT, do_sample=True, seed=7, temperature=0.9).generated_text for _ in range(2)],
        "stream": [event.dict() for event in stream],
        "chat": client.chat(MESSAGES, max_tokens=8, seed=1, temperature=0.0, logprobs=True, top_logprobs=2).dict(),
        "invalid": raised(client.generate, PROMPT, top_n_tokens=10**6),
        "overloaded": raised(Client(busy, headers={"Authorization": f"Bearer {key}"}).generate, PROMPT),
        "overloaded_stream": raised(
            lambda: list(Client(busy, headers={"Authorization": f"Bearer {key}"}).generate_stream(PROMPT))
        ),
    }


async def asynchronous(url: str) -> dict[str, Any]:
    client = AsyncClient(url, timeout=60)
    return {
        "generate": (await client.generate(PROMPT, max_new_tokens=8, decoder_input_details=True)).dict(),
        "stream": [event.dict() async for event in client.generate_stream(PROMPT, max_new_tokens=8)],
        "chat": (await client.chat(MESSAGES, max_tokens=8, temperature=0.0)).dict(),
    }


def reads_chunks_of_tgi(chunk: str) -> bool:
    try:
        ChatCompletionChunk(**json.loads(chunk))
    except pydantic.ValidationError:
        return False
    return True


answer = {
    "sync": sync(*sys.argv[1:4]),
    "async": asyncio.run(asynchronous(sys.argv[1])),
    "reads_chunks_of_tgi": reads_chunks_of_tgi(sys.argv[4]),
}
print(json.dumps(answer))
