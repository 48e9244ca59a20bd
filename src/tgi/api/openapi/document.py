"""The OpenAPI document: every path with the types of its bodies.

Owns operations, and how pydantic requests and msgspec answers become one set of schemas. Does not own the types
(`*_types`), what is answered (`openapi_responses`), the examples nor the page that shows them (`info_routes`). Built
once, on first request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.applications import Starlette

from tgi import __version__
from tgi.api.openapi.examples import EXAMPLES, PATH_EXAMPLES
from tgi.api.openapi.responses import (
    GENERATION_ERRORS,
    REFERENCE,
    Bodies,
    answer_schemas,
    any_of,
    as_tuple,
    responses,
)
from tgi.api.server.access import TaggedRoute

TITLE = "Text Generation Inference"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def documented(
    operation_id: str,
    request: type[BaseModel] | tuple[type[BaseModel], ...] | None = None,
    answer: Any = None,
    event: Any = None,
    errors: tuple[int, ...] = GENERATION_ERRORS,
    query: tuple[dict[str, Any], ...] = (),
) -> Callable[[Endpoint], Endpoint]:
    """Note the types of an endpoint on the endpoint itself, below the router's decorator."""

    def note(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["bodies"] = Bodies(operation_id, request, answer, event, errors, query)
        return endpoint

    return note


def document(app: Starlette) -> dict[str, Any]:
    """The OpenAPI 3.1 document of all documented routes."""
    routes = [(route, bodies) for route in app.routes if isinstance(route, TaggedRoute) and (bodies := _bodies(route))]
    schemas, components = answer_schemas(bodies for _, bodies in routes)
    components |= _request_schemas(bodies for _, bodies in routes)
    paths: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for route, bodies in routes:
        operation = _operation(route, bodies, schemas)
        while operation["operationId"] in names:  # a second path of an endpoint, which a platform has named
            operation["operationId"] += "_again"
        names.add(operation["operationId"])
        for method in sorted(route.methods or ()):
            paths.setdefault(route.path_format, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "description": "Text Generation Webserver", "version": __version__},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"ApiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _bodies(route: TaggedRoute) -> Bodies | None:
    return getattr(route.endpoint, "bodies", None)


def _operation(route: TaggedRoute, bodies: Bodies, schemas: dict[Any, Any]) -> dict[str, Any]:
    title, _, rest = (route.endpoint.__doc__ or "").partition("\n\n")
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": title.strip(),
        "operationId": bodies.operation_id,
        "responses": responses(route.path_format, bodies, schemas),
    }
    if rest:
        operation["description"] = " ".join(rest.split())
    names = [part[1:-1] for part in route.path_format.split("/") if part.startswith("{")]
    if parameters := [*map(_path_parameter, names), *bodies.query]:
        operation["parameters"] = parameters
    if bodies.request is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": _request(bodies)}}
    if route.protected:
        operation["security"] = [{}, {"ApiKey": []}]
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema, "example": PATH_EXAMPLES[name]}


def _request(bodies: Bodies) -> dict[str, Any]:
    schema = any_of({"$ref": REFERENCE + model.__name__} for model in as_tuple(bodies.request))
    examples = {name: {"summary": name, "value": value} for name, value in EXAMPLES[bodies.operation_id].items()}
    return {"schema": schema, "examples": examples}


def _request_schemas(all_bodies: Iterable[Bodies]) -> dict[str, Any]:
    models: list[type[BaseModel]] = []
    for bodies in all_bodies:
        if bodies.request is not None:
            models += as_tuple(bodies.request)
    unique = [(model, "validation") for model in dict.fromkeys(models)]
    _, definitions = models_json_schema(unique, ref_template=REFERENCE + "{model}")  # type: ignore[arg-type]
    return {name: _with_nulls(schema) for name, schema in definitions.get("$defs", {}).items()}


ANNOTATIONS = ("title", "description", "default", "examples")
"""Keys of a schema that constrain nothing."""


def _with_nulls(model: dict[str, Any]) -> dict[str, Any]:
    """The schema of a request model as it is read: null is the same as leaving a field out."""
    properties = {
        name: field if name in model.get("required", ()) else _or_null(field)
        for name, field in model.get("properties", {}).items()
    }
    return {**model, "properties": properties}


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    notes = {key: field[key] for key in ANNOTATIONS if key in field}
    values = {key: value for key, value in field.items() if key not in ANNOTATIONS}
    if not values or {"type": "null"} in values.get("anyOf", ()):
        return field
    return notes | {"anyOf": [values, {"type": "null"}]}
