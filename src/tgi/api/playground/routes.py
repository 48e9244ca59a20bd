"""`/dashboard`, the files of the pages, and the numbers that the live page shows.

Does not own the pages (`pages`, which `/` uses too) nor the numbers (`history`, `snapshot`).
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tgi.api.openapi.document import documented
from tgi.api.playground import assets
from tgi.api.playground.history import KEPT_SECONDS
from tgi.api.playground.pages import page
from tgi.api.playground.snapshot import Snapshot, snapshot
from tgi.api.server.access import GROUP, Routes
from tgi.api.state import api_of
from tgi.errors import ValidationError

routes = Routes()
encode = msgspec.json.Encoder().encode
SHOWN_SECONDS = 300
MOST_REQUESTS = 10**12

SECONDS = {
    "name": "seconds",
    "in": "query",
    "required": False,
    "description": f"How far back the series go, 1 to {KEPT_SECONDS}; default {SHOWN_SECONDS}.",
    "schema": {"type": "integer", "minimum": 1, "maximum": KEPT_SECONDS},
}


REQUEST = {
    "name": "request",
    "in": "query",
    "required": False,
    "description": "Number of a request to tell more of: what its time went into.",
    "schema": {"type": "integer", "minimum": 0, "maximum": MOST_REQUESTS},
}


@routes.get("/dashboard")
async def dashboard(request: Request) -> Response:
    """The live page; its numbers come from `/dashboard/data`."""
    if request.scope.get("raw_path", b"").endswith(b"/"):  # its files are beside it, not below
        return RedirectResponse("../dashboard")
    return page("dashboard.html", request)


@routes.get("/playground/{file}")
async def file(request: Request) -> Response:
    """A script, a style sheet or a picture of the pages; their names have a hash of the content."""
    name = request.path_params["file"]
    found = None if name.endswith(".html") else assets.asset(name)
    if found is None:
        return Response(status_code=404)
    return assets.answer(found, request.headers, immutable="-" in name)


@routes.get("/dashboard/data")
@documented("dashboard_data", None, Snapshot, errors=(422,), query=(SECONDS, REQUEST))
async def data(request: Request) -> Response:
    """What runs and waits, the last minutes by seconds, and the last requests with their times; no text of them."""
    seconds = _number(request, "seconds", SHOWN_SECONDS, 1, KEPT_SECONDS)
    chosen = _number(request, "request", 0, 0, MOST_REQUESTS)
    shown = snapshot(api_of(request), seconds, request.scope.get(GROUP, 0), chosen)
    return Response(encode(shown), media_type="application/json", headers={"cache-control": "no-store"})


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A number of the query. Raises ValidationError."""
    given = request.query_params.get(name, str(default))
    if not (given.isascii() and given.isdecimal()) or len(given) > 15 or not least <= int(given) <= most:
        raise ValidationError(f"`{name}` must be >= {least} and <= {most}. Given: {given[:32]}", param=name)
    return int(given)
