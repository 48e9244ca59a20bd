"""The OpenAPI document: every path with the types of its bodies.

Owns how pydantic requests and msgspec answers become one set of schemas. Does not own the types
(`*_types`) nor the page that shows them (`info_routes`). Built once, on first request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tgi.api.tgi_types import ErrorResponse, UnauthorizedResponse

REFERENCE = "#/components/schemas/"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Bodies:
    """What goes in and out of one operation."""

    operation_id: str
    request: type[BaseModel] | tuple[type[BaseModel], ...] | None
    """A tuple: any one of them."""
    answer: Any
    """A type msgspec can describe, several in a tuple, or a media type for text; None: none but events."""
    event: Any
    """The payload of server-sent events, or several in a tuple."""
    errors: tuple[int, ...]


GENERATION_ERRORS = (401, 422, 424, 429, 500, 503)


def documented(
    operation_id: str,
    request: type[BaseModel] | tuple[type[BaseModel], ...] | None = None,
    answer: Any = None,
    event: Any = None,
    errors: tuple[int, ...] = GENERATION_ERRORS,
) -> Callable[[Endpoint], Endpoint]:
    """Note the types of an endpoint on the endpoint itself, below the router's decorator."""

    def note(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["bodies"] = Bodies(operation_id, request, answer, event, errors)
        return endpoint

    return note


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of all documented routes."""
    routes = [(route, bodies) for route in app.routes if isinstance(route, APIRoute) and (bodies := _bodies(route))]
    answers, components = _answer_schemas(bodies for _, bodies in routes)
    components |= _request_schemas(bodies for _, bodies in routes)
    paths: dict[str, dict[str, Any]] = {}
    for route, bodies in routes:
        for method in sorted(route.methods or ()):
            paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, bodies, answers)
    return {
        "openapi": "3.1.0",
        "info": {"title": app.title, "description": app.description, "version": app.version},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"ApiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _bodies(route: APIRoute) -> Bodies | None:
    return getattr(route.endpoint, "bodies", None)


def _operation(route: APIRoute, bodies: Bodies, answers: dict[Any, Any]) -> dict[str, Any]:
    title, _, rest = (route.endpoint.__doc__ or "").partition("\n\n")
    operation: dict[str, Any] = {
        "tags": route.tags or ["Text Generation Inference"],
        "summary": title.strip(),
        "operationId": bodies.operation_id,
        "responses": {"200": {"description": "Success", "content": _content(bodies, answers)}},
    }
    if rest:
        operation["description"] = " ".join(rest.split())
    names = [part[1:-1] for part in route.path_format.split("/") if part.startswith("{")]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if bodies.request is not None:
        schema = _one_of({"$ref": REFERENCE + model.__name__} for model in _as_tuple(bodies.request))
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        operation["security"] = [{}, {"ApiKey": []}]
    for status in bodies.errors:
        operation["responses"][str(status)] = _error(status)
    return operation


def _content(bodies: Bodies, answers: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if isinstance(bodies.answer, str):
        content[bodies.answer] = {"schema": {"type": "string"}}
    elif bodies.answer is not None:
        content["application/json"] = {"schema": _one_of(answers[one] for one in _as_tuple(bodies.answer))}
    if bodies.event is not None:
        content["text/event-stream"] = {"schema": _one_of(answers[one] for one in _as_tuple(bodies.event))}
    return content


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _one_of(schemas: Iterable[Any]) -> Any:
    one, *others = schemas
    return {"oneOf": [one, *others]} if others else one


_MEANINGS = {
    401: "Missing or wrong API key",
    404: "Model not found",
    422: "Input validation error",
    424: "Generation error",
    429: "Model is overloaded",
    500: "Incomplete generation",
    503: "Shutting down or unhealthy",
}


def _error(status: int) -> dict[str, Any]:
    body = UnauthorizedResponse if status == 401 else ErrorResponse
    content = {"application/json": {"schema": {"$ref": REFERENCE + body.__name__}}}
    return {"description": _MEANINGS[status], "content": content}


def _answer_schemas(all_bodies: Iterable[Bodies]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The schema of every answer type, and the components they refer to."""
    types: list[Any] = [ErrorResponse, UnauthorizedResponse]
    for bodies in all_bodies:
        both = _as_tuple(bodies.answer) + _as_tuple(bodies.event)
        types += [one for one in both if one is not None and not isinstance(one, str)]
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE + "{name}")
    return dict(zip(types, schemas, strict=True)), components


def _request_schemas(all_bodies: Iterable[Bodies]) -> dict[str, Any]:
    models: list[type[BaseModel]] = []
    for bodies in all_bodies:
        if bodies.request is not None:
            models += _as_tuple(bodies.request)
    unique = [(model, "validation") for model in dict.fromkeys(models)]
    _, definitions = models_json_schema(unique, ref_template=REFERENCE + "{model}")  # type: ignore[arg-type]
    return definitions.get("$defs", {})
