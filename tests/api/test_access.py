"""The API key: every route is open or protected on purpose, and the comparison is exact."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response

from tests.api.fake import FakeEngine, build_app
from tgi.api.server.access import OPEN, PROTECTED, Routes, TaggedRoute

KEY = "Secret-Kéy"
AIP = {"aip_predict_route": "/predict", "aip_health_route": "/alive"}


def all_routes(app: Starlette) -> list[tuple[str, str]]:
    found = []
    for route in app.routes:
        assert isinstance(route, TaggedRoute), f"{route} cannot be classified"
        found += [(method, route.path) for method in route.methods or ()]
    return found


def address(path: str) -> str:
    """A path of a route with something that is there in its places."""
    if path == "/v1/models/{model:path}":
        return "/v1/models/org/model"
    if path == "/playground/{file}":
        return "/playground/licenses.txt"
    return path.format(file="favicon.png", model="m", version="1", response_id="resp_1")


def test_every_route_is_classified_once() -> None:
    assert sorted(all_routes(build_app(FakeEngine()))) == sorted(OPEN | PROTECTED)
    assert not OPEN & PROTECTED


def test_an_unclassified_route_cannot_be_registered() -> None:
    with pytest.raises(KeyError, match="GET /new is neither open nor protected"):
        Routes().get("/new")(lambda request: Response())


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        KEY,
        "Bearer",
        "Bearer ",
        "bearer wrong",
        f"Basic {KEY}",
        f"Bearer{KEY}",
        f"{KEY} Bearer",
        "Bearer secret-kéy",
    ],
)
async def test_without_the_key(authorization: str | None) -> None:
    """Open routes answer, protected ones do not even read the body."""
    app = build_app(FakeEngine(), api_key=KEY, **AIP)
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for method, path in all_routes(app):
            is_open = (method, path) in OPEN or path == "/alive"
            answer = await client.request(method, address(path), headers=headers)
            assert answer.status_code == (200 if is_open else 401), path
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
                body = answer.json()
                if path.startswith("/v1/messages"):
                    assert body["error"]["type"] == "authentication_error"
                    body = {"error": body["error"]["message"]}
                elif path.startswith("/v1/"):
                    assert body["error"]["type"] == "authentication_error"
                    assert body["error_type"] == "unauthorized"
                    body = {"error": body["error"]["message"]}
                assert body == {"error": "Missing or wrong API key: send the header `Authorization: Bearer KEY`"}


async def test_with_the_key() -> None:
    app = build_app(FakeEngine(), api_key=KEY, **AIP)
    headers = {"authorization": f"Bearer {KEY}".encode()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client:
        for method, path in all_routes(app):
            if method == "POST":
                answer = await client.post(address(path), json={})
                assert answer.status_code == (400 if path.startswith("/v1/messages") else 422), path
        assert (await client.post("/generate", json={"inputs": "x"})).status_code == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer ", "bearer   "])
async def test_the_name_of_the_scheme_has_no_case(scheme: str) -> None:
    """The key has: RFC 9110 compares the scheme without case, and allows several spaces behind it."""
    app = build_app(FakeEngine(), api_key=KEY)
    headers = {"authorization": f"{scheme} {KEY}".encode()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client:
        for path in ("/generate", "/v1/completions"):
            assert (await client.post(path, json={"inputs": "x", "prompt": "x"})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": KEY}, 200),
        ({"x-api-key": KEY, "authorization": "Bearer other"}, 200),
        ({"x-api-key": "other", "authorization": f"Bearer {KEY}"}, 200),
        ({"x-api-key": KEY.lower()}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": f"Bearer {KEY}"}, 401),
    ],
)
async def test_anthropics_header(headers: dict[str, str], status: int) -> None:
    """Its clients send both where both are set: one that fits is enough."""
    app = build_app(FakeEngine(), api_key=KEY)
    sent = {name: value.encode() for name, value in headers.items()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=sent) as client:
        assert (await client.post("/v1/completions", json={"prompt": "x"})).status_code == status


async def test_a_wrong_key_takes_no_permit() -> None:
    app = build_app(FakeEngine(), api_key=KEY)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.post("/generate", json={"inputs": "x"})
    assert app.state.api.permits.taken == 0
    assert b"tgi_request_count" not in app.state.api.metrics.render()
