"""The Inference API's clients and functions against a local stand-in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_server import FakeServer, json_answer

from text_generation import InferenceAPIAsyncClient, InferenceAPIClient
from text_generation.errors import NotFoundError, NotSupportedError, UnknownError
from text_generation.inference_api import check_model_support, deployed_models

PAYLOAD = [{"generated_text": "ok", "details": {"finish_reason": "length", "generated_tokens": 1}}]


@pytest.fixture(autouse=True)
def endpoint(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_INFERENCE_ENDPOINT", server.url + "/")
    server.answers |= {
        "/status/org/model": json_answer({"framework": "text-generation-inference"}),
        "/status/org/other": json_answer({"framework": "transformers"}),
        "/status/org/none": json_answer({"error": "Model org/none does not exist"}, 404),
        "/framework/text-generation-inference": json_answer([{"model_id": "org/model", "sha": "abc"}]),
        "/models/org/model": json_answer(PAYLOAD),
    }


def test_client_asks_for_the_status_then_generates(server: FakeServer) -> None:
    with InferenceAPIClient("org/model", token="secret") as client:
        assert client.generate("Hi").generated_text == "ok"
    assert [received.path for received in server.received] == ["/status/org/model", "/models/org/model"]
    assert {received.headers["authorization"] for received in server.received} == {"Bearer secret"}


def test_async_client(server: FakeServer) -> None:
    client = InferenceAPIAsyncClient("org/model", timeout=5)
    assert asyncio.run(client.generate("Hi")).generated_text == "ok"
    assert "authorization" not in server.received[-1].headers


@pytest.mark.parametrize("client", [InferenceAPIClient, InferenceAPIAsyncClient])
def test_model_of_another_framework(client: type[InferenceAPIClient]) -> None:
    with pytest.raises(NotSupportedError, match="org/other"):
        client("org/other")


def test_functions(server: FakeServer) -> None:
    assert [(model.model_id, model.sha) for model in deployed_models()] == [("org/model", "abc")]
    assert check_model_support("org/model") and not check_model_support("org/other")
    with pytest.raises(NotFoundError, match="does not exist"):
        check_model_support("org/none")
    server.answers["/framework/text-generation-inference"] = json_answer({"surprise": 1})
    server.answers["/status/org/model"] = json_answer(["surprise"])
    with pytest.raises(UnknownError):
        deployed_models()
    with pytest.raises(UnknownError):
        check_model_support("org/model")


def test_token_is_found_as_the_hub_library_does(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sent() -> str | None:
        InferenceAPIClient("org/model")
        return server.received[-1].headers.get("authorization")

    assert sent() is None
    (tmp_path / "token").write_text("stored\n")
    assert sent() == "Bearer stored"
    monkeypatch.setenv("HF_TOKEN", "environment")
    assert sent() == "Bearer environment"
