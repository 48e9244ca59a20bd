"""The routes about responses that were kept: read one, list its input, delete it.

Owns their answers. Does not own what is kept (`store`).
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openapi.document import documented
from tgi.api.responses.answer import DeletedResponse, InputItemList, ResponseObject
from tgi.api.responses.store import Kept
from tgi.api.server.access import GROUP, Routes
from tgi.api.state import api_of
from tgi.api.wire.errors import WordedError
from tgi.errors import ValidationError

routes = Routes()
encode = msgspec.json.Encoder().encode
MOST_LISTED = 100


def _kept(request: Request) -> Kept:
    """The response of a path. Raises a 404."""
    id = request.path_params["response_id"]
    kept = api_of(request).responses.get(id, request.scope.get(GROUP, 0))
    if kept is None:
        raise WordedError(404, f"There is no response with id `{id[:64]}` (any more)", "not_found", param="response_id")
    return kept


ID_ERRORS = (401, 404, 422, 500)


@routes.get("/v1/responses/{response_id}")
@documented("get_response", None, ResponseObject, errors=ID_ERRORS)
async def get_response(request: Request) -> Response:
    """A response that was kept."""
    if request.query_params.get("stream", "false") != "false":
        raise ValidationError("`stream` is not supported here: what is kept is complete", param="stream")
    return Response(_kept(request).response, media_type="application/json")


@routes.delete("/v1/responses/{response_id}")
@documented("delete_response", None, DeletedResponse, errors=ID_ERRORS)
async def delete_response(request: Request) -> Response:
    """Keep a response no longer."""
    kept = _kept(request)
    api_of(request).responses.delete(kept.id, kept.group)
    return Response(encode(DeletedResponse(kept.id)), media_type="application/json")


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


LIST_QUERY = (
    _query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 20}, "Most items."),
    _query("order", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}, "`desc`: the last one first."),
    _query("after", {"type": "string"}, "The id of the item before the first one."),
)


@routes.get("/v1/responses/{response_id}/input_items")
@documented("list_input_items", None, InputItemList, errors=ID_ERRORS, query=LIST_QUERY)
async def list_input_items(request: Request) -> Response:
    """The items of the input of a response that was kept, without those that it goes on from."""
    kept, query = _kept(request), request.query_params
    limit, order, after = query.get("limit", "20"), query.get("order", "desc"), query.get("after")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= MOST_LISTED):
        raise ValidationError(f"`limit` must be a number from 1 to {MOST_LISTED}", param="limit")
    if order not in ("asc", "desc"):
        raise ValidationError("`order` must be `asc` or `desc`", param="order")
    items = list(zip(kept.item_ids, kept.input, strict=False))  # their ids come first
    items = items if order == "asc" else items[::-1]
    if after is not None:
        place = next((number for number, (id, _) in enumerate(items) if id == after), None)
        if place is None:
            raise ValidationError("`after` must be the id of an item of this response", param="after")
        items = items[place + 1 :]
    shown = items[: int(limit)]
    first, last = (shown[0][0], shown[-1][0]) if shown else (None, None)
    page = InputItemList([msgspec.Raw(item) for _, item in shown], first, last, len(items) > len(shown))
    return Response(encode(page), media_type="application/json")
