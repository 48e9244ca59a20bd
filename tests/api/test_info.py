"""Reading about the server: health, info, models, documentation, unknown paths, CORS."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi.messages import StepStats

UNHEALTHY = {"error": "unhealthy", "error_type": "healthcheck"}
VARY = "origin, access-control-request-method, access-control-request-headers"


def client_of(engine: FakeEngine, **settings: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_app(engine, **settings)), base_url="http://test")


@pytest.mark.parametrize("path", ["/health", "/ping", "/", "/alive"])
async def test_health(path: str) -> None:
    engine = FakeEngine()
    async with client_of(engine, aip_health_route="/alive") as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.content) == (200, b"")
        engine.alive = False
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (503, UNHEALTHY)
    assert engine.requests == []


async def test_health_follows_the_steps_and_not_the_time(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Idle for hours is healthy; work that waits without a step is not; a step heals."""
    engine.last_step_at = time.monotonic() - 10_000
    assert (await client.get("/health")).status_code == 200
    engine.open.add(1)
    assert (await client.get("/health")).status_code == 503
    engine.last_step_at = time.monotonic()
    assert (await client.get("/health")).status_code == 200


async def test_health_limit_is_a_setting() -> None:
    engine = FakeEngine()
    engine.open.add(1)
    engine.last_step_at = time.monotonic() - 10
    async with client_of(engine, health_stall_s=5.0) as client:
        assert (await client.get("/health")).status_code == 503
    async with client_of(engine, health_stall_s=20.0) as client:
        assert (await client.get("/health")).status_code == 200


async def test_verbose_health(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.stats = StepStats(step=7, running=2, waiting=3, free_blocks=engine.info.num_blocks // 4)
    engine.last_step_at = time.monotonic() - 100
    body = (await client.get("/health?verbose=1")).json()
    assert body.pop("last_step_age_s") == pytest.approx(100, abs=5)
    assert body.pop("cache_usage") == pytest.approx(0.75, abs=0.05)
    assert body.pop("cache_tokens") == engine.info.num_blocks * engine.info.block_size
    counters = dict.fromkeys(("computed_tokens", "prefix_query_tokens", "prefix_hit_tokens"), 0)
    assert body == {"steps": 7, "running": 2, "waiting": 3, "open_requests": 0, "queued_tokens": 0, **counters}
    engine.open.add(1)
    answer = await client.get("/health?verbose=1")
    body = answer.json()
    assert answer.status_code == 503
    assert body.pop("last_step_age_s") == pytest.approx(100, abs=5), "most of all when it is too old"
    state = {"steps": 7, "running": 2, "waiting": 3, "open_requests": 1}
    assert body.items() >= {**state, **UNHEALTHY}.items()


async def test_info(client: httpx.AsyncClient) -> None:
    body = (await client.get("/info")).json()
    assert body["model_id"] == "org/model"
    assert (body["model_sha"], body["sha"], body["docker_label"]) == (None, None, None)
    assert (body["max_input_tokens"], body["max_total_tokens"]) == (255, 256)
    assert body["runtime"]["memory"]["binding_limit"] == "memory"
    assert body["runtime"]["device"] == "cpu"


async def test_info_keeps_secrets() -> None:
    async with client_of(FakeEngine(), api_key="secret-key") as client:
        for path in ("/info", "/metrics", "/api-doc/openapi.json", "/v1/models"):
            assert "secret-key" not in (await client.get(path)).text


async def test_models(client: httpx.AsyncClient) -> None:
    can = ["completions", "chat", "tools", "structured_output", "embeddings"]
    model = {"id": "org/model", "object": "model", "created": 0, "owned_by": "org/model"}
    model |= {"max_model_len": 256, "capabilities": can}
    assert (await client.get("/v1/models")).json() == {"object": "list", "data": [model]}


async def test_what_models_cannot_do() -> None:
    async with client_of(FakeEngine(), disable_grammar_support=True) as client:
        can = (await client.get("/v1/models")).json()["data"][0]["capabilities"]
        assert can == ["completions", "chat", "embeddings"]
        asked = {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}
        assert (await client.post("/v1/chat/completions", json=asked)).status_code == 422


async def test_docs_need_no_network(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    for file in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"docs/{file}" in page.text
        asset = await client.get(f"/docs/{file}")
        assert asset.status_code == 200
        assert len(asset.content) > 10_000
    assert (await client.get("/docs/../app.py")).status_code == 404
    assert (await client.get("/docs/nothing.js")).status_code == 404


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/nope", 404), ("GET", "/generate", 405), ("PUT", "/health", 405)):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.content) == (status, b"")
    assert (await client.get("/generate")).headers["allow"] == "POST"
    answer = await client.post("/v1/moderations", json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_head(client: httpx.AsyncClient) -> None:
    assert (await client.head("/health")).status_code == 200


async def test_cors_is_open_by_default(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/health", headers={"origin": "http://a.example"}),
        await client.get("/info"),
        await client.get("/nope"),
        await client.post("/generate", json={}),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["vary"] == VARY
        assert answer.headers["access-control-expose-headers"] == "*"
        assert "access-control-allow-methods" not in answer.headers


async def test_preflight(client: httpx.AsyncClient) -> None:
    for path in ("/generate", "/nope"):
        answer = await client.options(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["access-control-allow-methods"] == "GET,POST,DELETE"
        assert answer.headers["access-control-allow-headers"] == "content-type,authorization,x-api-key"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["vary"] == VARY


@pytest.mark.parametrize(
    ("wanted", "more"),
    [
        ("authorization", ""),
        ("Authorization, Content-Type", ""),
        ("content-type,x-stainless-lang,x-stainless-os", ",x-stainless-lang,x-stainless-os"),
        ("traceparent , X-Request-Id", ",traceparent,x-request-id"),
        ("", ""),
        ("*", ",*"),
        ("not a name, fine, <script>, a:b", ",fine"),
    ],
)
async def test_a_page_may_send_what_its_browser_asks_for(wanted: str, more: str) -> None:
    """By name: to browsers `*` does not cover `authorization`. What is no name of a header is not repeated."""
    async with client_of(FakeEngine(), cors_allow_origin=("http://a.example",), api_key="key") as client:
        answer = await client.options(
            "/v1/chat/completions",
            headers={
                "origin": "http://a.example",
                "access-control-request-method": "POST",
                "access-control-request-headers": wanted,
            },
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "http://a.example"
        assert answer.headers["access-control-allow-headers"] == f"content-type,authorization,x-api-key{more}"


async def test_the_preflight_of_openai_js(client: httpx.AsyncClient) -> None:
    """As Chromium sends it for `openai` 6.49: lower case, sorted, without blanks, and never with a key."""
    wanted = (
        "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
        "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
    )
    headers = {
        "origin": "http://127.0.0.1:5173",
        "access-control-request-method": "POST",
        "access-control-request-headers": wanted,
    }
    answer = await client.options("/v1/chat/completions", headers=headers)
    assert answer.status_code == 200
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert set(wanted.split(",")) <= set(answer.headers["access-control-allow-headers"].split(","))
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_preflight_that_asks_for_everything_gets_a_short_answer(client: httpx.AsyncClient) -> None:
    wanted = ",".join(f"x-{number}" for number in range(5000))
    answer = await client.options("/generate", headers={"access-control-request-headers": wanted})
    assert len(answer.headers["access-control-allow-headers"]) < 1000


async def test_cors_with_a_list() -> None:
    async with client_of(FakeEngine(), cors_allow_origin=("http://a.example",)) as client:
        answer = await client.get("/health", headers={"origin": "http://a.example"})
        assert answer.headers["access-control-allow-origin"] == "http://a.example"
        for headers in ({"origin": "http://b.example"}, {}):
            answer = await client.get("/health", headers=headers)
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == VARY


async def test_drain() -> None:
    """No new work, the open work ends, health tells the load balancer."""
    engine = FakeEngine()
    engine.hold_after = 1
    app = build_app(engine)
    changed = engine.changed
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert await app.state.drain(1.0)
        app.state.api.permits.draining = False
        running = asyncio.create_task(client.post("/generate", json={"inputs": "x"}))
        await changed.wait()
        assert not await app.state.drain(0.01)
        draining = asyncio.create_task(app.state.drain(10.0))
        refused = await client.post("/generate", json={"inputs": "x"})
        assert (refused.status_code, refused.json()["error_type"]) == (503, "shutting_down")
        assert refused.headers["connection"] == "close"
        assert (await client.get("/health")).status_code == 503
        engine.release.set()
        assert (await running).status_code == 200
        assert await draining
