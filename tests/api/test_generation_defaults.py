"""`--generation-defaults`: what generation_config.json says of sampling, shown always and applied when asked for."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tests.fake_engine import FakeEngine as Scripted
from tests.small_tokenizers import write_checkpoint
from tgi.errors import ModelError
from tgi.messages import Sampling
from tgi.serving.generation_defaults import GenerationDefaults, read_defaults
from tgi.serving.service import Service
from tgi.settings.config import ApiConfig

DEFAULTS = GenerationDefaults(temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=1.1)
MESSAGES = [{"role": "user", "content": "Hi"}]
OPENAI: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/completions", {"prompt": ["x", "y"]}),
    ("/v1/responses", {"input": "x"}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5}),
    ("/invocations", {"messages": MESSAGES}),
    ("/vertex", {"instances": [{"messages": MESSAGES}]}),
]
TGI: list[tuple[str, dict[str, Any]]] = [
    ("/generate", {"inputs": "x"}),
    ("/generate", {"inputs": "x", "parameters": {"do_sample": True}}),
    ("/", {"inputs": "x"}),
    ("/vertex", {"instances": [{"inputs": "x"}]}),
]


async def sampled(path: str, body: dict[str, Any], defaults: GenerationDefaults, applied: str) -> Sampling:
    engine = FakeEngine()
    transport = httpx.ASGITransport(build_app(engine, defaults=defaults, generation_defaults=applied))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return engine.requests[-1].sampling


def values(sampling: Sampling) -> tuple[float, ...]:
    return sampling.temperature, sampling.top_p, sampling.top_k, sampling.repetition_penalty


@pytest.mark.parametrize(("path", "body"), OPENAI)
async def test_applied_where_a_request_leaves_them_open(path: str, body: dict[str, Any]) -> None:
    sampling = await sampled(path, body, DEFAULTS, "model")
    assert values(sampling) == (0.6, 0.9, 20, 1.1) and sampling.do_sample
    assert values(await sampled(path, body, DEFAULTS, "tgi")) == (1.0, 1.0, 0, 1.0)


@pytest.mark.parametrize(("path", "body"), TGI)
async def test_tgis_routes_stay_as_they_are(path: str, body: dict[str, Any]) -> None:
    assert values(await sampled(path, body, DEFAULTS, "model")) == (1.0, 1.0, 0, 1.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 0.2}, (0.2, 0.9, 20, 1.1)),
        ({"temperature": 1}, (1.0, 0.9, 20, 1.1)),
        ({"temperature": None}, (0.6, 0.9, 20, 1.1)),
        ({"top_p": 1}, (0.6, 1.0, 20, 1.1)),
        ({"top_p": 0.5}, (0.6, 0.5, 20, 1.1)),
        ({"top_k": -1}, (0.6, 0.9, 0, 1.1)),
        ({"top_k": 0}, (0.6, 0.9, 0, 1.1)),
        ({"top_k": 5, "repetition_penalty": 1}, (0.6, 0.9, 5, 1.0)),
    ],
)
async def test_what_a_request_says_wins(given: dict[str, Any], expected: tuple[float, ...]) -> None:
    for path, body in OPENAI[:2]:
        assert values(await sampled(path, body | given, DEFAULTS, "model")) == expected


async def test_greedy_by_request_and_by_the_file() -> None:
    path, body = OPENAI[0]
    assert not (await sampled(path, body | {"temperature": 0}, DEFAULTS, "model")).do_sample
    assert not (await sampled(path, body, GenerationDefaults(temperature=0.0), "model")).do_sample
    assert (await sampled(path, body | {"temperature": 0.5}, GenerationDefaults(temperature=0.0), "model")).do_sample


async def test_a_file_that_turns_all_off_is_as_none() -> None:
    off = GenerationDefaults(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
    assert values(await sampled(*OPENAI[0], off, "model")) == (1.0, 1.0, 0, 1.0)


@pytest.mark.parametrize("applied", ["model", "tgi"])
async def test_shown_in_info(applied: str) -> None:
    app = build_app(FakeEngine(), defaults=GenerationDefaults(temperature=0.6), generation_defaults=applied)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        shown = (await client.get("/info")).json()["runtime"]["generation_defaults"]
    expected = {"temperature": 0.6, "top_p": None, "top_k": None, "repetition_penalty": None}
    assert shown == {**expected, "applied": applied == "model"}


@pytest.mark.parametrize(
    "damaged",
    [
        {"temperature": -1},
        {"temperature": "0.6"},
        {"temperature": True},
        {"top_p": 1.5},
        {"top_k": 2.5},
        {"top_k": -2},
        {"repetition_penalty": 0},
        {"repetition_penalty": 1e999},
    ],
)
def test_damaged_values(damaged: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused where they would be applied, else only said."""
    model = write_checkpoint(tmp_path)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, **damaged}))
    name = next(iter(damaged))
    with pytest.raises(ModelError, match=f"generation_config.json: `{name}` must be"):
        Service.load(ApiConfig("m", str(model), generation_defaults="model"), Scripted.saying([1]))
    with caplog.at_level(logging.WARNING):
        Service.load(ApiConfig("m", str(model)), Scripted.saying([1])).close()
    assert f"`{name}` must be" in caplog.text and "not applied" in caplog.text


def test_what_the_file_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_defaults(tmp_path) == GenerationDefaults()
    model = write_checkpoint(tmp_path)
    said = {
        "temperature": 0.6,
        "top_p": 1,
        "top_k": -1,
        "repetition_penalty": None,
        "do_sample": True,
        "eos_token_id": 1,
    }
    (model / "generation_config.json").write_text(json.dumps(said))
    assert read_defaults(model) == GenerationDefaults(temperature=0.6, top_p=1.0, top_k=0)
    for applied, words in (("tgi", "are not applied"), ("model", "are applied")):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            Service.load(ApiConfig("m", str(model), generation_defaults=applied), Scripted.saying([1])).close()
        assert f"(temperature 0.6, top_p 1, top_k 0) {words}" in caplog.text
