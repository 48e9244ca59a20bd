"""Paths as clients write them: slashes too many, base URLs with and without `/v1`, models by name, unknown paths."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi.api.server.paths import plain_path

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def client_of(**settings: Any) -> httpx.AsyncClient:
    app = build_app(FakeEngine(), **settings)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/", "/"),
        ("", "/"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v1//", "/"),
        ("//generate", "/generate"),
        ("/v1/models/org/model/", "/v1/models/org/model"),
        ("/v1x/", "/v1x"),
        ("/v1/v1", "/v1/v1"),
    ],
)
def test_plain_path(path: str, plain: str) -> None:
    assert plain_path(path) == plain


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate/", {"inputs": "x"}),
        ("//generate", {"inputs": "x"}),
        ("/generate_stream/", {"inputs": "x"}),
        ("/v1/chat/completions/", CHAT),
        ("//v1/chat/completions", CHAT),
        ("/v1/completions/", {"prompt": "x"}),
        ("/vertex/", {"instances": [{"inputs": "x"}]}),
        ("/predict", {"instances": [{"inputs": "x"}]}),
        ("/health/", None),
        ("/v1/models/", None),
        ("/info/", None),
        ("/metrics/", None),
    ],
)
async def test_slashes_too_many(path: str, body: Any) -> None:
    async with client_of(aip_predict_route="/predict/") as client:
        url = f"http://test{path}"  # else httpx takes what follows two slashes for a host
        answer = await (client.get(url) if body is None else client.post(url, json=body))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["/v1", "/v1/"])
async def test_a_base_url_of_openai_is_tgis_too(path: str) -> None:
    """huggingface_hub's `text_generation` posts to its base URL. Errors are those of `/`; so is the key."""
    async with client_of(api_key="key") as client:
        client.headers["authorization"] = "Bearer key"
        body = {"inputs": "x", "parameters": {"max_new_tokens": 2, "return_full_text": False}}
        assert (await client.post(path, json=body)).json() == [{"generated_text": "He"}]
        answer = await client.post(path, json={**body, "stream": True})
        assert answer.text == (await client.post("/", json={**body, "stream": True})).text
        answer = await client.post(path, json={"inputs": ""})
        assert answer.json() == {
            "error": "Input validation error: `inputs` cannot be empty",
            "error_type": "validation",
        }
        assert (await client.get(path)).status_code == 200
        answer = await client.post(path, json=body, headers={"authorization": ""})
        assert (answer.status_code, list(answer.json())) == (401, ["error"])


async def test_documentation_with_a_slash_at_its_end(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs/")).text
    assert '"../docs/swagger-ui-bundle.js"' in page
    assert "'../api-doc/openapi.json'" in page


@pytest.mark.parametrize("model", ["org/model", "org%2Fmodel", "org/model/", "served", "tgi"])
async def test_the_model_by_name(model: str) -> None:
    async with client_of(served_model_names=("served",)) as client:
        answer = await client.get(f"/v1/models/{model}")
        assert answer.status_code == 200
        assert answer.json() == (await client.get("/v1/models")).json()["data"][0]


@pytest.mark.parametrize("model", ["gpt-4", "org", "org/model/x", "served2", "%00", "ü"])
async def test_another_model(client: httpx.AsyncClient, model: str) -> None:
    answer = await client.get(f"/v1/models/{model}")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "`org/model` is served" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("POST", "/chat/completions", "/v1/chat/completions is meant: let the base URL of OpenAI's clients end in /v1"),
        ("POST", "/completions", "/v1/completions is meant"),
        ("GET", "/models", "/v1/models is meant"),
        ("GET", "/models/org/model", "/v1/models/org/model is meant"),
        ("POST", "/chat/completions/", "/v1/chat/completions is meant"),
        ("POST", "/v1/v1/chat/completions", "/v1/chat/completions is meant: take /v1 off"),
        ("POST", "/v1/generate", "/generate is meant: take /v1 off the end of the base URL"),
        ("GET", "/v1/info", "/info is meant"),
        ("POST", "/v1/moderations", "here are /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/models"),
    ],
)
async def test_what_an_unknown_path_meant(client: httpx.AsyncClient, method: str, path: str, meant: str) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["message"].startswith(f"Unknown path: {method} {path.rstrip('/')}; ")
    assert meant in error["message"]
    assert (error["type"], answer.json()["error_type"]) == ("invalid_request_error", "not_found")


async def test_a_wrong_method_says_the_right_one(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["message"] == "Method not allowed: GET /v1/chat/completions takes POST"
    answer = await client.delete("/v1/models/org/model")
    assert answer.json()["error"]["message"] == "Method not allowed: DELETE /v1/models/org/model takes GET"


async def test_what_is_shown_of_a_path_is_short_and_prints(client: httpx.AsyncClient) -> None:
    message = (await client.get("/v1/" + "x" * 5000 + "%0A%1B")).json()["error"]["message"]
    assert len(message) < 400
    message = (await client.get("/v1/a%0A%1B[31m")).json()["error"]["message"]
    assert message.isprintable()


async def test_several_names(engine: FakeEngine) -> None:
    """`--served-model-name`: answers have the first, all are listed, and none is called ignored."""
    async with client_of(served_model_names=("first", "team/second", "first")) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == ["first", "team/second"]
        for name in ("first", "team/second"):
            assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
            body = {"model": name, "prompt": "a", "max_tokens": 1}
            answer = await client.post("/v1/completions", json=body)
            assert answer.json()["model"] == "first" and "x-tgi-ignored" not in answer.headers
        assert (await client.get("/v1/models/org/model")).json()["id"] == "first"
        assert (await client.get("/v1/models/third")).status_code == 404
