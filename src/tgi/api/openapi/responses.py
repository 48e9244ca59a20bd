"""What an operation answers, for the OpenAPI document: statuses, bodies, events.

Owns the words for statuses, which errors a route can answer with, and the schema of an event stream. The types are
noted on the endpoints (`openapi.documented`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel

from tgi.api.wire.error_types import (
    AnthropicErrorResponse,
    ErrorResponse,
    OpenAIErrorResponse,
    UnauthorizedResponse,
)
from tgi.api.wire.forms import RESPONSES, form_of_path

REFERENCE = "#/components/schemas/"
GENERATION_ERRORS = (400, 401, 408, 413, 415, 422, 424, 429, 500, 503)
"""Statuses of a route that reads a body and puts work into the engine."""
MEANINGS = {
    400: "The body is not JSON",
    401: "Missing or wrong API key",
    404: "Not found",
    408: "The body comes too slowly",
    413: "The body is too large",
    415: "The content type is not JSON",
    422: "Input validation error",
    424: "Generation error",
    429: "Model is overloaded",
    500: "Incomplete generation",
    503: "Shutting down or unhealthy",
}


@dataclass(frozen=True, slots=True)
class Bodies:
    """What goes in and out of one operation."""

    operation_id: str
    request: type[BaseModel] | tuple[type[BaseModel], ...] | None
    """A tuple: any one of them."""
    answer: Any
    """A type msgspec can describe, several in a tuple, or a media type for text; None: no body, or events only."""
    event: Any
    """The payload of server-sent events, or several in a tuple."""
    errors: tuple[int, ...]
    query: tuple[dict[str, Any], ...] = ()
    """Parameters after the question mark."""


def responses(path: str, bodies: Bodies, schemas: dict[Any, Any]) -> dict[str, Any]:
    """Status -> response. `schemas`: those of all answer types, as `answer_schemas` gives them."""
    kinds = _error_types(path, bodies)
    forms = [schemas[kind] for kind in kinds]
    success: dict[str, Any] = {"description": "Success" if bodies.answer or bodies.event else "Success, without a body"}
    ends = OpenAIErrorResponse in kinds and form_of_path(path) is not RESPONSES
    if content := _content(bodies, schemas, forms, ends=ends):
        success["content"] = content
    refusal = [schemas[UnauthorizedResponse] if form == schemas[ErrorResponse] else form for form in forms]
    return {"200": success} | {
        str(form_of_path(path).statuses.get(status, status)): {
            "description": MEANINGS[status],
            "content": {"application/json": {"schema": any_of(refusal if status == 401 else forms)}},
        }
        for status in bodies.errors
    }


def _error_types(path: str, bodies: Bodies) -> tuple[type[msgspec.Struct], ...]:
    """Where the body decides what a route speaks it can be either."""
    if isinstance(bodies.request, tuple):
        return (ErrorResponse, OpenAIErrorResponse)
    return (form_of_path(path).error_type,)


def _content(bodies: Bodies, schemas: dict[Any, Any], forms: list[Any], *, ends: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if isinstance(bodies.answer, str):
        content[bodies.answer] = {"schema": {"type": "string"}}
    elif bodies.answer is not None:
        content["application/json"] = {"schema": any_of(schemas[one] for one in as_tuple(bodies.answer))}
    if bodies.event is not None:
        events = [schemas[one] for one in as_tuple(bodies.event)]
        content["text/event-stream"] = {"schema": _event(any_of([*events, *forms]), ends=ends)}
    return content


def _event(payload: Any, *, ends: bool) -> dict[str, Any]:
    """The schema of each event of a stream. `ends`: the last one of OpenAI's streams is no JSON."""
    data: dict[str, Any] = {"type": "string", "contentMediaType": "application/json", "contentSchema": payload}
    if ends:
        data = {"anyOf": [{"const": "[DONE]"}, data]}
    return {
        "type": "object",
        "description": "One server-sent event; the last may hold an error.",
        "required": ["data"],
        "properties": {"data": data},
    }


def answer_schemas(all_bodies: Iterable[Bodies]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The schema of every answer type, and the components they refer to."""
    types: list[Any] = [ErrorResponse, UnauthorizedResponse, OpenAIErrorResponse, AnthropicErrorResponse]
    for bodies in all_bodies:
        both = as_tuple(bodies.answer) + as_tuple(bodies.event)
        types += [one for one in both if one is not None and not isinstance(one, str)]
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE + "{name}")
    return dict(zip(types, schemas, strict=True)), components


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def any_of(schemas: Iterable[Any]) -> Any:
    """Any of the schemas: what is valid for one of `/invocations`'s dialects may be so for another."""
    one, *others = schemas
    return {"anyOf": [one, *others]} if others else one
