"""The OpenAPI document against the one TGI publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.api.fake import INFO, FakeEngine, build_app
from tgi.api.openapi.document import document
from tgi.api.server.access import TaggedRoute

TGI = json.loads((Path(__file__).parents[1] / "data" / "tgi-openapi.json").read_text())
OURS = document(build_app(FakeEngine()))


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def variants(document: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a body, references followed."""
    schema = resolve(document, schema)
    return [resolve(document, one) for one in schema.get("oneOf", schema.get("anyOf", [schema]))]


def names(document: dict[str, Any], schema: dict[str, Any], depth: int = 4) -> set[str]:
    """Paths of all properties of a body."""
    found: set[str] = set()
    for one in variants(document, schema):
        parts = [*(resolve(document, part) for part in one.get("allOf", [])), one]
        for part in parts:
            for name, below in part.get("properties", {}).items():
                found.add(name)
                if depth and name in ("parameters", "stream_options"):
                    found |= {f"{name}.{inner}" for inner in names(document, below, depth - 1)}
    return found


def request_schema(document: dict[str, Any], path: str) -> dict[str, Any]:
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize("path", list(TGI["paths"]))
def test_every_path_and_operation(path: str) -> None:
    for method, operation in TGI["paths"][path].items():
        ours = OURS["paths"][path][method]
        assert ours["operationId"] == operation["operationId"]
        assert ours["tags"] == operation["tags"]


@pytest.mark.parametrize("path", [path for path, methods in TGI["paths"].items() if "post" in methods])
def test_every_request_parameter(path: str) -> None:
    assert names(OURS, request_schema(OURS, path)) >= names(TGI, request_schema(TGI, path))


@pytest.mark.parametrize("name", ["GenerateResponse", "Details", "StreamResponse", "StreamDetails", "Info", "Token"])
def test_answers_of_tgis_routes(name: str) -> None:
    """The same properties, but for keys we add beside them."""
    ours, theirs = (one["components"]["schemas"][name]["properties"] for one in (OURS, TGI))
    assert set(theirs) <= set(ours)


def test_every_post_route_says_what_it_takes() -> None:
    for route in build_app(FakeEngine()).routes:
        if isinstance(route, TaggedRoute) and "POST" in (route.methods or ()):
            assert "requestBody" in OURS["paths"][route.path]["post"]


def test_references_resolve() -> None:
    schemas = OURS["components"]["schemas"]

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                assert reference.removeprefix("#/components/schemas/") in schemas
            for below in node.values():
                walk(below)
        elif isinstance(node, list):
            for below in node:
                walk(below)

    walk(OURS)


async def test_served(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api-doc/openapi.json")
    assert answer.json()["paths"].keys() == OURS["paths"].keys()
    assert answer.json()["openapi"] == "3.1.0"


OPERATIONS = [
    (path, method, operation) for path, methods in OURS["paths"].items() for method, operation in methods.items()
]
EXAMPLES = [
    (path.format(model="tgi", version="1"), example["value"])
    for path, _, operation in OPERATIONS
    if "requestBody" in operation
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values()
]
MODELS = {"/": "CompatGenerateRequest", "/v1/chat/completions": "ChatRequest", "/v1/completions": "CompletionRequest"}


def fields_with_examples() -> list[tuple[str, dict[str, Any]]]:
    """The first example of each route with one field's own example in it."""
    found = []
    for path, model in MODELS.items():
        body = next(value for route, value in EXAMPLES if route == path)
        for name, field in OURS["components"]["schemas"][model]["properties"].items():
            found += [(path, {**body, name: example}) for example in field.get("examples", ())]
    parameters = OURS["components"]["schemas"]["GenerateParameters"]["properties"]
    for name, field in parameters.items():
        given = {"max_new_tokens": 20}
        found += [
            ("/generate", {"inputs": "x", "parameters": given | {name: one}}) for one in field.get("examples", ())
        ]
    return found


@pytest.mark.parametrize("limits", [{}, {"default_max_new_tokens": 1024, "max_client_batch_size": 64}])
@pytest.mark.parametrize(("path", "body"), [*EXAMPLES, *fields_with_examples()])
async def test_every_example_is_valid_and_short(path: str, body: dict[str, Any], limits: dict[str, int]) -> None:
    """What "Try it out" sends unchanged, in the launcher and in `tgi serve`, to a model that never stops."""
    engine = FakeEngine(msgspec.structs.replace(INFO, max_input_tokens=1999, max_total_tokens=2000), "x" * 2000)
    transport = httpx.ASGITransport(build_app(engine, **limits))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200 and '"error"' not in answer.text.replace('"error":null', ""), answer.text
    assert "x-tgi-ignored" not in answer.headers
    assert all(request.sampling.max_new_tokens <= 32 for request in engine.requests)


def test_what_a_browser_needs_has_examples() -> None:
    """The first is sent unchanged; names in paths have values."""
    for path, _, operation in OPERATIONS:
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] == "query" or parameter["example"], path
        if "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["examples"], path


async def test_a_model_that_is_not_served(client: httpx.AsyncClient) -> None:
    described = OURS["paths"]["/v1/models/{model}"]["get"]["responses"]["404"]["content"]["application/json"]["schema"]
    assert described["$ref"].endswith("/OpenAIErrorResponse")
    answer = await client.get("/v1/models/other")
    assert answer.status_code == 404
    assert set(answer.json()) == set(OURS["components"]["schemas"]["OpenAIErrorResponse"]["properties"])


def test_slow_bodies_are_described() -> None:
    for path, method, operation in OPERATIONS:
        assert ("408" in operation["responses"]) == (method == "post"), path


TROUBLES: list[tuple[int, dict[str, Any]]] = [
    (400, {"content": b"{", "headers": {"content-type": "application/json"}}),
    (413, {"content": b" " * 3000, "headers": {"content-type": "application/json"}}),
    (415, {"content": b"{}", "headers": {"content-type": "text/plain"}}),
    (422, {"json": {}}),
    (401, {"json": {}, "headers": {"authorization": "Bearer wrong"}}),
    (429, {"json": {}}),
    (503, {"json": {}}),
]


ANTHROPICS = {422: 400, 429: 529}
"""Statuses that are others at Anthropic's API."""


@pytest.mark.parametrize("path", [path for path, method, _ in OPERATIONS if method == "post"])
@pytest.mark.parametrize(("status", "request_"), TROUBLES, ids=[str(status) for status, _ in TROUBLES])
async def test_errors_are_described_as_they_are_sent(path: str, status: int, request_: dict[str, Any]) -> None:
    app = build_app(FakeEngine(), payload_limit=2000, api_keys=("right",) if status == 401 else ())
    app.state.api.permits.draining = status == 503
    if status == 429:
        app.state.api.permits.take(16)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post(path.format(model="tgi", version="1"), **request_)
    status = ANTHROPICS.get(status, status) if path.startswith("/v1/messages") else status
    assert answer.status_code == status
    described = OURS["paths"][path]["post"]["responses"][str(status)]["content"]["application/json"]["schema"]
    names = [one["$ref"].rsplit("/", 1)[-1] for one in described.get("anyOf", [described])]
    body = answer.json()
    flat = "UnauthorizedResponse" if status == 401 else "ErrorResponse"
    nested = "OpenAIErrorResponse" if "error_type" in body else "AnthropicErrorResponse"
    sent = nested if isinstance(body["error"], dict) else flat
    assert sent in names
    schema = OURS["components"]["schemas"]
    assert set(body) == set(schema[sent]["properties"])
    if sent != flat:
        assert set(body["error"]) == set(schema[sent.removesuffix("Response")]["properties"])


@pytest.mark.parametrize("path", ["/health", "/", "/ping"])
async def test_health_has_no_body(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.content == b"" and "content-type" not in answer.headers
    described = OURS["paths"][path]["get"]
    assert "content" not in described["responses"]["200"]
    assert [parameter["name"] for parameter in described["parameters"]] == ["verbose"]


def test_events_are_described_one_by_one() -> None:
    """Each has JSON as its data; OpenAI's streams end with a word."""
    for path, ends in (("/", False), ("/generate_stream", False), ("/v1/completions", True), ("/invocations", True)):
        schema = OURS["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
        data = schema["properties"]["data"]
        assert (data.get("anyOf", [{}])[0] == {"const": "[DONE]"}) == ends
        payload = data["anyOf"][1] if ends else data
        assert payload["contentMediaType"] == "application/json"
        errors = {"OpenAIErrorResponse" if path.startswith("/v1/") else "ErrorResponse"}
        assert errors <= {one["$ref"].rsplit("/", 1)[-1] for one in payload["contentSchema"]["anyOf"]}


def test_null_is_described_where_it_is_taken() -> None:
    for name in (*MODELS.values(), "GenerateParameters", "Message", "StreamOptions"):
        schema = OURS["components"]["schemas"][name]
        for field, described in schema["properties"].items():
            takes = not set(described) - {"title", "description", "default", "examples"}
            takes |= {"type": "null"} in described.get("anyOf", ())
            assert takes == (field not in schema.get("required", ())), (name, field)


def test_a_path_named_by_a_platform_has_an_operation_of_its_own() -> None:
    paths = document(build_app(FakeEngine(), aip_predict_route="/predict", aip_health_route="/alive"))["paths"]
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(ids) == len(set(ids)) and "/predict" in paths and "/alive" in paths
    assert paths["/vertex"]["post"]["operationId"] == "vertex_compatibility"
