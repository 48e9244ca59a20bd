"""OpenAI's library on chat and completions. Arguments: URL, URL of a busy server, its key."""

import asyncio
import json
import sys
from typing import Any

import openai

MESSAGES: list[Any] = [{"role": "user", "content": "Count to 10"}]
CHAT: dict[str, Any] = {"model": "tgi", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
COMPLETION: dict[str, Any] = {"model": "tgi", "max_tokens": 8, "temperature": 0}


def raised(call: Any) -> dict[str, Any]:
    """Class, words, status and parameter of what a call raises."""
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "type": type(error).__name__,
            "text": error.message,
            "status": error.status_code,
            "param": error.param,
            "code": error.code,
            "retry_after": error.response.headers.get("retry-after"),
        }
    return {"type": "nothing"}


def dump(value: Any) -> Any:
    return value.model_dump()


def piece(text: str) -> str:
    """A character inside the text that a stop string can hold."""
    return next(character for character in text[1:] if character.isascii())


def chat(client: openai.OpenAI) -> dict[str, Any]:
    create = client.chat.completions.create
    plain = create(**CHAT)
    with client.chat.completions.stream(**CHAT, stop=piece(plain.choices[0].message.content or "")) as stream:
        helper = stream.get_final_completion()
    return {
        "plain": plain,
        "logprobs": create(**CHAT, logprobs=True, top_logprobs=3),
        "samples": create(model="tgi", messages=MESSAGES, max_completion_tokens=8, n=3, seed=5, temperature=1.0),
        "samples_again": create(model="tgi", messages=MESSAGES, max_completion_tokens=8, n=3, seed=5, temperature=1.0),
        "openai_defaults": create(
            **CHAT | {"temperature": 1}, top_p=1, presence_penalty=0, frequency_penalty=0, n=1, user="me", stop=None
        ),
        "biased": create(**CHAT, logit_bias={"40": 100}, logprobs=True),
        "stream": list(create(**CHAT, stream=True, stream_options={"include_usage": True})),
        "stream_samples": list(create(**CHAT | {"temperature": 1}, n=2, seed=5, stream=True)),
        "helper": helper,
        "raw_headers": dict(client.chat.completions.with_raw_response.create(**CHAT).headers),
    }


def completions(client: openai.OpenAI) -> dict[str, Any]:
    create = client.completions.create
    plain = create(prompt="Hello, ", **COMPLETION)
    stop = piece(plain.choices[0].text)
    return {
        "plain": plain,
        "stopped": [create(prompt="Hello, ", stop=stops, **COMPLETION) for stops in (stop, ["zzz", stop])],
        "stop": stop,
        "prompts": create(prompt=["Hello, ", "One, two, "], **COMPLETION),
        "ids": create(prompt=[40, 41, 42], **COMPLETION),
        "several_ids": create(prompt=[[40, 41, 42], [50, 51]], **COMPLETION),
        "samples": create(prompt="Hello, ", n=2, best_of=2, seed=3, **COMPLETION | {"temperature": 1}),
        "echo": create(prompt="Hello, ", echo=True, logprobs=2, **COMPLETION),
        "score": create(prompt=[40, 41, 42], echo=True, logprobs=1, **COMPLETION | {"max_tokens": 0}),
        "stream": list(create(prompt="Hello, ", stream=True, stream_options={"include_usage": True}, **COMPLETION)),
        "stream_prompts": list(create(prompt=["Hello, ", "One, two, "], stream=True, logprobs=1, **COMPLETION)),
    }


def errors(client: openai.OpenAI, busy: str, key: str) -> dict[str, Any]:
    full = openai.OpenAI(base_url=f"{busy}/v1", api_key=key, max_retries=0)
    stranger = openai.OpenAI(base_url=f"{busy}/v1", api_key="wrong", max_retries=0)
    bad_json: Any = {"content": b"{not json", "options": {"headers": {"content-type": "application/json"}}}
    return {
        "temperature": raised(lambda: client.chat.completions.create(**CHAT | {"temperature": -1})),
        "wrong_type": raised(lambda: client.chat.completions.create(**CHAT | {"temperature": "hot"})),
        "no_messages": raised(lambda: client.chat.completions.create(**CHAT | {"messages": []})),
        "long_prompt": raised(lambda: client.completions.create(prompt="word " * 10_000, **COMPLETION)),
        "unknown_ids": raised(lambda: client.completions.create(prompt=[10**6], **COMPLETION)),
        "tools": raised(
            lambda: client.chat.completions.create(**CHAT, tools=[{"type": "function", "function": {"name": "a b"}}])
        ),
        "malformed": raised(lambda: client.post("/completions", cast_to=object, **bad_json)),
        "no_route": raised(lambda: client.moderations.create(model="tgi", input="x")),
        "wrong_key": raised(lambda: stranger.chat.completions.create(**CHAT)),
        "overloaded": raised(lambda: full.chat.completions.create(**CHAT)),
        "overloaded_stream": raised(lambda: full.chat.completions.create(**CHAT, stream=True)),
    }


async def asynchronous(url: str) -> dict[str, Any]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-") as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        return {
            "stream": [chunk async for chunk in stream],
            "together": await asyncio.gather(*(client.chat.completions.create(**CHAT) for _ in range(8))),
            "models": [model async for model in client.models.list()],
        }


def main(url: str, busy: str, key: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    answer = {
        "version": openai.__version__,
        "chat": chat(client),
        "completions": completions(client),
        "errors": errors(client, busy, key),
        "async": asyncio.run(asynchronous(url)),
    }
    print(json.dumps(answer, default=dump))


main(*sys.argv[1:4])
