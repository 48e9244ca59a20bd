"""Client libraries that people use, unmodified, against a real server with a scripted engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import huggingface_hub
import openai
import pytest
from huggingface_hub import errors as hub_errors

from tests.api.fake import FakeEngine, build_app, serve

MESSAGES: list[Any] = [{"role": "user", "content": "Hi"}]
Result = TypeVar("Result")


@pytest.fixture
async def address(engine: FakeEngine) -> AsyncIterator[str]:
    async with serve(build_app(engine)) as address:
        yield address


async def blocking(function: Callable[[], Result]) -> Result:
    """These clients are synchronous; the server needs the loop meanwhile."""
    return await asyncio.to_thread(function)


async def test_openai_chat(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="-") as client:
        answer = await client.chat.completions.create(
            model="tgi", messages=MESSAGES, logprobs=True, top_logprobs=2, stop="w", n=2
        )
    assert answer.id.startswith("chatcmpl-")
    assert [choice.message.content for choice in answer.choices] == ["Hello ", "ello "]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs.content[0].bytes == [72]
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_openai_chat_stream(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="-") as client:
        stream = await client.chat.completions.create(
            model="tgi", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello world"
    assert [chunk.choices[0].delta.role for chunk in chunks[:3]] == ["assistant", None, None]


async def test_openai_stream_helper(address: str) -> None:
    async with (
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="-") as client,
        client.chat.completions.stream(model="tgi", messages=MESSAGES) as stream,
    ):
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello world"


async def test_openai_completions(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="-") as client:
        answer = await client.completions.create(model="tgi", prompt=["a", "b"], echo=True, logprobs=1, max_tokens=1)
        assert [choice.text for choice in answer.choices] == ["aH", "bH"]
        assert answer.choices[0].logprobs.token_logprobs[0] is None
        stream = await client.completions.create(model="tgi", prompt="a", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello world"
        assert [model.id async for model in client.models.list()] == ["org/model"]


async def test_openai_models(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1/", api_key="-") as client:
        assert (await client.models.retrieve("org/model")).id == "org/model"
        with pytest.raises(openai.NotFoundError) as refused:
            await client.models.retrieve("org/another")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


async def test_openai_values_that_mean_off(address: str) -> None:
    """As clients of several servers send them."""
    off = {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0}
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="-") as client:
        answer = await client.chat.completions.create(model="tgi", messages=MESSAGES, top_p=1, extra_body=off)
    assert answer.choices[0].message.content == "Hello world"
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_openai_without_v1(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=address, api_key="-", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="let the base URL of OpenAI's clients end in /v1"):
            await client.chat.completions.create(model="tgi", messages=MESSAGES)


async def test_openai_errors(address: str, engine: FakeEngine) -> None:
    """Each becomes the exception that OpenAI's users catch, with sentence and parameter."""
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0) as client:
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await client.chat.completions.create(model="tgi", messages=MESSAGES, temperature=-1)
        assert refused.value.param == "temperature"
        assert "`temperature` must be strictly positive" in refused.value.message
        with pytest.raises(openai.NotFoundError):
            await client.moderations.create(model="tgi", input="x")
        engine.fail_after = 2
        stream = await client.chat.completions.create(model="tgi", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="the device caught fire"):
            async for _ in stream:
                pass


async def test_openai_key_and_overload() -> None:
    app = build_app(FakeEngine(), api_key="secret", max_concurrent_requests=1)
    async with serve(app) as address:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="tgi", messages=MESSAGES)
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
            await client.chat.completions.create(model="tgi", messages=MESSAGES)
            app.state.api.permits.take(1)
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(model="tgi", messages=MESSAGES)
            assert refused.value.response.headers["retry-after"]


async def test_hub_text_generation(address: str) -> None:
    client = huggingface_hub.InferenceClient(address)
    text = await blocking(lambda: client.text_generation("Hi ", max_new_tokens=5, return_full_text=False))
    assert text == "Hello"
    answer = await blocking(
        lambda: client.text_generation(
            "Hi ", details=True, best_of=2, do_sample=True, decoder_input_details=True, top_n_tokens=2
        )
    )
    assert answer.details.finish_reason == "eos_token"
    assert len(answer.details.best_of_sequences) == 1
    assert answer.details.prefill[0].logprob is None
    assert len(answer.details.top_tokens[0]) == 2


@pytest.mark.parametrize("base", ["/v1/", "/v1", "/"])
async def test_hub_text_generation_at_a_base_url_for_openai(address: str, base: str) -> None:
    """It posts to the base URL itself, with a slash at its end."""
    client = huggingface_hub.InferenceClient(base_url=address + base)
    text = await blocking(lambda: client.text_generation("Hi ", max_new_tokens=5, return_full_text=False))
    assert text == "Hello"
    pieces = await blocking(lambda: list(client.text_generation("Hi", stream=True)))
    assert "".join(pieces) == "Hello world</s>", "as TGI streams it"
    answer = await blocking(lambda: client.chat.completions.create(messages=MESSAGES, max_tokens=5))
    assert answer.choices[0].message.content == "Hello"
    with pytest.raises(hub_errors.ValidationError, match="`top_k` must be strictly positive"):
        await blocking(lambda: client.text_generation("Hi", top_k=0))


async def test_hub_text_generation_stream(address: str) -> None:
    client = huggingface_hub.InferenceClient(address)
    pieces = await blocking(lambda: list(client.text_generation("Hi", stream=True, details=True)))
    assert [piece.token.text for piece in pieces[:5]] == list("Hello")
    assert pieces[-1].details.generated_tokens == 12
    assert pieces[-1].details.input_length == 3


async def test_hub_chat(address: str) -> None:
    client = huggingface_hub.InferenceClient(base_url=address)
    answer = await blocking(lambda: client.chat.completions.create(messages=MESSAGES, max_tokens=5))
    assert answer.choices[0].message.content == "Hello"
    stream = await blocking(lambda: list(client.chat.completions.create(messages=MESSAGES, stream=True)))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello world"


async def test_hub_async(address: str) -> None:
    async with huggingface_hub.AsyncInferenceClient(address) as client:
        stream = await client.chat_completion(MESSAGES, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hello world"
        assert await client.text_generation("Hi", return_full_text=False) == "Hello world"


@pytest.mark.parametrize("stream", [False, True])
async def test_hub_errors(address: str, engine: FakeEngine, stream: bool) -> None:
    """The exceptions that its users catch, by `error_type`, from a status or from an event."""
    client = huggingface_hub.InferenceClient(address)

    def generate(**parameters: Any) -> Any:
        return list(client.text_generation("Hi", stream=stream, **parameters))

    with pytest.raises(hub_errors.ValidationError, match="`top_k` must be strictly positive"):
        await blocking(lambda: generate(top_k=0))
    engine.fail_after = 1
    with pytest.raises(hub_errors.GenerationError, match="the device caught fire"):
        await blocking(generate)


@pytest.mark.parametrize("base", ["", "/v1/"])
async def test_hub_wrong_key(base: str) -> None:
    """Status and sentence reach the user; an `error_type` unknown to the client would hide the status."""
    async with serve(build_app(FakeEngine(), api_key="secret")) as address:
        client = huggingface_hub.InferenceClient(base_url=address + base, token="wrong")
        for stream in (False, True):
            with pytest.raises(hub_errors.HfHubHTTPError, match="Missing or wrong API key") as refused:
                await blocking(lambda stream=stream: list(client.text_generation("Hi", stream=stream)))
            assert refused.value.response.status_code == 401


async def test_hub_chat_error(address: str) -> None:
    client = huggingface_hub.InferenceClient(address)
    with pytest.raises(hub_errors.HfHubHTTPError, match="must be strictly positive") as refused:
        await blocking(lambda: client.chat_completion(MESSAGES, temperature=-1.0))
    assert refused.value.response.status_code == 422
