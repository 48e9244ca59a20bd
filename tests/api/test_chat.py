"""`/v1/chat/completions` and `/chat_tokenize`: OpenAI's specification, TGI's extra fields."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.api.fake import EOS, FakeEngine, build_app, ids_of
from tgi.serving.chat_template import ChatTemplate

ROUTE = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]


async def chat(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(ROUTE, json={"messages": MESSAGES, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def chunks(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    answer = await client.post(ROUTE, json={"messages": MESSAGES, "stream": True, **fields})
    assert answer.status_code == 200, answer.text
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in events[:-2]]


async def refused(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(ROUTE, json={"messages": MESSAGES, **fields})
    assert answer.status_code == 422
    body = answer.json()
    assert set(body) == {"error", "error_type"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body


def usage(prompt: int, completion: int) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": 0}}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **details}


async def test_answer(client: httpx.AsyncClient) -> None:
    body = await chat(client)
    assert re.fullmatch("chatcmpl-[0-9a-f]{32}", body.pop("id"))
    assert body.pop("created") > 1_700_000_000
    assert body.pop("system_fingerprint").endswith("-native")
    assert body == {
        "object": "chat.completion",
        "model": "org/model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage(19, 12),
    }


async def test_stream_bytes(client: httpx.AsyncClient) -> None:
    """The role comes once, the reason last, the usage in a chunk without choices."""
    fields = {"max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post(ROUTE, json={"messages": MESSAGES, **fields})
    text = re.sub(r'"id":"chatcmpl-[0-9a-f]{32}","created":\d+', "ID", answer.text)
    text = re.sub(r'"system_fingerprint":"[^"]+"', "FP", text)
    head = 'data: {"object":"chat.completion.chunk",ID,"model":"org/model",FP,"choices":['
    assert text == (
        f'{head}{{"index":0,"delta":{{"role":"assistant","content":"H"}},"logprobs":null,"finish_reason":null}}],'
        '"usage":null}\n\n'
        f'{head}{{"index":0,"delta":{{"content":"e"}},"logprobs":null,"finish_reason":"length"}}],"usage":null}}\n\n'
        f'{head}],"usage":{{"prompt_tokens":19,"completion_tokens":2,"total_tokens":21,'
        '"prompt_tokens_details":{"cached_tokens":0}}}\n\n'
        "data: [DONE]\n\n"
    )


async def test_template_and_no_special_tokens(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await chat(client)
    assert engine.requests[0].prompt_ids == ids_of("[user]Hi[assistant]")


async def test_content_parts_are_joined(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "extra": 1}]
    await chat(client, messages=[{"role": "user", "content": parts}])
    assert engine.requests[0].prompt_ids == ids_of("[user]ab[assistant]")


async def test_last_assistant_message_is_continued(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await chat(client, messages=[*MESSAGES, {"role": "assistant", "content": "I am"}])
    assert engine.requests[0].prompt_ids == ids_of("[user]Hi[assistant]I am")


@pytest.mark.parametrize("stop", ["lo w", ["xyz", "lo w"]])
async def test_stop_is_excluded(client: httpx.AsyncClient, stop: Any) -> None:
    """A string or a list; left out of the text, held back while streaming."""
    choice = (await chat(client, stop=stop))["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hel", "stop")
    pieces = [chunk["choices"][0] for chunk in await chunks(client, stop=stop)]
    assert "".join(piece["delta"]["content"] for piece in pieces) == "Hel"
    assert pieces[-1]["finish_reason"] == "stop"


async def test_n(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = await chat(client, n=3, max_tokens=2)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["He", "el", "ll"]
    assert body["usage"] == usage(19, 6)
    assert len(engine.requests) == 1
    roles = [c["choices"][0]["index"] for c in await chunks(client, n=2) if "role" in c["choices"][0]["delta"]]
    assert sorted(roles) == [0, 1]


async def test_n_beyond_all_permits(client: httpx.AsyncClient) -> None:
    assert (await refused(client, n=1_000_000_000))["error"]["param"] == "n"
    assert (await refused(client, n=0))["error"]["param"] == "n"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_max_tokens(client: httpx.AsyncClient, name: str) -> None:
    choice = (await chat(client, **{name: 4}))["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hell", "length")


async def test_both_names_of_max_tokens(client: httpx.AsyncClient) -> None:
    body = await refused(client, max_tokens=4, max_completion_tokens=4)
    assert body["error"]["param"] == "max_completion_tokens"


async def test_error_names_openais_parameter(client: httpx.AsyncClient) -> None:
    body = await refused(client, max_tokens=0)
    assert body["error"]["param"] == "max_tokens"
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error_type"] == "validation"


async def test_validation_before_the_stream_has_its_status(client: httpx.AsyncClient) -> None:
    body = await refused(client, stream=True, temperature=-1)
    assert body["error"]["message"] == (
        "Input validation error: `temperature` must be strictly positive, or 0 for greedy. Given: -1.0"
    )


async def test_sampling(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await chat(client)
    await chat(client, temperature=0, top_p=0.9)
    await chat(client, top_p=1, temperature=1, top_k=7, repetition_penalty=1.1, typical_p=0.9)
    default, greedy, extra = (request.sampling for request in engine.requests)
    assert (default.do_sample, default.temperature) == (True, 1.0)
    assert not greedy.do_sample
    assert (extra.top_p, extra.top_k, extra.repetition_penalty, extra.typical_p) == (1.0, 7, 1.1, 0.9)


async def test_presence_penalty_is_openais(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await chat(client, presence_penalty=0.5, frequency_penalty=0.25)
    sampling = engine.requests[0].sampling
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, 0.25)
    assert sampling.repetition_penalty == 1.0


async def test_logit_bias(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await chat(client, logit_bias={"5": 1.5, "0": -100})
    assert engine.requests[0].sampling.logit_bias == {5: 1.5, 0: -100.0}
    for key in ("AI", "-1", "258", "99999999999999999999999", "1.0", "²", ""):
        assert (await refused(client, logit_bias={key: 1}))["error"]["param"] == "logit_bias"
    assert (await refused(client, logit_bias={"1": 101}))["error"]["param"] == "logit_bias"


async def test_logit_bias_as_tgis_clients_send_it(client: httpx.AsyncClient) -> None:
    answer = await client.post(ROUTE, json={"messages": MESSAGES, "logit_bias": [0.5]})
    assert answer.headers["x-tgi-ignored"] == "logit_bias"


async def test_load_generators_knobs(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = await chat(client, ignore_eos=True, max_tokens=30)
    assert body["usage"]["completion_tokens"] == 30
    body = await chat(client, min_tokens=20, max_tokens=30)
    assert body["usage"]["completion_tokens"] >= 20
    await chat(client, stop_token_ids=[3])
    assert 3 in engine.requests[-1].sampling.eos_token_ids


async def test_seed_may_be_negative(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await chat(client, seed=-1)
    assert engine.requests[0].seeds == (2**64 - 1,)


async def test_logprobs_are_raw_and_have_bytes(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    choice = (await chat(client, logprobs=True, top_logprobs=2, max_tokens=1))["choices"][0]
    (entry,) = choice["logprobs"]["content"]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("H", -0.5, [72])
    assert [set(one) for one in entry["top_logprobs"]] == [{"token", "logprob", "bytes"}] * 2
    assert engine.requests[0].sampling.raw_logprobs
    (entry,) = (await chunks(client, logprobs=True, max_tokens=1))[0]["choices"][0]["logprobs"]["content"]
    assert entry["top_logprobs"] == []


async def test_bytes_of_a_part_of_a_character(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.reply = "é"
    entries = (await chat(client, logprobs=True))["choices"][0]["logprobs"]["content"]
    assert [entry["bytes"] for entry in entries[:2]] == [[0xC3], [0xA9]]


async def test_top_logprobs_without_logprobs_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post(ROUTE, json={"messages": MESSAGES, "top_logprobs": 2})
    assert answer.json()["choices"][0]["logprobs"] is None
    assert answer.headers["x-tgi-ignored"] == "top_logprobs"
    assert (await refused(client, logprobs=True, top_logprobs=6))["error"]["param"] == "top_logprobs"


async def test_usage_in_every_chunk(client: httpx.AsyncClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *parts, last = await chunks(client, max_tokens=2, stream_options=options)
    assert [part["usage"]["completion_tokens"] for part in parts] == [1, 2]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 21)


@pytest.mark.parametrize("model", ["org/model", "tgi", "dummy", "", "http://host:1/v1"])
async def test_model_names_that_mean_the_served_one(client: httpx.AsyncClient, model: str) -> None:
    answer = await client.post(ROUTE, json={"messages": MESSAGES, "model": model})
    assert answer.json()["model"] == "org/model"
    assert "x-tgi-ignored" not in answer.headers


async def test_unknown_model_is_named(client: httpx.AsyncClient) -> None:
    for route, prompt in ((ROUTE, {"messages": MESSAGES}), ("/v1/completions", {"prompt": "x"})):
        answer = await client.post(route, json={**prompt, "model": "gpt-4o"})
        assert answer.json()["model"] == "org/model"
        assert answer.headers["x-tgi-ignored"] == "model"


async def test_fields_without_effect_are_named(client: httpx.AsyncClient) -> None:
    fields = {"user": "u", "parallel_tool_calls": False, "stream_options": {"include_usage": True}, "tool_prompt": "x"}
    answer = await client.post(ROUTE, json={"messages": [{**MESSAGES[0], "refusal": "x"}], **fields})
    assert answer.headers["x-tgi-ignored"] == (
        "messages.0.refusal, parallel_tool_calls, stream_options, tool_prompt, user"
    )


@pytest.mark.parametrize(
    "fields", [{"tools": []}, {"tools": [], "tool_choice": "auto"}, {"tools": [{"type": "x"}], "tool_choice": "none"}]
)
async def test_tools_that_are_not_to_be_used(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    assert (await chat(client, **fields))["choices"][0]["message"]["content"] == "Hello world"


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [TOOL, TOOL]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        {"tools": [TOOL], "tool_choice": "g"},
        {"tools": [TOOL], "tool_choice": {"type": "x"}},
        {"tool_choice": "required"},
    ],
)
async def test_tools_that_make_no_sense(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    body = await refused(client, **fields)
    assert body["error_type"] == "tool_error"
    assert body["error"]["message"].startswith("Tool error: ")


async def test_images(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png", "detail": "low"}}
    body = await refused(client, messages=[{"role": "user", "content": [image]}])
    assert "images are not supported" in body["error"]["message"]
    await chat(client, messages=[{"role": "user", "content": "![](http://127.0.0.1:1/x.png)"}])
    assert len(engine.requests) == 1


async def test_template_error(client: httpx.AsyncClient) -> None:
    body = await refused(client, messages=[{"role": "bad", "content": "x"}])
    assert body["error_type"] == "template_error"
    assert body["error"]["message"].startswith("Template error: ")
    assert "no such role" in body["error"]["message"]


async def test_messages_without_content(client: httpx.AsyncClient) -> None:
    assert "missing field `content`" in (await refused(client, messages=[{"role": "user"}]))["error"]["message"]
    assert (await refused(client, messages=[]))["error"]["param"] == "messages"
    call = {"id": "0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    turns = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [call]}]
    await chat(client, messages=[*turns, {"role": "tool", "tool_call_id": "0", "content": "7"}])


async def test_headers(client: httpx.AsyncClient) -> None:
    headers = (await client.post(ROUTE, json={"messages": MESSAGES})).headers
    assert headers["x-compute-characters"] == str(len("[user]Hi[assistant]"))
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("19", "12")
    assert "x-compute-time" in headers


async def test_chat_tokenize(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat_tokenize", json={"messages": MESSAGES})
    body = answer.json()
    assert body["templated_text"] == "[user]Hi[assistant]"
    assert [token["id"] for token in body["tokenize_response"]] == ids_of("[user]Hi[assistant]")
    assert body["tokenize_response"][1] == {"id": ids_of("u")[0], "text": "u", "start": 1, "stop": 2}
    answer = await client.post("/chat_tokenize", json={"messages": [{"role": "bad", "content": "x"}]})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "template_error")
    assert isinstance(answer.json()["error"], str)


async def test_content_and_developer_as_the_template_wants_them(engine: FakeEngine) -> None:
    """On both routes that render conversations."""
    template = ChatTemplate({"default": "{% for m in messages %}[{{ m.role }}]{{ m.content[0].text }}{% endfor %}"})
    transport = httpx.ASGITransport(build_app(engine, template))
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for content in ("Hi!", parts):
            messages = [{"role": "developer", "content": content}, {"role": "user", "content": content}]
            answer = await client.post("/chat_tokenize", json={"messages": messages})
            assert answer.json()["templated_text"] == "[system]Hi![user]Hi!"
            await chat(client, messages=messages)
            assert engine.requests[-1].prompt_ids == ids_of("[system]Hi![user]Hi!")
    template.close()


async def test_eos_is_in_the_logprobs_and_not_in_the_text(client: httpx.AsyncClient) -> None:
    choice = (await chat(client, logprobs=True))["choices"][0]
    assert choice["logprobs"]["content"][-1]["token"] == "</s>"
    assert EOS == 257


@pytest.mark.parametrize("samples", [1, 3])
async def test_cached_tokens(client: httpx.AsyncClient, engine: FakeEngine, samples: int) -> None:
    """The prompt counts once, with what was there before the request: not what its own samples share."""
    engine.cached_tokens = 16
    body = await chat(client, n=samples)
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 16}
    *_, last = await chunks(client, n=samples, stream_options={"include_usage": True})
    assert last["usage"] == body["usage"]
    *_, last = await chunks(client, n=samples, stream_options={"continuous_usage_stats": True})
    assert last["usage"] == body["usage"]
