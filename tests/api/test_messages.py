"""Every validation message of TGI, each produced by a request; images have none yet."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordLevel

from tests.api.fake import INFO, FakeEngine, build_app
from tgi.serving.languages import Languages
from tgi.serving.tokenizer import Tokenizer

SAMPLED = {"do_sample": True}

WHOLE = [
    ({"best_of": 3, **SAMPLED}, "`best_of` must be > 0 and <= 2. Given: 3"),
    ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
    ({"temperature": -1.0}, "`temperature` must be strictly positive"),
    ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
    ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    ({"frequency_penalty": -2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    ({"top_p": 0.0}, "`top_p` must be > 0.0 and < 1.0"),
    ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
    ({"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0"),
    ({"top_k": 0}, "`top_k` must be strictly positive"),
    ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
    ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
    ({"seed": 1, "best_of": 2, **SAMPLED}, "`seed` must not be set when `best_of` > 1"),
    ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    ({"truncate": 0}, "`truncate` must be strictly positive. Given: 0"),
    (
        {"max_new_tokens": 300},
        "`inputs` tokens + `max_new_tokens` must be <= 256. Given: 2 `inputs` tokens and 300 `max_new_tokens`",
    ),
    (
        {"max_new_tokens": 4_000_000_000},
        "`inputs` tokens + `max_new_tokens` must be <= 256. Given: 2 `inputs` tokens and 1024 `max_new_tokens`",
    ),
]
STREAMED = [
    ({"best_of": 2, **SAMPLED}, "`best_of` != 1 is not supported when streaming tokens"),
    ({"best_of": 0}, "`best_of` != 1 is not supported when streaming tokens"),
    (
        {"decoder_input_details": True},
        "`decoder_input_details` == true is not supported when streaming tokens",
    ),
]


def error(message: str) -> dict[str, str]:
    return {"error": f"Input validation error: {message}", "error_type": "validation"}


@pytest.mark.parametrize(("parameters", "message"), WHOLE)
async def test_generate(client: httpx.AsyncClient, parameters: dict[str, Any], message: str) -> None:
    for route in ("/generate", "/"):
        answer = await client.post(route, json={"inputs": "x", "parameters": parameters})
        assert answer.status_code == 422
        assert answer.json() == error(message)
        assert not [name for name in answer.headers if name.startswith("x-")]


@pytest.mark.parametrize(("parameters", "message"), STREAMED + [case for case in WHOLE if "best_of" not in case[0]])
async def test_stream(client: httpx.AsyncClient, parameters: dict[str, Any], message: str) -> None:
    """Under status 200, as an event, which is the last."""
    answer = await client.post("/generate_stream", json={"inputs": "x", "parameters": parameters})
    assert answer.status_code == 200
    assert answer.text == f'data: {{"error":"Input validation error: {message}","error_type":"validation"}}\n\n'


async def test_best_of_not_allowed() -> None:
    app = build_app(FakeEngine(), max_best_of=1)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/generate", json={"inputs": "x", "parameters": {"best_of": 2, **SAMPLED}})
    assert answer.json() == error("`best_of` != 1 is not allowed for this endpoint")


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (0, "`inputs` cannot be empty"),
        (254, None),  # with BOS 255 tokens: equality is accepted
        (255, "`inputs` must have less than 255 tokens. Given: 256"),
        (
            300,
            "`inputs` tokens + `max_new_tokens` must be <= 256. Given: 301 `inputs` tokens and 0 `max_new_tokens`",
        ),
    ],
)
async def test_length_of_inputs(client: httpx.AsyncClient, length: int, message: str | None) -> None:
    answer = await client.post("/generate", json={"inputs": "x" * length, "parameters": {}})
    assert answer.status_code == (422 if message else 200)
    if message:
        assert answer.json() == error(message)


async def test_truncate_accepts_its_limit(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate", json={"inputs": "x" * 500, "parameters": {"truncate": 255}})
    assert answer.status_code == 200


@pytest.mark.parametrize("truncate", [255, 256, 2048, 2**32, 2**64 - 1])
async def test_truncate_beyond_the_limit_is_the_limit(
    client: httpx.AsyncClient, engine: FakeEngine, truncate: int
) -> None:
    """Clients send one number to whatever is served; on every route, for text and for token ids."""
    text, parameters = "x" * 300, {"truncate": truncate}
    bodies = [
        ("/", {"inputs": text, "parameters": parameters}),
        ("/generate", {"inputs": text, "parameters": parameters}),
        ("/generate_stream", {"inputs": text, "parameters": parameters}),
        ("/invocations", {"inputs": text, "parameters": parameters}),
        ("/v1/completions", {"prompt": text, **parameters}),
        ("/v1/completions", {"prompt": [88] * 300, **parameters}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **parameters}),
    ]
    for route, body in bodies:
        answer = await client.post(route, json=body)
        assert answer.status_code == 200 and "error" not in answer.text, (route, answer.text)
        assert len(engine.requests[-1].prompt_ids) == 255, route
    short = await client.post("/generate", json={"inputs": "x", "parameters": parameters})
    assert short.headers["x-prompt-tokens"] == "2"


@pytest.mark.parametrize("truncate", [-1, -2048])
async def test_truncate_is_no_negative_number(client: httpx.AsyncClient, truncate: int) -> None:
    for route, body in (
        ("/generate", {"inputs": "x", "parameters": {"truncate": truncate}}),
        ("/v1/completions", {"prompt": "x", "truncate": truncate}),
    ):
        answer = await client.post(route, json=body)
        assert answer.status_code == 422 and "truncate" in answer.text


@pytest.mark.parametrize(
    "parameters",
    [
        {"best_of": 0},
        {"frequency_penalty": 2.0},
        {"frequency_penalty": -2.0},
        {"top_n_tokens": 0},
        {"temperature": 0},
        {"stop": list("abcd")},
        {"max_new_tokens": 254},
        {"seed": 2**64 - 1},
    ],
)
async def test_accepted_bounds(client: httpx.AsyncClient, parameters: dict[str, Any]) -> None:
    answer = await client.post("/generate", json={"inputs": "x", "parameters": parameters})
    assert answer.status_code == 200, answer.text


async def test_max_new_tokens_beyond_a_step_ends_at_the_context() -> None:
    """The check counts at most 1024 of them, as TGI does; the text ends where the context does."""
    engine = FakeEngine(msgspec.structs.replace(INFO, max_total_tokens=1100))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build_app(engine)), base_url="http://test") as client:
        parameters = {"max_new_tokens": 5000, "ignore_eos": True, "details": True}
        answer = await client.post("/generate", json={"inputs": "x", "parameters": parameters})
    details = answer.json()["details"]
    assert (details["generated_tokens"], details["finish_reason"]) == (1098, "length")


async def test_text_outside_of_the_vocabulary() -> None:
    app = build_app(FakeEngine())
    service = app.state.api.service
    service.tokenizer = Tokenizer(FastTokenizer(WordLevel({"a": 0}, unk_token="[UNK]")), {})
    service.languages = Languages(service.tokenizer)
    message = "tokenizer error WordLevel error: Missing [UNK] token from the vocabulary"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for route in ("/generate", "/", "/tokenize"):
            answer = await client.post(route, json={"inputs": "unheard"})
            assert (answer.status_code, answer.json()) == (422, error(message))
        answer = await client.post("/v1/completions", json={"prompt": "unheard"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "prompt")


async def test_unknown_adapter(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate", json={"inputs": "x", "parameters": {"adapter_id": "nope"}})
    assert answer.status_code == 422
    assert "`adapter_id`" in answer.json()["error"]


async def test_image_links_stay_text(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    link = "![](http://127.0.0.1:1/x.png)"
    assert (await client.post("/generate", json={"inputs": link})).status_code == 200
    assert len(engine.requests[0].prompt_ids) == len(link) + 1
