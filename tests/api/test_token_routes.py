"""`/tokenize`, `/detokenize` and `/tokenizer_info` in vLLM's shapes, beside TGI's."""

from __future__ import annotations

import random
from typing import Any

import httpx
import msgspec
import pytest

from tests.api.fake import BOS, TEMPLATE, TOKENIZER, FakeEngine, build_app, ids_of
from tgi.serving.tokenizer_info import plain

MESSAGES = [{"role": "user", "content": "Hi"}]


async def tokens(client: httpx.AsyncClient, **body: Any) -> Any:
    answer = await client.post("/tokenize", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_prompt(client: httpx.AsyncClient) -> None:
    wanted = {"count": 3, "max_model_len": 256, "tokens": [BOS, *ids_of("ab")], "token_strs": None}
    assert await tokens(client, prompt="ab") == wanted
    assert await tokens(client, model="tgi", prompt="ab", add_special_tokens=True) == wanted
    body = await tokens(client, prompt="a b", add_special_tokens=False, return_token_strs=True)
    assert body == {"count": 3, "max_model_len": 256, "tokens": ids_of("a b"), "token_strs": ["a", "Ġ", "b"]}
    assert await tokens(client, prompt="", add_special_tokens=False, return_token_strs=True) == {
        "count": 0,
        "max_model_len": 256,
        "tokens": [],
        "token_strs": [],
    }


async def test_a_conversation(client: httpx.AsyncClient) -> None:
    body = await tokens(client, messages=MESSAGES, return_token_strs=True)
    assert body["tokens"] == ids_of("[user]Hi[assistant]")
    assert "".join(body["token_strs"]) == "[user]Hi[assistant]"
    body = await tokens(client, messages=MESSAGES, add_generation_prompt=False, add_special_tokens=True)
    assert body["tokens"] == [BOS, *ids_of("[user]Hi")] and body["count"] == len(body["tokens"])
    failed = await client.post("/tokenize", json={"messages": [{"role": "bad", "content": "x"}]})
    assert failed.status_code == 422 and "no such role" in failed.json()["error"]["message"]


async def test_inputs_stay_tgis(client: httpx.AsyncClient) -> None:
    answer = await client.post("/tokenize", json={"inputs": "a", "prompt": "b"})
    assert [one["id"] for one in answer.json()] == [BOS, *ids_of("a")]
    assert answer.headers["x-tgi-ignored"] == "prompt"
    refused = await client.post("/tokenize", json={})
    assert refused.status_code == 422 and "missing field `inputs`" in refused.json()["error"]


@pytest.mark.parametrize("texts", [False, True])
async def test_long_answers_are_the_same_in_pieces(client: httpx.AsyncClient, texts: bool) -> None:
    text = "".join(random.choice('abc "\\\né') for _ in range(5000))
    body = await tokens(client, prompt=text, return_token_strs=texts)
    assert body["tokens"] == TOKENIZER.encode(text) and body["count"] == len(body["tokens"])
    wanted = [TOKENIZER.fast.id_to_token(id) for id in body["tokens"]]
    assert body["token_strs"] == (wanted if texts else None)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": 1}, "prompt"),
        ({"prompt": "a", "add_special_tokens": "yes"}, "add_special_tokens"),
        ({"prompt": "a", "return_token_strs": 1}, "return_token_strs"),
        ({"messages": "a"}, "messages"),
    ],
)
async def test_errors_are_openais(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    answer = await client.post("/tokenize", json=body)
    assert answer.status_code == 422 and answer.json()["error"]["param"] == param


async def test_names_without_effect(client: httpx.AsyncClient) -> None:
    for body in ({"prompt": "a"}, {"messages": MESSAGES}):
        answer = await client.post("/tokenize", json={**body, "model": "other", "mm_processor_kwargs": {"a": 1}})
        assert answer.headers["x-tgi-ignored"] == "mm_processor_kwargs, model"
    answer = await client.post("/detokenize", json={"tokens": ids_of("ab"), "model": "other"})
    assert answer.json() == {"prompt": "ab"} and answer.headers["x-tgi-ignored"] == "model"


async def test_the_tokenizers_configuration(client: httpx.AsyncClient) -> None:
    told = (await client.get("/tokenizer_info")).json()
    assert told["tokenizer_class"] and told["chat_template"] == TEMPLATE
    assert (told["bos_token"], told["eos_token"]) == ("<s>", "</s>")
    assert told["added_tokens_decoder"][str(BOS)]["content"] == "<s>"


async def test_it_needs_the_key() -> None:
    transport = httpx.ASGITransport(build_app(FakeEngine(), api_key="secret"))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/tokenizer_info")).status_code == 401
        answer = await client.get("/tokenizer_info", headers={"authorization": "Bearer secret"})
        assert answer.status_code == 200


def test_everything_becomes_json() -> None:
    odd = {"a": 10**30, "b": (1, None), "c": {"d": TOKENIZER.fast.get_added_tokens_decoder()[BOS]}, "e": object}
    told = msgspec.json.decode(msgspec.json.encode(plain(odd)))
    assert told["a"] == 1e30 and told["b"] == [1, None] and told["c"]["d"]["content"] == "<s>"
