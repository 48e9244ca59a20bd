"""`/v1/completions`: prompts of every form, echo, and the legacy log-probabilities."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.api.fake import BOS, FakeEngine, build_app, ids_of

ROUTE = "/v1/completions"


async def complete(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(ROUTE, json={"prompt": "ab", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def chunks(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    answer = await client.post(ROUTE, json={"prompt": "ab", "stream": True, **fields})
    assert answer.status_code == 200, answer.text
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in events[:-2]]


async def refused(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(ROUTE, json={"prompt": "ab", **fields})
    assert answer.status_code == 422
    return answer.json()


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **details}


async def test_answer(client: httpx.AsyncClient) -> None:
    body = await complete(client, max_tokens=3)
    assert re.fullmatch("cmpl-[0-9a-f]{32}", body.pop("id"))
    assert body.pop("created") > 1_700_000_000
    assert body.pop("system_fingerprint").endswith("-native")
    assert body == {
        "object": "text_completion",
        "model": "org/model",
        "choices": [{"index": 0, "text": "Hel", "logprobs": None, "finish_reason": "length"}],
        "usage": usage(3, 3),
    }


async def test_stream_bytes(client: httpx.AsyncClient) -> None:
    fields = {"max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post(ROUTE, json={"prompt": "ab", **fields})
    text = re.sub(r'"id":"cmpl-[0-9a-f]{32}","created":\d+', "ID", answer.text)
    text = re.sub(r'"system_fingerprint":"[^"]+"', "FP", text)
    head, tail = 'data: {"object":"text_completion",ID,"choices":[', '],"model":"org/model",FP'
    assert text == (
        f'{head}{{"index":0,"text":"H","logprobs":null,"finish_reason":null}}{tail},"usage":null}}\n\n'
        f'{head}{{"index":0,"text":"e","logprobs":null,"finish_reason":"length"}}{tail},"usage":null}}\n\n'
        f'{head}{tail},"usage":{{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,'
        '"prompt_tokens_details":{"cached_tokens":0}}}\n\n'
        "data: [DONE]\n\n"
    )
    assert all("usage" not in chunk for chunk in await chunks(client))


async def test_the_end_of_a_stream_has_no_text(client: httpx.AsyncClient) -> None:
    *parts, last = [chunk["choices"][0] for chunk in await chunks(client)]
    assert "".join(part["text"] for part in parts) == "Hello world"
    assert (last["text"], last["finish_reason"]) == ("", "stop")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("ab", [[BOS, *ids_of("ab")]]),
        (["ab", "c"], [[BOS, *ids_of("ab")], [BOS, *ids_of("c")]]),
        ([5, 6], [[5, 6]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ],
)
async def test_forms_of_the_prompt(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, expected: list[list[int]]
) -> None:
    body = await complete(client, prompt=prompt)
    assert [request.prompt_ids for request in engine.requests] == expected
    assert [choice["index"] for choice in body["choices"]] == list(range(len(expected)))
    assert body["usage"]["prompt_tokens"] == sum(map(len, expected))


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], [[], [1]], [-1], [258], [999_999], [[1], [-1]], [[1], "a"]])
async def test_prompts_that_are_none(client: httpx.AsyncClient, prompt: Any) -> None:
    assert (await refused(client, prompt=prompt))["error"]["param"] == "prompt"


async def test_messages_of_tgi(client: httpx.AsyncClient) -> None:
    body = await refused(client, prompt=[])
    assert "Empty array detected. Do not use an empty array for the prompt." in body["error"]["message"]
    body = await refused(client, prompt=["a"] * 5)
    assert body["error"]["message"] == (
        "Number of prompts exceeds the maximum allowed batch size of 4 (--max-client-batch-size). Given: 5"
    )
    assert body["error_type"] == "batch size exceeded"
    body = await refused(client, suffix="x")
    assert body["error"]["message"] == "Suffix is not supported and can be achieved by preprocessing the prompt."
    assert body["error_type"] == "suffix not supported"


async def test_choices_are_in_index_order(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = await complete(client, prompt=["a", "b"], n=2, max_tokens=2)
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [
        (0, "He"),
        (1, "el"),
        (2, "He"),
        (3, "el"),
    ]
    assert body["usage"] == usage(4, 8)


async def test_stream_of_several_prompts(client: httpx.AsyncClient) -> None:
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for chunk in await chunks(client, prompt=["a", "b", "c"], n=2):
        (choice,) = chunk["choices"]
        assert choice["index"] not in reasons
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
    assert texts == {index: "Hello world"[index % 2 :] for index in range(6)}
    assert reasons == dict.fromkeys(range(6), "stop")


async def test_one_wrong_prompt_fails_all(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await refused(client, prompt=["a", "x" * 300])
    assert engine.requests == []


async def test_best_of(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.worst_first = True
    body = await complete(client, best_of=2)
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [(0, "ello world")]
    assert (await refused(client, best_of=2, stream=True))["error"]["param"] == "best_of"
    assert (await refused(client, best_of=1_000_000_000))["error"]["param"] == "best_of"


async def test_stop_is_excluded(client: httpx.AsyncClient) -> None:
    (choice,) = (await complete(client, stop="o w"))["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Hell", "stop")


async def test_echo(client: httpx.AsyncClient) -> None:
    (choice,) = (await complete(client, echo=True, max_tokens=2))["choices"]
    assert choice["text"] == "abHe"
    pieces = [chunk["choices"][0]["text"] for chunk in await chunks(client, echo=True, max_tokens=2)]
    assert pieces == ["abH", "e"]


@pytest.mark.parametrize(("max_tokens", "samples"), [(0, 1), (3, 1), (3, 2)])
async def test_echo_with_log_probabilities_in_a_stream(
    client: httpx.AsyncClient, max_tokens: int, samples: int
) -> None:
    """The first chunk of each choice begins with the prompt's; together the chunks are the whole answer."""
    fields = {"echo": True, "logprobs": 1, "max_tokens": max_tokens, "n": samples, "seed": 1}
    whole = (await complete(client, **fields))["choices"]
    streamed: dict[int, Any] = {}
    for chunk in await chunks(client, **fields):
        (choice,) = chunk["choices"]
        before = streamed.setdefault(choice["index"], choice)
        if before is choice:
            assert choice["logprobs"]["tokens"][:3] == ["<s>", "a", "b"]
            assert choice["logprobs"]["token_logprobs"][0] is None
            continue
        before["text"] += choice["text"]
        before["finish_reason"] = choice["finish_reason"]
        for name, values in choice["logprobs"].items():
            before["logprobs"][name] += values
    assert list(streamed.values()) == whole


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_log_probabilities_of_a_prompt(client: httpx.AsyncClient, engine: FakeEngine, max_tokens: int) -> None:
    """What lm-eval's local-completions sends, and reads back."""
    prompt = ids_of("abc")
    fields = {"max_tokens": max_tokens, "temperature": 0, "logprobs": 1, "seed": 1234, "echo": True}
    body = await complete(client, prompt=[prompt], **fields)
    (choice,) = body["choices"]
    logprobs = choice["logprobs"]
    new = ["H"][:max_tokens]
    assert choice["text"] == "abc" + "".join(new)
    assert logprobs["tokens"] == ["a", "b", "c", *new]
    assert logprobs["token_logprobs"] == [None, -1.125, -1.25, *[-0.5][:max_tokens]]
    assert logprobs["text_offset"] == [0, 1, 2, 3][: 3 + max_tokens]
    assert logprobs["top_logprobs"] == [None, {"b": -1.125}, {"c": -1.25}, {"H": -0.5}][: 3 + max_tokens]
    assert body["usage"]["completion_tokens"] == max_tokens
    assert choice["finish_reason"] == "length"
    assert engine.requests[0].sampling.prompt_logprobs == 1
    assert engine.requests[0].sampling.raw_logprobs


async def test_log_probabilities_without_echo(client: httpx.AsyncClient) -> None:
    (choice,) = (await complete(client, logprobs=2, max_tokens=2))["choices"]
    assert choice["logprobs"]["tokens"] == ["H", "e"]
    assert choice["logprobs"]["text_offset"] == [2, 3]
    assert [len(top) for top in choice["logprobs"]["top_logprobs"]] == [2, 2]
    (choice,) = (await complete(client, logprobs=0, max_tokens=1))["choices"]
    assert choice["logprobs"] == {
        "tokens": ["H"],
        "token_logprobs": [-0.5],
        "top_logprobs": None,
        "text_offset": [2],
    }
    first, second = (chunk["choices"][0]["logprobs"] for chunk in await chunks(client, logprobs=1, max_tokens=2))
    assert (first["text_offset"], second["text_offset"]) == ([2], [3])


async def test_special_tokens_have_no_width(client: httpx.AsyncClient) -> None:
    """BOS is a token of the echoed prompt but not of its text; as a token id it is both."""
    (choice,) = (await complete(client, echo=True, logprobs=0, max_tokens=0))["choices"]
    assert choice["logprobs"]["tokens"] == ["<s>", "a", "b"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1]
    (choice,) = (await complete(client, prompt=[BOS, *ids_of("ab")], echo=True, logprobs=0, max_tokens=0))["choices"]
    assert choice["text"] == "<s>ab"
    assert choice["logprobs"]["text_offset"] == [0, 3, 4]


async def test_parts_of_a_character_are_named_by_their_bytes(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.reply = "é"
    (choice,) = (await complete(client, logprobs=0, max_tokens=2))["choices"]
    assert choice["logprobs"]["tokens"] == ["bytes:\\xc3", "é"]


async def test_what_is_not_supported_is_said(client: httpx.AsyncClient) -> None:
    assert (await refused(client, response_format={"type": "yaml"}))["error"]["param"] == "response_format"
    assert (await refused(client, logprobs=6))["error"]["param"] == "logprobs"


async def test_headers(client: httpx.AsyncClient) -> None:
    headers = (await client.post(ROUTE, json={"prompt": ["ab", "cde"], "max_tokens": 2})).headers
    assert headers["x-compute-characters"] == "5"
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("7", "4")
    assert "x-compute-time" not in headers
    assert headers["x-total-time"].isdecimal()


@pytest.mark.parametrize(
    ("fields", "cached"),
    [
        ({}, 2),
        ({"prompt": ["ab", "c"]}, 4),
        ({"n": 3}, 2),
        ({"best_of": 2, "prompt": ["ab", "cd"]}, 4),
        ({"max_tokens": 0, "echo": True}, 2),
    ],
)
async def test_cached_tokens(client: httpx.AsyncClient, engine: FakeEngine, fields: Any, cached: int) -> None:
    """Those found when the request came, counted once a prompt: not what its own samples share."""
    engine.cached_tokens = 2
    body = await complete(client, **fields)
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": cached}
    if "best_of" not in fields:
        options = {"include_usage": True, "continuous_usage_stats": True}
        *parts, last = await chunks(client, stream_options=options, **fields)
        assert last["usage"] == body["usage"]
        assert parts[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": cached}


async def test_many_prompts_where_the_server_allows_them() -> None:
    app = build_app(FakeEngine(), max_client_batch_size=64, max_concurrent_requests=128)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        body = await complete(client, prompt=["ab"] * 64, max_tokens=1)
        assert [choice["index"] for choice in body["choices"]] == list(range(64))
        body = await refused(client, prompt=["ab"] * 65)
    assert "batch size of 64 (--max-client-batch-size). Given: 65" in body["error"]["message"]
