"""The OpenAPI document against the one TGI publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from tests.api.fake import FakeEngine, build_app
from tgi.api.openapi import document

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
        if isinstance(route, APIRoute) and "POST" in (route.methods or ()):
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
